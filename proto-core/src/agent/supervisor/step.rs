//! What a supervisor asks for.

use std::{net::SocketAddr, time::Instant};

use serde::{Deserialize, Serialize};

use super::Credentials;
use crate::agent::backoff::BackoffCause;

/// Names one connection attempt, and the connection that comes of it; never used twice by a [`Supervisor`](super::Supervisor).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DialId(pub u64);

/// A gateway's place in the configured list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatewayIndex(pub usize);

/// What a [`Supervisor`](super::Supervisor) asks for or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupervisorStep {
    /// Resolve the name, IPv4 and IPv6, and answer by [`Supervisor::handle_resolved`](super::Supervisor::handle_resolved).
    Resolve {
        /// Whose name it is.
        gateway: GatewayIndex,
        /// The name.
        host: Box<str>,
        /// The UDP port, for resolvers that want one.
        port: u16,
    },
    /// Start a QUIC connection and answer by [`Supervisor::handle_established`](super::Supervisor::handle_established) or [`Supervisor::handle_closed`](super::Supervisor::handle_closed).
    Connect {
        /// Names the attempt.
        dial: DialId,
        /// Where it goes.
        gateway: GatewayIndex,
        /// Where it goes, resolved.
        addr: SocketAddr,
        /// What the certificate must be for: the host as configured (agent-tunnel 2.2).
        server_name: Box<str>,
        /// Which key pair to show.
        credentials: Credentials,
    },
    /// Close this connection or attempt with code 0. No answer is needed. May come twice.
    Close {
        /// Which one.
        dial: DialId,
    },
    /// Close this connection with code 0 as soon as it carries nothing any more. No answer is needed.
    Drain {
        /// Which one.
        dial: DialId,
    },
    /// The next key pair has proved itself: put it in place of the current one, keep that one beside, and answer by
    /// [`Supervisor::handle_adopted`](super::Supervisor::handle_adopted).
    Adopt,
    /// The next key pair was refused, and the current one has proved itself: put the next one aside as the previous
    /// one. No answer is needed.
    Discard,
    /// The previous key pair has proved itself, and the others were refused: exchange it with the current one, remove the
    /// next one, and answer by [`Supervisor::handle_adopted`](super::Supervisor::handle_adopted).
    Revert,
    /// This connection is the agent's.
    Up {
        /// Which one.
        dial: DialId,
        /// Where it goes.
        gateway: GatewayIndex,
    },
    /// Nothing runs before `until`; for logs and status only.
    Waiting {
        /// When the next round starts.
        until: Instant,
        /// Where it goes.
        gateway: GatewayIndex,
        /// Why it does not start at once.
        cause: BackoffCause,
    },
}
