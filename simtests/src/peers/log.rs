//! Where every fact goes: to the trace, and to the oracles.

use super::{facts::Fact, oracle::Oracles};
use crate::{At, facts::NodeId, oracle::Violation, trace::Trace};

/// The trace of a run and its judges.
#[derive(Debug)]
pub(super) struct Log {
    /// Hashes, and lines where they are wanted.
    pub(super) trace: Trace,
    oracles: Oracles,
    /// The first property that did not hold.
    pub(super) violation: Option<Violation>,
    /// The longest time until a pair that nothing disturbs spoke.
    pub(super) talked_after: At,
}

impl Log {
    /// Makes one.
    #[must_use]
    pub(super) fn new(trace: Trace) -> Self {
        Self {
            trace,
            oracles: Oracles::default(),
            violation: None,
            talked_after: At::ZERO,
        }
    }

    /// Takes a fact. The first violation is kept.
    pub(super) fn note(&mut self, at: At, node: NodeId, fact: &Fact<'_>) {
        let (name, text) = (format!("n{}", node.0 + 1), fact.to_string());
        let words = (fact.topic(), text.as_str());
        self.trace.put(at, node, &name, words, fact.payload());
        if let Fact::Talked { after, .. } = fact {
            self.talked_after = self.talked_after.max(*after);
        }
        if self.violation.is_none() {
            self.violation = self.oracles.observe(at, node, fact);
        }
    }

    /// Judges what was to have happened by the end.
    pub(super) fn end(&mut self, at: At) {
        if self.violation.is_none() {
            self.violation = self.oracles.end(at);
        }
    }

    /// Takes a finding of the world's own.
    pub(super) fn accuse(&mut self, oracle: &'static str, at: At, text: String) {
        self.violation.get_or_insert(Violation { oracle, at, text });
    }
}
