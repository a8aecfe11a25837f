//! Connections: dials, those that peers made, and their ends (peer-rpc 9.1).

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use super::{
    Node,
    state::{CallState, Carries, For, Held, LinkRole, Pooled},
    step::{CallError, DialId, NodeStep, Reach},
};
use crate::{
    close::Closed,
    id::{CallId, ConnId},
    output::Event,
    peer::{
        NodeId,
        event::PeerEvent,
        retry::{self, Failure},
    },
};

impl Node {
    /// The driver has dialled, or could not: the name has no address, or the endpoint takes none. What becomes of the
    /// connection its events tell, none of which may come before this: a connection that the node does not know is taken for
    /// one that a peer dialled.
    pub fn handle_dialled(&mut self, now: Instant, id: DialId, dialled: Option<ConnId>) {
        match (self.dials.get_mut(&id), dialled) {
            (Some(dial), Some(conn)) => {
                dial.conn = Some(conn);
                let role = LinkRole::Dialled(id);
                let calls = BTreeSet::new();
                self.links.insert(conn, Held { role, calls });
            }
            (Some(_), None) => self.dial_failed(now, id, UNREACHED),
            // Nobody waits for it any more.
            (None, Some(conn)) => self.close(conn),
            (None, None) => {}
        }
    }

    /// Takes what a connection says, of those that this node dialled and of those that peers did; a tunnel's events are
    /// none of its affair.
    pub fn handle_event(&mut self, now: Instant, conn: ConnId, event: Event) {
        match event {
            Event::Peer(PeerEvent::Up { node, .. }) => self.handle_up(now, conn, node),
            Event::Peer(PeerEvent::Bound { node }) => self.handle_bound(now, conn, node),
            Event::Peer(PeerEvent::Answered { call, outcome }) => {
                self.handle_outcome(now, conn, call, outcome);
            }
            Event::Peer(PeerEvent::Requested {
                slot,
                from,
                accepted: _,
                kind,
                payload,
                interest: _,
            }) => self.steps.push_back(NodeStep::Requested {
                conn,
                slot,
                from,
                kind,
                payload,
            }),
            Event::Peer(PeerEvent::GivenUp(slot)) => {
                if !self.unask(conn, slot) {
                    self.steps.push_back(NodeStep::GivenUp(conn, slot));
                }
            }
            // Not of calls, but of a node's connections there are not many of any kind.
            Event::Peer(PeerEvent::ForwardUp {
                node,
                is_dialler: false,
            }) => self.handle_inbound(now, conn, Carries::Sessions, Some(node)),
            Event::Peer(PeerEvent::ForwardRequested { .. }) => self.mark_bound(conn, None),
            Event::Peer(PeerEvent::ForwardUp { .. }) => {}
            Event::PathSuspect => self.tell(conn, Reach::Suspect),
            Event::PathRecovered => self.tell(conn, Reach::Up),
            Event::Closed(closed) => self.handle_closed(now, conn, &closed),
            Event::Established { .. }
            | Event::RoutesAccepted { .. }
            | Event::Seen
            | Event::SessionRequested { .. }
            | Event::SessionOpened { .. }
            | Event::SessionRefused { .. }
            | Event::SessionReadable(_)
            | Event::SessionWritable(_)
            | Event::SessionRest { .. }
            | Event::SessionEnded { .. }
            | Event::RenewalRequested { .. }
            | Event::RenewalAnswered(_) => {}
        }
    }

    /// A connection ends before its time, by a fault of this node's, and does not tell how far its calls had come: each may
    /// have been executed. Its end is told as that of any other.
    pub fn handle_abandoned(&mut self, now: Instant, conn: ConnId) {
        let Some(held) = self.links.get(&conn) else {
            return;
        };
        let failure = Failure::Link {
            written: true,
            dead: true,
        };
        for call in held.calls.clone() {
            self.handle_outcome(now, conn, call, Err(failure));
        }
    }

