//! Peers in virtual time: whole nodes but for their sockets, joined by a network that loses nothing.

mod gateway;

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use adit_proto_core::{
    connection::Connection,
    endpoint::{Endpoint, EndpointLimits, Protocol},
    id::{ConnId, Slot},
    link::peer_tls::{PeerSecurity, PeerTls},
    output::{PathMeta, Routed, ToEndpoint, Transmit},
    peer::{
        NodeId, PEER_SERVER_NAME,
        breaker::BreakerSettings,
        capabilities::Capabilities,
        config::PeerConfig,
        directory::Directory,
        epoch::EpochMark,
        identity::{Leaf, NodeRecord, PinSet},
        key::{ClusterSecret, KeyId, KeyRing},
        ledger::PeerLedger,
        receive::JoinCheck,
    },
    target::Target,
};
use bytes::{Bytes, BytesMut};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use self::gateway::TestGateway;
use super::{
    CatalogueConfig, INPUTS_LEN, PeerCommand, PeerConnection, PeerParts, PeersConfig, PeersCore,
    PeersHandle, PeersHost, PeersInput, Requests,
};
use crate::{
    clock::system_env,
    commands::{Command, Commands},
    connection::{Driver, Worker},
    handoff::{Receiver, Sender, handoff},
    leg::Leg,
    socket::Socket,
};

pub(super) struct Bed {
    pub(super) nodes: Vec<TestNode>,
    now: Instant,
    ca: (Vec<u8>, Issuer<'static, KeyPair>),
    /// Certificate and key of each.
    pub(super) pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Nodes that take themselves for another than the others do.
    mistaken: BTreeMap<usize, NodeId>,
    /// Everything that is sent is lost.
    pub(super) is_cut: bool,
}

pub(super) struct TestNode {
    pub(super) core: PeersCore,
    pub(super) host: Host,
    pub(super) handle: PeersHandle,
    pub(super) requests: Requests,
    pub(super) inputs: Receiver<PeersInput>,
    /// What it is told waits.
    pub(super) is_deaf: bool,
    /// How often its count of starts was lifted.
    pub(super) lifts: Arc<AtomicUsize>,
    commands: Receiver<(ConnId, Command<PeerCommand>)>,
    pub(super) addr: SocketAddr,
    pub(super) gateway: Option<TestGateway>,
}

pub(super) struct Host {
    endpoint: Endpoint,
    pub(super) workers: BTreeMap<ConnId, Worker<PeerConnection, NoLeg>>,
    commands: Sender<(ConnId, Command<PeerCommand>)>,
    pub(super) stopping: bool,
    /// Connections that there were, and where to.
    pub(super) carried: Vec<(ConnId, SocketAddr)>,
}

/// No session has a socket here.
#[derive(Debug)]
pub(super) enum NoLeg {}

#[derive(Default)]
struct Said {
    datagrams: Vec<Datagram>,
    notices: Vec<ToEndpoint>,
}

/// From where, where the connection says, and to whom.
type Datagram = (Option<IpAddr>, SocketAddr, Bytes);

struct NoJoins;

impl JoinCheck for NoJoins {
    fn allows(&self, _from: NodeId, _payload: &[u8], _leaf: &Leaf) -> bool {
        false
    }
}

impl Bed {
    /// So many nodes with numbers from 1, who know each other; those named are gateways.
    pub(super) fn new(count: usize, gateways: &[usize]) -> Self {
        Self::mistaken(count, gateways, &[])
    }

    /// The same, of which some have another number in their own configuration.
    pub(super) fn mistaken(count: usize, gateways: &[usize], numbers: &[(usize, u64)]) -> Self {
        Self::made(&vec![Capabilities::ALL; count], gateways, numbers)
    }

    /// The same, of nodes that offer these.
    pub(super) fn offering(capabilities: &[Capabilities], gateways: &[usize]) -> Self {
        Self::made(capabilities, gateways, &[])
    }

