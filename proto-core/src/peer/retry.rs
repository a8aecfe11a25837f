//! Whether a failed attempt is followed by another, and when (peer-rpc 9.3).

use std::{fmt, time::Duration};

use rand_chacha::{ChaCha12Rng, rand_core::Rng};

use super::{
    PeerClose, envelope::EnvelopeError, fault::RpcFault, refusal::Refusal, response::ResponseError,
    rpc_type::RpcType,
};
use crate::{
    close::{Closed, PeerFault},
    limits::{RPC_ATTEMPTS_MAX, RPC_BACKOFF_FIRST, RPC_BACKOFF_MAX},
};

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The link: no connection, no place on it, no answer in time.
    Link {
        /// Whether any byte of the request was written: the peer may have executed it.
        written: bool,
        /// Whether the connection is closed, or nothing came on it while the answer was awaited.
        dead: bool,
    },
    /// The peer reset the call's stream: it took too long over there, or the node was stopping.
    Reset,
    /// Something answered, and not as it should.
    BadAnswer(ResponseError),
    /// The peer says that it executed nothing.
    Refused(Refusal),
    /// One of the two nodes does not accept the other's certificate.
    Identity,
    /// Nothing was tried: the breaker is open, the node has no address, or the request is too large.
    NotTried,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link {
                written: false,
                dead: true,
            } => f.write_str("the node was not reached"),
            Self::Link {
                written: false,
                dead: false,
            } => f.write_str("the connection to the node had no place for the call in time"),
            Self::Link {
                written: true,
                dead,
            } => {
                let how = if *dead {
                    "was lost"
                } else {
                    "gave no answer in time"
                };
                write!(
                    f,
                    "the connection {how}; the node may have executed the call"
                )
            }
            Self::Reset => f.write_str("the node abandoned the call, which it may have executed"),
            Self::BadAnswer(error) => error.fmt(f),
            Self::Refused(Refusal::Number { high }) => {
                write!(
                    f,
                    "the node refuses this node's numbers up to {high}; it remembers a former start of this node"
                )
            }
            Self::Refused(Refusal::Identity) => {
                f.write_str("the node refuses this node's identity")
            }
            Self::Refused(Refusal::Overload { retry_after_ms }) => {
                write!(
                    f,
                    "the node is overloaded; try again in {retry_after_ms} ms"
                )
            }
            Self::Identity => {
                f.write_str("one of the two nodes does not accept the other's certificate")
            }
            Self::NotTried => f.write_str("the call was not made"),
        }
    }
}

impl Failure {
    /// The peer has not executed the call, for certain.
    #[must_use]
    pub fn is_unexecuted(&self) -> bool {
        match self {
            Self::Link { written, .. } => !written,
            Self::Refused(_) | Self::NotTried => true,
            // Records may have changed while the call ran.
            Self::Identity | Self::Reset | Self::BadAnswer(_) => false,
        }
    }
}

/// Tells whether a connection has ended because one of its nodes does not accept the other's certificate.
pub(crate) fn refuses_identity(closed: &Closed) -> bool {
    match closed {
        Closed::IdentityRefused { .. }
        | Closed::PeerNotTrusted { .. }
        | Closed::Fault(PeerFault::Rpc(RpcFault::Identity(_))) => true,
        Closed::ByPeer(close) => close.code == u64::from(PeerClose::IdentityMismatch.code()),
        Closed::Local
        | Closed::PathDead
        | Closed::HandshakeTimedOut
        | Closed::PeerRestarted
        | Closed::TimedOut
        | Closed::Overloaded
        | Closed::NoCommonVersion
        | Closed::Transport { .. }
        | Closed::Fault(_) => false,
    }
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Another attempt is worth while and safe.
    pub retry: bool,
    /// It counts against the node's breaker; where not and the node was reached, it counts for it.
    pub breaker: Option<Counted>,
    /// The connection is not to be used again.
    pub evict: bool,
}

/// What a breaker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// [`Breaker::failed`](super::breaker::Breaker::failed)
    Failure,
    /// [`Breaker::succeeded`](super::breaker::Breaker::succeeded)
    Success,
}

