//! Which of its key pairs an agent shows while one replaces the other (design 8.6).

use serde::{Deserialize, Serialize};

/// A key pair with its certificate, as the driver keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// The renewed pair, until it has proved itself.
    Next,
    /// The pair in use.
    Current,
    /// The pair that was in use before, or a renewed one that was refused.
    Previous,
}

/// Which pairs there are beside the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPairs {
    /// A renewed pair was stored and never adopted.
    pub next: bool,
    /// A former pair was kept.
    pub previous: bool,
}

/// How a renewed key pair comes into use (design 8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Swap {
    /// A second connection first; then the former one drains. For gateways that say that they can.
    Overlap,
    /// The connection is closed once it carries nothing, and the next one shows the pair. For gateways that confuse
    /// two connections of one agent (agent-tunnel 9).
    WhenIdle,
}

/// Remembers which pairs there are, and which of them the next attempt shows.
///
/// A gateway takes the current key until the next one has connected, and only the next one from then on; whether it has
/// is not always known here, as the connection may have been lost at the wrong moment, and a gateway restored from a
/// backup knows a former key only. So a refusal of one pair is answered by trying the others in turn, and whatever the
/// verdict, the pair that goes is kept beside the one that stays until the next renewal.
#[derive(Debug)]
pub(super) struct Pairs {
    kept: KeptPairs,
    shown: Credentials,
    /// The next pair was refused since it came.
    refused: bool,
}

/// What a connection that lasted says of the pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The next pair is good: it replaces the current one.
    Adopt,
    /// The next pair is of no use.
    Discard,
    /// Of all pairs the previous one is good: it replaces the current one.
    Revert,
}

impl Pairs {
    pub(super) fn new(kept: KeptPairs) -> Self {
        let mut pairs = Self {
            kept,
            shown: Credentials::Current,
            refused: false,
        };
        if kept.next {
            pairs.stored();
        }
        pairs
    }

    /// A next pair is there, in place of a former next pair if there was one.
    pub(super) fn stored(&mut self) {
        self.kept.next = true;
        self.shown = Credentials::Next;
        self.refused = false;
    }

    /// What the verdict said is done: one pair is the current one, and the one that it replaced or beat the previous.
    pub(super) fn settled(&mut self) {
        self.kept = KeptPairs {
            next: false,
            previous: true,
        };
        self.shown = Credentials::Current;
    }

    /// What the next attempt shows.
    pub(super) fn shown(&self) -> Credentials {
        self.shown
    }

    /// Tells whether it is open which pair is good.
    pub(super) fn are_in_doubt(&self) -> bool {
        self.kept.next || self.shown != Credentials::Current
    }

    /// A pair was refused or is of no use here; tells whether another one is worth an attempt at once.
    pub(super) fn refused(&mut self, pair: Credentials) -> bool {
        if pair != self.shown {
            return false;
        }
        self.refused |= pair == Credentials::Next;
        let first = match self.kept.next {
            true => Credentials::Next,
            false => Credentials::Current,
        };
        let following = match pair {
            Credentials::Next => Some(Credentials::Current),
            Credentials::Current => self.kept.previous.then_some(Credentials::Previous),
            Credentials::Previous => None,
        };
        self.shown = following.unwrap_or(first);
        following.is_some()
    }

    /// A connection with this pair lasted long enough for a gateway to refuse it.
    pub(super) fn proved(&mut self, pair: Credentials) -> Option<Verdict> {
        match pair {
            Credentials::Next => self.kept.next.then_some(Verdict::Adopt),
            Credentials::Current if self.kept.next && self.refused => {
                self.settled();
                Some(Verdict::Discard)
            }
            Credentials::Current => None,
            Credentials::Previous => {
                (self.shown == Credentials::Previous).then_some(Verdict::Revert)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Credentials::*, *};

    fn pairs(next: bool, previous: bool) -> Pairs {
        Pairs::new(KeptPairs { next, previous })
    }

    #[test]
    fn a_single_pair_is_never_doubted() {
        let mut pairs = pairs(false, false);
        assert!(!pairs.refused(Current));
        assert_eq!((pairs.proved(Current), pairs.shown()), (None, Current));
        assert!(!pairs.are_in_doubt());
    }

    #[test]
    fn a_refused_pair_is_followed_by_the_others_in_turn() {
        for (next, previous, turn) in [
            (true, false, &[Next, Current][..]),
            (false, true, &[Current, Previous]),
            (true, true, &[Next, Current, Previous]),
        ] {
            let mut pairs = pairs(next, previous);
            for _ in 0..2 {
                for pair in turn {
                    assert_eq!(pairs.shown(), *pair);
                    let last = Some(pair) == turn.last();
                    assert_eq!(pairs.refused(*pair), !last, "all refused: no hurry");
                    assert!(!pairs.refused(*pair), "late news of the same");
                }
            }
        }
    }

    #[test]
    fn only_a_proof_ends_the_doubt() {
        let mut pairs = pairs(true, false);
        assert_eq!(pairs.proved(Current), None, "the next was not tried yet");
        pairs.refused(Next);
        assert_eq!(pairs.proved(Current), Some(Verdict::Discard));
        assert!(!pairs.are_in_doubt());
        pairs.stored();
        assert_eq!(pairs.shown(), Next);
        assert_eq!(pairs.proved(Next), Some(Verdict::Adopt));
        assert!(pairs.are_in_doubt(), "until it was adopted");
        pairs.settled();
        assert_eq!((pairs.shown(), pairs.proved(Current)), (Current, None));
    }

    #[test]
    fn what_a_verdict_put_aside_is_shown_again_where_the_other_is_refused() {
        for verdict in [Verdict::Adopt, Verdict::Discard] {
            let mut pairs = pairs(true, false);
            if verdict == Verdict::Discard {
                pairs.refused(Next);
                assert_eq!(pairs.proved(Current), Some(verdict));
            } else {
                assert_eq!(pairs.proved(Next), Some(verdict));
                pairs.settled();
            }
            assert!(pairs.refused(Current));
            assert!(pairs.are_in_doubt());
            assert_eq!(pairs.shown(), Previous);
            assert_eq!(pairs.proved(Previous), Some(Verdict::Revert));
            pairs.settled();
            assert!(!pairs.are_in_doubt());
        }
    }
}
