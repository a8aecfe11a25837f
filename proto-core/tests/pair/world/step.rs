//! The loop: the earliest packet or deadline is next, then everything that it touched is drained.

use std::time::{Duration, Instant};

use adit_proto_core::output::{Input, Output, PathMeta, Routed};

use super::super::{net::Packet, peer::Peer};
use super::{Kind, Node, NodeId, World};

impl World {
    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until the condition holds, and tells whether it came to hold within `limit`.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let until = self.now + limit;
        for _ in 0..STEPS_MAX {
            if done(self) {
                return true;
            }
            let Some(next) = self.next_at().filter(|at| *at <= until) else {
                self.set_now(until);
                return done(self);
            };
            self.set_now(next.max(self.now));
            self.step();
        }
        panic!("{STEPS_MAX} steps in {:?}", self.now - (until - limit));
    }

    fn set_now(&mut self, now: Instant) {
        let passed = (now - self.start).as_millis() - (self.now - self.start).as_millis();
        self.wall.advance_ms(passed.try_into().unwrap());
        self.now = now;
    }

    fn next_at(&mut self) -> Option<Instant> {
        let deadlines = self.nodes.iter_mut().filter_map(Node::deadline);
        deadlines.chain(self.net.next_at()).min()
    }

    fn step(&mut self) {
        self.steps += 1;
        if self.net.next_at().is_some_and(|at| at <= self.now) {
            if let Some(packet) = self.net.pop() {
                self.deliver(packet);
            }
            return;
        }
        for index in 0..self.nodes.len() {
            self.expire(NodeId(index));
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let found = self.nodes.iter().position(|n| n.addr == packet.dst);
        let Some(index) = found else {
            self.mailbox.push((packet.dst, packet.data.freeze()));
            return;
        };
        let node = &mut self.nodes[index];
        match &mut node.kind {
            Kind::Raw(raw) => raw.receive(self.now, &mut self.net, packet),
            Kind::Adit(endpoint) => {
                let meta = PathMeta {
                    remote: packet.src,
                    local_ip: None,
                    ecn: packet.ecn,
                };
                let mut reply = Vec::new();
                match endpoint.handle_datagram(self.now, meta, packet.data, &mut reply) {
                    Routed::Existing(id, message) => {
                        if let Some(peer) = node.peers.get_mut(&id) {
                            peer.conn
                                .handle_input(self.now, Input::FromEndpoint(message));
                        }
                    }
                    Routed::New(conn) => {
                        let peer = Peer::new(*conn, node.answer.clone());
                        node.peers.insert(peer.conn.id(), peer);
                    }
                    Routed::Reply(t) => {
                        let ends = (node.addr, t.destination);
                        self.net.send(self.now, ends, t.ecn, &reply[..t.size]);
                    }
                    Routed::Dropped => {}
                }
            }
        }
        self.drain(NodeId(index));
    }

    fn expire(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.0];
        let now = self.now;
        if let Kind::Raw(raw) = &mut node.kind {
            if raw.deadline().is_some_and(|at| at <= now) {
                raw.expire(now);
                self.drain(id);
            }
            return;
        }
        let mut fired = Vec::new();
        for (conn, peer) in &mut node.peers {
            if let Some(at) = peer.deadline.filter(|at| *at <= now) {
                peer.conn.handle_input(now, Input::Timeout);
                fired.push((*conn, at));
            }
        }
        if fired.is_empty() {
            return;
        }
        self.drain(id);
        for (conn, at) in fired {
            // No busy loop: a deadline that has fired is over.
            let next = self.nodes[id.0].peers[&conn].deadline;
            assert!(
                next.is_none_or(|next| next > at),
                "{conn} waits for the past"
            );
        }
    }

    /// Drains every connection of a node until it waits.
    pub(crate) fn drain(&mut self, id: NodeId) {
        let at = self.at();
        let now = self.now;
        let node = &mut self.nodes[id.0];
        let endpoint = match &mut node.kind {
            Kind::Adit(endpoint) => endpoint,
            Kind::Raw(raw) => return raw.drain(now, node.addr, &mut self.net),
        };
        if node.held {
            return;
        }
        for peer in node.peers.values_mut() {
            loop {
                match peer.conn.poll_output(now, &mut peer.buf) {
                    Output::Notice(notice) => {
                        if let Some(message) = endpoint.handle_notice(notice) {
                            peer.conn.handle_input(now, Input::FromEndpoint(message));
                        }
                    }
                    Output::Event(event) => peer.take(at, event),
                    Output::Transmit(_) if node.blocked => {}
                    Output::Transmit(t) => {
                        let ends = (node.addr, t.destination);
                        let bytes = peer.buf.bytes();
                        assert_eq!(bytes.len(), t.size);
                        self.net.send_batch(now, ends, t.ecn, bytes, t.segment_size);
                        peer.buf.clear();
                    }
                    Output::Wait(deadline) => {
                        peer.deadline = deadline;
                        break;
                    }
                }
            }
        }
    }
}

impl Node {
    fn deadline(&mut self) -> Option<Instant> {
        match &mut self.kind {
            Kind::Raw(raw) => raw.deadline(),
            Kind::Adit(_) => self.peers.values().filter_map(|p| p.deadline).min(),
        }
    }
}

const STEPS_MAX: usize = 2_000_000;
