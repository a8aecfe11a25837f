//! Connections to other nodes over time, and the calls on them (design 8.1; peer-rpc 9).

mod calls;
mod inbound;
mod links;
mod state;
mod step;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;

use self::state::{Call, CallState, Dial, For, Held, Peer, Pooled, Timer};
pub use self::step::{CallError, DialId, NodeStep, Reach};
use super::{
    NodeId,
    breaker::{BreakerSettings, BreakerState, Pass},
    frame::PAYLOAD_LEN_MAX,
    rpc_type::RpcType,
};
use crate::{
    close::CloseReason,
    env::Seed,
    id::{CallId, ConnId},
    limits::{PEER_DIAL_TIMEOUT, RPC_TIMEOUT},
    target::Target,
};

/// Keeps at most one connection to each other node, dials it when a call needs it, and makes calls on it.
///
/// All calls that wait for a node share its dial, and a failure of it. A call that failed is made again where that is safe
/// ([`retry::judge`](super::retry::judge)), at most three times in all, after a wait with full jitter; a breaker for each
/// node lets one probe through after its pause. A connection that is dead or silent is not used again, and so is one to a
/// former address; it is closed when the last call on it is over.
///
/// Connections that peers dial are not called on: they bring requests, which are passed on. Two nodes that dial each
/// other at once have two connections, each for one direction. The first request of a node says that it is there: a dial to
/// it that has had no answer for [`PEER_DIAL_PATIENCE`](crate::limits::PEER_DIAL_PATIENCE) begins anew, and its breaker lets
/// one probe through. Of connections that one node dialled here [`PEER_INBOUND_MAX`](crate::limits::PEER_INBOUND_MAX) stay, and
/// as many of all those together on which nobody whom records know has shown itself.
///
/// Keys are exchanged in the [`PeerLedger`](super::ledger::PeerLedger), with effect on the next message. After every
/// `handle_*` call and command poll the steps until there is none; answers may come late, and a connection that nobody
/// wants any more is answered by [`NodeStep::Close`].
#[derive(Debug)]
pub struct Node {
    breaker: BreakerSettings,
    rng: ChaCha12Rng,
    peers: BTreeMap<NodeId, Peer>,
    calls: BTreeMap<CallId, Call>,
    /// Dials of which no version handshake has ended.
    dials: BTreeMap<DialId, Dial>,
    links: BTreeMap<ConnId, Held>,
    timers: BTreeSet<(Instant, Timer)>,
    next_call: u64,
    next_dial: u64,
    steps: VecDeque<NodeStep>,
    stopping: bool,
}

/// What an operator sees of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which one.
    pub node: NodeId,
    /// Where it is dialled.
    pub address: Target,
    /// The connection to it.
    pub connection: Option<ConnId>,
    /// Whether it is called.
    pub breaker: BreakerState,
    /// Failures in a row.
    pub failures: u32,
    /// Since when its breaker is in that state.
    pub since: Instant,
    /// Calls that wait for a connection or a place on it.
    pub waiting: usize,
}

impl Node {
    /// A node without peers. The jitter is drawn from `seed`'s stream `rpc-backoff`.
    #[must_use]
    pub fn new(breaker: BreakerSettings, seed: &Seed) -> Self {
        Self {
            breaker,
            rng: seed.derive("rpc-backoff"),
            peers: BTreeMap::new(),
            calls: BTreeMap::new(),
            dials: BTreeMap::new(),
            links: BTreeMap::new(),
            timers: BTreeSet::new(),
            next_call: 0,
            next_dial: 0,
            steps: VecDeque::new(),
            stopping: false,
        }
    }

    /// Says where a node is. Where that has changed, calls under way end on the present connection, and later ones go to
    /// the new address.
    pub fn set_peer(&mut self, now: Instant, node: NodeId, address: Target) {
        if let Some(peer) = self.peers.get_mut(&node) {
            if peer.address == address {
                return;
            }
            peer.address = address;
            self.leave_connection(node);
            self.advance(now, node);
        } else {
            self.peers
                .insert(node, Peer::new(now, address, self.breaker));
        }
    }

