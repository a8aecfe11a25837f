//! Who closes a connection says so: the other end hears it, whatever fills the path, and takes it for nothing else.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{close::Closed, id::ConnId, output::Event};

use super::harm::Harm;
use crate::{
    At,
    facts::{Fact, NodeId},
};

/// The judge.
///
/// Ends are paired where two nodes have one connection with each other, which is nearly always.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    established: BTreeSet<(NodeId, ConnId)>,
    /// Ends whose other end was closed, by whom and when.
    told: BTreeMap<(NodeId, ConnId), (NodeId, At)>,
}

impl Farewell {
    pub(super) fn observe(
        &mut self,
        at: At,
        node: NodeId,
        fact: &Fact<'_>,
        harm: &Harm,
    ) -> Option<String> {
        match fact {
            Fact::Event(conn, Event::Established { .. }) => {
                self.established.insert((node, *conn));
            }
            Fact::Event(conn, Event::Closed(why)) => {
                if !self.established.remove(&(node, *conn)) {
                    return None;
                }
                if let Some((by, closed_at)) = self.told.remove(&(node, *conn)) {
                    return judge(node, *conn, why, (by, closed_at), harm);
                }
                if let Closed::Local | Closed::Fault(_) = why {
                    self.closed(at, node, *conn, harm);
                }
            }
            Fact::Gone => {
                self.established.retain(|(of, _)| *of != node);
                self.told.retain(|(of, _), _| *of != node);
            }
            // Its answer to what it does not know may be there first.
            Fact::Started(_) => self.told.retain(|_, (by, _)| *by != node),
            _ => {}
        }
        None
    }

    /// One end was closed: which one is to hear it?
    fn closed(&mut self, at: At, node: NodeId, conn: ConnId, harm: &Harm) {
        let Some(peer) = harm.peer(node, conn) else {
            return;
        };
        let between = |a: NodeId, b: NodeId| {
            let of_a = self.established.iter().filter(move |(of, _)| *of == a);
            of_a.filter(move |(_, conn)| harm.peer(a, *conn).is_some_and(|peer| peer.node == b))
        };
        if between(node, peer.node).next().is_some() {
            return;
        }
        let mut others = between(peer.node, node);
        if let (Some(only), None) = (others.next().copied(), others.next()) {
            self.told.insert(only, (node, at));
        }
    }
}

fn judge(
    node: NodeId,
    conn: ConnId,
    why: &Closed,
    (by, at): (NodeId, At),
    harm: &Harm,
) -> Option<String> {
    let missed = matches!(
        why,
        Closed::PathDead | Closed::TimedOut | Closed::PeerRestarted
    );
    (missed && harm.was_delivering(by, node, at))
        .then(|| format!("{by} closed its end of {conn} at {at:?}, which {node} takes for: {why}"))
}
