//! Why connections and sessions end.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{error::DecodeError, limits::HEARTBEAT_ACK_TIMEOUT, peer::fault::RpcFault};

/// Why a connection is over; it comes exactly once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Closed {
    /// This side closed it.
    #[error("closed here")]
    Local,
    /// This side closed it because nothing was acknowledged for too long (design 8.3).
    #[error("closed here: the path to the peer is dead")]
    PathDead,
    /// The handshake did not end in time.
    #[error("the handshake did not end in time")]
    HandshakeTimedOut,
    /// The peer closed it.
    #[error("closed by the peer: {0}")]
    ByPeer(PeerClose),
    /// The peer does not know the connection: it has restarted (stateless reset, RFC 9000 10.3).
    #[error("the peer has restarted")]
    PeerRestarted,
    /// Nothing was heard for the idle timeout.
    #[error("nothing heard from the peer")]
    TimedOut,
    /// The peer is overloaded; try later.
    #[error("the peer refuses connections at the moment")]
    Overloaded,
    /// The peer did not accept our certificate or found no common protocol (TLS alert).
    #[error(
        "the peer refused our identity or protocol (TLS alert {alert}{}): {reason:?}",
        advice(*alert, Judge::Peer)
    )]
    IdentityRefused {
        /// RFC 8446 6.
        alert: u8,
        /// The peer's words.
        reason: String,
    },
    /// We did not accept the peer's certificate.
    #[error(
        "the peer's identity is not acceptable (TLS alert {alert}{}): {reason:?}",
        advice(*alert, Judge::Here)
    )]
    PeerNotTrusted {
        /// RFC 8446 6.
        alert: u8,
        /// What is wrong with it.
        reason: String,
    },
    /// The peer speaks another version of QUIC.
    #[error("no common QUIC version")]
    NoCommonVersion,
    /// QUIC itself failed.
    #[error("transport error {code:#x}: {reason:?}")]
    Transport {
        /// RFC 9000 20.1.
        code: u64,
        /// What went wrong.
        reason: String,
    },
    /// This side closed it because the peer broke the protocol. Last, as serde counts those that it skips when it writes
    /// and not when it reads; no link tells of it.
    #[error("closed here: {0}")]
    #[serde(skip)]
    Fault(PeerFault),
}

/// The peer's application close. Peers' texts are for humans only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerClose {
    /// Application code; the reference knows 0 only (agent-tunnel 13).
    pub code: u64,
    /// The peer's words, with what is not UTF-8 replaced.
    pub reason: String,
}

impl fmt::Display for PeerClose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (code {})", self.reason, self.code)
    }
}

/// How the peer broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// Bytes on the control stream are no message.
    #[error("control message: {0}")]
    Control(DecodeError),
    /// The control stream ended or was reset (agent-tunnel 8).
    #[error("the control stream ended")]
    ControlEnded,
    /// The path works and the gateway does not answer (design 3.6).
    #[error(
        "the gateway answered no heartbeat for {} s although the path works: its process is stuck or overloaded; restart it if this goes on",
        HEARTBEAT_ACK_TIMEOUT.as_secs()
    )]
    HeartbeatsUnanswered,
    /// More routes than this side takes.
    #[error("{count} routes advertised, at most {max} are taken")]
    TooManyRoutes {
        /// Subnets and domains of the message.
        count: usize,
        /// Limit of this side.
        max: usize,
    },
    /// A message that only the other role may send.
    #[error("message that this role may not send")]
    WrongDirection,
    /// Sessions wait for a stream though none is in use: the agent does not give back those that are over.
    #[error("no stream is granted although none is in use; reconnect")]
    NoStreams,
    /// A peer node broke the peer RPC.
    #[error(transparent)]
    Rpc(#[from] RpcFault),
    /// The certificate names no agent; the verifier refuses it before, so this is a fault of ours.
    #[error("the certificate names no agent")]
    NoIdentity,
}

/// Why this side closes a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CloseReason {
    /// The agent stops (agent-tunnel 13).
    AgentStopping,
    /// The gateway stops (agent-tunnel 13).
    GatewayStopping,
    /// The agent has a newer connection and this one is too many (design 8.7).
    Superseded,
    /// The agent may not register; the text says why.
    NotAdmitted(String),
    /// The agent's id or key is not enrolled any more (design 3.8).
    Revoked,
    /// Another attempt to connect won.
    Redundant,
    /// The agent has a connection with its renewed key pair (agent-tunnel 13).
    Renewed,
    /// The node stops (peer-rpc 2).
    NodeStopping,
}

