//! How long things take: small topologies with one event each, from a seed to measured durations.
//!
//! An experiment draws paths, drivers and moments from its seed and gives times. The judges watch as in every run.
//! Processes compute in no time: what is measured is the protocol's waiting on paths, timers and limits.

pub mod bars;
mod bed;
pub mod durations;
pub mod failover;
pub mod plot;
pub mod reconnect;
pub mod setup;
pub mod storm;
pub mod table;
mod track;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{
    At,
    oracle::Violation,
    run::panic_text,
    trace::{Line, Trace},
};

/// An experiment with small topologies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Experiment {
    /// An agent fails; another one carries on.
    Failover(failover::Kind),
    /// A failure is over; the agent comes back.
    Reconnect(reconnect::Kind),
    /// A session is opened while the preferred agent is sick.
    SetUp(setup::Kind),
}

/// What one seed of an experiment gave for one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The question.
    pub what: &'static str,
    /// Times; none where it did not happen while the experiment ran.
    pub times: Vec<Option<At>>,
}

/// What one seed gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// For each question; or what a judge found, or that the topology did not come up.
    pub taken: Result<Vec<Taken>, Violation>,
    /// Every fact as a line, where wanted.
    pub lines: Vec<Line>,
}

impl Experiment {
    /// Gives all of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let failover = failover::Kind::ALL.into_iter().map(Self::Failover);
        let reconnect = reconnect::Kind::ALL.into_iter().map(Self::Reconnect);
        let setup = setup::Kind::ALL.into_iter().map(Self::SetUp);
        failover.chain(reconnect).chain(setup)
    }

    /// What the experiment is about.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::Failover(_) => "failover",
            Self::Reconnect(_) => "reconnect",
            Self::SetUp(_) => "set-up",
        }
    }

    /// What happens in it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failover(kind) => kind.name(),
            Self::Reconnect(kind) => kind.name(),
            Self::SetUp(kind) => kind.name(),
        }
    }

    /// Runs it, with every fact as a line where wanted. A panic counts as a finding.
    #[must_use]
    pub fn measure(self, seed: u64, lines: bool) -> Measured {
        let trace = if lines {
            // Every experiment has one gateway.
            Trace::with_lines(1)
        } else {
            Trace::silent()
        };
        let measured = catch_unwind(AssertUnwindSafe(|| match self {
            Self::Failover(kind) => failover::measure(kind, seed, trace),
            Self::Reconnect(kind) => reconnect::measure(kind, seed, trace),
            Self::SetUp(kind) => setup::measure(kind, seed, trace),
        }));
        measured.unwrap_or_else(|payload| Measured {
            taken: Err(Violation {
                oracle: "panic",
                at: At::ZERO,
                text: panic_text(&*payload),
            }),
            lines: Vec::new(),
        })
    }
}
