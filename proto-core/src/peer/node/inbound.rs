//! Connections that peers dialled: how many of one node stay, and what its first request says (peer-rpc 8 and 9.1).

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    Node,
    state::{Carries, Held, Inbound, LinkRole, Pooled, Timer},
    step::NodeStep,
};
use crate::{
    id::{ConnId, Slot},
    limits::{
        PEER_DIAL_PATIENCE, PEER_INBOUND_BURST, PEER_INBOUND_MAX, RPC_DRAIN_GRACE, RPC_TIMEOUT,
    },
    peer::{NodeId, breaker::Pass},
};

impl Node {
    /// A peer's connection is up; `shown` is the node whose certificate it has, where records say.
    pub(super) fn handle_inbound(
        &mut self,
        now: Instant,
        conn: ConnId,
        carries: Carries,
        shown: Option<NodeId>,
    ) {
        let inbound = Inbound {
            carries,
            node: shown,
            since: now,
            is_bound: false,
            is_leaving: self.stopping,
        };
        let held = Held {
            role: LinkRole::Inbound(inbound),
            calls: BTreeSet::new(),
        };
        self.links.insert(conn, held);
        if self.stopping {
            self.steps.push_back(NodeStep::Drain(conn, Duration::ZERO));
        } else {
            self.keep_few(now, shown, carries, conn);
        }
    }

    /// The time of a connection for its first call is over.
    pub(super) fn inbound_timed_out(&mut self, now: Instant, conn: ConnId) {
        let held = self.links.get(&conn);
        if let Some(inbound) = held.and_then(|held| held.role.inbound()) {
            self.keep_few(now, inbound.node, inbound.carries, conn);
        }
    }

    /// Ends what a node has too much of, now or as soon as it may.
    fn keep_few(&mut self, now: Instant, node: Option<NodeId>, carries: Carries, newest: ConnId) {
        if self.stopping {
            return;
        }
        while self.end_one_of(now, node, carries, newest) {}
        if self.inbound_of(node, carries).count() > PEER_INBOUND_MAX {
            let until = now.checked_add(RPC_TIMEOUT).unwrap_or(now);
            self.timers.insert((until, Timer::Inbound(newest)));
        }
    }

    /// The connections of a node that are to stay.
    fn inbound_of(
        &self,
        node: Option<NodeId>,
        carries: Carries,
    ) -> impl Iterator<Item = (ConnId, Inbound)> {
        self.links.iter().filter_map(move |(conn, held)| {
            let inbound = held.role.inbound()?;
            let is_of_it = inbound.node == node && inbound.carries == carries;
            (is_of_it && !inbound.is_leaving).then_some((*conn, inbound))
        })
    }

    /// Ends a connection of a node that has too many, and tells whether it did. Those that are no node's yet, as of nodes that
    /// would join, are counted as one node's: whoever has a certificate of the CA and no record holds no more. One that has
    /// proved nothing goes first, so that nobody who has a node's certificate and not the cluster's key drives out what the
    /// node uses; then the oldest. One for calls has time for a call first, up to so many of them.
    fn end_one_of(
        &mut self,
        now: Instant,
        node: Option<NodeId>,
        carries: Carries,
        newest: ConnId,
    ) -> bool {
        let of_it: Vec<(ConnId, Inbound)> = self.inbound_of(node, carries).collect();
        if of_it.len() <= PEER_INBOUND_MAX {
            return false;
        }
        let is_patient = carries == Carries::Calls && of_it.len() <= PEER_INBOUND_BURST;
        let may_end =
            |of: &Inbound| !is_patient || now.saturating_duration_since(of.since) >= RPC_TIMEOUT;
        let others = of_it
            .iter()
            .filter(|(conn, of)| *conn != newest && may_end(of));
        let Some((conn, inbound)) = others.min_by_key(|(conn, of)| (of.is_bound, *conn)) else {
            return false;
        };
        let grace = match inbound.is_bound {
            true => RPC_DRAIN_GRACE,
            false => Duration::ZERO,
        };
        let leaving = Inbound {
            is_leaving: true,
            ..*inbound
        };
        let conn = *conn;
        self.set_role(conn, LinkRole::Inbound(leaving));
        self.steps.push_back(NodeStep::Drain(conn, grace));
        true
    }

    /// Whoever dialled a connection has the cluster's key; `node` is who that is, where it is said only here.
    pub(super) fn mark_bound(&mut self, conn: ConnId, node: Option<NodeId>) {
        let held = self.links.get(&conn);
        if let Some(inbound) = held.and_then(|held| held.role.inbound()) {
            let bound = Inbound {
                node: inbound.node.or(node),
                is_bound: true,
                ..inbound
            };
            self.set_role(conn, LinkRole::Inbound(bound));
        }
    }

    /// A connection belongs to a node from here on, which so shows that it is there. What waits for a dial that began before
    /// the node did need not wait for the engine's next attempt, which comes the later the longer the dial takes.
    pub(super) fn handle_bound(&mut self, now: Instant, conn: ConnId, node: NodeId) {
        self.mark_bound(conn, Some(node));
        self.keep_few(now, Some(node), Carries::Calls, conn);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.breaker.shown(now);
        let Pooled::Dialling(dial) = peer.pooled else {
            return;
        };
        let is_stale = |since| now.saturating_duration_since(since) >= PEER_DIAL_PATIENCE;
        if self
            .dials
            .get(&dial)
            .is_some_and(|dial| is_stale(dial.since))
        {
            self.forget_dial(dial);
            self.dial(now, node, Pass::Free);
        }
    }

    /// Takes a request back that nobody was asked yet; tells whether there was one.
    pub(super) fn unask(&mut self, conn: ConnId, slot: Slot) -> bool {
        let is_it = |step: &NodeStep| matches!(step, NodeStep::Requested { conn: on, slot: of, .. } if (*on, *of) == (conn, slot));
        let place = self.steps.iter().position(is_it);
        place.is_some_and(|place| self.steps.remove(place).is_some())
    }

    /// The same of all that a connection brought.
    pub(super) fn unask_all(&mut self, conn: ConnId) {
        let is_of =
            |step: &NodeStep| matches!(step, NodeStep::Requested { conn: on, .. } if *on == conn);
        self.steps.retain(|step| !is_of(step));
    }
}
