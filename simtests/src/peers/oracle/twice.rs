//! What may not be executed twice is executed once, in the whole cluster and whoever restarts, where the adversary has
//! not seen it above TLS.

use std::collections::BTreeMap;

use super::super::facts::{Fact, Serial};

#[derive(Debug, Default)]
pub(super) struct Twice {
    /// Calls that are to be executed once, and how often they were.
    times: BTreeMap<Serial, u32>,
}

impl Twice {
    pub(super) fn observe(&mut self, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Wish {
                serial,
                is_exposed: false,
                kind,
                ..
            } if !kind.is_idempotent() => {
                self.times.insert(*serial, 0);
                None
            }
            Fact::Executed(executed) if executed.is_done => {
                let serial = Serial::of(executed.body)?;
                let times = self.times.get_mut(&serial)?;
                *times += 1;
                (*times > 1).then(|| format!("{serial:?} was executed {times} times"))
            }
            _ => None,
        }
    }
}
