//! What those who do not read hold on all connections together, and which connection is to give some of it back.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::UnreadHeld;
use crate::limits::STREAM_WINDOW;

/// Bytes beyond their shares that sessions of a connection hold whose readers are behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// All of them.
    pub(crate) behind: u64,
    /// Those that were hardly read for [`UNREAD_PATIENCE`](crate::limits::UNREAD_PATIENCE).
    pub(crate) stopped: u64,
}

/// What sessions hold whose readers are behind, by connection (the engine's handle). A connection where nobody is takes no
/// place.
#[derive(Debug, Default)]
pub(super) struct Unread {
    held: BTreeMap<usize, Held>,
    /// Those where somebody has stopped.
    by_size: BTreeSet<(u64, Reverse<usize>)>,
    stopped: u64,
}

impl Unread {
    /// Takes what a connection holds now. Where those who have stopped hold more than `most` on all together, and on none
    /// more than on this one, it gives what they may keep here: less by the excess, but not less than the equal part of
    /// `most`. What is to be given back counts as given, in whole windows, since that is what sessions are charged, so
    /// that nobody else has to give it as well.
    pub(super) fn report(&mut self, handle: usize, held: Held, most: u64) -> Option<u64> {
        self.set(handle, held);
        let (bytes, excess) = (held.stopped, self.stopped.checked_sub(most)?);
        if excess == 0 || self.by_size.last() != Some(&(bytes, Reverse(handle))) {
            return None;
        }
        let part = most / (self.by_size.len() as u64).max(1);
        let back = excess.min(bytes.saturating_sub(part));
        let stopped = bytes.saturating_sub(back.next_multiple_of(STREAM_WINDOW.into()));
        self.set(handle, Held { stopped, ..held });
        Some(bytes - back)
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, handle: usize) {
        self.set(handle, Held::default());
    }

    /// What is held now.
    pub(super) fn held(&self) -> UnreadHeld {
        let behind = self.held.values().map(|held| held.behind);
        UnreadHeld {
            in_all: self.stopped,
            most: behind.max().unwrap_or(0),
        }
    }

    fn set(&mut self, handle: usize, held: Held) {
        if let Some(before) = self.held.remove(&handle) {
            self.by_size.remove(&(before.stopped, Reverse(handle)));
            self.stopped -= before.stopped;
        }
        if held != Held::default() {
            self.held.insert(handle, held);
        }
        if held.stopped > 0 {
            self.by_size.insert((held.stopped, Reverse(handle)));
            self.stopped += held.stopped;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: u64 = STREAM_WINDOW as u64;

    fn stopped(bytes: u64) -> Held {
        Held {
            behind: bytes,
            stopped: bytes,
        }
    }

    const fn seen(in_all: u64, most: u64) -> UnreadHeld {
        UnreadHeld { in_all, most }
    }

    #[test]
    fn one_window_too_many_is_given_back_by_one() {
        let mut all = Unread::default();
        for handle in 0..256 {
            assert_eq!(all.report(handle, stopped(WINDOW), 256 * WINDOW), None);
        }
        let mut asked = 0;
        for handle in (0..=256).chain(0..=256) {
            asked += u32::from(all.report(handle, stopped(WINDOW), 256 * WINDOW).is_some());
            if asked == 1 && handle == 0 {
                // It has done so.
                all.report(0, stopped(0), 256 * WINDOW);
            }
        }
        assert_eq!(asked, 1);
    }

    #[test]
    fn the_largest_gives_back_first_and_down_to_its_part() {
        let mut all = Unread::default();
        let most = 10 * WINDOW;
        assert_eq!(all.report(0, stopped(6 * WINDOW), most), None);
        assert_eq!(all.report(1, stopped(WINDOW), most), None);
        assert_eq!(
            all.report(2, stopped(5 * WINDOW), most),
            None,
            "not the largest"
        );
        assert_eq!(all.report(0, stopped(6 * WINDOW), most), Some(4 * WINDOW));
        assert_eq!(all.stopped, most, "it counts as given back");
        assert_eq!(all.report(2, stopped(5 * WINDOW), most), None);
        assert_eq!(all.report(0, stopped(4 * WINDOW), most), None);
        all.forget(2);
        assert_eq!(all.stopped, 5 * WINDOW);
    }

    #[test]
    fn who_is_behind_and_reads_is_seen_and_counts_for_nothing_else() {
        let mut all = Unread::default();
        let reads = Held {
            behind: 9 * WINDOW,
            stopped: 0,
        };
        assert_eq!(all.report(0, reads, WINDOW), None);
        assert_eq!(all.report(1, stopped(WINDOW), WINDOW), None);
        assert_eq!(all.held(), seen(WINDOW, 9 * WINDOW));
        all.forget(0);
        all.forget(1);
        assert_eq!(all.held(), seen(0, 0));
    }

    #[test]
    fn nothing_may_be_held_where_most_is_nothing() {
        let mut all = Unread::default();
        assert_eq!(all.report(0, stopped(5), 0), Some(0));
        assert_eq!(all.report(0, stopped(0), 0), None);
    }

    proptest! {
        /// Connections that do as they are told, by sessions of a window each, come down to what all may hold, and no
        /// more than a window below it; who holds no more than its part keeps it.
        #[test]
        fn what_is_given_back_is_enough_and_not_too_much(
            held in prop::collection::vec(1_u64..40, 1..40),
            most in 1_u64..800,
        ) {
            let (mut all, most) = (Unread::default(), most * WINDOW);
            let mut now: Vec<u64> = held.iter().map(|windows| windows * WINDOW).collect();
            for _ in 0..now.len() * 40 {
                for (handle, bytes) in now.iter_mut().enumerate() {
                    while let Some(kept) = all.report(handle, stopped(*bytes), most) {
                        prop_assert!(kept < *bytes);
                        *bytes = kept / WINDOW * WINDOW;
                    }
                }
            }
            let sum: u64 = now.iter().sum();
            let before: u64 = held.iter().sum::<u64>() * WINDOW;
            prop_assert!(sum <= most);
            prop_assert!(sum == before || sum + WINDOW > most, "{sum} of {most}");
            let part = most / now.len() as u64 / WINDOW * WINDOW;
            for (windows, now) in held.iter().zip(&now) {
                prop_assert!(*now >= part.min(windows * WINDOW));
            }
        }
    }
}
