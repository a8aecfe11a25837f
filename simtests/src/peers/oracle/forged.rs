//! What was made with a key that no node has, or was changed, or is no request, is never executed.

use std::collections::BTreeMap;

use super::super::facts::{Fact, Made, Serial};

#[derive(Debug, Default)]
pub(super) struct Forged {
    made: BTreeMap<Serial, Made>,
}

impl Forged {
    pub(super) fn observe(&mut self, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Made { serial, made } if *made != Made::Good => {
                self.made.insert(*serial, *made);
                None
            }
            Fact::Executed(executed) => {
                let serial = Serial::of(executed.body)?;
                let made = self.made.get(&serial)?;
                Some(format!("{serial:?} was executed, and is {made:?}"))
            }
            _ => None,
        }
    }
}