    /// Forgets a node that left the cluster. Calls that wait for it fail.
    pub fn remove_peer(&mut self, node: NodeId) {
        self.leave_connection(node);
        let Some(peer) = self.peers.remove(&node) else {
            return;
        };
        for call in peer.waiting {
            self.end_call(call, Err(CallError::Unreachable { node }));
        }
    }

    /// Dials a node that has no connection, so that the first call does not wait for that. A breaker that is open is
    /// heeded.
    pub fn warm(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if peer.pooled != Pooled::None || self.stopping {
            return;
        }
        if let Ok(pass) = peer.breaker.check(now) {
            self.dial(now, node, pass);
        }
    }

    /// Calls a node. [`NodeStep::Answered`] follows, once.
    pub fn call(&mut self, now: Instant, node: NodeId, kind: RpcType, payload: Bytes) -> CallId {
        let call = self.begin(For::Node(node), kind, payload);
        if self.calls.contains_key(&call) {
            self.attempt(now, call);
        }
        call
    }

    /// Calls whoever answers at an address, to join: over a connection of its own, once, and all of it within
    /// [`RPC_TIMEOUT`] (peer-rpc 9.1). [`NodeStep::Answered`] follows, once.
    pub fn call_address(
        &mut self,
        now: Instant,
        address: Target,
        kind: RpcType,
        payload: Bytes,
    ) -> CallId {
        let call = self.begin(For::Address, kind, payload);
        if self.calls.contains_key(&call) {
            let until = now.checked_add(RPC_TIMEOUT).unwrap_or(now);
            self.set_state(call, CallState::Alone { until });
            self.begin_dial(now, For::Address, Some(call), None, address);
        }
        call
    }

    /// Gives a call up. Nothing follows for it; the peer may have executed it.
    pub fn cancel(&mut self, now: Instant, call: CallId) {
        let Some(state) = self.calls.get(&call).map(|call| call.state) else {
            return;
        };
        if let CallState::UnderWay { conn } = state {
            self.steps.push_back(NodeStep::Cancel { conn, call });
            self.forget_on(conn, call);
            self.close_if_spent(conn);
        }
        if let Some(For::Node(node)) = self.drop_call(call) {
            self.advance(now, node);
        }
    }

