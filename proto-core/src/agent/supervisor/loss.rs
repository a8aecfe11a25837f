//! What the end of an attempt or of a connection means for the next one (design 8.4).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    agent::backoff::BackoffCause,
    close::{Closed, PeerFault},
    limits::BACKOFF_STEADY_AFTER,
};

/// Why an attempt failed or a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LossKind {
    /// The network says that there is no way, or that nothing listens.
    Unreachable,
    /// No answer: handshake deadline, idle timeout, a dead path or heartbeats without answer.
    TimedOut,
    /// A stateless reset: the gateway restarted.
    Reset,
    /// The gateway closed the connection by an application close.
    ClosedByPeer,
    /// The gateway refused the attempt for load (`CONNECTION_REFUSED`, RFC 9000 20.1).
    Refused,
    /// Either end refused the other's certificate, or the gateway has deleted the agent.
    IdentityRefused,
    /// The key pair to be shown is of no use: its files cannot be read, or fit nothing.
    PairUnusable,
    /// A fault of this machine, such as a socket that cannot be made.
    LocalError,
}

impl LossKind {
    /// Tells whether another key pair may fare better.
    pub(super) fn is_of_the_pair(self) -> bool {
        matches!(self, Self::IdentityRefused | Self::PairUnusable)
    }
}

impl From<&Closed> for LossKind {
    /// Tells what the end of a connection means for reconnecting (design 8.4).
    fn from(closed: &Closed) -> Self {
        match closed {
            Closed::PeerRestarted => Self::Reset,
            // A gateway that stops says so (agent-tunnel 13); one that is back at once should have its agents at once.
            Closed::ByPeer(close) if close.code == 0 => Self::Reset,
            // As if the next handshake had been refused, which it will be.
            Closed::ByPeer(close) if close.is_revocation() => Self::IdentityRefused,
            Closed::Overloaded => Self::Refused,
            Closed::ByPeer(_) => Self::ClosedByPeer,
            Closed::IdentityRefused { .. } | Closed::PeerNotTrusted { .. } => Self::IdentityRefused,
            Closed::TimedOut
            | Closed::PathDead
            | Closed::HandshakeTimedOut
            | Closed::Fault(PeerFault::HeartbeatsUnanswered) => Self::TimedOut,
            Closed::Local
            | Closed::Fault(_)
            | Closed::NoCommonVersion
            | Closed::Transport { .. } => Self::LocalError,
        }
    }
}

/// The reason for a wait, where the connection was up for so long.
pub(super) fn cause(why: LossKind, up: Duration) -> BackoffCause {
    match why {
        LossKind::Unreachable
        | LossKind::TimedOut
        | LossKind::Reset
        | LossKind::PairUnusable
        | LossKind::LocalError => BackoffCause::Unreachable,
        // A gateway that lets an agent in only to close at once wants to be left alone; a later close is a restart.
        LossKind::ClosedByPeer if up >= BACKOFF_STEADY_AFTER => BackoffCause::Unreachable,
        LossKind::ClosedByPeer | LossKind::Refused => BackoffCause::Refused,
        LossKind::IdentityRefused => BackoffCause::IdentityRefused,
    }
}
