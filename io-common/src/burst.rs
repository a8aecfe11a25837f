//! One log line per burst.

use std::time::{Duration, Instant};

/// Counts events and says when a line is due: for the first one, and then once per interval with what came meanwhile.
#[derive(Debug, Default)]
pub struct Burst {
    logged: Option<Instant>,
    count: u64,
}

/// Between two lines of one cause.
const INTERVAL: Duration = Duration::from_secs(10);

impl Burst {
    /// Notes one event; gives how many there were since the last line when one is due.
    pub fn note(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self
            .logged
            .is_some_and(|logged| now.saturating_duration_since(logged) < INTERVAL)
        {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_has_one_line() {
        let start = Instant::now();
        let mut burst = Burst::default();
        assert_eq!(burst.note(start), Some(1));
        assert_eq!(burst.note(start + INTERVAL / 2), None);
        assert_eq!(burst.note(start + INTERVAL), Some(2));
    }
}
