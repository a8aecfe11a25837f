//! Connections that sessions are forwarded on: one to each peer that can be called and holds anything.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_proto_core::{
    close::{CloseReason, Closed},
    endpoint::Protocol,
    id::ConnId,
    limits::RPC_DRAIN_GRACE,
    peer::NodeId,
    target::Target,
};

use super::{PeersCore, PeersHost, tell::Undiallable};
use crate::{commands::Command, peers::PeerCommand};

/// What is known of these connections, whoever dialled them.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    ways: BTreeMap<NodeId, Way>,
    /// Those that there are, each with the node at its other end.
    conns: BTreeMap<ConnId, NodeId>,
    /// How often each peer has started, as far as it has told.
    starts: BTreeMap<NodeId, u64>,
    /// Connections to the former process of a peer, to be closed.
    stale: Vec<ConnId>,
    /// Connections to a peer's former address, to be closed once their sessions have ended.
    left: Vec<ConnId>,
}

/// The way to one peer.
#[derive(Debug)]
struct Way {
    /// Where calls reach it.
    addr: SocketAddr,
    state: State,
    /// Connections that have ended one after the other, none of which stood for [`STABLE`].
    failures: u32,
}

#[derive(Debug)]
enum State {
    None { dial_at: Instant },
    Dialled(ConnId),
    Up(ConnId, Instant),
}

/// A connection that stood for so long says that the next one may be made at once.
const STABLE: Duration = Duration::from_secs(10);

/// Waits before dials, the last one for all later ones (design 8.4).
const BACKOFF: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

impl Way {
    fn ended(&mut self, now: Instant) {
        let is_stable = match self.state {
            State::Up(_, since) => now.saturating_duration_since(since) >= STABLE,
            State::None { .. } | State::Dialled(_) => false,
        };
        self.failures = match is_stable {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        let nth = usize::try_from(self.failures).unwrap_or(usize::MAX);
        let wait = BACKOFF.get(nth).or(BACKOFF.last());
        let dial_at = now + wait.copied().unwrap_or_default();
        self.state = State::None { dial_at };
    }

    fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::None { .. } => None,
            State::Dialled(conn) | State::Up(conn, _) => Some(conn),
        }
    }
}

impl Forwards {
    /// Calls are made to a peer there.
    pub(super) fn reached(&mut self, now: Instant, node: NodeId, addr: SocketAddr) {
        let state = State::None { dial_at: now };
        let way = self.ways.entry(node).or_insert(Way {
            addr,
            state,
            failures: 0,
        });
        way.addr = addr;
        // It is there: whatever failed before says nothing of it.
        way.failures = 0;
        if let State::None { dial_at } = &mut way.state {
            *dial_at = now.min(*dial_at);
        }
    }

    /// A connection is up.
    pub(super) fn up(&mut self, now: Instant, conn: ConnId, node: NodeId) {
        self.conns.insert(conn, node);
        if let Some(way) = self.ways.get_mut(&node)
            && way.conn() == Some(conn)
        {
            way.state = State::Up(conn, now);
        }
    }

    /// A connection has ended; gives the node at its other end where it was one of these.
    pub(super) fn closed(&mut self, now: Instant, conn: ConnId) -> Option<NodeId> {
        let node = self.conns.remove(&conn)?;
        if let Some(way) = self.ways.get_mut(&node)
            && way.conn() == Some(conn)
        {
            way.ended(now);
        }
        Some(node)
    }

    /// A peer says how often it has started. Gives the connection to its former process, which is to be used no more: that
    /// it is dead shows only with the next datagram.
    pub(super) fn started(&mut self, node: NodeId, starts: u64) -> Option<ConnId> {
        let before = self.starts.insert(node, starts)?;
        let conn = self.ways.get(&node)?.conn()?;
        (before < starts).then(|| self.stale.push(conn))?;
        Some(conn)
    }

    /// A peer is elsewhere, where the next connection goes as soon as calls reach it there. Gives the former one, which is to
    /// be used for no further session.
    fn moved(&mut self, node: NodeId) -> Option<ConnId> {
        let conn = self.ways.remove(&node)?.conn()?;
        self.left.push(conn);
        Some(conn)
    }

