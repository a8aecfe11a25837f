//! When an agent says what it reaches and that it is alive (agent-tunnel 6.1 to 6.3 and 9).

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    limits::{
        ADVERTISE_INTERVAL, ADVERTISE_INTERVAL_MAX, CONTROL_LEN_MAX, CONTROL_PACE_MIN,
        HEARTBEAT_ACK_GRACE, HEARTBEAT_ACK_TIMEOUT, HEARTBEAT_INTERVAL, HEARTBEATS_PENDING_MAX,
        REPLACEMENT_INTERVAL,
    },
    route::RouteSet,
};

/// Times the control messages of one connection.
///
/// The routes go out at once with epoch 1 and are repeated; a changed set goes out at once with the next epoch. A
/// gateway ignores the content of an epoch that it has seen (agent-tunnel 9). The first heartbeat comes one interval
/// after the start. A late timer sends once, not once for every interval that was missed.
///
/// A gateway of which QUIC lives and the control loop does not is of no use: it is noticed when no heartbeat was
/// answered for [`HEARTBEAT_ACK_TIMEOUT`] (design 3.6). Any answer counts, of a heartbeat that was forgotten too. A timer
/// that comes late does not judge at once: nobody read the socket, where the answer may lie. A heartbeat behind a large
/// message waits for its answer until that has had its time on a slow path.
#[derive(Debug)]
pub struct Advertiser {
    config: AdvertiserConfig,
    routes: Arc<RouteSet>,
    epoch: u64,
    advertise_at: Instant,
    heartbeat_at: Instant,
    pending: VecDeque<Pending>,
    /// What was sent is taken to be under way until then.
    under_way_until: Instant,
    /// Until when one of the heartbeats in wait is to be answered.
    answer_by: Option<Instant>,
    /// A late timer has put that off.
    is_put_off: bool,
    is_unanswered: bool,
    round_trip: Option<Duration>,
    steps: VecDeque<AdvertiseStep>,
    /// The step that was taken last and not told to be sent yet.
    taken: Option<Taken>,
    /// Epoch of the routes that were sent last.
    sent_epoch: u64,
}

/// A step on its way to the connection.
#[derive(Clone, Copy, Debug)]
enum Taken {
    Routes { epoch: u64 },
    Heartbeat { timestamp_ms: u64 },
}

#[derive(Debug)]
struct Pending {
    timestamp_ms: u64,
    sent: Instant,
}

/// Intervals of an [`Advertiser`], each above zero and at most [`ADVERTISE_INTERVAL_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertiserConfig {
    /// Between two RouteAdvertise of the same routes.
    pub advertise_interval: Duration,
    /// Between two heartbeats.
    pub heartbeat_interval: Duration,
}

impl Default for AdvertiserConfig {
    /// The intervals of the reference agent: 30 s and 60 s.
    fn default() -> Self {
        Self {
            advertise_interval: ADVERTISE_INTERVAL,
            heartbeat_interval: HEARTBEAT_INTERVAL,
        }
    }
}

/// Why an [`AdvertiserConfig`] is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertiserConfigError {
    /// An interval of zero would never let the timer rest.
    #[error("the {0} interval is zero")]
    Zero(&'static str),
    /// An interval above [`ADVERTISE_INTERVAL_MAX`].
    #[error("the {0} interval is longer than {max} s", max = ADVERTISE_INTERVAL_MAX.as_secs())]
    TooLong(&'static str),
}

/// A control message that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdvertiseStep {
    /// Send a RouteAdvertise.
    Advertise {
        /// 1 or more, higher for each changed set of this connection.
        epoch: u64,
        /// The whole set.
        routes: Arc<RouteSet>,
    },
    /// Send a Heartbeat.
    Heartbeat {
        /// Unix time in milliseconds; the ack echoes it.
        timestamp_ms: u64,
        /// Sessions open on this connection.
        sessions: u32,
    },
}

impl Advertiser {
    /// Starts with the connection; the first step is there at once.
    ///
    /// # Errors
    /// [`AdvertiserConfigError`] for an interval of zero or one that is too long.
    pub fn new(
        now: Instant,
        config: AdvertiserConfig,
        routes: Arc<RouteSet>,
    ) -> Result<Self, AdvertiserConfigError> {
        config.check()?;
        let mut advertiser = Self {
            config,
            routes,
            epoch: 1,
            advertise_at: now,
            heartbeat_at: now + config.heartbeat_interval,
            pending: VecDeque::new(),
            under_way_until: now,
            answer_by: None,
            is_put_off: false,
            is_unanswered: false,
            round_trip: None,
            steps: VecDeque::new(),
            taken: None,
            sent_epoch: 0,
        };
        advertiser.advertise(now);
        Ok(advertiser)
    }

    /// Exchanges the routes. An equal set changes nothing; another goes out at once with the next epoch.
    pub fn set_routes(&mut self, now: Instant, routes: Arc<RouteSet>) {
        if *self.routes != *routes {
            self.routes = routes;
            self.epoch = self.epoch.saturating_add(1);
            self.advertise(now);
        }
    }

    /// Takes a HeartbeatAck. Of one whose timestamp belongs to no heartbeat in wait only that it came counts. The round
    /// trip is measured by `now`, so a wall clock that is set meanwhile does not falsify it.
    pub fn handle_ack(&mut self, now: Instant, timestamp_ms: u64) {
        let mut waiting = self.pending.iter();
        let answered = waiting.position(|sent| sent.timestamp_ms == timestamp_ms);
        // The control stream is ordered, so what was sent before is not going to be answered any more.
        if let Some(at) = answered
            && let Some(acked) = self.pending.drain(..=at).next_back()
        {
            self.round_trip = Some(now.saturating_duration_since(acked.sent));
        }
        self.is_put_off = false;
        self.answer_by = (!self.pending.is_empty()).then(|| self.answer_due(now));
    }

