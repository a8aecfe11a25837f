//! One round to one gateway: its name is resolved, its addresses are raced.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{Credentials, DialId, LossKind, cause};
use crate::{
    agent::{backoff::BackoffCause, race::Race},
    limits::CONNECT_TIMEOUT,
};

/// A round under way. It ends with the first connection that is established, with the last address that failed, or
/// after [`CONNECT_TIMEOUT`].
#[derive(Debug)]
pub(super) struct Round {
    until: Instant,
    /// What its attempts show.
    credentials: Credentials,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Resolving,
    Racing {
        /// The dial of the race's first lane; the others follow.
        first: u64,
        race: Race<LossKind>,
    },
}

/// What became of a round.
pub(super) enum Turn {
    /// Nothing yet.
    Goes,
    /// The next address is due: see [`Round::start_next`].
    Next,
    /// Its time is over, for this cause.
    Over(BackoffCause),
}

impl Round {
    /// Begins with the resolver's answer outstanding.
    pub(super) fn new(now: Instant, credentials: Credentials) -> Self {
        Self {
            until: now + CONNECT_TIMEOUT,
            credentials,
            phase: Phase::Resolving,
        }
    }

    pub(super) fn credentials(&self) -> Credentials {
        self.credentials
    }

    pub(super) fn is_resolving(&self) -> bool {
        matches!(self.phase, Phase::Resolving)
    }

    /// The addresses are known; the first dial will be `first`.
    pub(super) fn race(&mut self, found: &[IpAddr], port: u16, first: u64) {
        let race = Race::new(found, port);
        self.phase = Phase::Racing { first, race };
    }

    /// Starts the next address, if one is left.
    pub(super) fn start_next(&mut self, now: Instant) -> Option<(DialId, SocketAddr)> {
        let Phase::Racing { first, race } = &mut self.phase else {
            return None;
        };
        let (index, addr) = race.start_next(now)?;
        Some((DialId(*first + index as u64), addr))
    }

    /// Every address has failed.
    pub(super) fn is_lost(&self) -> bool {
        matches!(&self.phase, Phase::Racing { race, .. } if race.is_lost())
    }

    pub(super) fn is_connecting(&self, dial: DialId) -> bool {
        match &self.phase {
            Phase::Racing { first, race } => race.is_connecting(lane(*first, dial)),
            Phase::Resolving => false,
        }
    }

    /// An attempt failed; tells whether it was one of these and running.
    pub(super) fn fail(&mut self, dial: DialId, why: LossKind) -> bool {
        match &mut self.phase {
            Phase::Racing { first, race } => race.fail(lane(*first, dial), why),
            Phase::Resolving => false,
        }
    }

    /// Attempts that run.
    pub(super) fn connecting(&self) -> Vec<DialId> {
        match &self.phase {
            Phase::Racing { first, race } => {
                let dial = |index| DialId(*first + index as u64);
                race.connecting().map(dial).collect()
            }
            Phase::Resolving => Vec::new(),
        }
    }

    /// The strictest of what the addresses said: one that is merely unreachable does not excuse storming one that
    /// refuses.
    pub(super) fn worst(&self) -> BackoffCause {
        let Phase::Racing { race, .. } = &self.phase else {
            return BackoffCause::Unreachable;
        };
        let causes = race.failures().map(|(_, why)| cause(why, Duration::ZERO));
        causes.max().unwrap_or(BackoffCause::Unreachable)
    }

    /// An attempt failed for the pair that it showed.
    pub(super) fn was_refused(&self) -> bool {
        match &self.phase {
            Phase::Racing { race, .. } => race.failures().any(|(_, why)| why.is_of_the_pair()),
            Phase::Resolving => false,
        }
    }

    pub(super) fn turn(&self, now: Instant) -> Turn {
        if self.until <= now {
            return Turn::Over(self.worst());
        }
        match &self.phase {
            Phase::Racing { race, .. } if race.is_due(now) => Turn::Next,
            Phase::Racing { .. } | Phase::Resolving => Turn::Goes,
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        match &self.phase {
            Phase::Racing { race, .. } => {
                race.next_at().map_or(self.until, |at| at.min(self.until))
            }
            Phase::Resolving => self.until,
        }
    }
}

/// The lane of a dial, or one that no race has.
fn lane(first: u64, dial: DialId) -> usize {
    let lane = dial.0.checked_sub(first);
    lane.and_then(|lane| usize::try_from(lane).ok())
        .unwrap_or(usize::MAX)
}
