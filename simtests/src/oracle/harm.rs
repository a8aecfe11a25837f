//! What was done to nodes and to the paths between them, so that only those are judged that were left alone.

use std::{collections::BTreeMap, net::SocketAddr};

use adit_proto_core::{id::ConnId, output::Event};

use super::pulse::Pulse;
use crate::{
    At,
    facts::{Fact, NodeId},
    faults::Fault,
    net::Fate,
};

/// The harm of a run.
#[derive(Debug, Default)]
pub(super) struct Harm {
    pub(super) pulse: Pulse,
    /// When a fault was last at work at a node.
    nodes: BTreeMap<NodeId, At>,
    /// The latest losses from one node to another.
    losses: BTreeMap<(NodeId, NodeId), [At; LOSSES]>,
    /// Who sends from an address, as the other end sees it, and since when it does.
    addrs: BTreeMap<SocketAddr, NodeId>,
    /// How a node sees another.
    seen: BTreeMap<(NodeId, NodeId), Seen>,
    /// Who sent the datagram that came last.
    from: Option<NodeId>,
    peers: BTreeMap<(NodeId, ConnId), Peer>,
    /// Times in which a pair, or a node paired with itself, was never left alone for long.
    spells: BTreeMap<(NodeId, NodeId), Vec<Spell>>,
}

/// A node as another one sees it.
#[derive(Debug)]
struct Seen {
    addr: SocketAddr,
    /// Since when it has that address.
    since: At,
    /// The longest that a datagram of its took.
    slowest: At,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    /// When the latest datagram came.
    pub(super) heard: At,
}

#[derive(Clone, Copy, Debug)]
struct Spell {
    start: At,
    last: At,
}

