//! How sessions end.

use std::time::Duration;

use adit_proto_core::session_timer::TimeOver;

/// How a session ended, for its line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Both directions ended cleanly.
    Clean,
    /// The TCP connection at this end was reset or failed.
    TcpReset,
    /// The other end of the tunnel abandoned it.
    PeerReset,
    /// The connection between agent and gateway was lost.
    ConnectionLost,
    /// It was cut here.
    Cut,
    /// An operator ended it.
    Killed,
    /// An operator deleted the agent that carried it.
    Deleted,
    /// Nothing moved for as long as is allowed.
    Idle,
    /// It lived for as long as is allowed.
    Lifetime,
    /// Its reader at this end had stopped for so long, and the connection's budget for that was used up.
    NotRead(Duration),
}

impl From<TimeOver> for Over {
    fn from(over: TimeOver) -> Self {
        match over {
            TimeOver::Idle => Self::Idle,
            TimeOver::Lifetime => Self::Lifetime,
        }
    }
}

impl Over {
    /// A word or two for the log.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::TcpReset => "reset by the user or target at this end",
            Self::PeerReset => "reset by the other end of the tunnel",
            Self::ConnectionLost => "connection between agent and gateway lost",
            Self::Cut => "cut",
            Self::Killed => "ended by an operator",
            Self::Idle => "idle for longer than limits.session_idle",
            Self::Lifetime => "lived for limits.session_lifetime",
            Self::Deleted => "agent deleted",
            Self::NotRead(_) => "not read for long, with too much unread on the connection",
        }
    }
}
