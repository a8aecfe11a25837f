//! No envelope is accepted twice by a process: of what was sent in so many envelopes no more is executed.

use std::collections::BTreeMap;

use super::super::facts::{Fact, Serial};
use crate::facts::NodeId;

#[derive(Debug, Default)]
pub(super) struct Once {
    envelopes: BTreeMap<Serial, u32>,
    /// By the process that runs at a node.
    executed: BTreeMap<(NodeId, Serial), u32>,
}

impl Once {
    pub(super) fn observe(&mut self, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Attempt { serial, .. } | Fact::Made { serial, .. } => {
                *self.envelopes.entry(*serial).or_default() += 1;
                None
            }
            Fact::Ended => {
                self.executed.retain(|(of, _), _| *of != node);
                None
            }
            Fact::Executed(executed) => {
                let serial = Serial::of(executed.body)?;
                let sent = self.envelopes.get(&serial).copied().unwrap_or(0);
                let times = self.executed.entry((node, serial)).or_default();
                *times += 1;
                (*times > sent).then(|| {
                    format!("{serial:?} was executed {times} times, and sent in {sent} envelopes")
                })
            }
            _ => None,
        }
    }
}
