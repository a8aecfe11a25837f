//! What slow readers hold on all connections together, and what each connection may hold of it.

use std::collections::BTreeMap;

/// Bytes that slow readers hold, by connection (the engine's handle). A connection that holds nothing takes no place.
#[derive(Debug, Default)]
pub(super) struct Unread {
    held: BTreeMap<usize, u64>,
    sum: u64,
}

impl Unread {
    /// Takes what a connection holds now, and gives what it may hold so that all together hold at most `most`: whatever
    /// it likes, unless they hold more.
    pub(super) fn report(&mut self, handle: usize, bytes: u64, most: u64) -> u64 {
        self.forget(handle);
        if bytes > 0 {
            self.held.insert(handle, bytes);
            self.sum = self.sum.saturating_add(bytes);
        }
        if self.sum <= most {
            return u64::MAX;
        }
        let mean = most / (self.held.len() as u64).max(1);
        if bytes <= mean {
            return mean;
        }
        // Those below the mean leave the others more.
        let below = self.held.values().filter(|held| **held <= mean);
        let (count, small) = below.fold((0, 0), |(count, sum), held| (count + 1, sum + held));
        (most - small) / (self.held.len() as u64 - count)
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, handle: usize) {
        let held = self.held.remove(&handle).unwrap_or_default();
        self.sum = self.sum.saturating_sub(held);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FREE: u64 = u64::MAX;

    #[test]
    fn the_largest_are_cut_down_and_the_others_left_alone() {
        let mut all = Unread::default();
        assert_eq!(all.report(0, 60, 100), FREE);
        assert_eq!(all.report(1, 10, 100), FREE);
        assert_eq!(all.report(2, 30, 100), FREE);
        // Mean 25: the two above it share what the small ones leave.
        assert_eq!(all.report(3, 10, 100), 25);
        assert_eq!(all.report(0, 60, 100), 40);
        assert_eq!(all.report(2, 30, 100), 40);
        assert_eq!(all.report(0, 40, 100), FREE);
        assert_eq!(all.report(3, 0, 100), FREE);
        all.forget(0);
        assert_eq!(all.sum, 40);
    }

    #[test]
    fn nothing_is_left_where_nothing_may_be_held() {
        let mut all = Unread::default();
        assert_eq!(all.report(0, 5, 0), 0);
        assert_eq!(all.report(0, 0, 0), FREE);
    }

    proptest! {
        /// Whatever all hold, they fit once each has gone down to what it was allowed; who holds no more than its part of
        /// all keeps it.
        #[test]
        fn what_is_allowed_fits(held in prop::collection::vec(1_u64..1_000_000, 1..40), most in 0_u64..4_000_000) {
            let mut all = Unread::default();
            for (handle, bytes) in held.iter().enumerate() {
                all.report(handle, *bytes, most);
            }
            let allowed: Vec<u64> = (held.iter().enumerate())
                .map(|(handle, bytes)| all.report(handle, *bytes, most).min(*bytes))
                .collect();
            prop_assert!(allowed.iter().sum::<u64>() <= most);
            for (bytes, allowed) in held.iter().zip(&allowed) {
                prop_assert!(*allowed == *bytes || *allowed >= most / held.len() as u64);
            }
            if held.iter().sum::<u64>() <= most {
                prop_assert_eq!(allowed, held);
            }
        }
    }
}
