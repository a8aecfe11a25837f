//! Which numbers of a sender were there before (peer-rpc 7.2).

/// The highest number of one sender, and which of the last `width` below it came.
///
/// It belongs to the sender, not to a connection: requests and answers of all connections to it are judged by one value,
/// which its owner guards. It is touched only once tag and identity are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayWindow {
    high: u64,
    /// A ring: number `n` has bit `n % width`.
    bits: Vec<u64>,
    jump_max: u64,
    /// The highest number before the last reset: what is not bound to its connection may have come up to here.
    reset_from: u64,
}

/// Why a number is refused: a message was repeated, or overtaken by too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// 0, which nobody sends.
    #[error("number 0 is reserved")]
    Reserved,
    /// Too far below the highest number to be remembered.
    #[error("number {seq} is stale, {high} came already")]
    Stale {
        /// The number.
        seq: u64,
        /// The highest that came.
        high: u64,
    },
    /// It came before.
    #[error("number {seq} came already")]
    Replay {
        /// The number.
        seq: u64,
    },
}

impl ReplayWindow {
    /// A window that remembers so many numbers, rounded up to a multiple of 64 and at least that.
    #[must_use]
    pub fn new(width: u64) -> Self {
        let words = usize::try_from(width.div_ceil(WORD)).unwrap_or(usize::MAX);
        Self {
            high: 0,
            bits: vec![0; words.max(1)],
            jump_max: 0,
            reset_from: 0,
        }
    }

    /// The highest number that was accepted; 0 at first.
    #[must_use]
    pub fn high(&self) -> u64 {
        self.high
    }

    /// The largest step by which the highest number ever rose: the metric `peer_rpc_replay_window_jump`. The first
    /// number makes no step.
    #[must_use]
    pub fn jump_max(&self) -> u64 {
        self.jump_max
    }

    /// Accepts a number that is here for the first time.
    ///
    /// # Errors
    /// [`ReplayError`]; the window is as it was.
    pub fn accept(&mut self, seq: u64) -> Result<(), ReplayError> {
        if seq == 0 {
            return Err(ReplayError::Reserved);
        }
        if seq > self.high {
            self.advance(seq);
        } else if self.high.saturating_sub(seq) >= self.width() {
            let high = self.high;
            return Err(ReplayError::Stale { seq, high });
        } else if self.holds(seq) {
            return Err(ReplayError::Replay { seq });
        }
        self.mark(seq);
        Ok(())
    }

    /// The same for a message whose tag is not bound to its connection: one from before a reset could come again, so it
    /// is stale.
    ///
    /// # Errors
    /// [`ReplayError`]; the window is as it was.
    pub fn accept_plain(&mut self, seq: u64) -> Result<(), ReplayError> {
        if seq != 0 && seq <= self.reset_from {
            let high = self.reset_from;
            return Err(ReplayError::Stale { seq, high });
        }
        self.accept(seq)
    }

    /// Begins anew: this number is the highest, and all below it that the window covers are open, none of them seen.
    pub fn reset(&mut self, seq: u64) {
        self.reset_from = self.reset_from.max(self.high);
        self.bits.fill(0);
        self.high = seq;
        self.mark(seq);
    }

    fn advance(&mut self, seq: u64) {
        let step = seq.saturating_sub(self.high);
        if self.high > 0 {
            self.jump_max = self.jump_max.max(step);
        }
        if step >= self.width() {
            self.bits.fill(0);
        } else {
            // The numbers that are passed over, and the new one, take the places of the oldest.
            for passed in self.high..seq {
                let (word, mask) = self.place(passed.saturating_add(1));
                if let Some(bits) = self.bits.get_mut(word) {
                    *bits &= !mask;
                }
            }
        }
        self.high = seq;
    }

    fn holds(&self, seq: u64) -> bool {
        let (word, mask) = self.place(seq);
        self.bits.get(word).is_some_and(|bits| bits & mask != 0)
    }

    fn mark(&mut self, seq: u64) {
        let (word, mask) = self.place(seq);
        if let Some(bits) = self.bits.get_mut(word) {
            *bits |= mask;
        }
    }

    fn width(&self) -> u64 {
        u64::try_from(self.bits.len())
            .unwrap_or(u64::MAX)
            .saturating_mul(WORD)
    }

