//! Percentiles of durations, some of which never ended.

use crate::At;

/// Durations with the seeds that gave them.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    samples: Vec<Sample>,
}

/// One duration, none where what was waited for did not happen in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How long it took.
    pub took: Option<At>,
    /// The seed.
    pub seed: u64,
}

/// What many durations come to. A percentile is the smallest duration that so many of all samples do not exceed; what
/// never happened exceeds every duration, so that a percentile may be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// All samples.
    pub count: usize,
    /// Those that never happened.
    pub missing: usize,
    /// 50 %.
    pub p50: Option<At>,
    /// 99 %.
    pub p99: Option<At>,
    /// 99.9 %.
    pub p999: Option<At>,
    /// The longest that ended, or the first that did not.
    pub worst: Option<Sample>,
}

impl Durations {
    /// Takes one.
    pub fn push(&mut self, seed: u64, took: Option<At>) {
        self.samples.push(Sample { took, seed });
    }

    /// Those that ended, the shortest first.
    #[must_use]
    pub fn sorted(&self) -> Vec<At> {
        let mut ended: Vec<At> = self.samples.iter().filter_map(|s| s.took).collect();
        ended.sort_unstable();
        ended
    }

    /// Sums up.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let ended = self.sorted();
        let count = self.samples.len();
        // Nearest rank.
        let percentile = |per_mille: usize| {
            let rank = (count * per_mille).div_ceil(1_000);
            ended.get(rank.checked_sub(1)?).copied()
        };
        let never = self.samples.iter().find(|s| s.took.is_none());
        let longest = ended.last().copied();
        let worst = never.or_else(|| self.samples.iter().find(|s| s.took == longest));
        Summary {
            count,
            missing: count - ended.len(),
            p50: percentile(500),
            p99: percentile(990),
            p999: percentile(999),
            worst: worst.copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn durations(millis: impl IntoIterator<Item = u64>) -> Durations {
        let mut durations = Durations::default();
        for ms in millis {
            durations.push(ms + 7, Some(Duration::from_millis(ms)));
        }
        durations
    }

    const fn ms(ms: u64) -> Option<At> {
        Some(Duration::from_millis(ms))
    }

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let summary = durations((1..=1_000).rev()).summary();
        assert_eq!((summary.p50, summary.p99), (ms(500), ms(990)));
        assert_eq!(summary.p999, ms(999));
        let worst = Sample {
            took: ms(1_000),
            seed: 1_007,
        };
        assert_eq!(summary.worst, Some(worst));
        assert_eq!((summary.count, summary.missing), (1_000, 0));
    }

    #[test]
    fn one_sample_is_every_percentile() {
        let summary = durations([5]).summary();
        assert_eq!([summary.p50, summary.p99, summary.p999], [ms(5); 3]);
    }

    #[test]
    fn what_never_happened_is_longer_than_anything() {
        let mut durations = durations(1..=98);
        durations.push(3, None);
        durations.push(4, None);
        let summary = durations.summary();
        assert_eq!((summary.p50, summary.p99), (ms(50), None));
        assert_eq!((summary.count, summary.missing), (100, 2));
        assert_eq!(summary.worst.map(|s| s.seed), Some(3));
    }

    #[test]
    fn without_samples_there_is_nothing_to_say() {
        let summary = Durations::default().summary();
        assert_eq!((summary.p50, summary.worst), (None, None));
    }
}
