//! A node's process: its pool, its connections and its application.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::{
    connection::{Connection, PeerStanding},
    endpoint::{Endpoint, Protocol},
    env::Env,
    id::{CallId, ConnId, Slot},
    output::{Event, Input, Output, PathMeta, Routed, TransmitBuf},
    peer::{
        NodeId as PeerId,
        ledger::PeerLedger,
        node::{Node, NodeStep},
        rpc_type::RpcType,
    },
};
use bytes::Bytes;

use super::{
    facts::{Executed, Fact, Holder, Serial},
    member::{Ctx, answer_to},
};
use crate::{
    At,
    facts::NodeId,
    net::{Arrival, HostId},
};

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) endpoint: Endpoint,
    pub(super) env: Env,
    pub(super) ledger: Arc<PeerLedger>,
    own: PeerId,
    pub(super) node: Node,
    wires: BTreeMap<ConnId, Wire>,
    /// Answers that are due.
    answers: BTreeSet<(At, ConnId, Slot)>,
    running: BTreeMap<(ConnId, Slot), (Serial, RpcType, Reply)>,
    pub(super) wishes: BTreeMap<CallId, (Serial, PeerId, RpcType)>,
    /// Calls that are over since somebody asked, and whether they were answered.
    pub(super) over: Vec<(Serial, bool)>,
}

#[derive(Debug)]
struct Wire {
    conn: Connection,
    buf: TransmitBuf,
    deadline: Option<Instant>,
    /// Who dialled, where the peer did.
    remote: Option<SocketAddr>,
    since: At,
    is_over: bool,
}

/// What an application does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Answer,
    Fail,
    Refuse,
}

/// Who a process is: its place, its name, its place in the network and its address.
pub(super) type Machine = (NodeId, PeerId, HostId, SocketAddr);

impl Process {
    pub(super) fn new(
        own: PeerId,
        endpoint: Endpoint,
        env: Env,
        ledger: Arc<PeerLedger>,
        node: Node,
    ) -> Self {
        Self {
            endpoint,
            env,
            ledger,
            own,
            node,
            wires: BTreeMap::new(),
            answers: BTreeSet::new(),
            running: BTreeMap::new(),
            wishes: BTreeMap::new(),
            over: Vec::new(),
        }
    }

    /// The socket is another one.
    pub(super) fn rebound(&mut self, now: Instant) {
        for wire in self.wires.values_mut() {
            wire.conn.handle_input(now, Input::SocketRebound);
        }
    }

    /// Certificates and records are others.
    pub(super) fn reconsider(&mut self, now: Instant, standing: &PeerStanding) {
        for wire in self.wires.values_mut() {
            wire.conn.reconsider(now, standing);
        }
    }

    pub(super) fn receive(
        &mut self,
        ctx: &mut Ctx<'_>,
        (index, _, host, addr): Machine,
        arrival: Arrival,
    ) {
        let (now, src) = (ctx.now(), arrival.src);
        let data = &arrival.data[..];
        ctx.log.note(ctx.at, index, &Fact::Received { src, data });
        let meta = PathMeta {
            remote: src,
            local_ip: None,
            ecn: arrival.ecn,
        };
        let mut reply = Vec::new();
        match (self.endpoint).handle_datagram(now, meta, arrival.data, &mut reply) {
            Routed::Existing(id, message) => {
                if let Some(wire) = self.wires.get_mut(&id) {
                    wire.conn.handle_input(now, Input::FromEndpoint(message));
                }
            }
            Routed::New(conn) => {
                let wire = Wire::new(*conn, Some(src), ctx.at);
                self.wires.insert(wire.conn.id(), wire);
            }
            Routed::Reply(t) => {
                let ends = (addr, t.destination);
                ctx.send(index, host, ends, t.ecn, &reply[..t.size]);
            }
            Routed::Dropped => {}
        }
    }

    pub(super) fn next_at(&self, base: Instant, slack: At) -> Option<At> {
        let wires = self.wires.values().filter_map(|wire| wire.deadline);
        let core = wires.chain(self.node.poll_timeout()).min();
        let core = core.map(|at| at.saturating_duration_since(base) + slack);
        let answers = self.answers.first().map(|(at, ..)| *at);
        core.into_iter().chain(answers).min()
    }