/// Judges the failure of attempt number `attempt`, which begins at 1. A request is sent again only where it was not
/// written, not executed, or may be executed twice.
#[must_use]
pub fn judge(kind: RpcType, attempt: u32, failure: &Failure) -> Verdict {
    let (safe, breaker, evict) = match *failure {
        // For want of places, which says nothing of the node.
        Failure::Link {
            written: false,
            dead: false,
        } => (true, None, false),
        Failure::Link { written, dead } => {
            let safe = !written || kind.is_idempotent();
            (safe, Some(Counted::Failure), dead)
        }
        // An answer that is missing, or cut short, is the link's failure; the connection itself may be well.
        Failure::Reset
        | Failure::BadAnswer(
            ResponseError::Unanswered
            | ResponseError::Envelope(EnvelopeError::UnexpectedEnd { .. }),
        ) => (kind.is_idempotent(), Some(Counted::Failure), false),
        // It is this node that had no room for the answer.
        Failure::BadAnswer(ResponseError::Envelope(EnvelopeError::OverBudget { .. })) => {
            (kind.is_idempotent(), Some(Counted::Success), false)
        }
        Failure::BadAnswer(error) => (false, Some(Counted::Failure), error.close().is_some()),
        Failure::Refused(Refusal::Identity) | Failure::Identity => {
            (false, Some(Counted::Failure), true)
        }
        Failure::Refused(Refusal::Number { .. } | Refusal::Overload { .. }) => {
            (true, Some(Counted::Success), false)
        }
        Failure::NotTried => (false, None, false),
    };
    Verdict {
        retry: safe && attempt < RPC_ATTEMPTS_MAX,
        breaker,
        evict,
    }
}

/// The longest wait before retry number `retry`, which begins at 1: 100 ms, doubled each time, at most 5 s.
#[must_use]
pub fn wait_max(retry: u32) -> Duration {
    let doublings = retry.saturating_sub(1).min(DOUBLINGS_MAX);
    RPC_BACKOFF_FIRST
        .saturating_mul(1 << doublings)
        .min(RPC_BACKOFF_MAX)
}

/// The wait before retry number `retry`: drawn evenly from none to the longest, so that nodes which failed together do
/// not come back together.
pub fn wait(retry: u32, rng: &mut ChaCha12Rng) -> Duration {
    let longest = wait_max(retry);
    // The longest is 5 s, so the product fits 64 bits.
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    let drawn = u128::from(nanos).saturating_mul(u128::from(rng.next_u32())) >> u32::BITS;
    Duration::from_nanos(u64::try_from(drawn).unwrap_or(nanos))
}

