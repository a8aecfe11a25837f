//! Where every fact goes: to the trace, and to the oracles.

use std::{fmt, sync::Arc};

use adit_proto_core::journal::Sink;

use crate::{
    At,
    facts::{Fact, NodeId},
    observer::Observer,
    oracle::{Oracles, Violation},
    trace::Trace,
};

/// The trace of a run and its judges.
pub struct Log {
    /// Hashes, and lines where they are wanted.
    pub trace: Trace,
    oracles: Oracles,
    /// Keeps what an experiment measures; none in other runs.
    pub observer: Option<Observer>,
    /// Where the core takes down what happens; nowhere in most runs.
    pub journal: Option<Arc<dyn Sink>>,
    violation: Option<Violation>,
    /// Time of the last fact, and facts since it moved.
    at: At,
    facts_here: u32,
}

/// Facts at one point in virtual time after which a node is taken to spin. Ten thousand agents that start at once have
/// a tenth of it.
const FACTS_HERE_MAX: u32 = 5_000_000;

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Makes one.
    #[must_use]
    pub fn new(trace: Trace, oracles: Oracles) -> Self {
        Self {
            trace,
            oracles,
            observer: None,
            journal: None,
            violation: None,
            at: At::ZERO,
            facts_here: 0,
        }
    }

    /// Takes a fact. The first violation is kept.
    ///
    /// # Panics
    /// Where a node says one thing after the other and time does not move: nothing else would end its loop.
    pub fn note(&mut self, at: At, node: NodeId, fact: &Fact<'_>) {
        if at > self.at {
            (self.at, self.facts_here) = (at, 0);
        }
        self.facts_here += 1;
        assert!(
            self.facts_here < FACTS_HERE_MAX,
            "{node} does not come to rest"
        );
        self.trace.note(at, node, fact);
        if let Some(observer) = &mut self.observer {
            observer.note(at, node, fact);
        }
        if self.violation.is_none() {
            self.violation = self.oracles.observe(at, node, fact);
        }
    }

    /// Takes a finding of the world's own.
    pub fn accuse(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// The first violation.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// What the oracles know.
    #[must_use]
    pub fn oracles(&self) -> &Oracles {
        &self.oracles
    }
}