impl CloseReason {
    /// Application close code. The reference uses 0 for everything and looks at none (agent-tunnel 13).
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::AgentStopping
            | Self::GatewayStopping
            | Self::Redundant
            | Self::Renewed
            | Self::NodeStopping => 0,
            Self::Superseded => 1,
            Self::NotAdmitted(_) => 2,
            Self::Revoked => CODE_REVOKED,
        }
    }

    /// The text that the peer gets.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::AgentStopping => "shutting down",
            Self::GatewayStopping => "shutdown",
            Self::Superseded => "superseded",
            Self::NotAdmitted(why) => why,
            Self::Revoked => "this agent is not enrolled any more; enrol it again",
            Self::Redundant => "redundant",
            Self::Renewed => "cert-renewed",
            Self::NodeStopping => "node shutdown",
        }
    }
}

/// Close code of a [`PeerFault`].
pub(crate) const CODE_FAULT: u32 = 3;
/// Close code of a dead path.
pub(crate) const CODE_PATH_DEAD: u32 = 4;
/// Close code of a handshake that took too long.
pub(crate) const CODE_HANDSHAKE_TIMED_OUT: u32 = 5;

/// Close code of a gateway that has deleted the agent.
const CODE_REVOKED: u32 = 6;

impl PeerClose {
    /// Tells whether the gateway closed because it does not know the agent's id and key any more, which another
    /// attempt with the same certificate does not change.
    #[must_use]
    pub fn is_revocation(&self) -> bool {
        self.code == u64::from(CODE_REVOKED)
    }
}

/// Codes with which a session's stream is abandoned. A peer sees a reset whatever the code; the code is for its log.
pub mod session_code {
    /// The TCP connection at this end was reset.
    pub const TCP_RESET: u32 = 1;
    /// The session was cancelled before it was open, or lost a race.
    pub const CANCELLED: u32 = 2;
    /// No answer in time.
    pub const TIMED_OUT: u32 = 3;
    /// What came on the stream was not what the protocol asks for.
    pub const MALFORMED: u32 = 4;
    /// A stream that the protocol has no use for.
    pub const STRAY: u32 = 5;
    /// An operator ended the session; 6 is reserved for a stop.
    pub const KILLED: u32 = 7;
    /// The session was idle for too long, or has lived for as long as it may.
    pub const TIME_OVER: u32 = 8;
    /// The reader at this end had stopped, and the connection's budget for that was used up.
    pub const NOT_READ: u32 = 9;
}

/// Who does not accept a certificate: the other end has shown it.
#[derive(Clone, Copy)]
enum Judge {
    Peer,
    Here,
}

/// What the alerts on certificates (RFC 8446 6.2) have to say to people. `certificate_expired` stands for those that begin
/// later, too.
fn advice(alert: u8, judge: Judge) -> &'static str {
    match alert {
        44 => ", the certificate was revoked: issue another one",
        45 => ", a certificate is out of its dates: compare the clocks of both machines",
        46 => match judge {
            Judge::Peer => {
                ", the certificate is not known: compare it with what the other side pins"
            }
            Judge::Here => ", the certificate is not known: compare it with what this side pins",
        },
        48 => ", the certificate is of another CA: compare the CA files of both machines",
        116 => ", no certificate was shown: configure one",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_tls_says_what_to_do() {
        for alert in [44, 45, 46, 48, 116] {
            let reason = "anything".to_owned();
            let line = Closed::PeerNotTrusted { alert, reason }.to_string();
            assert!(line.contains(&format!("alert {alert}, ")), "{line}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_known_is_compared_with_what_its_judge_pins() {
        let (alert, reason) = (46, String::new);
        let refused = [
            (
                Closed::IdentityRefused {
                    alert,
                    reason: reason(),
                },
                "the other side pins",
            ),
            (
                Closed::PeerNotTrusted {
                    alert,
                    reason: reason(),
                },
                "this side pins",
            ),
        ];
        for (closed, words) in refused {
            assert!(closed.to_string().contains(words), "{closed}");
        }
    }

    #[test]
    fn words_of_the_peer_stay_on_one_line() {
        let reason = || "no\nfake line".to_owned();
        let code = 0;
        let alert = 42;
        for closed in [
            Closed::ByPeer(PeerClose {
                code,
                reason: reason(),
            }),
            Closed::IdentityRefused {
                alert,
                reason: reason(),
            },
            Closed::PeerNotTrusted {
                alert,
                reason: reason(),
            },
            Closed::Transport {
                code,
                reason: reason(),
            },
        ] {
            let line = closed.to_string();
            assert!(line.contains("\"no\\nfake line\""), "{line}");
        }
    }
}
