//! A process's endpoint with its connections, each with its timer.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    agent::supervisor::DialId,
    close::CloseReason,
    connection::Connection,
    endpoint::Endpoint,
    id::{ConnId, Slot},
    output::{Event, PathMeta, Routed},
};

use super::{Ctx, Host, wire::Wire};
use crate::{
    At,
    facts::{Fact, NodeId},
    net::Arrival,
};

/// What gateways and agents have in common.
#[derive(Debug)]
pub(super) struct Wires {
    pub(super) endpoint: Endpoint,
    by_id: BTreeMap<ConnId, Wire>,
    timers: BTreeSet<(At, ConnId)>,
    armed: BTreeMap<ConnId, At>,
    /// Connections that must be polled.
    touched: BTreeSet<ConnId>,
    reply: Vec<u8>,
}

impl Wires {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            by_id: BTreeMap::new(),
            timers: BTreeSet::new(),
            armed: BTreeMap::new(),
            touched: BTreeSet::new(),
            reply: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Wire> {
        self.by_id.values()
    }

    /// A connection that is about to be told something, and so must be polled.
    pub(super) fn touch(&mut self, id: ConnId) -> Option<&mut Wire> {
        let wire = self.by_id.get_mut(&id)?;
        self.touched.insert(id);
        Some(wire)
    }

    /// All of them, likewise.
    pub(super) fn touch_all(&mut self) -> impl Iterator<Item = &mut Wire> {
        self.touched.extend(self.by_id.keys());
        self.by_id.values_mut()
    }

    /// Takes a datagram from the socket; gives a connection that it begins.
    pub(super) fn receive(
        &mut self,
        ctx: &mut Ctx<'_>,
        host: &Host,
        arrival: Arrival,
    ) -> Option<Connection> {
        let fact = Fact::Received {
            src: arrival.src,
            from: NodeId(arrival.from.0),
            sent: arrival.sent,
            data: &arrival.data,
        };
        ctx.note(host.id, &fact);
        let meta = PathMeta {
            remote: arrival.src,
            local_ip: Some(arrival.dst.ip()),
            ecn: arrival.ecn,
        };
        let routed = self
            .endpoint
            .handle_datagram(ctx.now(), meta, arrival.data, &mut self.reply);
        match routed {
            Routed::Existing(id, message) => {
                ctx.note(host.id, &Fact::Routed(id));
                if let Some(wire) = self.touch(id) {
                    wire.input(ctx, message);
                }
                None
            }
            Routed::New(conn) => Some(*conn),
            Routed::Reply(transmit) => {
                let way = (arrival.dst, transmit.destination);
                ctx.send(host, way, transmit.ecn, &self.reply);
                None
            }
            Routed::Dropped => None,
        }
    }

    /// Takes a connection that begins, and an agent's name for it.
    pub(super) fn begin(
        &mut self,
        ctx: &mut Ctx<'_>,
        host: &Host,
        conn: Connection,
        dial: Option<DialId>,
    ) {
        let id = conn.id();
        let fact = Fact::Begun {
            conn: id,
            dial,
            remote: conn.remote(),
            connections: self.endpoint.connections(),
        };
        ctx.note(host.id, &fact);
        self.by_id.insert(id, Wire::new(conn, host));
        self.touched.insert(id);
    }

    /// The program behind a session did something.
    pub(super) fn ready(&mut self, conn: ConnId, slot: Slot) {
        if let Some(wire) = self.touch(conn) {
            wire.ready(slot);
        }
    }

    /// Closes every connection as soon as what has ended on it has reached the peer.
    pub(super) fn stop(&mut self, ctx: &Ctx<'_>, reason: &CloseReason) {
        for wire in self.touch_all() {
            wire.conn.stop(ctx.now(), reason.clone());
        }
    }

    /// The process is gone.
    pub(super) fn kill(&mut self, ctx: &mut Ctx<'_>) {
        for wire in self.by_id.values_mut() {
            wire.kill(ctx);
        }
    }

    pub(super) fn next_at(&self) -> Option<At> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn expire(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= ctx.at) {
            self.timers.remove(&(at, id));
            self.armed.remove(&id);
            if let Some(wire) = self.touch(id) {
                wire.expire(ctx, host);
            }
        }
    }

    /// The next connection that must be polled, until [`settle`](Self::settle).
    pub(super) fn next_touched(&mut self) -> Option<ConnId> {
        self.touched.pop_first()
    }

    /// Polls a connection; gives an event for the role, or none when there is nothing left.
    pub(super) fn poll(&mut self, ctx: &mut Ctx<'_>, host: &Host, id: ConnId) -> Option<Event> {
        let wire = self.by_id.get_mut(&id)?;
        wire.poll(ctx, host, &mut self.endpoint)
    }

    /// Arms the timer of a connection that was polled, or drops one that is over.
    pub(super) fn settle(&mut self, ctx: &mut Ctx<'_>, host: &Host, id: ConnId) {
        if let Some(old) = self.armed.remove(&id) {
            self.timers.remove(&(old, id));
        }
        let Some(wire) = self.by_id.get(&id) else {
            return;
        };
        if wire.is_over() {
            ctx.note(host.id, &Fact::Drained(id));
            self.by_id.remove(&id);
        } else if let Some(at) = wire.next_at(host) {
            self.armed.insert(id, at);
            self.timers.insert((at, id));
        }
    }
}
