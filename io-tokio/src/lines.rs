//! So many log lines of one cause, and one that says how many more there were.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

/// Bounds the log lines that a peer or a user can cause: of one kind at most 20 in 10 s. What is more is counted, and told
/// in one line when the 10 s are over. Clones share the bound.
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
    pub(crate) fn is_quiet(&self) -> bool {
        let began = self.0.lock().began;
        began.is_none_or(|began| Instant::now().saturating_duration_since(began) >= INTERVAL)
    }

    /// Tells whether a line may be written now, which counts as written then.
    pub fn allow(&self) -> bool {
        let now = Instant::now();
        let mut state = self.0.lock();
        let began = match state.began {
            Some(began) if now.saturating_duration_since(began) < INTERVAL => began,
            Some(_) | None => {
                self.0.tell(std::mem::take(&mut *state).suppressed);
                state.began = Some(now);
                now
            }
        };
        if state.written < LINES_MAX {
            state.written += 1;
            return true;
        }
        state.suppressed += 1;
        // Without a runtime the next line tells of it.
        if state.suppressed == 1
            && let Ok(runtime) = Handle::try_current()
        {
            let inner = Arc::clone(&self.0);
            runtime.spawn(async move {
                tokio::time::sleep_until(began + INTERVAL).await;
                let mut state = inner.lock();
                if state.began == Some(began) {
                    inner.tell(std::mem::take(&mut state.suppressed));
                }
            });
        }
        false
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lines({:?})", self.0.what)
    }
}

/// Lines of one kind within [`INTERVAL`].
const LINES_MAX: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_cut_and_counted_and_told_of_when_it_is_over() {
        let lines = Lines::new("x");
        let shared = lines.clone();
        let written = (0..1_000).filter(|_| lines.allow()).count();
        assert_eq!(written, 20);
        assert_eq!(lines.0.lock().suppressed, 980);
        assert!(!shared.allow());
        pass(INTERVAL - Duration::from_millis(1)).await;
        assert_eq!(lines.0.lock().suppressed, 981);
        // Nobody writes any more, and it is told all the same.
        pass(Duration::from_millis(2)).await;
        assert_eq!(lines.0.lock().suppressed, 0);
        assert!(lines.allow());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_written_in_full() {
        let lines = Lines::new("x");
        for _ in 0..100 {
            assert!(lines.allow());
            pass(Duration::from_millis(501)).await;
        }
    }

    /// Lets virtual time pass, and whoever waited for it run.
    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn it_needs_no_runtime() {
        let lines = Lines::new("x");
        assert_eq!((0..30).filter(|_| lines.allow()).count(), 20);
    }
}
