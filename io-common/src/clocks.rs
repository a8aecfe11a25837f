//! The times of all sessions of one connection, where they have bounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use adit_proto_core::{
    id::Slot,
    session_timer::{SessionBounds, SessionTimer, TimeOver},
};

/// Says whose time is over. A session without bounds costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// With the time of its entry below.
    timers: BTreeMap<Slot, (SessionTimer, Instant)>,
    /// One entry for each timer, at or before its deadline: bytes move the deadline, and the entry follows when it is
    /// looked at.
    looks: BTreeSet<(Instant, Slot)>,
}

impl Clocks {
    pub(crate) fn watch(&mut self, now: Instant, slot: Slot, bounds: SessionBounds) {
        let timer = SessionTimer::new(now, bounds);
        if let Some(at) = timer.poll_timeout() {
            self.timers.insert(slot, (timer, at));
            self.looks.insert((at, slot));
        }
    }

    pub(crate) fn handle_bytes(&mut self, now: Instant, slot: Slot) {
        if let Some((timer, _)) = self.timers.get_mut(&slot) {
            timer.handle_bytes(now);
        }
    }

    /// The session has ended.
    pub(crate) fn forget(&mut self, slot: Slot) {
        if let Some((_, at)) = self.timers.remove(&slot) {
            self.looks.remove(&(at, slot));
        }
    }

    /// When [`poll_over`](Self::poll_over) is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// The next session whose time is over; it is forgotten with that.
    pub(crate) fn poll_over(&mut self, now: Instant) -> Option<(Slot, TimeOver)> {
        while let Some(&(at, slot)) = self.looks.first().filter(|(at, _)| *at <= now) {
            self.looks.remove(&(at, slot));
            let Some((timer, look)) = self.timers.get_mut(&slot) else {
                continue;
            };
            if let Some(over) = timer.poll_over(now) {
                self.timers.remove(&slot);
                return Some((slot, over));
            }
            if let Some(later) = timer.poll_timeout() {
                *look = later;
                self.looks.insert((later, slot));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn each_session_ends_at_its_own_time() {
        let start = Instant::now();
        let mut clocks = Clocks::default();
        let idle = |s| SessionBounds {
            idle: Some(S * s),
            lifetime: Some(S * 60),
        };
        clocks.watch(start, Slot(1), SessionBounds::default());
        assert_eq!(clocks.poll_timeout(), None, "no bounds, no cost");
        for (slot, s) in [(2, 10), (3, 20), (4, 20)] {
            clocks.watch(start, Slot(slot), idle(s));
        }
        clocks.forget(Slot(4));
        assert_eq!(clocks.looks.len(), 2, "nothing is left of it");
        clocks.handle_bytes(start + S * 9, Slot(2));
        assert_eq!(clocks.poll_timeout(), Some(start + S * 10));
        assert_eq!(clocks.poll_over(start + S * 10), None);
        assert_eq!(clocks.poll_timeout(), Some(start + S * 19));
        let over = |clocks: &mut Clocks, s| clocks.poll_over(start + S * s);
        assert_eq!(over(&mut clocks, 20), Some((Slot(2), TimeOver::Idle)));
        assert_eq!(over(&mut clocks, 20), Some((Slot(3), TimeOver::Idle)));
        assert_eq!(over(&mut clocks, 99), None);
        assert_eq!(clocks.poll_timeout(), None);
    }
}