    pub(super) fn run(&mut self, ctx: &mut Ctx<'_>, machine: Machine) {
        let now = ctx.now();
        for wire in self.wires.values_mut() {
            if wire.deadline.is_some_and(|at| at <= now) {
                wire.conn.handle_input(now, Input::Timeout);
            }
        }
        if self.node.poll_timeout().is_some_and(|at| at <= now) {
            self.node.handle_timeout(now);
        }
        self.answer(ctx.at, now);
        loop {
            self.drain(ctx, machine);
            if !self.perform(ctx, machine) {
                break;
            }
        }
        let lives = |wire: &Wire| !wire.is_over || wire.deadline.is_some();
        self.wires.retain(|_, wire| lives(wire));
    }

    /// Has the application answer what it is done with.
    fn answer(&mut self, at: At, now: Instant) {
        while let Some(&(due, conn, slot)) = self.answers.first().filter(|(due, ..)| *due <= at) {
            self.answers.remove(&(due, conn, slot));
            let Some((body, reply)) = self.reply_to(conn, slot) else {
                continue;
            };
            let Some(mut peer) = self.wires.get_mut(&conn).and_then(|w| w.conn.as_peer()) else {
                continue;
            };
            // It may have been given up meanwhile.
            let _given_up = match reply {
                Reply::Answer => peer.answer(now, slot, body),
                Reply::Fail => peer.fail(slot),
                Reply::Refuse => peer.refuse(now, slot, Duration::from_millis(50)),
            };
        }
    }

    fn reply_to(&mut self, conn: ConnId, slot: Slot) -> Option<(Bytes, Reply)> {
        let (serial, kind, reply) = self.running.remove(&(conn, slot))?;
        Some((answer_to(serial, kind, self.own), reply))
    }

