//! What a node's peer endpoint is made of.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    NodeId,
    capabilities::Capabilities,
    hello::VersionRange,
    identity::{IdentityStore, SpkiPin},
    ledger::PeerLedger,
    receive::JoinCheck,
    verdict::Judge,
};
use crate::{env::WallClock, limits};

/// Everything about a node that its peer connections need, certificates aside.
#[derive(Clone)]
pub struct PeerConfig {
    /// Versions offered and accepted.
    pub versions: VersionRange,
    /// Extensions offered and accepted.
    pub capabilities: Capabilities,
    /// Windows, timers, limits of QUIC.
    pub transport: PeerTransport,
    /// What all connections of the node share. In the insecure mode its ring signs with
    /// [`ClusterSecret::insecure`](super::key::ClusterSecret::insecure), and otherwise never.
    pub ledger: Arc<PeerLedger>,
    /// Asked of join requests.
    pub joins: Arc<dyn JoinCheck + Send + Sync>,
}

impl PeerConfig {
    /// A configuration with the defaults of peer-rpc 1.1 and everything offered that adit knows.
    #[must_use]
    pub fn new(ledger: Arc<PeerLedger>, joins: Arc<dyn JoinCheck + Send + Sync>) -> Self {
        Self {
            versions: VersionRange {
                min: limits::PEER_VERSION_MIN,
                max: limits::PEER_VERSION_MAX,
            },
            capabilities: Capabilities::ALL,
            transport: PeerTransport::default(),
            ledger,
            joins,
        }
    }
}

impl fmt::Debug for PeerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerConfig")
            .field("versions", &self.versions)
            .field("capabilities", &self.capabilities)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// Settings of QUIC between peers (peer-rpc 1.1). No peer may open a one-way stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerTransport {
    /// Streams that a peer may have open, at most [`limits::RPC_CALLS_PER_CONNECTION`] of which are calls.
    pub bidi_streams: u32,
    /// Bytes that a peer may send on one connection before they are read.
    pub receive_window: u32,
    /// Bytes written and not yet acknowledged, on one connection.
    pub send_window: u64,
    /// Bytes that a peer may send on one stream before they are read.
    pub stream_receive_window: u32,
    /// Round-trip time taken for granted until one is measured.
    pub initial_rtt: Duration,
    /// Silence after which the engine asks for a sign of life, beside [`Liveness`](crate::liveness::Liveness).
    pub keep_alive: Duration,
    /// Silence after which the engine gives a connection up, at most 49 days.
    pub idle_timeout: Duration,
}

impl Default for PeerTransport {
    fn default() -> Self {
        Self {
            bidi_streams: 256,
            receive_window: 16 << 20,
            send_window: 16 << 20,
            stream_receive_window: 4 << 20,
            initial_rtt: Duration::from_micros(100),
            keep_alive: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// What a connection judges its peer by, and answers for itself.
pub(crate) struct PeerNode {
    pub(crate) local: NodeId,
    pub(crate) own_spki: SpkiPin,
    pub(crate) identities: Arc<dyn IdentityStore>,
    pub(crate) bootstrap_until: u64,
    pub(crate) wall_clock: Arc<dyn WallClock>,
    pub(crate) config: PeerConfig,
}

impl PeerNode {
    pub(crate) fn judge(&self) -> Judge<'_> {
        Judge {
            local: self.local,
            own_spki: self.own_spki,
            store: &*self.identities,
            bootstrap_until: self.bootstrap_until,
            unix_ms: self.wall_clock.unix_ms(),
        }
    }

    pub(crate) fn ledger(&self) -> &PeerLedger {
        &self.config.ledger
    }
}

impl fmt::Debug for PeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerNode")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