impl Harm {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) {
        self.pulse.observe(at, node, fact);
        if let Fact::Received {
            src, from, sent, ..
        } = fact
        {
            self.from = Some(*from);
            self.received(at, node, *from, *src, at.saturating_sub(*sent));
        } else if let Fact::Routed(conn) = fact {
            if let Some(from) = self.from {
                let peer = Peer {
                    node: from,
                    heard: at,
                };
                self.peers.insert((node, *conn), peer);
            }
        } else if let Fact::Sent {
            dst,
            fate: Fate::Lost(_) | Fate::OnTheWay { spoilt: 1.., .. },
            ..
        } = fact
        {
            if let Some(to) = self.addrs.get(dst).copied() {
                let losses = self.losses.entry((node, to)).or_default();
                losses.rotate_left(1);
                losses[LOSSES - 1] = at;
                self.disturb(node, to, at, at);
            }
        } else if let Fact::Fault(fault) = fact {
            self.fault(at, fault);
        } else if let Fact::Event(conn, Event::Closed(_)) = fact {
            if let Some(peer) = self.peer(node, *conn) {
                self.disturb(node, peer.node, at, at);
            }
        } else if let Fact::Drained(conn) = fact {
            self.peers.remove(&(node, *conn));
        } else if let Fact::Started(_) | Fact::Stopping | Fact::Gone = fact {
            // One that stops still has farewells to say.
            if !matches!(fact, Fact::Stopping) {
                self.peers.retain(|(of, _), _| *of != node);
            }
            self.disturb(node, node, at, at);
        }
    }

    fn received(&mut self, at: At, node: NodeId, from: NodeId, src: SocketAddr, took: At) {
        let seen = self.seen.entry((node, from)).or_insert(Seen {
            addr: src,
            since: at,
            slowest: At::ZERO,
        });
        seen.slowest = seen.slowest.max(took);
        if seen.addr != src {
            (seen.addr, seen.since) = (src, at);
            self.disturb(node, from, at, at);
        }
        self.addrs.insert(src, from);
    }

    fn fault(&mut self, at: At, fault: &Fault) {
        if let Fault::WallClock(..) | Fault::SetRoutes(..) | Fault::Order(..) | Fault::Open(_) =
            fault
        {
            return;
        }
        let until = match fault {
            Fault::BlockSocket(_, time) => at + *time,
            _ => at,
        };
        if let Fault::Cut(a, b) | Fault::Mend(a, b) | Fault::SetPath(a, b, _) = fault {
            for node in [a, b] {
                let latest = self.nodes.entry(*node).or_insert(at);
                *latest = at.max(*latest);
            }
            self.disturb(*a, *b, at, at);
        } else {
            let latest = self.nodes.entry(fault.node()).or_insert(until);
            *latest = until.max(*latest);
            self.disturb(fault.node(), fault.node(), at, until);
        }
    }

    fn disturb(&mut self, a: NodeId, b: NodeId, at: At, until: At) {
        let spells = self.spells.entry((a.min(b), a.max(b))).or_default();
        match spells.last_mut() {
            Some(spell) if at <= spell.last + SPELL_GAP => spell.last = spell.last.max(until),
            Some(_) | None => spells.push(Spell {
                start: at,
                last: until,
            }),
        }
    }

    /// The other end of a connection, once something came from there.
    pub(super) fn peer(&self, node: NodeId, conn: ConnId) -> Option<Peer> {
        self.peers.get(&(node, conn)).copied()
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
            seen.is_some_and(|seen| seen.since <= since)
        };
        calm(a) && calm(b) && lossless(a, b) && lossless(b, a) && settled(a, b) && settled(b, a)
    }

    /// Tells whether two nodes have also run without a pause since then.
    pub(super) fn is_sound(&self, a: NodeId, b: NodeId, since: At) -> bool {
        let runs = |node| {
            let steady = self.pulse.steady_since(node);
            steady.is_some_and(|at| at <= since)
        };
        runs(a) && runs(b) && self.spared(a, b, since)
    }

    /// Tells whether nothing has kept datagrams of `from` from `to` since then: no loss, no fault, no rest at the one
    /// that takes them, and no other address of it.
    pub(super) fn was_delivering(&self, from: NodeId, to: NodeId, since: At) -> bool {
        let before = since.saturating_sub(SETTLED);
        let calm = |node, since| self.nodes.get(&node).is_none_or(|at| *at <= since);
        let lost = self.losses.get(&(from, to));
        let seen = self.seen.get(&(from, to));
        let steady = self.pulse.steady_since(to);
        calm(from, since)
            && calm(to, before)
            && lost.is_none_or(|losses| losses[LOSSES - 1] < since)
            && seen.is_some_and(|seen| seen.since <= before)
            && steady.is_some_and(|at| at <= before)
    }

    /// Time for anything that needs a few datagrams, of which few are lost.
    pub(super) fn within(&self, a: NodeId, b: NodeId) -> At {
        let slowest = |node, peer| {
            let seen = self.seen.get(&(node, peer));
            seen.map_or(At::ZERO, |seen| seen.slowest)
        };
        // What waited for a process that stood still took longer than any path.
        WITHIN + slowest(a, b).max(slowest(b, a)).min(TRIP_MAX) * TRIPS
    }

    /// Tells whether anything went wrong between two nodes, or at one of them, that was there at both times.
    pub(super) fn was_disturbed(&self, a: NodeId, b: NodeId, from: At, until: At) -> bool {
        [(a, a), (b, b), (a.min(b), a.max(b))].iter().any(|pair| {
            let mut spells = self.spells.get(pair).into_iter().flatten();
            spells.any(|spell| spell.start <= until && spell.last >= from)
        })
    }
}

/// So many losses in one direction are too many.
const LOSSES: usize = 3;
/// A node that has another address is heard from there within this time.
const SETTLED: At = At::from_secs(2);
/// Disturbances that are closer together are one.
const SPELL_GAP: At = At::from_secs(12);
/// Time for something to arrive, beside so many trips of the slowest datagram.
const WITHIN: At = At::from_secs(3);
const TRIPS: u32 = 20;
/// No path is slower, its queue included.
const TRIP_MAX: At = At::from_millis(1_200);
