//! A connection that was replaced goes on to carry what it has, and is closed only once it has carried nothing for a while;
//! a key pair takes another one's place only once it has proved itself; and a renewal that failed is tried again.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    agent::supervisor::{DialId, SupervisorStep},
    close::Closed,
    id::ConnId,
    output::Event,
};

use super::bounds::{CREDENTIALS_PROOF_AFTER, DRAIN_LINGER, RENEWAL_RETRY_MAX};
use crate::{
    At,
    facts::{Fact, NodeId},
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    dials: BTreeMap<(NodeId, DialId), ConnId>,
    carried: BTreeMap<(NodeId, ConnId), Carried>,
    stopping: BTreeSet<NodeId>,
    /// Since when the connection in use is.
    up: BTreeMap<NodeId, At>,
}

/// What an agent's connection carries.
#[derive(Debug, Default)]
struct Carried {
    sessions: usize,
    /// When it last carried something.
    busy_at: At,
    /// Since when it is to drain.
    draining: Option<At>,
}

impl Renewal {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Begun {
                conn,
                dial: Some(dial),
                ..
            } => {
                self.dials.insert((node, *dial), *conn);
                self.carried.insert((node, *conn), Carried::default());
            }
            Fact::Supervisor(SupervisorStep::Drain { dial }) => {
                let conn = self.dials.get(&(node, *dial)).copied()?;
                let carried = self.carried.get_mut(&(node, conn))?;
                carried.draining.get_or_insert(at);
            }
            Fact::Supervisor(SupervisorStep::Up { .. }) => drop(self.up.insert(node, at)),
            Fact::Supervisor(step @ (SupervisorStep::Adopt | SupervisorStep::Revert)) => {
                let since = self.up.get(&node)?;
                if at < *since + CREDENTIALS_PROOF_AFTER {
                    return Some(format!("{step:?} after {:?} of a connection", at - *since));
                }
            }
            Fact::Waits { conn, sessions, .. } => {
                let carried = self.carried.get_mut(&(node, *conn))?;
                // One that has just ended was carried up to here.
                if carried.sessions + sessions > 0 {
                    carried.busy_at = at;
                }
                carried.sessions = *sessions;
            }
            Fact::Event(conn, Event::SessionRequested { .. }) => {
                self.carried.get_mut(&(node, *conn))?.busy_at = at;
            }
            Fact::Event(conn, Event::Closed(why)) => {
                let carried = self.carried.remove(&(node, *conn))?;
                if *why == Closed::Local && !self.stopping.contains(&node) {
                    return carried.closed(at, *conn);
                }
            }
            Fact::MachineWaits {
                machine: "renewal",
                until: Some(until),
                ..
            } if *until > at + RENEWAL_RETRY_MAX => {
                return Some(format!("the next renewal is not before {until:?}"));
            }
            Fact::Stopping => drop(self.stopping.insert(node)),
            Fact::Gone => {
                self.stopping.remove(&node);
                self.dials.retain(|(of, _), _| *of != node);
                self.carried.retain(|(of, _), _| *of != node);
            }
            _ => {}
        }
        None
    }
}

/// Longer than a poll that was broken off waits.
const LAZY: At = At::from_millis(1);

impl Carried {
    fn closed(&self, at: At, conn: ConnId) -> Option<String> {
        let since = self.draining?.max(self.busy_at);
        if self.sessions > 0 {
            return Some(format!(
                "{conn} was to drain, and is closed with {} sessions",
                self.sessions
            ));
        }
        // A driver that breaks polls off tells of a session's end that much later.
        (at + LAZY < since + DRAIN_LINGER).then(|| {
            format!(
                "{conn} is closed {:?} after it carried something",
                at - since
            )
        })
    }
}
