//! The gateway's side: which agent a session goes through, and what is asked of it.

pub mod dispatch;
mod domain_table;
pub mod hub;
pub mod info;
pub(crate) mod open;
pub mod record;
pub(crate) mod role;
pub mod routes;

use crate::id::AgentId;

/// Why a session was not opened; the user gets it, so it says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No agent advertises the target and the gateway may not dial it directly.
    #[error("no connected agent advertises this target and direct dialling is not allowed")]
    NoRoute,
    /// Agents advertise the target, but none of them was heard from lately; the gateway never dials in their place.
    #[error("the agents that advertise this target do not answer; try again")]
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

/// One candidate's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptFailure {
    /// The agent; none where the gateway dialled the target itself.
    pub agent: Option<AgentId>,
    /// What happened.
    pub cause: AttemptError,
}

/// Why one candidate did not open the session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// The connection to the agent ended, or the agent reset the stream, before it answered.
    #[error("the connection to the agent was lost")]
    ConnectionLost,
    /// The answer was no `ConnectResponse`.
    #[error("the agent's answer is malformed: {0}")]
    Malformed(crate::error::DecodeError),
    /// The gateway dialled the target itself and failed.
    #[error("dialling failed: {0}")]
    Dial(String),
}

fn failures(list: &[AttemptFailure]) -> String {
    let one = |f: &AttemptFailure| match f.agent {
        Some(id) => format!("agent {id}: {}", f.cause),
        None => format!("direct: {}", f.cause),
    };
    list.iter().map(one).collect::<Vec<_>>().join("; ")
}
