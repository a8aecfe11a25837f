//! An agent's application that never answers a request does not keep it for ever.

use std::collections::BTreeMap;

use adit_proto_core::{
    id::{ConnId, Slot},
    output::Event,
};

use super::bounds::{ANSWER_GRACE, DIAL_TIMEOUT};
use crate::{
    At,
    facts::{Fact, NodeId},
};

/// What the timers of a driver may add.
const SLACK: At = At::from_millis(20);

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    asked: BTreeMap<(NodeId, ConnId, Slot), At>,
}

impl Unanswered {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Event(conn, Event::SessionRequested { slot, .. }) => {
                self.asked.insert((node, *conn, *slot), at);
                None
            }
            Fact::Event(conn, Event::SessionEnded { slot, .. }) | Fact::Decided(conn, slot) => {
                self.asked.remove(&(node, *conn, *slot));
                None
            }
            Fact::Event(conn, Event::Closed(_)) => {
                self.asked
                    .retain(|(of, on, _), _| *of != node || on != conn);
                None
            }
            Fact::Waits { conn, .. } => {
                let range = (node, *conn, Slot(0))..=(node, *conn, Slot(u64::MAX));
                let late = |since: &At| at > *since + DIAL_TIMEOUT + ANSWER_GRACE + SLACK;
                let ((_, _, slot), _) = self.asked.range(range).find(|(_, since)| late(since))?;
                Some(format!("{slot} on {conn} waits for an answer for too long"))
            }
            Fact::Gone => {
                self.asked.retain(|(of, ..), _| *of != node);
                None
            }
            _ => None,
        }
    }
}
