//! Which processes run, so that nobody is blamed for what it could not do.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    At,
    facts::{Fact, NodeId},
    faults::Fault,
};

/// Time that a driver may take for anything: late timers, the bus between its tasks, polls that are broken off.
pub(super) const SLACK: At = At::from_millis(100);

/// The processes of a run.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Those that are there and were not told to stop, and since when they have been without a pause.
    steady: BTreeMap<NodeId, At>,
    frozen: BTreeSet<NodeId>,
}

impl Pulse {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) {
        if let Fact::Started(_) = fact {
            self.frozen.remove(&node);
            self.steady.insert(node, at);
        } else if let Fact::Gone | Fact::Stopping = fact {
            self.frozen.remove(&node);
            self.steady.remove(&node);
        } else if let Fact::Fault(fault) = fact {
            if let Fault::Freeze(node) = fault {
                self.frozen.insert(*node);
            } else if let Fault::Thaw(node) = fault {
                self.thaw(at, *node);
            } else if let Fault::Crash(node) | Fault::Restore(node) | Fault::Stop(node) = fault {
                self.steady.remove(node);
            }
        } else if let Fact::Calm = fact {
            for node in std::mem::take(&mut self.frozen) {
                self.thaw(at, node);
            }
        }
    }

    /// Since when a process has run without a pause; none where it does not run, stands still or stops.
    pub(super) fn steady_since(&self, node: NodeId) -> Option<At> {
        if self.frozen.contains(&node) {
            return None;
        }
        self.steady.get(&node).copied()
    }

    fn thaw(&mut self, at: At, node: NodeId) {
        self.frozen.remove(&node);
        if let Some(since) = self.steady.get_mut(&node) {
            *since = at;
        }
    }
}
