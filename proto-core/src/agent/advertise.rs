//! When an agent says what it reaches and that it is alive (agent-tunnel 6.1 to 6.3 and 9).

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    limits::{
        ADVERTISE_INTERVAL, ADVERTISE_INTERVAL_MAX, CONTROL_PACE_MIN, HEARTBEAT_ACK_GRACE,
        HEARTBEAT_ACK_TIMEOUT, HEARTBEAT_INTERVAL, HEARTBEATS_PENDING_MAX, REPLACEMENT_INTERVAL,
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
    /// Epoch of the routes that were taken last, to be sent.
    taken_epoch: u64,
    /// They are others than those before.
    is_replacing: bool,
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
            taken_epoch: 0,
            is_replacing: false,
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
    pub fn handle_timeout(&mut self, now: Instant, unix_ms: u64, sessions: u32) {
        self.judge(now);
        // A heartbeat that is due with the routes does not wait behind them.
        if self.heartbeat_at <= now {
            self.beat(now, unix_ms, sessions);
        }
        if self.advertise_at <= now {
            self.advertise(now);
        }
    }

    /// A message of so many bytes, the one taken last, was sent: those that follow come behind it.
    pub fn handle_sent(&mut self, now: Instant, len: usize) {
        let time = Duration::from_secs(len as u64) / CONTROL_PACE_MIN;
        self.under_way_until = self.under_way_until.max(now + time);
        if std::mem::take(&mut self.is_replacing) {
            // Beyond a burst a gateway takes one set in this time, and reads nothing meanwhile. One that falls behind for
            // long is left all the same.
            let put_off = self.under_way_until + REPLACEMENT_INTERVAL;
            let at_most = now + HEARTBEAT_ACK_TIMEOUT;
            self.under_way_until = self.under_way_until.max(put_off.min(at_most));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let next = self.advertise_at.min(self.heartbeat_at);
        self.answer_by.map_or(next, |at| at.min(next))
    }

    /// The next message to send.
    pub fn poll_step(&mut self) -> Option<AdvertiseStep> {
        let step = self.steps.pop_front();
        if let Some(AdvertiseStep::Advertise { epoch, .. }) = step {
            self.is_replacing |= epoch != self.taken_epoch;
            self.taken_epoch = epoch;
        }
        step
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

    fn beat(&mut self, now: Instant, timestamp_ms: u64, sessions: u32) {
        self.heartbeat_at = now + self.config.heartbeat_interval;
        let due = self.answer_due(now);
        self.answer_by.get_or_insert(due);
        if self.pending.len() == HEARTBEATS_PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending {
            timestamp_ms,
            sent: now,
        });
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

#[cfg(test)]
mod tests {
    use super::{AdvertiseStep::*, *};

    #[test]
    fn routes_go_out_at_once_and_every_interval() {
        let (mut adv, at) = start();
        assert_eq!(steps(&mut adv), [advertise(1, 8)]);
        assert_eq!(adv.poll_timeout(), at(30_000));
        adv.handle_timeout(at(29_999), 0, 0);
        assert_eq!(steps(&mut adv), []);
        adv.handle_timeout(at(30_000), 0, 0);
        assert_eq!(steps(&mut adv), [advertise(1, 8)]);
        assert_eq!(adv.poll_timeout(), at(60_000));
        adv.handle_timeout(at(59_999), 0, 0);
        assert_eq!(steps(&mut adv), []);
        adv.handle_timeout(at(60_000), 77, 3);
        assert_eq!(steps(&mut adv), [beat(77, 3), advertise(1, 8)]);
    }

    #[test]
    fn changed_routes_get_the_next_epoch_at_once() {
        let (mut adv, at) = start();
        steps(&mut adv);
        adv.set_routes(at(10), routes(8));
        assert_eq!(steps(&mut adv), [], "the same set is no change");
        adv.set_routes(at(20), routes(9));
        assert_eq!(steps(&mut adv), [advertise(2, 9)]);
        assert_eq!(adv.poll_timeout(), at(30_020));
        adv.set_routes(at(30), routes(10));
        adv.set_routes(at(40), routes(8));
        assert_eq!(steps(&mut adv), [advertise(4, 8)], "only the latest");
        assert_eq!(adv.epoch(), 4);
    }

    #[test]
    fn acks_give_the_round_trip_by_the_monotonic_clock() {
        let (mut adv, at) = start();
        assert_eq!(adv.round_trip(), None);
        adv.handle_timeout(at(60_000), 1_000, 0);
        adv.handle_ack(at(60_040), 1_000);
        assert_eq!(adv.round_trip(), Some(Duration::from_millis(40)));
        adv.handle_ack(at(60_090), 1_000);
        adv.handle_ack(at(60_090), 5);
        assert_eq!(
            adv.round_trip(),
            Some(Duration::from_millis(40)),
            "late and unknown acks"
        );
    }

    #[test]
    fn a_gateway_that_answers_no_heartbeat_is_noticed() {
        let (mut adv, at) = start();
        adv.handle_timeout(at(60_000), 1, 0);
        adv.handle_timeout(at(69_999), 0, 0);
        assert!(!adv.is_unanswered());
        assert_eq!(adv.poll_timeout(), at(70_000));
        adv.handle_timeout(at(70_000), 0, 0);
        assert!(adv.is_unanswered());
    }

    #[test]
    fn a_heartbeat_behind_a_large_message_is_given_its_time() {
        let (mut adv, at) = start();
        adv.handle_sent(at(59_000), 40_960);
        adv.handle_sent(at(59_001), 100);
        adv.handle_timeout(at(60_000), 1, 0);
        assert_eq!(adv.poll_timeout(), at(74_000));
        adv.handle_timeout(at(73_999), 0, 0);
        assert!(!adv.is_unanswered());
        adv.handle_timeout(at(74_000), 0, 0);
        assert!(adv.is_unanswered());
    }

    #[test]
    fn a_gateway_has_its_time_for_routes_that_change_often() {
        let (mut adv, at) = start();
        let mut take = |adv: &mut Advertiser, ms| {
            let taken = steps(adv).len();
            (0..taken).for_each(|_| adv.handle_sent(at(ms), 100));
            taken
        };
        assert_eq!(take(&mut adv, 0), 1);
        for n in 0..40 {
            adv.set_routes(at(59_000 + u64::from(n)), routes(8 + n % 2));
            take(&mut adv, 59_000 + u64::from(n));
        }
        adv.handle_timeout(at(60_000), 1, 0);
        adv.handle_timeout(at(79_000), 0, 0);
        assert!(
            !adv.is_unanswered(),
            "39 changes take 19.5 s, of which 10 count"
        );
        adv.handle_timeout(at(79_100), 0, 0);
        assert!(adv.is_unanswered());
    }

    #[test]
    fn any_answer_begins_the_wait_anew() {
        let (mut adv, at) = start_with(Duration::from_secs(3));
        for beat in 1..=4 {
            adv.handle_timeout(at(beat * 3_000), beat, 0);
        }
        adv.handle_ack(at(12_500), 2);
        adv.handle_timeout(at(15_000), 5, 0);
        adv.handle_timeout(at(22_499), 6, 0);
        assert!(!adv.is_unanswered(), "answered 10 s ago");
        adv.handle_ack(at(22_499), 999);
        adv.handle_timeout(at(32_498), 7, 0);
        assert!(!adv.is_unanswered(), "answered, whatever it was");
        adv.handle_ack(at(32_498), 7);
        adv.handle_timeout(at(32_500), 0, 0);
        assert_eq!(adv.poll_timeout(), at(35_498), "nothing in wait");
    }

    #[test]
    fn a_process_that_stood_still_reads_before_it_judges() {
        let (mut adv, at) = start();
        adv.handle_timeout(at(60_000), 1, 0);
        adv.handle_timeout(at(100_000), 0, 0);
        assert!(!adv.is_unanswered());
        assert_eq!(adv.poll_timeout(), at(101_000));
        adv.handle_timeout(at(110_000), 0, 0);
        assert!(adv.is_unanswered(), "late at every check");
    }

    #[test]
    fn a_late_timer_sends_once() {
        let (mut adv, at) = start();
        steps(&mut adv);
        adv.handle_timeout(at(600_000), 9, 1);
        assert_eq!(steps(&mut adv), [beat(9, 1), advertise(1, 8)]);
        adv.handle_ack(at(600_010), 9);
        assert_eq!(adv.poll_timeout(), at(630_000));
    }

    #[test]
    fn odd_intervals_are_refused() {
        let good = AdvertiserConfig::default();
        for (advertise_interval, heartbeat_interval, expected) in [
            (
                Duration::ZERO,
                good.heartbeat_interval,
                AdvertiserConfigError::Zero("route advertisement"),
            ),
            (
                good.advertise_interval,
                Duration::ZERO,
                AdvertiserConfigError::Zero("heartbeat"),
            ),
            (
                Duration::MAX,
                good.heartbeat_interval,
                AdvertiserConfigError::TooLong("route advertisement"),
            ),
        ] {
            let config = AdvertiserConfig {
                advertise_interval,
                heartbeat_interval,
            };
            let refused = Advertiser::new(origin(), config, routes(8)).unwrap_err();
            assert_eq!(refused, expected);
        }
    }

    fn start() -> (Advertiser, impl Fn(u64) -> Instant) {
        start_with(Duration::from_secs(60))
    }

    fn start_with(heartbeat_interval: Duration) -> (Advertiser, impl Fn(u64) -> Instant) {
        let origin = origin();
        let config = AdvertiserConfig {
            heartbeat_interval,
            ..AdvertiserConfig::default()
        };
        let adv = Advertiser::new(origin, config, routes(8)).unwrap();
        (adv, move |ms| origin + Duration::from_millis(ms))
    }

    #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn routes(prefix_len: u8) -> Arc<RouteSet> {
        Arc::new(RouteSet {
            subnets: vec![format!("10.0.0.0/{prefix_len}").parse().unwrap()],
            domains: Vec::new(),
        })
    }

    fn advertise(epoch: u64, prefix_len: u8) -> AdvertiseStep {
        Advertise {
            epoch,
            routes: routes(prefix_len),
        }
    }

    fn beat(timestamp_ms: u64, sessions: u32) -> AdvertiseStep {
        Heartbeat {
            timestamp_ms,
            sessions,
        }
    }

    fn steps(adv: &mut Advertiser) -> Vec<AdvertiseStep> {
        std::iter::from_fn(|| adv.poll_step()).collect()
    }
}
