//! The gateway's side: which agent a session goes through, and what is asked of it.

pub mod dispatch;
mod domain_table;
pub mod hub;
pub mod info;
pub(crate) mod open;
pub mod peers;
pub mod record;
pub(crate) mod role;
pub mod routes;

use std::fmt;

use crate::{id::AgentId, peer::NodeId};
use serde::{Deserialize, Serialize};

/// Why a session was not opened; the user gets it, so it says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No agent advertises the target and the gateway may not dial it directly.
    #[error("no connected agent advertises this target and direct dialling is not allowed")]
    NoRoute,
    /// Agents advertise the target, but none of them was heard from lately, or they are drained; the gateway never dials
    /// in their place.
    #[error("the agents that advertise this target do not answer or are drained; try again")]
    NoneOnline,
    /// The agent that the user asked for by id is not connected.
    #[error("agent {0} is not connected")]
    AgentUnknown(AgentId),
    /// Every candidate was tried; each one's failure is here in the order of the attempts.
    #[error("every candidate failed: {}", failures(.0))]
    AllFailed(Vec<AttemptFailure>),
    /// The candidates together took too long.
    #[error("no candidate answered in time")]
    TimedOut,
    /// The gateway's limit of sessions being opened is reached.
    #[error("too many sessions are being opened; try again")]
    TooMany,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
}

impl OpenError {
    /// Sums the error up in one word, for counters. Where all candidates failed, the one speaks that knows most about
    /// the target.
    #[must_use]
    pub fn cause(&self) -> OpenCause {
        match self {
            Self::NoRoute => OpenCause::NoRoute,
            Self::NoneOnline => OpenCause::NoneOnline,
            Self::AgentUnknown(_) => OpenCause::AgentUnknown,
            Self::AllFailed(failures) => {
                let causes = failures.iter().map(|failure| failure.cause.cause());
                causes.min().unwrap_or(OpenCause::ConnectionLost)
            }
            Self::TimedOut => OpenCause::TimedOut,
            Self::TooMany => OpenCause::TooMany,
            Self::Stopping => OpenCause::Stopping,
        }
    }
}

/// Why a session was not opened, in one word; of several candidates' causes the first in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpenCause {
    /// The agent answered with an error.
    Refused,
    /// The gateway dialled the target itself and failed.
    Dial,
    /// No answer in time.
    TimedOut,
    /// The agents carry as many sessions as they allow.
    NoCredit,
    /// The connections to the agents ended.
    ConnectionLost,
    /// The agents' answers were no messages.
    Malformed,
    /// The connections to the peers that have the agents failed.
    PeerLost,
    /// No agent advertises the target.
    NoRoute,
    /// The agents that advertise it do not answer.
    NoneOnline,
    /// The agent that the user asked for is not connected.
    AgentUnknown,
    /// Too many sessions are being opened.
    TooMany,
    /// The gateway is stopping.
    Stopping,
}

impl OpenCause {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Refused,
        Self::Dial,
        Self::TimedOut,
        Self::NoCredit,
        Self::ConnectionLost,
        Self::Malformed,
        Self::PeerLost,
        Self::NoRoute,
        Self::NoneOnline,
        Self::AgentUnknown,
        Self::TooMany,
        Self::Stopping,
    ];

    /// Gives its name, in small letters with underscores.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Dial => "dial",
            Self::TimedOut => "timed_out",
            Self::NoCredit => "no_credit",
            Self::ConnectionLost => "connection_lost",
            Self::Malformed => "malformed",
            Self::PeerLost => "peer_lost",
            Self::NoRoute => "no_route",
            Self::NoneOnline => "none_online",
            Self::AgentUnknown => "agent_unknown",
            Self::TooMany => "too_many",
            Self::Stopping => "stopping",
        }
    }
}

/// One candidate's failure.
#[derive(Clone, PartialEq, Eq)]
pub struct AttemptFailure {
    /// The agent; none for a peer, and where the gateway dialled the target itself.
    pub agent: Option<AgentId>,
    /// The peer that was to carry the session.
    pub peer: Option<NodeId>,
    /// What happened.
    pub cause: AttemptError,
}

impl fmt::Debug for AttemptFailure {
    // Hashes of recorded runs are over this text: what has no peers reads as it would without them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("AttemptFailure");
        shown.field("agent", &self.agent);
        if let Some(peer) = &self.peer {
            shown.field("peer", peer);
        }
        shown.field("cause", &self.cause).finish()
    }
}

/// Why one candidate did not open the session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AttemptError {
    /// The agent answered with an error. The text is for humans only (agent-tunnel 7.3), and cut at
    /// [`REASON_LEN_MAX`](crate::limits::REASON_LEN_MAX).
    #[error("refused: {0:?}")]
    Refused(String),
    /// No answer within the deadline.
    #[error("no answer in time")]
    TimedOut,
    /// The agent grants no more streams, and none was returned within the deadline, or too many opens wait already.
    #[error("the agent carries as many sessions as it allows")]
    NoCredit,
    /// The connection to the agent ended, or the agent reset the stream, before it answered; a peer tells the same of its
    /// agents.
    #[error("the connection to the agent was lost")]
    ConnectionLost,
    /// The answer was no `ConnectResponse`.
    #[error("the agent's answer is malformed: {0}")]
    Malformed(crate::error::DecodeError),
    /// The gateway dialled the target itself and failed.
    #[error("dialling failed: {0}")]
    Dial(String),
    /// There is no connection to the peer, or it ended before the peer answered, or its answer was none. Why is for logs
    /// alone.
    #[error(
        "the connection to the gateway that has the agent failed; see the logs of both gateways"
    )]
    PeerLost,
}

impl AttemptError {
    fn cause(&self) -> OpenCause {
        match self {
            Self::Refused(_) => OpenCause::Refused,
            Self::TimedOut => OpenCause::TimedOut,
            Self::NoCredit => OpenCause::NoCredit,
            Self::ConnectionLost => OpenCause::ConnectionLost,
            Self::Malformed(_) => OpenCause::Malformed,
            Self::Dial(_) => OpenCause::Dial,
            Self::PeerLost => OpenCause::PeerLost,
        }
    }
}

fn failures(list: &[AttemptFailure]) -> String {
    let one = |f: &AttemptFailure| match (f.agent, f.peer) {
        (Some(id), _) => format!("agent {id}: {}", f.cause),
        (None, Some(node)) => format!("peer {node}: {}", f.cause),
        (None, None) => format!("direct: {}", f.cause),
    };
    list.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_cause_counts() {
        let all = |causes: &[AttemptError]| {
            let one = |cause: &AttemptError| AttemptFailure {
                agent: None,
                peer: None,
                cause: cause.clone(),
            };
            OpenError::AllFailed(causes.iter().map(one).collect()).cause()
        };
        let (lost, late) = (AttemptError::ConnectionLost, AttemptError::TimedOut);
        let refused = AttemptError::Refused("no".to_owned());
        assert_eq!(all(&[]), OpenCause::ConnectionLost);
        assert_eq!(all(&[lost.clone(), late.clone()]), OpenCause::TimedOut);
        assert_eq!(all(&[lost, late, refused]), OpenCause::Refused);
        assert_eq!(OpenError::NoRoute.cause(), OpenCause::NoRoute);
        assert!(OpenCause::ALL.is_sorted(), "each stands at its own place");
    }
}
