//! When one peer is told what.

use std::time::Instant;

use super::{Stamp, later};
use crate::limits::{CATALOGUE_ANSWER_PATIENCE, CATALOGUE_REFRESH};

/// What a peer is told, and when.
#[derive(Clone, Copy, Debug)]
pub(super) enum Link {
    Down,
    Up {
        /// What the peer said that it holds of this gateway.
        holds: Option<Stamp>,
        /// The whole that was told last.
        told: Option<Stamp>,
        /// Until when that is waited for to be answered: meanwhile no other is told.
        waits_until: Option<Instant>,
        /// When it is told again that what it holds is not to be forgotten, and the whole where that came to nothing.
        tell_at: Instant,
    },
}

/// What a peer is to be told now.
pub(super) struct Due {
    /// That what it holds under this stamp is not to be forgotten.
    pub(super) unchanged: Option<Stamp>,
    pub(super) is_whole: bool,
}

impl Link {
    /// What is to be told now; it counts as told.
    pub(super) fn due(&mut self, now: Instant, stamp: Stamp) -> Due {
        let nothing = Due {
            unchanged: None,
            is_whole: false,
        };
        let Self::Up {
            holds,
            told,
            waits_until,
            tell_at,
        } = self
        else {
            return nothing;
        };
        let is_time = *tell_at <= now;
        if is_time {
            *tell_at = later(now, CATALOGUE_REFRESH);
        }
        // A change is told at once; what came to nothing is told again by the clock.
        let is_news = is_time || *told != Some(stamp);
        let waits = waits_until.is_some_and(|until| now < until);
        let is_whole = *holds != Some(stamp) && is_news && !waits;
        if is_whole {
            *told = Some(stamp);
            *waits_until = Some(later(now, CATALOGUE_ANSWER_PATIENCE));
        }
        // The whole may take longer than what the peer holds lasts. What a former start told is left to end.
        let unchanged = holds.filter(|held| is_time && held.epoch == stamp.epoch);
        Due {
            unchanged,
            is_whole,
        }
    }
}