    fn handle_up(&mut self, now: Instant, conn: ConnId, shown: Option<NodeId>) {
        let Some(held) = self.links.get(&conn) else {
            return self.handle_inbound(now, conn, Carries::Calls, shown);
        };
        let LinkRole::Dialled(id) = held.role else {
            return;
        };
        let Some(dial) = self.take_dial(id) else {
            return;
        };
        match (dial.target, dial.call) {
            (For::Node(node), _) => {
                self.set_role(conn, LinkRole::To(node));
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.pooled = Pooled::Up(conn);
                    // A node that does not believe this one's messages lets it connect all the same: the first answer tells
                    // whether the node is back, and the next call may be the one that tries.
                    peer.breaker.released(dial.pass);
                }
                self.steps.push_back(NodeStep::Reach(node, Reach::Up));
                self.advance(now, node);
            }
            (For::Address, Some(call)) => {
                self.set_role(conn, LinkRole::Alone(call));
                if let Some(held) = self.links.get_mut(&conn) {
                    held.calls.insert(call);
                }
                self.make(conn, call);
            }
            (For::Address, None) => self.close(conn),
        }
    }

    fn handle_closed(&mut self, now: Instant, conn: ConnId, closed: &Closed) {
        let Some(held) = self.links.remove(&conn) else {
            return;
        };
        self.unask_all(conn);
        match held.role {
            LinkRole::Dialled(id) => self.dial_failed(now, id, failure_of(closed)),
            LinkRole::To(node) => {
                if let Some(peer) = self.peers.get_mut(&node)
                    && peer.pooled == Pooled::Up(conn)
                {
                    peer.pooled = Pooled::None;
                    // However many calls it takes with it.
                    if !held.calls.is_empty() {
                        peer.breaker.failed(now);
                    }
                    self.steps.push_back(NodeStep::Reach(node, Reach::Down));
                }
            }
            LinkRole::Retired | LinkRole::Alone(_) | LinkRole::Inbound(_) => {}
        }
        // The connection never took these: it tells of all others before it closes.
        for id in held.calls {
            self.call_unmade(now, id);
        }
        if let LinkRole::To(node) = held.role {
            self.advance(now, node);
        }
    }

    fn call_unmade(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let verdict = retry::judge(call.kind, call.attempts, &UNREACHED);
        match call.target {
            For::Node(_) => {
                self.attempt_over(now, id, None);
                self.retry_or_end(now, id, &UNREACHED, verdict.retry);
            }
            For::Address => self.end_call(id, Err(CallError::Failed(UNREACHED))),
        }
    }

    /// All that wait for the dial share its failure, which the breaker counts once.
    fn dial_failed(&mut self, now: Instant, id: DialId, failure: Failure) {
        let Some(dial) = self.take_dial(id) else {
            return;
        };
        let For::Node(node) = dial.target else {
            if let Some(call) = dial.call {
                self.end_call(call, Err(CallError::Failed(failure)));
            }
            return;
        };
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.breaker.failed(now);
        peer.pooled = Pooled::None;
        let waiting: VecDeque<CallId> = std::mem::take(&mut peer.waiting);
        for id in waiting {
            if let Some(call) = self.calls.get(&id) {
                let verdict = retry::judge(call.kind, call.attempts, &failure);
                self.attempt_over(now, id, None);
                self.retry_or_end(now, id, &failure, verdict.retry);
            }
        }
    }

    pub(super) fn dial_timed_out(&mut self, now: Instant, id: DialId) {
        let conn = self.dials.get(&id).and_then(|dial| dial.conn);
        self.dial_failed(now, id, UNREACHED);
        if let Some(conn) = conn {
            self.links.remove(&conn);
            self.close(conn);
        }
    }

    fn take_dial(&mut self, id: DialId) -> Option<super::state::Dial> {
        let dial = self.dials.remove(&id)?;
        self.timers
            .remove(&(dial.until, super::state::Timer::Dial(id)));
        Some(dial)
    }

    /// The connection to a node failed it.
    pub(super) fn evict(&mut self, node: NodeId, conn: ConnId) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.pooled == Pooled::Up(conn)
        {
            peer.pooled = Pooled::None;
            self.steps.push_back(NodeStep::Reach(node, Reach::Down));
        }
        self.retire(conn);
    }

    pub(super) fn retire(&mut self, conn: ConnId) {
        self.set_role(conn, LinkRole::Retired);
        self.close_if_spent(conn);
    }

    /// Closes a connection that is not used any more, and on which nothing is under way.
    pub(super) fn close_if_spent(&mut self, conn: ConnId) {
        let Some(held) = self.links.get(&conn) else {
            return;
        };
        if held.role == LinkRole::Retired && held.calls.is_empty() {
            self.links.remove(&conn);
            self.close(conn);
        }
    }

    /// A call on a connection is over; tells whether it was one.
    pub(super) fn forget_on(&mut self, conn: ConnId, call: CallId) -> bool {
        let held = self.links.get_mut(&conn);
        held.is_some_and(|held| held.calls.remove(&call))
    }

    /// The connection that was made for one call is not wanted any more.
    pub(super) fn leave_alone(&mut self, call: CallId) {
        let dial = self.dials.values().find(|dial| dial.call == Some(call));
        if let Some(id) = dial.map(|dial| dial.id) {
            self.forget_dial(id);
        }
        let alone = |held: &Held| held.role == LinkRole::Alone(call);
        let conn = self.links.iter().find(|(_, held)| alone(held));
        if let Some(conn) = conn.map(|(conn, _)| *conn) {
            self.links.remove(&conn);
            self.close(conn);
        }
    }

    pub(super) fn set_role(&mut self, conn: ConnId, role: LinkRole) {
        if let Some(held) = self.links.get_mut(&conn) {
            held.role = role;
        }
    }

    fn tell(&mut self, conn: ConnId, reach: Reach) {
        if let Some(LinkRole::To(node)) = self.links.get(&conn).map(|held| held.role) {
            self.steps.push_back(NodeStep::Reach(node, reach));
        }
    }

    /// The node that a connection goes to, where this node dialled it.
    #[must_use]
    pub fn node_of(&self, conn: ConnId) -> Option<NodeId> {
        match self.links.get(&conn)?.role {
            LinkRole::To(node) => Some(node),
            LinkRole::Dialled(_)
            | LinkRole::Retired
            | LinkRole::Alone(_)
            | LinkRole::Inbound(_) => None,
        }
    }

    /// Calls that are made, wait or rest.
    #[must_use]
    pub fn calls(&self) -> usize {
        let is_begun = |state: CallState| state != CallState::New;
        self.calls.values().filter(|c| is_begun(c.state)).count()
    }
}

/// What the end of a connection that never came up says of the node.
fn failure_of(closed: &Closed) -> Failure {
    match retry::refuses_identity(closed) {
        true => Failure::Identity,
        false => UNREACHED,
    }
}

/// No byte of a request was written.
const UNREACHED: Failure = Failure::Link {
    written: false,
    dead: true,
};
