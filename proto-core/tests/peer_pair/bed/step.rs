//! How time passes: what comes next, a packet or a deadline, and what the members do then.

use std::time::{Duration, Instant};

use adit_proto_core::{
    output::{Event, Input, Output, PathMeta, Routed},
    peer::node::Node,
};

use super::{Bed, Kind, Member, Place, Wire};
use crate::net::Packet;

impl Bed {
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
        panic!("{STEPS_MAX} steps");
    }

    fn set_now(&mut self, now: Instant) {
        let passed = (now - self.start).as_millis() - (self.now - self.start).as_millis();
        self.wall.advance_ms(passed.try_into().unwrap());
        self.now = now;
    }

    fn next_at(&mut self) -> Option<Instant> {
        let deadlines = self.members.iter_mut().filter_map(Member::deadline);
        deadlines.chain(self.net.next_at()).min()
    }

    fn step(&mut self) {
        if self.net.next_at().is_some_and(|at| at <= self.now) {
            // What has come at the same time is handed over together, as from a socket's batch.
            let mut places = Vec::new();
            while self.net.next_at().is_some_and(|at| at <= self.now) {
                places.extend(self.net.pop().and_then(|packet| self.deliver(packet)));
            }
            places.sort_by_key(|place: &Place| place.0);
            places.dedup();
            for place in places {
                self.drain(place);
            }
            return;
        }
        for index in 0..self.members.len() {
            let (now, member) = (self.now, &mut self.members[index]);
            let mut fired = Vec::new();
            match &mut member.kind {
                Kind::Raw(raw) => {
                    if raw.deadline().is_some_and(|at| at <= now) {
                        raw.expire(now);
                    }
                }
                Kind::Adit(_) => {
                    for (conn, wire) in &mut member.wires {
                        if let Some(at) = wire.deadline.filter(|at| *at <= now) {
                            wire.conn.handle_input(now, Input::Timeout);
                            fired.push((*conn, at));
                        }
                    }
                }
            }
            let member = &mut self.members[index];
            if let Some(node) = member.node.as_mut() {
                node.handle_timeout(now);
            }
            self.drain(Place(index));
            for (conn, at) in fired {
                if let Some(wire) = self.members[index].wires.get_mut(&conn) {
                    wire.has_fired(at);
                }
            }
        }
    }

    /// Hands a packet over, and tells to whom.
    fn deliver(&mut self, packet: Packet) -> Option<Place> {
        let index = self.members.iter().position(|m| m.addr == packet.dst)?;
        let member = &mut self.members[index];
        match &mut member.kind {
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
                        if let Some(wire) = member.wires.get_mut(&id) {
                            let input = Input::FromEndpoint(message);
                            wire.conn.handle_input(self.now, input);
                        }
                    }
                    Routed::New(conn) => {
                        member.wires.insert(conn.id(), Wire::new(*conn));
                    }
                    Routed::Reply(t) => {
                        let ends = (member.addr, t.destination);
                        self.net.send(self.now, ends, t.ecn, &reply[..t.size]);
                    }
                    Routed::Dropped => {}
                }
            }
        }
        Some(Place(index))
    }

    pub(crate) fn drain(&mut self, place: Place) {
        self.drain_wires(place);
        while self.perform(place) {
            self.drain_wires(place);
        }
    }

    fn drain_wires(&mut self, place: Place) {
        let now = self.now;
        let member = &mut self.members[place.0];
        let endpoint = match &mut member.kind {
            Kind::Adit(endpoint) => endpoint,
            Kind::Raw(raw) => return raw.drain(now, member.addr, &mut self.net),
        };
        for (id, wire) in &mut member.wires {
            loop {
                if member.patience == Some(0) {
                    wire.deadline = None;
                    break;
                }
                match wire.conn.poll_output(now, &mut wire.buf) {
                    Output::Notice(notice) => {
                        if let Some(message) = endpoint.handle_notice(notice) {
                            wire.conn.handle_input(now, Input::FromEndpoint(message));
                        }
                    }
                    Output::Event(event) => match &mut member.node {
                        Some(node) => {
                            if let Event::Closed(closed) = &event {
                                wire.closed = Some(closed.clone());
                            }
                            node.handle_event(now, *id, event);
                        }
                        None => {
                            member.patience = member.patience.map(|left| left - 1);
                            wire.take(now, member.app, event, &mut member.executed);
                        }
                    },
                    Output::Transmit(t) => {
                        let ends = (member.addr, t.destination);
                        let bytes = wire.buf.bytes();
                        self.net.send_batch(now, ends, t.ecn, bytes, t.segment_size);
                        wire.buf.clear();
                    }
                    Output::Wait(deadline) => {
                        wire.deadline = deadline;
                        break;
                    }
                }
            }
        }
    }
}

impl Member {
    fn deadline(&mut self) -> Option<Instant> {
        match &mut self.kind {
            Kind::Raw(raw) => raw.deadline(),
            Kind::Adit(_) => {
                let node = self.node.as_ref().and_then(Node::poll_timeout);
                let wires = self.wires.values().filter_map(|w| w.deadline);
                wires.chain(node).min()
            }
        }
    }
}

const STEPS_MAX: usize = 2_000_000;
