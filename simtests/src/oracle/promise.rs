//! A session that the plan promises completes in time, whatever others do on the same connection.

use std::collections::BTreeMap;

use adit_proto_core::id::SessionId;

use crate::{
    At,
    facts::{Fact, LegFact},
    tcp::Side,
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Promise {
    due: BTreeMap<SessionId, (At, At)>,
}

impl Promise {
    pub(super) fn observe(&mut self, at: At, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Wish {
                session,
                promise: Some(within),
                ..
            } => {
                self.due.insert(*session, (at, *within));
                None
            }
            Fact::Leg {
                side: Side::User,
                session,
                what: LegFact::Done,
                ..
            } => {
                self.due.remove(session);
                None
            }
            Fact::MachineWaits { .. } => {
                let late = |(_, (since, within)): &(_, &(At, At))| at > *since + *within;
                let (session, (since, _)) = self.due.iter().find(late)?;
                Some(format!(
                    "{session} is not completed {:?} after the wish",
                    at - *since
                ))
            }
            _ => None,
        }
    }
}
