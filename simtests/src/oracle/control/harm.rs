//! What was done to nodes and to the paths between them, so that only those are judged that were left alone.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    At,
    facts::{Fact, NodeId},
    faults::Fault,
    net::Fate,
};

/// The harm of a run.
#[derive(Debug, Default)]
pub(super) struct Harm {
    /// When a fault was last at work at a node.
    nodes: BTreeMap<NodeId, At>,
    /// The latest losses from one node to another.
    losses: BTreeMap<(NodeId, NodeId), [At; LOSSES]>,
    /// Who sends from an address, as the other end sees it, and since when it does.
    addrs: BTreeMap<SocketAddr, NodeId>,
    /// The address that a node sees another at, and since when.
    seen: BTreeMap<(NodeId, NodeId), (SocketAddr, At)>,
}

impl Harm {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) {
        if let Fact::Received { src, from, .. } = fact {
            let seen = self.seen.entry((node, *from)).or_insert((*src, at));
            if seen.0 != *src {
                *seen = (*src, at);
            }
            self.addrs.insert(*src, *from);
        } else if let Fact::Sent {
            dst,
            fate: Fate::Lost(_),
            ..
        } = fact
        {
            if let Some(to) = self.addrs.get(dst) {
                let losses = self.losses.entry((node, *to)).or_default();
                losses.rotate_left(1);
                losses[LOSSES - 1] = at;
            }
        } else if let Fact::Fault(fault) = fact {
            self.fault(at, fault);
        }
    }

    fn fault(&mut self, at: At, fault: &Fault) {
        if let Fault::WallClock(..) | Fault::SetRoutes(..) | Fault::Open(_) = fault {
            return;
        }
        if let Fault::Cut(a, b) | Fault::Mend(a, b) | Fault::SetPath(a, b, _) = fault {
            self.nodes.insert(*a, at);
            self.nodes.insert(*b, at);
        } else if let Fault::BlockSocket(node, time) = fault {
            self.nodes.insert(*node, at + *time);
        } else {
            self.nodes.insert(fault.node(), at);
        }
    }

    /// Tells whether two nodes and the paths between them have been left alone since then, but for few losses.
    pub(super) fn spared(&self, a: NodeId, b: NodeId, since: At) -> bool {
        let calm = |node| self.nodes.get(&node).is_none_or(|at| *at <= since);
        let lossless = |from, to| {
            let losses = self.losses.get(&(from, to));
            losses.is_none_or(|losses| losses[0] <= since)
        };
        let settled = |node, peer| {
            let seen = self.seen.get(&(node, peer));
            seen.is_some_and(|(_, at)| *at <= since)
        };
        calm(a) && calm(b) && lossless(a, b) && lossless(b, a) && settled(a, b) && settled(b, a)
    }
}

/// So many losses in one direction are too many.
const LOSSES: usize = 3;
