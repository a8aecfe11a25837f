//! What an experiment's times are held to.

use std::{fmt::Write as _, time::Duration};

use super::{Experiment, failover, table::Row};
use crate::At;

/// What the times of one row may not exceed. What never happened exceeds everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// The 99.9th percentile.
    P999(At),
    /// Each of them.
    Every(At),
}

impl Bar {
    /// The bar of an experiment; none where none is promised.
    #[must_use]
    pub const fn of(experiment: Experiment) -> Option<Self> {
        match experiment {
            // The process ends.
            Experiment::Failover(failover::Kind::Stop | failover::Kind::Crash) => {
                Some(Self::P999(Duration::from_secs(1)))
            }
            // Nothing tells but silence.
            Experiment::Failover(
                failover::Kind::BlackHole
                | failover::Kind::LostToAgent
                | failover::Kind::LostFromAgent
                | failover::Kind::Partition
                | failover::Kind::Rebind,
            ) => Some(Self::P999(Duration::from_secs(3))),
            Experiment::Reconnect(_) => Some(Self::Every(Duration::from_secs(5))),
            Experiment::SetUp(_) => None,
        }
    }
}

/// The bar of a storm: every agent is back.
pub const STORM: Bar = Bar::Every(Duration::from_secs(60));

/// Holds each row to its bar, and tells of those that miss theirs.
///
/// # Errors
/// A line for each row that misses its bar; or that no row has one, so that nothing was held to anything.
pub fn check(rows: &[Row]) -> Result<usize, String> {
    let mut missed = String::new();
    let mut held = 0;
    for row in rows {
        let Some(bar) = row.bar else { continue };
        held += 1;
        let summary = row.durations.summary();
        let (what, most, took) = match bar {
            Bar::P999(most) => ("p99.9", most, summary.p999),
            Bar::Every(most) => {
                let worst = summary.worst.and_then(|worst| worst.took);
                ("the worst", most, worst)
            }
        };
        if took.is_some_and(|took| took <= most) {
            continue;
        }
        let took = took.map_or_else(|| "never".into(), |took| format!("{took:?}"));
        let seed = summary.worst.map_or(0, |worst| worst.seed);
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            missed,
            "MISSED {}, {}, {}: {what} is {took} and may be {most:?}; the worst seed is {seed}",
            row.group, row.kind, row.what
        );
    }
    match (missed.is_empty(), held) {
        (true, 0) => Err("nothing was measured that has a bar".into()),
        (true, held) => Ok(held),
        (false, _) => Err(missed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::durations::Durations;

    fn row(bar: Option<Bar>, times: impl IntoIterator<Item = Option<u64>>) -> Row {
        let mut durations = Durations::default();
        for (seed, ms) in times.into_iter().enumerate() {
            durations.push(seed as u64, ms.map(Duration::from_millis));
        }
        Row {
            group: "failover",
            kind: "crash".into(),
            what: "time",
            bar,
            durations,
        }
    }

    #[test]
    fn a_row_is_held_to_its_own_bar() {
        let second = Duration::from_secs(1);
        let mostly = || (0..2_000).map(|n| Some(if n == 7 { 1_001 } else { 1_000 }));
        assert_eq!(check(&[row(Some(Bar::P999(second)), mostly())]), Ok(1));
        let text = check(&[row(Some(Bar::Every(second)), mostly())]).unwrap_err();
        assert!(text.contains("the worst is 1.001s and may be 1s; the worst seed is 7"));
        let text = check(&[row(Some(Bar::P999(second)), [Some(1_001)])]).unwrap_err();
        assert!(text.contains("p99.9 is 1.001s"), "{text}");
    }

    #[test]
    fn what_never_happened_misses_every_bar() {
        for bar in [Bar::P999(Duration::MAX), Bar::Every(Duration::MAX)] {
            let text = check(&[row(Some(bar), [Some(1), None])]).unwrap_err();
            assert!(text.contains("is never"), "{text}");
        }
    }

    #[test]
    fn nothing_measured_is_no_success() {
        assert!(check(&[]).is_err());
        assert!(check(&[row(None, [Some(1)])]).is_err());
        assert!(check(&[row(Some(STORM), [])]).is_err());
    }
}
