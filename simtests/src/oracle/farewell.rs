//! Who closes a connection says so: the other end hears it, whatever fills the path, and takes it for nothing else.

use std::collections::BTreeMap;

use adit_proto_core::{close::Closed, id::ConnId, output::Event};

use super::harm::Harm;
use crate::{
    At,
    facts::{Fact, NodeId},
};

/// The judge.
///
/// Ends are paired where two nodes have one connection with each other, established at both at about one time.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    /// Since when.
    established: BTreeMap<(NodeId, ConnId), At>,
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
                self.established.insert((node, *conn), at);
            }
            Fact::Event(conn, Event::Closed(why)) => {
                let since = self.established.remove(&(node, *conn))?;
                if let Some((by, closed_at)) = self.told.remove(&(node, *conn)) {
                    return judge(node, *conn, why, (by, closed_at), harm);
                }
                if let Closed::Local | Closed::Fault(_) = why {
                    self.closed(at, (node, *conn, since), harm);
                }
            }
            Fact::Gone => {
                self.established.retain(|(of, _), _| *of != node);
                self.told.retain(|(of, _), _| *of != node);
            }
            // Its answer to what it does not know may be there first.
            Fact::Started(_) => self.told.retain(|_, (by, _)| *by != node),
            _ => {}
        }
        None
    }

    /// One end was closed: which one is to hear it?
    fn closed(&mut self, at: At, (node, conn, since): (NodeId, ConnId, At), harm: &Harm) {
        let Some(peer) = harm.peer(node, conn) else {
            return;
        };
        let between = |a: NodeId, b: NodeId| {
            let of_a = self
                .established
                .range((a, ConnId(0))..=(a, ConnId(u64::MAX)));
            of_a.filter(move |((_, conn), _)| {
                harm.peer(a, *conn).is_some_and(|peer| peer.node == b)
            })
        };
        if between(node, peer.node).next().is_some() {
            return;
        }
        let mut others = between(peer.node, node);
        if let (Some((only, from)), None) = (others.next(), others.next())
            && from.abs_diff(since) < TOGETHER
        {
            self.told.insert(*only, (node, at));
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

/// A handshake ends at one side so much later than at the other, at most; what is further apart is not judged.
const TOGETHER: At = At::from_millis(1_500);
