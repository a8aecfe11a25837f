//! How long a session may be idle, and how long it may live (design 8.21).

use std::time::{Duration, Instant};

/// Bounds on the time of a session; none is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionBounds {
    /// Longest time in which no byte moves in either direction.
    pub idle: Option<Duration>,
    /// Longest time from the first to the last byte, however busy it is.
    pub lifetime: Option<Duration>,
}

/// Which bound a session has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOver {
    /// No byte moved for [`SessionBounds::idle`].
    Idle,
    /// It has lived for [`SessionBounds::lifetime`].
    Lifetime,
}

/// Watches the time of one session. It only tells; whoever carries the session ends it.
#[derive(Clone, Copy, Debug)]
pub struct SessionTimer {
    bounds: SessionBounds,
    began: Instant,
    moved: Instant,
}

impl SessionTimer {
    /// Begins with a session that is open.
    #[must_use]
    pub fn new(now: Instant, bounds: SessionBounds) -> Self {
        Self {
            bounds,
            began: now,
            moved: now,
        }
    }

    /// Bytes have moved, in whichever direction.
    pub fn handle_bytes(&mut self, now: Instant) {
        self.moved = self.moved.max(now);
    }

    /// When the session's time is over, if nothing moves until then; none where it has no bounds. A bound that no clock
    /// reaches is none.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ends = [self.idle_at(), self.lifetime_at()];
        ends.into_iter().flatten().min()
    }

    /// Tells which bound has been reached. Of both, the lifetime: bytes could not have put it off.
    #[must_use]
    pub fn poll_over(&self, now: Instant) -> Option<TimeOver> {
        let reached = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if reached(self.lifetime_at()) {
            return Some(TimeOver::Lifetime);
        }
        reached(self.idle_at()).then_some(TimeOver::Idle)
    }

    fn idle_at(&self) -> Option<Instant> {
        self.moved.checked_add(self.bounds.idle?)
    }

    fn lifetime_at(&self) -> Option<Instant> {
        self.began.checked_add(self.bounds.lifetime?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn timer(idle: Option<u32>, lifetime: Option<u32>) -> (Instant, SessionTimer) {
        let start = start();
        let bounds = SessionBounds {
            idle: idle.map(|s| S * s),
            lifetime: lifetime.map(|s| S * s),
        };
        (start, SessionTimer::new(start, bounds))
    }

    #[test]
    fn without_bounds_no_time_is_over() {
        let (start, timer) = timer(None, None);
        assert_eq!(timer.poll_timeout(), None);
        assert_eq!(timer.poll_over(start + S * 1_000_000), None);
    }

    #[test]
    fn bytes_put_the_idle_bound_off_and_nothing_puts_the_lifetime_off() {
        let (start, mut timer) = timer(Some(10), Some(25));
        assert_eq!(timer.poll_timeout(), Some(start + S * 10));
        assert_eq!(
            timer.poll_over(start + S * 10 - Duration::from_nanos(1)),
            None
        );
        assert_eq!(timer.poll_over(start + S * 10), Some(TimeOver::Idle));
        timer.handle_bytes(start + S * 9);
        assert_eq!(timer.poll_over(start + S * 10), None);
        assert_eq!(timer.poll_timeout(), Some(start + S * 19));
        timer.handle_bytes(start + S * 18);
        assert_eq!(timer.poll_timeout(), Some(start + S * 25));
        assert_eq!(timer.poll_over(start + S * 24), None);
        assert_eq!(timer.poll_over(start + S * 25), Some(TimeOver::Lifetime));
        assert_eq!(timer.poll_over(start + S * 90), Some(TimeOver::Lifetime));
    }

    #[test]
    fn late_news_of_bytes_changes_nothing() {
        let (start, mut timer) = timer(Some(10), None);
        timer.handle_bytes(start + S * 5);
        timer.handle_bytes(start + S * 3);
        assert_eq!(timer.poll_timeout(), Some(start + S * 15));
    }

    #[test]
    fn a_bound_beyond_the_clock_is_none() {
        let start = start();
        let bounds = SessionBounds {
            idle: Some(Duration::MAX),
            lifetime: Some(Duration::MAX),
        };
        let timer = SessionTimer::new(start, bounds);
        assert_eq!((timer.poll_timeout(), timer.poll_over(start)), (None, None));
    }
}
