//! Events of one connection come in an order that makes sense, and none after the last one.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    id::{AttemptId, ConnId, Slot},
    output::Event,
};

use crate::facts::{Fact, NodeId};

/// What one connection has said.
#[derive(Debug, Default)]
struct Said {
    established: bool,
    closed: bool,
    ended: BTreeSet<Slot>,
    requested: BTreeSet<Slot>,
    answered: BTreeSet<AttemptId>,
    opened: BTreeSet<Slot>,
}

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Events {
    said: BTreeMap<(NodeId, ConnId), Said>,
}

impl Events {
    pub(super) fn observe(&mut self, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Event(conn, event) => {
                let said = self.said.entry((node, *conn)).or_default();
                said.take(event)
                    .map(|wrong| format!("{conn}: {event:?} {wrong}"))
            }
            Fact::Drained(conn) => {
                let said = self.said.get_mut(&(node, *conn));
                let closed = said.is_some_and(|said| {
                    // What it had to say is kept as long as its name: it must not speak again.
                    let closed = said.closed;
                    *said = Said::closed();
                    closed
                });
                (!closed).then(|| format!("{conn} is drained and never said that it is closed"))
            }
            Fact::Gone => {
                self.said.retain(|(of, _), _| *of != node);
                None
            }
            _ => None,
        }
    }
}

impl Said {
    fn closed() -> Self {
        Self {
            closed: true,
            ..Self::default()
        }
    }

    /// Tells what is wrong with an event.
    fn take(&mut self, event: &Event) -> Option<&'static str> {
        if self.closed {
            return Some("after the last event");
        }
        let fresh = match event {
            Event::Established { .. } => !std::mem::replace(&mut self.established, true),
            Event::Closed(_) => {
                self.closed = true;
                true
            }
            Event::SessionRequested { slot, .. } => self.requested.insert(*slot),
            Event::SessionOpened { attempt, slot } => {
                self.answered.insert(*attempt) && self.opened.insert(*slot)
            }
            Event::SessionRefused { attempt, .. } => self.answered.insert(*attempt),
            Event::SessionReadable(slot) | Event::SessionWritable(slot) => self.is_live(*slot),
            Event::SessionRest { slot, .. } => self.is_live(*slot),
            Event::SessionEnded { slot, .. } => self.is_live(*slot) && self.ended.insert(*slot),
            Event::RoutesAccepted { .. }
            | Event::Seen
            | Event::PathSuspect
            | Event::PathRecovered
            | Event::RenewalRequested { .. }
            | Event::RenewalAnswered(_) => true,
            Event::Peer(_) => false,
        };
        let early = !self.established && !matches!(event, Event::Closed(_));
        match (early, fresh) {
            (true, _) => Some("before the connection is established"),
            (false, true) => None,
            (false, false) => Some("twice, or for a session that is not there"),
        }
    }

    fn is_live(&self, slot: Slot) -> bool {
        let known = self.requested.contains(&slot) || self.opened.contains(&slot);
        known && !self.ended.contains(&slot)
    }
}
