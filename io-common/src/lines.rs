//! So many log lines of one cause, and one that says how many more there were.

mod teller;

use std::{
    borrow::Cow,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::threads;
use teller::Teller;

/// Bounds the log lines that a peer or a user can cause: of one kind at most 20 in 10 s. What is more is counted, and told
/// in one line when the 10 s are over, by a thread that all kinds share. Clones share the bound.
#[derive(Clone)]
pub struct Lines(Arc<Inner>);

struct Inner {
    what: Cow<'static, str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    began: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl Lines {
    /// Begins with no lines; `what` is the message of the lines that are bounded.
    #[must_use]
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            what: what.into(),
            state: Mutex::default(),
        }))
    }

    /// Tells whether nothing was asked for lately.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.0.lock().is_over(Instant::now())
    }

    /// Tells whether a line may be written, which counts as written then.
    #[must_use]
    pub fn allow(&self) -> bool {
        self.allow_at(Instant::now(), &TELLER)
    }

    fn allow_at(&self, now: Instant, teller: &'static Teller) -> bool {
        let mut state = self.0.lock();
        let former = state.expire(now);
        let began = *state.began.get_or_insert(now);
        let is_allowed = state.written < LINES_MAX;
        if is_allowed {
            state.written += 1;
        } else {
            state.suppressed += 1;
        }
        let is_to_tell = state.suppressed == 1;
        drop(state);
        self.0.tell(former);
        if is_to_tell {
            teller.add(began + INTERVAL, Arc::clone(&self.0));
        }
        is_allowed
    }
}

impl Inner {
    /// A panic elsewhere leaves the counts good enough: no more than a line is at stake.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what was suppressed where the 10 s are over.
    fn tell_due(&self, now: Instant) {
        let suppressed = self.lock().expire(now);
        self.tell(suppressed);
    }

    fn tell(&self, suppressed: u64) {
        if suppressed > 0 {
            tracing::warn!(
                line = &*self.what,
                suppressed,
                "more lines of one kind were suppressed"
            );
        }
    }
}

impl State {
    fn is_over(&self, now: Instant) -> bool {
        let is_over = |began| now.saturating_duration_since(began) >= INTERVAL;
        self.began.is_none_or(is_over)
    }

    /// Begins anew where the 10 s are over, and gives how many lines were suppressed in them.
    fn expire(&mut self, now: Instant) -> u64 {
        if self.is_over(now) {
            mem::take(self).suppressed
        } else {
            0
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lines({:?})", self.0.what)
    }
}

/// Lines of one kind within [`INTERVAL`].
const LINES_MAX: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(10);

/// The one of this process.
static TELLER: Teller = Teller::new(threads::start);

#[cfg(test)]
mod tests {
    use super::*;

    /// Leaves it to the tests to tell.
    static NOBODY: Teller = Teller::new(threads::start_none);

    #[test]
    fn a_flood_is_cut_and_counted_and_told_of_when_it_is_over() {
        let (lines, began) = (Lines::new("x"), Instant::now());
        let shared = lines.clone();
        let written = (0..1_000)
            .filter(|_| lines.allow_at(began, &NOBODY))
            .count();
        assert_eq!(written, 20);
        assert_eq!(lines.0.lock().suppressed, 980);
        assert!(!shared.allow_at(began, &NOBODY));
        let over = began + INTERVAL;
        lines.0.tell_due(over - Duration::from_millis(1));
        assert_eq!(lines.0.lock().suppressed, 981);
        // Nobody writes any more, and it is told all the same.
        lines.0.tell_due(over);
        assert_eq!(lines.0.lock().suppressed, 0);
        assert!(lines.allow_at(over, &NOBODY));
    }

    #[test]
    fn without_a_thread_the_next_line_tells() {
        let (lines, began) = (Lines::new("x"), Instant::now());
        for _ in 0..30 {
            lines.allow_at(began, &NOBODY);
        }
        assert_eq!(lines.0.lock().suppressed, 10);
        assert!(lines.allow_at(began + INTERVAL, &NOBODY));
        let state = lines.0.lock();
        assert_eq!((state.written, state.suppressed), (1, 0));
    }

    #[test]
    fn a_trickle_is_written_in_full() {
        let (lines, mut now) = (Lines::new("x"), Instant::now());
        for _ in 0..100 {
            assert!(lines.allow_at(now, &NOBODY));
            now += Duration::from_millis(501);
        }
    }

    #[test]
    fn it_is_quiet_until_asked() {
        let lines = Lines::new("x");
        assert!(lines.is_quiet());
        assert!(lines.allow());
        assert!(!lines.is_quiet());
        lines.0.lock().began = Some(Instant::now() - INTERVAL);
        assert!(lines.is_quiet());
    }
}