/// 100 ms doubled six times is above the longest wait.
const DOUBLINGS_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Seed;

    const fn link(written: bool) -> Failure {
        Failure::Link {
            written,
            dead: false,
        }
    }

    const UNREACHED: Failure = Failure::Link {
        written: false,
        dead: true,
    };
    const CUT_SHORT: Failure =
        Failure::BadAnswer(ResponseError::Envelope(EnvelopeError::UnexpectedEnd {
            got: 9,
        }));

    #[test]
    fn waits_double_up_to_five_seconds() {
        let ms = [1, 2, 3, 4, 5, 6, 7, 8, u32::MAX].map(|n| wait_max(n).as_millis());
        assert_eq!(ms, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    }

    #[test]
    fn jitter_is_full_and_the_same_for_a_seed() {
        let draw = || {
            let mut rng = Seed::new([7; 32]).derive("rpc-backoff");
            (0..200).map(|_| wait(7, &mut rng)).collect::<Vec<_>>()
        };
        let drawn = draw();
        assert_eq!(drawn, draw());
        assert!(drawn.iter().all(|wait| *wait <= RPC_BACKOFF_MAX));
        let (low, high) = (Duration::from_millis(500), Duration::from_millis(4_500));
        assert!(drawn.iter().any(|wait| *wait < low) && drawn.iter().any(|wait| *wait > high));
    }

    #[test]
    fn what_a_peer_may_have_run_is_not_said_to_be_unexecuted() {
        // The peer's records may have changed while the call ran.
        for failure in [link(true), Failure::Reset, CUT_SHORT, Failure::Identity] {
            assert!(!failure.is_unexecuted(), "{failure}");
        }
        let refused = Failure::Refused(Refusal::Identity);
        for failure in [link(false), UNREACHED, Failure::NotTried, refused] {
            assert!(failure.is_unexecuted(), "{failure}");
        }
    }

    #[test]
    fn a_written_request_is_sent_again_only_if_it_may_run_twice() {
        for (kind, failure, retry) in [
            (RpcType::AppendEntries, link(true), true),
            (RpcType::DataPropose, link(true), false),
            (RpcType::DataPropose, link(false), true),
            (
                RpcType::DataPropose,
                Failure::Refused(Refusal::Overload { retry_after_ms: 1 }),
                true,
            ),
            (
                RpcType::DataPropose,
                Failure::Refused(Refusal::Number { high: 1 }),
                true,
            ),
            (
                RpcType::DataPropose,
                Failure::BadAnswer(ResponseError::Unanswered),
                false,
            ),
            (
                RpcType::Ping,
                Failure::BadAnswer(ResponseError::Unanswered),
                true,
            ),
            (
                RpcType::Ping,
                Failure::BadAnswer(EnvelopeError::Mac.into()),
                false,
            ),
            (RpcType::DataPropose, UNREACHED, true),
            (RpcType::Ping, Failure::Reset, true),
            (RpcType::DataPropose, Failure::Reset, false),
            (RpcType::Ping, CUT_SHORT, true),
            (RpcType::DataPropose, CUT_SHORT, false),
            (RpcType::Ping, Failure::Identity, false),
            (RpcType::Ping, Failure::NotTried, false),
        ] {
            assert_eq!(
                judge(kind, 1, &failure).retry,
                retry,
                "{kind:?} {failure:?}"
            );
        }
    }

    #[test]
    fn there_are_three_attempts() {
        let retry = |attempt| judge(RpcType::Ping, attempt, &link(false)).retry;
        assert_eq!([retry(1), retry(2), retry(3)], [true, true, false]);
    }

    #[test]
    fn only_the_link_and_bad_answers_count_against_the_breaker() {
        let counted = |failure| judge(RpcType::Ping, 1, &failure).breaker;
        assert_eq!(counted(link(true)), Some(Counted::Failure));
        assert_eq!(counted(UNREACHED), Some(Counted::Failure));
        assert_eq!(counted(link(false)), None, "no place is not its fault");
        assert_eq!(counted(Failure::Reset), Some(Counted::Failure));
        let bad = Failure::BadAnswer(EnvelopeError::Mac.into());
        assert_eq!(counted(bad), Some(Counted::Failure));
        assert_eq!(counted(Failure::Identity), Some(Counted::Failure));
        let busy = Failure::Refused(Refusal::Overload { retry_after_ms: 1 });
        assert_eq!(counted(busy), Some(Counted::Success));
        assert_eq!(counted(Failure::NotTried), None);
        assert_eq!(counted(CUT_SHORT), Some(Counted::Failure));
        let no_room = EnvelopeError::OverBudget { len: 9 };
        let no_room = Failure::BadAnswer(no_room.into());
        assert_eq!(counted(no_room), Some(Counted::Success));
    }

    #[test]
    fn an_error_says_what_has_happened() {
        for (failure, text) in [
            (link(true), "no answer in time"),
            (link(false), "no place"),
            (UNREACHED, "not reached"),
            (Failure::Reset, "abandoned"),
        ] {
            let said = failure.to_string();
            assert!(said.contains(text), "{failure:?}: {said}");
        }
    }

    #[test]
    fn a_connection_that_lives_is_kept() {
        let evict = |failure| judge(RpcType::Ping, 1, &failure).evict;
        assert!(!evict(link(true)));
        assert!(evict(Failure::Link {
            written: true,
            dead: true
        }));
        assert!(evict(Failure::Identity));
        assert!(!evict(Failure::BadAnswer(EnvelopeError::Mac.into())));
    }
}
