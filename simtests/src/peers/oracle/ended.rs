//! Each call has exactly one outcome, in time, unless its process ends first.

use std::{collections::BTreeMap, time::Duration};

use super::super::facts::{Fact, Serial};
use crate::{At, facts::NodeId};

/// Three attempts of 5 s each for a connection, for its request and for its answer, and the waits between them.
const OUTCOME_WITHIN: At = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Ended {
    open: BTreeMap<Serial, (NodeId, At)>,
}

impl Ended {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Wish { serial, .. } => {
                self.open.insert(*serial, (node, at));
                None
            }
            Fact::Ended => {
                self.open.retain(|_, (of, _)| *of != node);
                None
            }
            Fact::Outcome { serial, .. } => match self.open.remove(serial) {
                None => Some(format!("{serial:?} is over twice")),
                Some((_, since)) if at - since > OUTCOME_WITHIN => {
                    Some(format!("{serial:?} was over after {:?}", at - since))
                }
                Some(_) => None,
            },
            _ => None,
        }
    }

    pub(super) fn end(&self) -> Option<String> {
        let (serial, (node, since)) = self.open.first_key_value()?;
        Some(format!("{serial:?} of {node} of {since:?} has no outcome"))
    }
}