    fn made(capabilities: &[Capabilities], gateways: &[usize], numbers: &[(usize, u64)]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().der().to_vec();
        let mut bed = Self {
            nodes: Vec::new(),
            now: Instant::now(),
            ca: (ca, Issuer::new(params, key)),
            pairs: Vec::new(),
            is_cut: false,
            mistaken: numbers.iter().map(|(n, of)| (*n, NodeId(*of))).collect(),
        };
        bed.pairs = capabilities.iter().map(|_| bed.issue()).collect();
        for (nth, offered) in capabilities.iter().enumerate() {
            let node = bed.node(nth, *offered, gateways.contains(&nth));
            bed.nodes.push(node);
        }
        bed
    }

    fn issue(&self) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::DnsName(PEER_SERVER_NAME.try_into().unwrap())];
        let cert = params.signed_by(&key, &self.ca.1).unwrap();
        (cert.der().to_vec(), key.serialize_der())
    }

    /// The number that a node takes for its own.
    fn own_id(&self, nth: usize) -> NodeId {
        self.mistaken.get(&nth).copied().unwrap_or_else(|| id(nth))
    }

    fn security(&self, local: usize) -> PeerSecurity {
        let mut topology = Directory::default();
        for (nth, (cert, _)) in self.pairs.iter().enumerate() {
            let leaf = Leaf::from_der(cert).unwrap();
            let record = NodeRecord {
                node: match nth == local {
                    true => self.own_id(nth),
                    false => id(nth),
                },
                spki_pins: PinSet::new([leaf.spki]).unwrap(),
                spiffe_id: None,
                address: String::new(),
            };
            topology.set(record).unwrap();
        }
        PeerSecurity::Mutual(Arc::new(PeerTls {
            local: self.own_id(local),
            cert_chain: vec![self.pairs[local].0.clone()],
            key: self.pairs[local].1.clone().into(),
            roots: vec![self.ca.0.clone()],
            crls: Vec::new(),
            identities: Arc::new(topology),
            bootstrap_until: 0,
        }))
    }

    fn node(&self, nth: usize, offered: Capabilities, is_gateway: bool) -> TestNode {
        let secret = ClusterSecret::new([3; 32]).unwrap();
        let ring = KeyRing::new(KeyId(1), secret);
        let ledger = PeerLedger::new(1, ring, Box::new(EpochMark::new(0)));
        let gateway = is_gateway.then(TestGateway::new);
        let lifts = Arc::<AtomicUsize>::default();
        let lifted = Arc::clone(&lifts);
        let lost_epoch = move |known: u64, done: Box<dyn FnOnce(_) + Send>| {
            lifted.fetch_add(1, Ordering::Relaxed);
            done(Ok(known + 1));
        };
        let others = (0..self.pairs.len()).filter(|other| *other != nth);
        let config = PeersConfig {
            listen: addr(nth),
            security: self.security(nth),
            config: PeerConfig {
                capabilities: offered,
                ..PeerConfig::new(Arc::new(ledger), Arc::new(NoJoins))
            },
            limits: EndpointLimits::default(),
            breaker: BreakerSettings::default(),
            peers: others
                .map(|other| (id(other), Target::from(addr(other))))
                .collect(),
            catalogue: gateway.as_ref().map(|gateway| CatalogueConfig {
                local: self.own_id(nth),
                epoch: 1,
                lost_epoch: Box::new(lost_epoch),
                gateway: gateway.handle.clone(),
            }),
            links: None,
        };
        let (own, inputs) = handoff(INPUTS_LEN);
        let (to_commands, commands) = handoff(INPUTS_LEN);
        let env = system_env(None).unwrap();
        let made = PeersCore::new(self.now, config, env, addr(nth), own).unwrap();
        let (core, endpoint, handle, requests) = made;
        TestNode {
            core,
            host: Host {
                endpoint,
                workers: BTreeMap::new(),
                commands: to_commands,
                stopping: false,
                carried: Vec::new(),
            },
            handle,
            requests,
            inputs,
            is_deaf: false,
            lifts,
            commands,
            addr: addr(nth),
            gateway,
        }
    }

    /// Has a node dial another for sessions.
    pub(super) fn dial_forward(&mut self, from: usize, to: usize) -> ConnId {
        let node = &mut self.nodes[from];
        let (at, env) = (addr(to), system_env(None).unwrap());
        let endpoint = node.host.endpoint();
        let dialled = endpoint.dial_peer(self.now, Protocol::Forward, Some(id(to)), at, &env);
        let conn = dialled.unwrap();
        let id = conn.id();
        node.host.carry(self.now, conn, node.core.parts());
        id
    }

    /// Tells the owner of a node's connections something.
    pub(super) fn tell(&mut self, nth: usize, input: PeersInput) {
        let node = &mut self.nodes[nth];
        node.core.take(self.now, input, &mut node.host);
    }

    /// Ends a connection of a node as one whose task has panicked.
    pub(super) fn abandon(&mut self, nth: usize, conn: ConnId) {
        let worker = self.nodes[nth].host.workers.remove(&conn);
        worker.unwrap().abandon(self.now);
    }

    /// Lets everything be said that has to be at this moment.
    pub(super) fn settle(&mut self) {
        for _ in 0..1_000 {
            let mut said = Vec::new();
            let mut any = false;
            for node in &mut self.nodes {
                any |= node.turn(self.now);
                let own = node.addr;
                let from = |ip: Option<IpAddr>| (ip.unwrap_or_else(|| own.ip()), own.port()).into();
                let datagrams = node.host.run(self.now).into_iter();
                said.extend(datagrams.map(|(ip, to, bytes)| (from(ip), to, bytes)));
            }
            if !any && said.is_empty() {
                return;
            }
            said.retain(|_| !self.is_cut);
            for (from, to, bytes) in said {
                let mut nodes = self.nodes.iter_mut();
                let node = nodes.find(|node| [node.addr, elsewhere(node.addr)].contains(&to));
                node.unwrap().receive(self.now, (from, to), &bytes);
            }
        }
        panic!("it does not come to rest");
    }

    /// Gives a command to a node's connection.
    pub(super) fn command(&mut self, nth: usize, conn: ConnId, command: Command<PeerCommand>) {
        self.nodes[nth].host.command(self.now, conn, command);
    }

    /// Lets so much time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        let mut turns = 0;
        while let Some(at) = self.next_timeout().filter(|at| *at <= end) {
            turns += 1;
            assert!(turns < 100_000, "a timer that is over stays");
            self.now = self.now.max(at);
            for node in &mut self.nodes {
                node.expire(self.now);
            }
            self.settle();
        }
        self.now = end;
    }

    fn next_timeout(&self) -> Option<Instant> {
        let due = |node: &TestNode| {
            let workers = node.host.workers.values().filter_map(Worker::poll_timeout);
            workers.chain(node.core.poll_timeout()).min()
        };
        self.nodes.iter().filter_map(due).min()
    }
}

