//! Deadlines lie ahead once everything due was done: a machine whose deadline stays in the past keeps its driver
//! spinning.

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
    /// The connection whose timer was just fired in vain, and how often.
    vain: Option<(NodeId, ConnId, At)>,
    count: u32,
}

impl Deadlines {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Waits {
                conn,
                until: Some(until),
                expired: true,
                ..
            } if *until <= at => {
                let vain = Some((node, *conn, at));
                self.count = if self.vain == vain { self.count + 1 } else { 0 };
                self.vain = vain;
                (self.count > CATCHING_UP_MAX)
                    .then(|| format!("{conn} waits for {until:?}, which has passed"))
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
