//! What is counted of replica links.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts that the tasks of all links share.
#[derive(Debug, Default)]
pub(super) struct Counters {
    dialled_open: AtomicU64,
    accepted_open: AtomicU64,
    dialled: AtomicU64,
    failed: AtomicU64,
}

/// What was counted of replica links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Sessions of this gateway's users that are on a link, or wait for one.
    pub dialled_open: u64,
    /// Links that peers have dialled and that are there.
    pub accepted_open: u64,
    /// Links that were dialled for sessions and came about.
    pub dialled: u64,
    /// Those that did not come about.
    pub failed: u64,
}

impl Counters {
    pub(super) fn set_open(&self, dialled: usize, accepted: usize) {
        self.dialled_open.store(dialled as u64, Ordering::Relaxed);
        self.accepted_open.store(accepted as u64, Ordering::Relaxed);
    }

    pub(super) fn dialled(&self, is_there: bool) {
        let count = if is_there {
            &self.dialled
        } else {
            &self.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> LinkCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LinkCounts {
            dialled_open: of(&self.dialled_open),
            accepted_open: of(&self.accepted_open),
            dialled: of(&self.dialled),
            failed: of(&self.failed),
        }
    }
}