impl TestNode {
    pub(super) fn gateway(&mut self) -> &mut TestGateway {
        self.gateway.as_mut().unwrap()
    }

    fn turn(&mut self, now: Instant) -> bool {
        let mut any = false;
        if !self.is_deaf {
            for input in all(&self.inputs) {
                any = true;
                self.core.take(now, input, &mut self.host);
            }
        }
        for (conn, command) in all(&self.commands) {
            any = true;
            self.host.command(now, conn, command);
        }
        any | self.gateway.as_mut().is_some_and(TestGateway::turn)
    }

    fn expire(&mut self, now: Instant) {
        for worker in self.host.workers.values_mut() {
            worker.handle_timeout(now);
        }
        if self.core.poll_timeout().is_some_and(|at| at <= now) {
            self.core.handle_timeout(now, &mut self.host);
        }
    }

    fn receive(&mut self, now: Instant, (remote, to): (SocketAddr, SocketAddr), bytes: &[u8]) {
        let path = PathMeta {
            remote,
            local_ip: Some(to.ip()),
            ecn: None,
        };
        let mut reply = Vec::new();
        let data = BytesMut::from(bytes);
        match (self.host.endpoint).handle_datagram(now, path, data, &mut reply) {
            Routed::Existing(id, message) => {
                if let Some(worker) = self.host.workers.get_mut(&id) {
                    worker.handle_message(now, message);
                }
            }
            // A process that stops takes no other.
            Routed::New(_) if self.host.stopping => {}
            Routed::New(conn) => self.host.carry(now, *conn, self.core.parts()),
            // Of connections that are over.
            Routed::Reply(_) | Routed::Dropped => {}
        }
    }
}

