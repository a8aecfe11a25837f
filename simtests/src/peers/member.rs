//! A node: its endpoint, its pool, its connections and its application, driven as a driver would.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::{
    connection::Connection,
    endpoint::{Endpoint, EndpointLimits, Protocol},
    env::{EndpointSecrets, Env, Seed, WallClock},
    id::{CallId, ConnId, Slot},
    link::peer_tls::{PeerSecurity, PeerTls},
    output::{Event, Input, Output, PathMeta, Routed, TransmitBuf},
    peer::{
        NodeId as PeerId,
        breaker::BreakerSettings,
        capabilities::Capabilities,
        config::PeerConfig,
        directory::Directory,
        epoch::EpochMark,
        identity::Leaf,
        key::KeyRing,
        ledger::PeerLedger,
        node::{Node, NodeStep},
        receive::JoinCheck,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;

use super::{
    facts::{Executed, Fact, Holder, Serial},
    log::Log,
};
use crate::{
    At,
    choices::Choices,
    crypto::{self, Suite},
    facts::NodeId,
    net::{Arrival, HostId, Network},
    node::SimWall,
    pki::Pair,
};

/// What a node shares with the others while it acts.
#[derive(Debug)]
pub(super) struct Ctx<'a> {
    pub(super) at: At,
    pub(super) base: Instant,
    pub(super) net: &'a mut Network,
    pub(super) log: &'a mut Log,
    pub(super) choices: &'a mut Choices,
    /// Whose certificate whoever sends from an address shows, and whether it has said its whole hello.
    pub(super) holders: &'a BTreeMap<SocketAddr, (Holder, bool)>,
    /// Nothing disturbs: applications answer at once.
    pub(super) is_calm: bool,
}

impl Ctx<'_> {
    pub(super) fn now(&self) -> Instant {
        self.base + self.at
    }

    pub(super) fn send(
        &mut self,
        node: NodeId,
        host: HostId,
        ends: (SocketAddr, SocketAddr),
        ecn: Option<u8>,
        data: &[u8],
    ) {
        let fate = self.net.send(self.at, host, ends.0, ends.1, ecn, data);
        let fact = Fact::Sent { ends, data, fate };
        self.log.note(self.at, node, &fact);
    }
}

/// A machine: what outlives its process, and the process.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) index: NodeId,
    pub(super) id: PeerId,
    pub(super) host: HostId,
    /// All that it may have; one at a time is in use.
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) addr: usize,
    pub(super) wall: Arc<SimWall>,
    pub(super) seed: Seed,
    pub(super) suite: Suite,
    pub(super) capabilities: Capabilities,
    /// Timers fire so much too late.
    pub(super) slack: At,
    pub(super) pair: Pair,
    pub(super) ca: Vec<u8>,
    /// The topology, as the operator has told it.
    pub(super) topology: Directory,
    pub(super) ring: KeyRing,
    /// The latest key that it has given up.
    pub(super) retired: u8,
    /// The boot epoch on disk.
    pub(super) boot: u64,
    pub(super) starts: u64,
    pub(super) process: Option<Box<Process>>,
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    endpoint: Endpoint,
    env: Env,
    ledger: Arc<PeerLedger>,
    own: PeerId,
    node: Node,
    wires: BTreeMap<ConnId, Wire>,
    /// Answers that are due.
    answers: BTreeSet<(At, ConnId, Slot)>,
    running: BTreeMap<(ConnId, Slot), (Serial, RpcType, Reply)>,
    wishes: BTreeMap<CallId, (Serial, PeerId, RpcType)>,
    /// Calls that are over since somebody asked, and whether they were answered.
    over: Vec<(Serial, bool)>,
}

#[derive(Debug)]
struct Wire {
    conn: Connection,
    buf: TransmitBuf,
    deadline: Option<Instant>,
    /// Who dialled, where the peer did.
    remote: Option<SocketAddr>,
    is_over: bool,
}

/// What an application does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Answer,
    Fail,
    Refuse,
}

/// The body of the one right answer to a request.
pub(super) fn answer_to(serial: Serial, kind: RpcType, by: PeerId) -> Bytes {
    let Some(_) = kind.answer() else {
        return Bytes::new();
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&serial.0.to_le_bytes());
    hasher.update(&[kind.value()]);
    hasher.update(&by.0.to_le_bytes());
    Bytes::copy_from_slice(hasher.finalize().as_bytes())
}

