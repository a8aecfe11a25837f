//! A node: its endpoint, its pool, its connections and its application, driven as a driver would.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Instant};

use adit_proto_core::{
    endpoint::{Endpoint, EndpointLimits},
    env::{EndpointSecrets, Env, Seed, WallClock},
    link::peer_tls::{PeerSecurity, PeerTls},
    peer::{
        NodeId as PeerId, breaker::BreakerSettings, capabilities::Capabilities, config::PeerConfig,
        directory::Directory, epoch::EpochMark, identity::Leaf, key::KeyRing, ledger::PeerLedger,
        node::Node, receive::JoinCheck, rpc_type::RpcType,
    },
};
use bytes::Bytes;

use super::{
    facts::{Fact, Holder, Serial},
    log::Log,
    process::{Machine, Process},
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
        let process = Process::new(self.id, endpoint, env, ledger, node);
        self.process = Some(Box::new(process));
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
        let Some(process) = &mut self.process else {
            return;
        };
        match process.endpoint.set_peer_security(&security, &process.env) {
            Ok(standing) => process.reconsider(ctx.now(), &standing),
            Err(error) => {
                let text = format!("no certificate is exchanged: {error}");
                ctx.log.accuse("panic", ctx.at, text);
            }
        }
        self.run(ctx);
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
            process.rebound(ctx.now());
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
        let machine = self.machine();
        if let Some(process) = &mut self.process
            && arrival.dst == machine.3
        {
            process.receive(ctx, machine, arrival);
        }
        self.run(ctx);
    }

    pub(super) fn next_at(&self, base: Instant) -> Option<At> {
        self.process.as_ref()?.next_at(base, self.slack)
    }

    /// Does all that is due, until everything waits.
    pub(super) fn run(&mut self, ctx: &mut Ctx<'_>) {
        let machine = self.machine();
        if let Some(process) = &mut self.process {
            process.run(ctx, machine);
        }
    }

    fn machine(&self) -> Machine {
        (self.index, self.id, self.host, self.addr())
    }
}