    /// A node is no peer any more; gives its connections, which are to be closed.
    pub(super) fn remove(&mut self, node: NodeId) -> Vec<ConnId> {
        self.ways.remove(&node);
        self.starts.remove(&node);
        let of_it = self.conns.iter().filter(|(_, peer)| **peer == node);
        of_it.map(|(conn, _)| *conn).collect()
    }
}

impl PeersCore {
    /// When a connection is to be dialled.
    pub(super) fn forwards_timeout(&self) -> Option<Instant> {
        if self.stopping {
            return None;
        }
        let wanted = self
            .forwards
            .ways
            .iter()
            .filter(|(node, _)| self.is_wanted(**node));
        let due = wanted.filter_map(|(_, way)| match way.state {
            State::None { dial_at } => Some(dial_at),
            State::Dialled(_) | State::Up(..) => None,
        });
        due.min()
    }

    /// Tells whether sessions may go to a peer: it can be called, and holds anything.
    fn is_wanted(&self, node: NodeId) -> bool {
        let told = self.told.as_ref();
        let holding = told.and_then(|told| told.machine.held_by(node));
        self.pool.connection(node).is_some() && holding.is_some_and(|held| !held.is_empty())
    }

    /// Closes what is of no use any more, and dials whom it is time for.
    pub(super) fn keep_forwards(&mut self, now: Instant, host: &mut impl PeersHost) {
        for conn in std::mem::take(&mut self.forwards.stale) {
            host.command(now, conn, Command::Close(CloseReason::Superseded));
        }
        for conn in std::mem::take(&mut self.forwards.left) {
            let drain = PeerCommand::Drain(RPC_DRAIN_GRACE);
            host.command(now, conn, Command::Role(drain));
        }
        if self.forwards_timeout().is_none_or(|at| at > now) {
            return;
        }
        let nodes = self.forwards.ways.iter();
        let is_due = |way: &Way| matches!(way.state, State::None { dial_at } if dial_at <= now);
        let due = nodes.filter(|(node, way)| is_due(way) && self.is_wanted(**node));
        let due: Vec<_> = due.map(|(node, way)| (*node, way.addr)).collect();
        for (node, addr) in due {
            let conn = self.dial_forward(now, node, addr, host);
            if let Some(way) = self.forwards.ways.get_mut(&node) {
                match conn {
                    Some(conn) => way.state = State::Dialled(conn),
                    None => way.ended(now),
                }
            }
        }
    }

    fn dial_forward(
        &mut self,
        now: Instant,
        node: NodeId,
        addr: SocketAddr,
        host: &mut impl PeersHost,
    ) -> Option<ConnId> {
        let endpoint = host.endpoint();
        let begun = endpoint.dial_peer(now, Protocol::Forward, Some(node), addr, &self.env);
        match begun {
            Ok(conn) => {
                let id = conn.id();
                self.forwards.conns.insert(id, node);
                host.carry(now, conn, &self.parts);
                Some(id)
            }
            Err(error) => {
                (self.teller).undiallable(now, Some(node), &Undiallable::from(error));
                None
            }
        }
    }

    /// Takes a peer for one that has moved, where its address is another than before.
    pub(super) fn heed_address(&mut self, node: NodeId, address: &Target) {
        let is_known = self.pool.address(node).is_none_or(|known| known == address);
        if is_known {
            return;
        }
        if let Some(conn) = self.forwards.moved(node) {
            self.avoid_forward(conn);
        }
    }

    /// Closes what is carried for a node that is no peer any more.
    pub(super) fn end_forwards(&mut self, now: Instant, node: NodeId, host: &mut impl PeersHost) {
        for conn in self.forwards.remove(node) {
            host.command(now, conn, Command::Close(CloseReason::NodeStopping));
        }
    }

    /// Takes the end of a connection; tells whether it was one that sessions are forwarded on.
    pub(super) fn forward_closed(&mut self, now: Instant, conn: ConnId, why: &Closed) -> bool {
        let Some(node) = self.forwards.closed(now, conn) else {
            return false;
        };
        self.teller.forward_closed(conn, node, why);
        true
    }
}
