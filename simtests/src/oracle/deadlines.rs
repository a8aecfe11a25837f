//! Deadlines lie ahead once everything due was done: a machine whose deadline stays in the past keeps its driver
//! spinning.

use std::collections::BTreeMap;

use adit_proto_core::id::ConnId;

use crate::{
    At,
    facts::{Fact, NodeId},
};

/// After a long sleep the QUIC engine catches up with its timers one by one, each of which may be in the past.
const CATCHING_UP_MAX: u32 = 50;

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// How often a connection's timer was fired in vain, one time after the other.
    vain: BTreeMap<(NodeId, ConnId), u32>,
}

impl Deadlines {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Waits {
                conn,
                until,
                expired: true,
                ..
            } => {
                let Some(until) = until.filter(|until| *until <= at) else {
                    self.vain.remove(&(node, *conn));
                    return None;
                };
                let count = self.vain.entry((node, *conn)).or_default();
                *count += 1;
                (*count > CATCHING_UP_MAX)
                    .then(|| format!("{conn} waits for {until:?}, which has passed"))
            }
            Fact::Drained(conn) => {
                self.vain.remove(&(node, *conn));
                None
            }
            Fact::Gone => {
                self.vain.retain(|(of, _), _| *of != node);
                None
            }
            Fact::MachineWaits {
                machine,
                until: Some(until),
                slack,
            } if *until + *slack < at => Some(format!(
                "the {machine} waits for {until:?}, which has passed"
            )),
            _ => None,
        }
    }
}