    fn drain(&mut self, ctx: &mut Ctx<'_>, (index, _, host, addr): Machine) {
        let now = ctx.now();
        for (id, wire) in &mut self.wires {
            loop {
                match wire.conn.poll_output(now, &mut wire.buf) {
                    Output::Notice(notice) => {
                        if let Some(message) = self.endpoint.handle_notice(notice) {
                            wire.conn.handle_input(now, Input::FromEndpoint(message));
                        }
                    }
                    Output::Event(event) => {
                        ctx.log.note(ctx.at, index, &Fact::Event(*id, &event));
                        wire.is_over |= matches!(event, Event::Closed(_));
                        self.node.handle_event(now, *id, event);
                    }
                    Output::Transmit(t) => {
                        let bytes = wire.buf.bytes();
                        let size = t.segment_size.unwrap_or(bytes.len()).max(1);
                        for data in bytes.chunks(size) {
                            ctx.send(index, host, (addr, t.destination), t.ecn, data);
                        }
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

    /// Does what the pool asks for; tells whether there was anything.
    fn perform(&mut self, ctx: &mut Ctx<'_>, machine: Machine) -> bool {
        let mut moved = false;
        while let Some(step) = self.node.poll_step() {
            moved = true;
            self.step(ctx, machine, step);
        }
        moved
    }

    fn step(&mut self, ctx: &mut Ctx<'_>, machine: Machine, step: NodeStep) {
        let now = ctx.now();
        match step {
            NodeStep::Dial {
                dial,
                node,
                address,
            } => {
                let conn = address.to_string().parse().ok().and_then(|remote| {
                    let env = &self.env;
                    let dialled = self
                        .endpoint
                        .dial_peer(now, Protocol::Rpc, node, remote, env);
                    dialled.ok()
                });
                let id = conn.as_ref().map(Connection::id);
                if let Some(conn) = conn {
                    let wire = Wire::new(conn, None, ctx.at);
                    self.wires.insert(wire.conn.id(), wire);
                }
                self.node.handle_dialled(now, dial, id);
            }
            NodeStep::Call {
                conn,
                call,
                kind,
                payload,
            } => self.call(ctx, machine.0, (conn, call), kind, payload),
            NodeStep::Cancel { conn, call } => {
                if let Some(mut peer) = self.wires.get_mut(&conn).and_then(|w| w.conn.as_peer()) {
                    peer.cancel(call);
                }
            }
            NodeStep::Close(conn, reason) => {
                if let Some(wire) = self.wires.get_mut(&conn) {
                    wire.conn.close(now, &reason);
                }
            }
            NodeStep::Drain(conn, grace) => {
                if let Some(mut peer) = self.wires.get_mut(&conn).and_then(|w| w.conn.as_peer()) {
                    peer.drain(now, grace);
                }
            }
            NodeStep::Answered { call, outcome } => {
                if let Some((serial, to, kind)) = self.wishes.remove(&call) {
                    let outcome = &outcome;
                    let fact = Fact::Outcome {
                        serial,
                        to,
                        kind,
                        outcome,
                    };
                    ctx.log.note(ctx.at, machine.0, &fact);
                    self.over.push((serial, outcome.is_ok()));
                }
            }
            NodeStep::Requested {
                conn,
                slot,
                from,
                kind,
                payload,
            } => self.requested(ctx, machine, (conn, slot), from, (kind, &payload)),
            NodeStep::GivenUp(conn, slot) => {
                self.running.remove(&(conn, slot));
            }
            NodeStep::Reach(..) => {}
        }
    }

    fn call(
        &mut self,
        ctx: &mut Ctx<'_>,
        index: NodeId,
        (conn, call): (ConnId, CallId),
        kind: RpcType,
        payload: Bytes,
    ) {
        let serial = Serial::of(&payload);
        let peer = self.wires.get_mut(&conn).and_then(|w| w.conn.as_peer());
        let Some(mut peer) = peer else {
            return;
        };
        match peer.call(ctx.base + ctx.at, call, kind, payload) {
            Ok(()) => {
                if let Some(serial) = serial {
                    ctx.log.note(ctx.at, index, &Fact::Attempt { serial, call });
                }
            }
            Err(refused) => self
                .node
                .handle_refused(ctx.base + ctx.at, conn, call, refused),
        }
    }

    /// A request is executed at once, and answered later.
    fn requested(
        &mut self,
        ctx: &mut Ctx<'_>,
        (index, ..): Machine,
        (conn, slot): (ConnId, Slot),
        from: PeerId,
        (kind, body): (RpcType, &Bytes),
    ) {
        let wire = self.wires.get(&conn);
        let since = wire.map_or(ctx.at, |wire| wire.since);
        let remote = wire.and_then(|wire| wire.remote);
        let stranger = Holder {
            node: None,
            is_honest: false,
        };
        let holder = remote.and_then(|remote| ctx.holders.get(&remote));
        let (holder, is_greeted) = holder.copied().unwrap_or((stranger, false));
        let serial = Serial::of(body).unwrap_or(Serial(0));
        let reply = match ctx.choices.between(0, 99) {
            _ if ctx.is_calm => Reply::Answer,
            0..90 => Reply::Answer,
            90..95 => Reply::Fail,
            _ => Reply::Refuse,
        };
        let executed = Executed {
            conn,
            since,
            holder,
            is_greeted,
            from,
            kind,
            body,
            is_done: reply != Reply::Refuse,
        };
        ctx.log.note(ctx.at, index, &Fact::Executed(executed));
        let takes = match ctx.choices.between(0, 99) {
            _ if ctx.is_calm => At::ZERO,
            0..40 => At::ZERO,
            40..90 => ctx.choices.scaled_time(MS, 300 * MS),
            _ => ctx.choices.time(300 * MS, 7_000 * MS),
        };
        self.running.insert((conn, slot), (serial, kind, reply));
        self.answers.insert((ctx.at + takes, conn, slot));
    }
}

impl Wire {
    fn new(conn: Connection, remote: Option<SocketAddr>, since: At) -> Self {
        Self {
            conn,
            buf: TransmitBuf::new(10),
            deadline: None,
            remote,
            since,
            is_over: false,
        }
    }
}

const MS: Duration = Duration::from_millis(1);
