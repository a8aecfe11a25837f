//! What is known of one peer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Holding, News, Received, Stamp, later};
use crate::limits::{CATALOGUE_BURST, CATALOGUE_LIFETIME, CATALOGUE_PACE};

/// What one peer announced last, for as long as it counts.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Never falls: what was overtaken on its way is refused.
    highest: Stamp,
    held: Option<Held>,
    /// Until when the wholes that were read would keep this gateway busy at their pace.
    busy_until: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    stamp: Stamp,
    until: Instant,
    holding: Arc<Holding>,
}

impl Known {
    /// Takes a place for a whole announcement that is to be read; where there is none, tells when there will be one.
    pub(super) fn pace(&mut self, now: Instant) -> Option<Duration> {
        let busy_until = self.busy_until.map_or(now, |until| until.max(now));
        let until = later(busy_until, CATALOGUE_PACE);
        let ahead = until.saturating_duration_since(now);
        let wait = ahead.saturating_sub(CATALOGUE_PACE.saturating_mul(CATALOGUE_BURST));
        if !wait.is_zero() {
            return Some(wait);
        }
        self.busy_until = Some(until);
        None
    }

    /// Takes an announcement; tells whether what is held changed.
    pub(super) fn take(&mut self, now: Instant, stamp: Stamp, news: News) -> bool {
        if stamp < self.highest {
            return false;
        }
        self.highest = stamp;
        let until = later(now, CATALOGUE_LIFETIME);
        match (news, &mut self.held) {
            (News::Goodbye, _) => self.clear(),
            (News::Unchanged | News::Whole(_), Some(held)) if held.stamp == stamp => {
                held.until = until;
                false
            }
            // What it holds is not known, only that it is another set by now.
            (News::Unchanged, _) => false,
            (News::Whole(holding), held) => {
                let before = held.take();
                let is_changed = before.is_none_or(|before| *before.holding != holding);
                let holding = Arc::new(holding);
                *held = Some(Held {
                    stamp,
                    until,
                    holding,
                });
                is_changed
            }
        }
    }

    /// Forgets what is held; tells whether something was.
    pub(super) fn clear(&mut self) -> bool {
        self.held.take().is_some()
    }

    /// Forgets it if its time is over; tells whether it was.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        self.until().is_some_and(|until| until <= now) && self.clear()
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.until)
    }

    pub(super) fn holding(&self) -> Option<&Arc<Holding>> {
        self.held.as_ref().map(|held| &held.holding)
    }

    pub(super) fn received(&self) -> Received {
        Received {
            held: self.held.as_ref().map(|held| held.stamp),
            highest: self.highest,
        }
    }
}