    fn place(&self, seq: u64) -> (usize, u64) {
        // There is at least one word, and what is below the width fits a `usize`.
        let at = seq.checked_rem(self.width()).unwrap_or(0);
        let word = usize::try_from(at.checked_div(WORD).unwrap_or(0)).unwrap_or(0);
        (word, 1_u64.rotate_left(u32::try_from(at & 63).unwrap_or(0)))
    }
}

/// Numbers in a word of the ring.
const WORD: u64 = u64::BITS as u64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::limits::REPLAY_WINDOW;

    /// All numbers that came, and arithmetic.
    #[derive(Default)]
    struct Naive {
        seen: BTreeSet<u64>,
        high: u64,
    }

    impl Naive {
        fn accept(&mut self, seq: u64, width: u64) -> Result<(), ReplayError> {
            let high = self.high;
            match seq {
                0 => return Err(ReplayError::Reserved),
                _ if seq <= high && high - seq >= width => {
                    return Err(ReplayError::Stale { seq, high });
                }
                _ if !self.seen.insert(seq) => return Err(ReplayError::Replay { seq }),
                _ => self.high = high.max(seq),
            }
            Ok(())
        }
    }

    #[test]
    fn oldest_acceptable_number_is_within_the_width() {
        let mut w = ReplayWindow::new(64);
        w.accept(100).unwrap();
        assert_eq!(w.accept(37), Ok(()));
        let stale = ReplayError::Stale { seq: 36, high: 100 };
        assert_eq!(w.accept(36), Err(stale));
        assert_eq!(w.accept(37), Err(ReplayError::Replay { seq: 37 }));
        assert_eq!(w.accept(0), Err(ReplayError::Reserved));
    }

    #[test]
    fn all_streams_of_a_connection_may_be_late_sixteen_times_over() {
        let mut w = ReplayWindow::new(REPLAY_WINDOW);
        for seq in (1..=REPLAY_WINDOW).rev() {
            assert_eq!(w.accept(seq), Ok(()));
        }
        assert!(w.accept(1).is_err());
    }

    #[test]
    fn the_largest_step_is_kept() {
        let mut w = ReplayWindow::new(64);
        for (seq, jump) in [
            (1_000_000, 0),
            (1_000_001, 1),
            (1_000_100, 99),
            (1_000_101, 99),
        ] {
            w.accept(seq).unwrap();
            assert_eq!(w.jump_max(), jump);
        }
    }

    #[test]
    fn a_poisoned_window_begins_anew_where_it_is_reset() {
        let mut w = ReplayWindow::new(64);
        w.accept(u64::MAX).unwrap();
        assert!(w.accept(5).is_err());
        w.reset(5);
        assert_eq!(w.high(), 5);
        assert_eq!(w.accept(5), Err(ReplayError::Replay { seq: 5 }));
        assert_eq!(w.accept(4), Ok(()));
        assert_eq!(w.accept(6), Ok(()));
    }

    #[test]
    fn what_is_not_bound_does_not_come_again_behind_a_reset() {
        let mut w = ReplayWindow::new(64);
        w.accept_plain(90).unwrap();
        w.accept(100).unwrap();
        w.reset(5);
        for seq in [4, 90, 99, 100] {
            let stale = ReplayError::Stale { seq, high: 100 };
            assert_eq!(w.accept_plain(seq), Err(stale));
        }
        w.reset(50);
        assert_eq!(
            w.accept(90),
            Ok(()),
            "bound to a connection since the reset"
        );
        assert_eq!(w.accept_plain(101), Ok(()));
        assert_eq!(w.accept_plain(0), Err(ReplayError::Reserved));
    }

    #[test]
    fn a_refusal_changes_nothing() {
        let mut w = ReplayWindow::new(64);
        for seq in [100, 60, 99] {
            w.accept(seq).unwrap();
        }
        let before = w.clone();
        for seq in [0, 1, 36, 60, 99, 100] {
            assert!(w.accept(seq).is_err());
        }
        assert_eq!(w, before);
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_window(
            words in 1_u64..5,
            start in prop_oneof![Just(0_u64), any::<u64>(), Just(u64::MAX - 300)],
            steps in vec(0_u64..600, 1..300),
        ) {
            let width = words * 64;
            let mut window = ReplayWindow::new(width);
            let mut naive = Naive::default();
            for step in steps {
                let seq = start.wrapping_add(step);
                prop_assert_eq!(window.accept(seq), naive.accept(seq, width));
                prop_assert_eq!(window.high(), naive.high);
            }
        }
    }
}