    /// Stops: calls that are not under way fail, the others have `grace`, and so have requests that run; then every
    /// connection is closed with `node shutdown` (peer-rpc 8). [`Node::is_stopped`] tells when all are gone.
    pub fn stop(&mut self, grace: Duration) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        let made = self.links.values().flat_map(|held| &held.calls);
        let made: BTreeSet<CallId> = made.copied().collect();
        let waiting = self.calls.keys().filter(|call| !made.contains(call));
        let waiting: Vec<CallId> = waiting.copied().collect();
        for call in waiting {
            self.end_call(call, Err(CallError::Stopping));
        }
        for dial in std::mem::take(&mut self.dials).into_values() {
            self.timers.remove(&(dial.until, Timer::Dial(dial.id)));
            if let For::Node(node) = dial.target
                && let Some(peer) = self.peers.get_mut(&node)
            {
                peer.pooled = Pooled::None;
            }
        }
        for conn in self.links.keys() {
            self.steps.push_back(NodeStep::Drain(*conn, grace));
        }
    }

    /// Tells whether the node was stopped and has no connection any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopping && self.links.is_empty()
    }

    /// What is known of the peers.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus> {
        self.peers.iter().map(|(node, peer)| PeerStatus {
            node: *node,
            address: peer.address.clone(),
            connection: peer.pooled.connection(),
            breaker: peer.breaker.state(),
            failures: peer.breaker.failures(),
            since: peer.breaker.since(),
            waiting: peer.waiting.len(),
        })
    }

    /// Where a node is dialled.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<&Target> {
        self.peers.get(&node).map(|peer| &peer.address)
    }

    /// The connection to a node on which calls are made.
    #[must_use]
    pub fn connection(&self, node: NodeId) -> Option<ConnId> {
        self.peers.get(&node)?.pooled.connection()
    }

    /// Tells whether a dial is still wanted: one that took too long, or went to a former address, is not.
    #[must_use]
    pub fn wants(&self, dial: DialId) -> bool {
        self.dials.contains_key(&dial)
    }

    /// The next thing to be done.
    pub fn poll_step(&mut self) -> Option<NodeStep> {
        self.steps.pop_front()
    }

    /// When [`Node::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, timer)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Call(call) => self.call_timed_out(now, call),
                Timer::Dial(dial) => self.dial_timed_out(now, dial),
                Timer::Inbound(conn) => self.inbound_timed_out(now, conn),
            }
        }
    }

    /// Takes a call that can be made at all; any other is over at once.
    fn begin(&mut self, target: For, kind: RpcType, payload: Bytes) -> CallId {
        let call = CallId(self.next_call);
        self.next_call = self.next_call.saturating_add(1);
        let len = payload.len();
        let error = if !kind.is_request() {
            CallError::NoRequest(kind)
        } else if u32::try_from(len).map_or(true, |len| len > PAYLOAD_LEN_MAX) {
            CallError::TooLarge { len }
        } else if self.stopping {
            CallError::Stopping
        } else {
            let begun = Call {
                target,
                kind,
                payload,
                attempts: 0,
                pass: Pass::Free,
                state: CallState::New,
            };
            self.calls.insert(call, begun);
            return call;
        };
        let outcome = Err(error);
        self.steps.push_back(NodeStep::Answered { call, outcome });
        call
    }

    fn dial(&mut self, now: Instant, node: NodeId, pass: Pass) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let address = peer.address.clone();
        let dial = self.begin_dial(now, For::Node(node), None, Some(node), address);
        if let Some(dial) = self.dials.get_mut(&dial) {
            dial.pass = pass;
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.pooled = Pooled::Dialling(dial);
        }
    }

    fn begin_dial(
        &mut self,
        now: Instant,
        target: For,
        call: Option<CallId>,
        node: Option<NodeId>,
        address: Target,
    ) -> DialId {
        let id = DialId(self.next_dial);
        self.next_dial = self.next_dial.saturating_add(1);
        let until = now.checked_add(PEER_DIAL_TIMEOUT).unwrap_or(now);
        let dial = Dial {
            id,
            target,
            call,
            pass: Pass::Free,
            conn: None,
            since: now,
            until,
        };
        self.dials.insert(id, dial);
        self.timers.insert((until, Timer::Dial(id)));
        self.steps.push_back(NodeStep::Dial {
            dial: id,
            node,
            address,
        });
        id
    }

    /// The connection to a node, or its dial, is not to be used any more.
    fn leave_connection(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        match std::mem::replace(&mut peer.pooled, Pooled::None) {
            Pooled::None => {}
            Pooled::Dialling(dial) => {
                self.forget_dial(dial);
            }
            Pooled::Up(conn) => {
                self.steps.push_back(NodeStep::Reach(node, Reach::Down));
                self.retire(conn);
            }
        }
    }

    fn forget_dial(&mut self, id: DialId) -> Option<Dial> {
        let dial = self.dials.remove(&id)?;
        self.timers.remove(&(dial.until, Timer::Dial(id)));
        if let Some(conn) = dial.conn {
            self.links.remove(&conn);
            self.close(conn);
        }
        if let For::Node(node) = dial.target
            && let Some(peer) = self.peers.get_mut(&node)
        {
            peer.breaker.released(dial.pass);
        }
        Some(dial)
    }

    fn close(&mut self, conn: ConnId) {
        let reason = CloseReason::Redundant;
        self.steps.push_back(NodeStep::Close(conn, reason));
    }
}

#[cfg(test)]
mod tests;