    /// Sends what is due, and judges whether the gateway still answers. `unix_ms` is the wall clock and `sessions` the number of open sessions at `now`.
    pub fn handle_timeout(&mut self, now: Instant, unix_ms: impl FnOnce() -> u64, sessions: u32) {
        self.judge(now);
        // A heartbeat that is due with the routes does not wait behind them.
        if self.heartbeat_at <= now {
            self.beat(now, unix_ms(), sessions);
        }
        if self.advertise_at <= now {
            self.advertise(now);
        }
    }

    /// The message that was taken last, or any other, has gone out with so many bytes: those that follow come behind it.
    pub fn handle_sent(&mut self, now: Instant, len: usize) {
        match self.taken.take() {
            Some(Taken::Heartbeat { timestamp_ms }) => self.wait_for_answer(now, timestamp_ms),
            Some(Taken::Routes { epoch }) if epoch != self.sent_epoch => {
                self.sent_epoch = epoch;
                // Beyond a burst a gateway takes one set in this time, and reads nothing meanwhile. One that falls behind
                // for long is left all the same.
                let at_most = now + HEARTBEAT_ACK_TIMEOUT;
                let put_off = (self.under_way_until + REPLACEMENT_INTERVAL).min(at_most);
                self.under_way_until = self.under_way_until.max(put_off);
            }
            Some(Taken::Routes { .. }) | None => {}
        }
        let until = now.max(self.under_way_until) + time_of(len);
        self.under_way_until = until.min(now + time_of(CONTROL_LEN_MAX));
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let next = self.advertise_at.min(self.heartbeat_at);
        self.answer_by.map_or(next, |at| at.min(next))
    }

    /// The next message to send; [`handle_sent`](Self::handle_sent) is to follow.
    pub fn poll_step(&mut self) -> Option<AdvertiseStep> {
        let step = self.steps.pop_front()?;
        self.taken = Some(match step {
            AdvertiseStep::Advertise { epoch, .. } => Taken::Routes { epoch },
            AdvertiseStep::Heartbeat { timestamp_ms, .. } => Taken::Heartbeat { timestamp_ms },
        });
        Some(step)
    }

    /// Tells whether the heartbeats went unanswered for [`HEARTBEAT_ACK_TIMEOUT`]: close the connection.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        self.is_unanswered
    }

    /// Time from the latest acknowledged heartbeat to its ack; none before the first.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Epoch of the routes that were sent last.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn advertise(&mut self, now: Instant) {
        self.advertise_at = now + self.config.advertise_interval;
        // One set that was not fetched yet is overtaken by this one, so that the queue stays short.
        self.steps
            .retain(|step| !matches!(step, AdvertiseStep::Advertise { .. }));
        self.steps.push_back(AdvertiseStep::Advertise {
            epoch: self.epoch,
            routes: Arc::clone(&self.routes),
        });
    }

    fn judge(&mut self, now: Instant) {
        let Some(due) = self.answer_by.take_if(|at| *at <= now) else {
            return;
        };
        if due + HEARTBEAT_ACK_GRACE < now && !self.is_put_off {
            self.is_put_off = true;
            self.answer_by = Some(now + HEARTBEAT_ACK_GRACE);
        } else {
            self.is_unanswered = true;
        }
    }

    fn answer_due(&self, now: Instant) -> Instant {
        now.max(self.under_way_until) + HEARTBEAT_ACK_TIMEOUT
    }

    fn wait_for_answer(&mut self, now: Instant, timestamp_ms: u64) {
        let due = self.answer_due(now);
        self.answer_by = Some(self.answer_by.map_or(due, |at| at.min(due)));
        if self.pending.len() == HEARTBEATS_PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending {
            timestamp_ms,
            sent: now,
        });
    }

    fn beat(&mut self, now: Instant, timestamp_ms: u64, sessions: u32) {
        self.heartbeat_at = now + self.config.heartbeat_interval;
        // It may have to wait for room behind a large message, and for no longer than that takes.
        let at_most = now + time_of(CONTROL_LEN_MAX) + HEARTBEAT_ACK_TIMEOUT;
        self.answer_by.get_or_insert(at_most);
        // The same for a heartbeat.
        self.steps
            .retain(|step| !matches!(step, AdvertiseStep::Heartbeat { .. }));
        self.steps.push_back(AdvertiseStep::Heartbeat {
            timestamp_ms,
            sessions,
        });
    }
}

impl AdvertiserConfig {
    /// Tells whether the intervals are usable.
    ///
    /// # Errors
    /// [`AdvertiserConfigError`].
    pub fn check(&self) -> Result<(), AdvertiserConfigError> {
        for (interval, name) in [
            (self.advertise_interval, "route advertisement"),
            (self.heartbeat_interval, "heartbeat"),
        ] {
            if interval.is_zero() {
                return Err(AdvertiserConfigError::Zero(name));
            }
            if interval > ADVERTISE_INTERVAL_MAX {
                return Err(AdvertiserConfigError::TooLong(name));
            }
        }
        Ok(())
    }
}

/// How long control messages of so many bytes are under way at most.
fn time_of(len: usize) -> Duration {
    Duration::from_secs(len as u64) / CONTROL_PACE_MIN
}

#[cfg(test)]
mod tests;
