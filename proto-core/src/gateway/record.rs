//! The epoch rule of one connection's route sets, and when it was last heard (agent-tunnel 9).

use std::time::{Duration, Instant};

/// What a gateway remembers of the control messages of one connection. Starts at epoch 0 without routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRecord {
    epoch: u64,
    accepted: Option<Instant>,
    updated: Option<Instant>,
    last_seen: Instant,
}

/// What became of a route advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advert {
    /// Its epoch is greater than the stored one: the whole set is replaced.
    Accepted,
    /// Its epoch is the stored one: the set stays, its content is not looked at.
    Refreshed,
    /// Its epoch is less than the stored one: nothing changes but the time of the last message.
    Stale,
    /// It holds more than [`ROUTES_PER_AGENT_MAX`](crate::limits::ROUTES_PER_AGENT_MAX) routes: the earlier set and
    /// epoch stay.
    TooMany,
}

impl RouteRecord {
    /// Makes the record of a connection that was registered at `now`; registration counts as a message.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: 0,
            accepted: None,
            updated: None,
            last_seen: now,
        }
    }

    /// Takes an advertisement. Epoch 0 never takes effect, as it is not greater than the epoch of an empty record.
    pub fn handle_advertise(&mut self, now: Instant, epoch: u64) -> Advert {
        self.last_seen = now;
        if epoch < self.epoch {
            return Advert::Stale;
        }
        self.updated = Some(now);
        if epoch == self.epoch {
            return Advert::Refreshed;
        }
        self.epoch = epoch;
        self.accepted = Some(now);
        Advert::Accepted
    }

    /// Takes any other control message.
    pub fn handle_seen(&mut self, now: Instant) {
        self.last_seen = now;
    }

    /// Epoch of the accepted set; 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When the present set was accepted; none before the first.
    #[must_use]
    pub fn accepted(&self) -> Option<Instant> {
        self.accepted
    }

    /// When the present set was last accepted or refreshed; none before the first advertisement.
    #[must_use]
    pub fn updated(&self) -> Option<Instant> {
        self.updated
    }

    /// Time since the last control message.
    #[must_use]
    pub fn silent(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_greater_epoch_replaces() {
        // (epoch advertised, outcome, epoch stored afterwards, second of acceptance, second of the last refresh)
        let table = [
            (0, Advert::Refreshed, 0, None, 0),
            (1, Advert::Accepted, 1, Some(1), 1),
            (1, Advert::Refreshed, 1, Some(1), 2),
            (0, Advert::Stale, 1, Some(1), 2),
            (7, Advert::Accepted, 7, Some(4), 4),
            (6, Advert::Stale, 7, Some(4), 4),
            (7, Advert::Refreshed, 7, Some(4), 6),
            (u64::MAX, Advert::Accepted, u64::MAX, Some(7), 7),
            (7, Advert::Stale, u64::MAX, Some(7), 7),
        ];
        let start = start();
        let mut record = RouteRecord::new(start);
        for (second, (epoch, outcome, stored, accepted, updated)) in (0..).zip(table) {
            let at = |s| start + Duration::from_secs(s);
            assert_eq!(record.handle_advertise(at(second), epoch), outcome);
            assert_eq!(record.epoch(), stored);
            assert_eq!(record.accepted(), accepted.map(at));
            assert_eq!(record.updated(), Some(at(updated)));
            assert_eq!(record.silent(at(second)), Duration::ZERO);
        }
    }

    #[test]
    fn every_message_ends_the_silence() {
        let start = start();
        let at = |s| start + Duration::from_secs(s);
        let mut record = RouteRecord::new(start);
        assert_eq!(record.silent(at(5)), Duration::from_secs(5));
        record.handle_seen(at(5));
        assert_eq!(record.silent(at(9)), Duration::from_secs(4));
        assert_eq!(record.silent(start), Duration::ZERO);
        assert_eq!((record.epoch(), record.updated()), (0, None));
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the base of a test's virtual time"
    )]
    fn start() -> Instant {
        Instant::now()
    }
}