struct NoJoins;

impl JoinCheck for NoJoins {
    fn allows(&self, _from: PeerId, _payload: &[u8], _leaf: &Leaf) -> bool {
        false
    }
}

impl Member {
    /// Where it is reached.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addrs[self.addr]
    }

    fn env(&self) -> Env {
        Env {
            seed: self.seed.child(&format!("process {}", self.starts)),
            wall_clock: Arc::clone(&self.wall) as Arc<dyn WallClock>,
            crypto: crypto::provider(self.suite),
            secrets: EndpointSecrets::new(
                self.seed.derive_bytes("reset key"),
                self.seed.derive_bytes("token key"),
            ),
        }
    }

    fn security(&self) -> PeerSecurity {
        PeerSecurity::Mutual(Arc::new(PeerTls {
            local: self.id,
            cert_chain: vec![self.pair.cert.clone()],
            key: self.pair.key.clone().into(),
            roots: vec![self.ca.clone()],
            crls: Vec::new(),
            identities: Arc::new(self.topology.clone()),
            bootstrap_until: 0,
        }))
    }

    /// Begins a process, in the next boot epoch, or in the first one where the disk was lost.
    pub(super) fn start(
        &mut self,
        ctx: &mut Ctx<'_>,
        is_lost: bool,
        peers: &[(PeerId, SocketAddr)],
    ) {
        self.end(ctx);
        self.starts += 1;
        self.boot = if is_lost { 1 } else { self.boot + 1 };
        let env = self.env();
        let epochs = Box::new(EpochMark::new(0));
        let ledger = Arc::new(PeerLedger::new(self.boot, self.ring.clone(), epochs));
        let mut config = PeerConfig::new(Arc::clone(&ledger), Arc::new(NoJoins));
        config.capabilities = self.capabilities;
        let limits = EndpointLimits::default();
        let made = Endpoint::peer(&config, &self.security(), limits, &env);
        let endpoint = match made {
            Ok(endpoint) => endpoint,
            Err(error) => {
                let text = format!("no endpoint: {error}");
                return ctx.log.accuse("panic", ctx.at, text);
            }
        };
        let mut node = Node::new(BreakerSettings::default(), &env.seed);
        for (id, addr) in peers.iter().filter(|(id, _)| *id != self.id) {
            node.set_peer(ctx.now(), *id, (*addr).into());
        }
        self.process = Some(Box::new(Process {
            endpoint,
            env,
            ledger,
            own: self.id,
            node,
            wires: BTreeMap::new(),
            answers: BTreeSet::new(),
            running: BTreeMap::new(),
            wishes: BTreeMap::new(),
            over: Vec::new(),
        }));
        let boot = self.boot;
        ctx.log
            .note(ctx.at, self.index, &Fact::Started { boot, is_lost });
    }

    /// Kills the process.
    pub(super) fn end(&mut self, ctx: &mut Ctx<'_>) {
        if self.process.take().is_some() {
            ctx.log.note(ctx.at, self.index, &Fact::Ended);
        }
    }

    /// Shows what the operator has changed to the process.
    pub(super) fn exchange_security(&mut self, ctx: &mut Ctx<'_>) {
        let security = self.security();
        if let Some(process) = &mut self.process
            && let Err(error) = process.endpoint.set_peer_security(&security, &process.env)
        {
            let text = format!("no certificate is exchanged: {error}");
            ctx.log.accuse("panic", ctx.at, text);
        }
    }

    /// Hears where another node is.
    pub(super) fn hear(&mut self, ctx: &mut Ctx<'_>, (id, addr): (PeerId, SocketAddr)) {
        if let Some(process) = &mut self.process {
            process.node.set_peer(ctx.now(), id, addr.into());
        }
        self.run(ctx);
    }

    /// Changes the ring on disk and in the process.
    pub(super) fn change_keys(&mut self, change: &impl Fn(&mut KeyRing) -> bool) {
        change(&mut self.ring);
        let ring = self.ring.clone();
        if let Some(process) = &mut self.process {
            // Nothing here refuses the ring that the disk has.
            let _same = process.ledger.change_keys(|keys| {
                *keys = ring;
                Ok(())
            });
        }
    }

    /// Calls that are over since the last look, and whether they were answered.
    pub(super) fn outcomes(&mut self) -> Vec<(Serial, bool)> {
        let process = self.process.as_mut();
        process.map_or_else(Vec::new, |process| std::mem::take(&mut process.over))
    }

    /// Takes another address; the socket is another one.
    pub(super) fn rebind(&mut self, ctx: &mut Ctx<'_>) {
        self.addr = (self.addr + 1) % self.addrs.len();
        if let Some(process) = &mut self.process {
            for wire in process.wires.values_mut() {
                wire.conn
                    .handle_input(ctx.base + ctx.at, Input::SocketRebound);
            }
        }
        self.run(ctx);
    }

    /// Has the application ask another node.
    pub(super) fn wish(
        &mut self,
        ctx: &mut Ctx<'_>,
        (to, is_exposed): (PeerId, bool),
        (serial, kind): (Serial, RpcType),
        body: Bytes,
    ) {
        let Some(process) = &mut self.process else {
            return;
        };
        let fact = Fact::Wish {
            serial,
            to,
            is_exposed,
            kind,
        };
        ctx.log.note(ctx.at, self.index, &fact);
        let call = process.node.call(ctx.base + ctx.at, to, kind, body);
        process.wishes.insert(call, (serial, to, kind));
        self.run(ctx);
    }

    pub(super) fn receive(&mut self, ctx: &mut Ctx<'_>, arrival: Arrival) {
        let (index, now) = (self.index, ctx.now());
        let Some(process) = &mut self.process else {
            return;
        };
        if arrival.dst != self.addrs[self.addr] {
            return;
        }
        let (src, data) = (arrival.src, &arrival.data[..]);
        ctx.log.note(ctx.at, index, &Fact::Received { src, data });
        let meta = PathMeta {
            remote: src,
            local_ip: None,
            ecn: arrival.ecn,
        };
        let mut reply = Vec::new();
        let routed = (process.endpoint).handle_datagram(now, meta, arrival.data, &mut reply);
        match routed {
            Routed::Existing(id, message) => {
                if let Some(wire) = process.wires.get_mut(&id) {
                    wire.conn.handle_input(now, Input::FromEndpoint(message));
                }
            }
            Routed::New(conn) => {
                process.wires.insert(conn.id(), Wire::new(*conn, Some(src)));
            }
            Routed::Reply(t) => {
                let ends = (self.addrs[self.addr], t.destination);
                ctx.send(index, self.host, ends, t.ecn, &reply[..t.size]);
            }
            Routed::Dropped => {}
        }
        self.run(ctx);
    }

    pub(super) fn next_at(&self, base: Instant) -> Option<At> {
        let process = self.process.as_ref()?;
        let wires = process.wires.values().filter_map(|wire| wire.deadline);
        let core = wires.chain(process.node.poll_timeout()).min();
        let core = core.map(|at| at.saturating_duration_since(base) + self.slack);
        let answers = process.answers.first().map(|(at, ..)| *at);
        core.into_iter().chain(answers).min()
    }

    /// Does all that is due, until everything waits.
    pub(super) fn run(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now();
        let addr = self.addrs[self.addr];
        let Some(process) = &mut self.process else {
            return;
        };
        for wire in process.wires.values_mut() {
            if wire.deadline.is_some_and(|at| at <= now) {
                wire.conn.handle_input(now, Input::Timeout);
            }
        }
        if process.node.poll_timeout().is_some_and(|at| at <= now) {
            process.node.handle_timeout(now);
        }
        process.answer(ctx.at, now);
        let machine = (self.index, self.id, self.host, addr);
        loop {
            process.drain(ctx, machine);
            if !process.perform(ctx, machine) {
                break;
            }
        }
        process
            .wires
            .retain(|_, wire| !wire.is_over || wire.deadline.is_some());
    }
}

type Machine = (NodeId, PeerId, HostId, SocketAddr);

impl Process {
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
                    self.wires.insert(conn.id(), Wire::new(conn, None));
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
        let remote = self.wires.get(&conn).and_then(|wire| wire.remote);
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
    fn new(conn: Connection, remote: Option<SocketAddr>) -> Self {
        Self {
            conn,
            buf: TransmitBuf::new(10),
            deadline: None,
            remote,
            is_over: false,
        }
    }
}

const MS: Duration = Duration::from_millis(1);
