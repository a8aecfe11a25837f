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
    /// Those that did not come about, given up or cut off by the time of their session among them.
    pub failed: u64,
}

impl Counters {
    pub(super) fn set_open(&self, dialled: usize, accepted: usize) {
        self.dialled_open.store(dialled as u64, Ordering::Relaxed);
        self.accepted_open.store(accepted as u64, Ordering::Relaxed);
    }

    /// A dial begins. It is counted when it is over, however that comes about.
    pub(super) fn dialling(&self) -> Dialling<'_> {
        Dialling {
            counters: self,
            is_there: false,
        }
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

/// A dial that is under way.
#[derive(Debug)]
pub(super) struct Dialling<'a> {
    counters: &'a Counters,
    /// The link came about.
    pub(super) is_there: bool,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        let count = match self.is_there {
            true => &self.counters.dialled,
            false => &self.counters.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