impl Host {
    /// One round of every connection; gives the datagrams that are sent.
    fn run(&mut self, now: Instant) -> Vec<Datagram> {
        let mut said = Said::default();
        for worker in self.workers.values_mut() {
            while worker.run(now, &mut said) {}
            for notice in said.notices.drain(..) {
                if let Some(answer) = self.endpoint.handle_notice(notice) {
                    worker.handle_message(now, answer);
                }
            }
            while worker.run(now, &mut said) {}
        }
        self.workers.retain(|_, worker| !worker.is_over());
        said.datagrams
    }
}

impl PeersHost for Host {
    fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    fn carry(&mut self, now: Instant, conn: Connection, parts: &PeerParts) {
        let id = conn.id();
        self.carried.push((id, conn.remote()));
        let role = parts.role(&conn, Commands::Shared(id, self.commands.clone()));
        self.workers.insert(id, Worker::new(now, conn, role, 1));
    }

    fn command(&mut self, now: Instant, conn: ConnId, command: Command<PeerCommand>) {
        if let Some(worker) = self.workers.get_mut(&conn) {
            worker.handle_command(now, command, &mut Said::default());
        }
    }

    fn command_all(&mut self, now: Instant, make: &dyn Fn() -> Command<PeerCommand>) {
        for conn in self.workers.keys().copied().collect::<Vec<_>>() {
            self.command(now, conn, make());
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
    }
}

impl Driver for Said {
    type Leg = NoLeg;

    fn leg(&mut self, _slot: Slot, _socket: Socket) -> io::Result<NoLeg> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn send(&mut self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let size = transmit.segment_size.unwrap_or(transmit.size);
        let datagrams = bytes[..transmit.size].chunks(size);
        let (from, to) = (transmit.src_ip, transmit.destination);
        let datagrams = datagrams.map(|bytes| (from, to, Bytes::copy_from_slice(bytes)));
        self.datagrams.extend(datagrams);
        true
    }

    fn notice(&mut self, _id: ConnId, notice: ToEndpoint) {
        self.notices.push(notice);
    }

    fn send_batch(&self) -> usize {
        1
    }
}

impl Leg for NoLeg {
    type Buffer = ();

    fn begin_turn(&mut self) {
        match *self {}
    }

    fn poll_read(&mut self, (): &mut ()) -> Poll<io::Result<Bytes>> {
        match *self {}
    }

    fn poll_write(&mut self, _slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match *self {}
    }

    fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
        match *self {}
    }

    fn reset(self, _why: &'static str) {
        match self {}
    }

    fn has_failed(&self) -> bool {
        match *self {}
    }
}

/// The number of a node by its place in the bed.
pub(super) fn id(nth: usize) -> NodeId {
    NodeId(nth as u64 + 1)
}

fn addr(nth: usize) -> SocketAddr {
    format!("10.0.0.{}:4434", nth + 1).parse().unwrap()
}

/// The other address at which a node is reached, too.
pub(super) fn elsewhere(addr: SocketAddr) -> SocketAddr {
    let other = addr.to_string().replacen("10.0.0.", "10.0.1.", 1);
    other.parse().unwrap()
}

pub(super) fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Everything that waits.
pub(super) fn all<T>(queue: &Receiver<T>) -> VecDeque<T> {
    let mut batch = VecDeque::new();
    let _any = queue.poll_take(&cx(), &mut batch);
    batch
}
