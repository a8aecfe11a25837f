//! Endpoints joined in virtual time. The earliest packet or deadline is next; nothing sleeps.

// With its path, as the benchmarks take this file by its own.
#[path = "world/step.rs"]
mod step;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::{
    agent::advertise::AdvertiserConfig,
    close::Closed,
    connection::Connection,
    endpoint::{AgentConfig, Endpoint, EndpointLimits},
    env::{EndpointSecrets, Env, Seed},
    id::{AttemptId, ConnId, SessionId, Slot},
    link::{provider::default_provider, tls::AgentTls},
    output::Event,
    route::RouteSet,
};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    journal::Kept,
    net::{Net, Path},
    peer::{Answer, Flow, Peer},
    pki::{GATEWAY_NAME, Pki, Wall},
    raw::{Raw, RawConfig},
};

/// A member's place in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(usize);

/// A connection at one of its ends.
pub(crate) type At = (NodeId, ConnId);

pub(crate) struct World {
    pub(crate) pki: Pki,
    pub(crate) wall: Arc<Wall>,
    pub(crate) net: Net,
    /// Datagrams to addresses where nobody lives.
    pub(crate) mailbox: Vec<(SocketAddr, Bytes)>,
    seed: u64,
    start: Instant,
    now: Instant,
    nodes: Vec<Node>,
    attempts: u64,
    steps: u64,
    /// What happens is taken down, and done once more at the end.
    pub(crate) kept: Kept,
}

struct Node {
    addr: SocketAddr,
    env: Env,
    kind: Kind,
    peers: BTreeMap<ConnId, Peer>,
    answer: Answer,
    /// Connections take inputs but are not polled.
    held: bool,
    /// The socket takes nothing more.
    blocked: bool,
}

enum Kind {
    Adit(Box<Endpoint>),
    Raw(Box<Raw>),
}

/// A gateway and one agent that is connected to it.
pub(crate) struct Joined {
    pub(crate) w: World,
    pub(crate) g: At,
    pub(crate) a: At,
}

impl Joined {
    pub(crate) fn new(seed: u64) -> Self {
        Self::over(seed, |_| {})
    }

    /// Both ends connected over a path of this kind.
    pub(crate) fn over(seed: u64, kind: impl Fn(&mut Path)) -> Self {
        Self::limited(seed, EndpointLimits::default(), kind)
    }

    /// Both ends connected over a path of this kind, with these limits.
    pub(crate) fn limited(seed: u64, limits: EndpointLimits, kind: impl Fn(&mut Path)) -> Self {
        let mut w = World::new(seed);
        let gateway = w.add_gateway(limits);
        let agent = w.add_agent();
        w.endpoint(agent).set_limits(limits);
        let (from, to) = (w.addr(agent), w.addr(gateway));
        kind(w.net.path(from, to));
        kind(w.net.path(to, from));
        let a = w.connect(agent, gateway);
        let joined = w.run_until(Duration::from_secs(5), |w| {
            w.peers(gateway).any(|p| {
                p.events
                    .iter()
                    .any(|(_, e)| matches!(e, Event::RoutesAccepted { .. }))
            })
        });
        assert!(joined, "no connection: {:?}", w.events(a));
        let g = (gateway, w.only_conn(gateway));
        Self { w, g, a }
    }

    /// Opens a session and gives its slot, which both ends share.
    pub(crate) fn open(&mut self) -> Slot {
        let attempt = self.w.open(self.g, "10.0.0.5:22");
        let g = self.g;
        let opened = self
            .w
            .run_until(Duration::from_secs(5), |w| w.opened(g, attempt).is_some());
        assert!(opened, "not opened: {:?}", self.w.events(g));
        self.w.opened(g, attempt).unwrap()
    }

    /// Both directions of the path.
    pub(crate) fn both(&mut self, change: impl Fn(&mut Path)) {
        let (g, a) = (self.w.addr(self.g.0), self.w.addr(self.a.0));
        change(self.w.net.path(g, a));
        change(self.w.net.path(a, g));
    }

    pub(crate) fn gateway_path(&mut self) -> &mut Path {
        let (g, a) = (self.w.addr(self.g.0), self.w.addr(self.a.0));
        self.w.net.path(g, a)
    }

    pub(crate) fn agent_path(&mut self) -> &mut Path {
        let (g, a) = (self.w.addr(self.g.0), self.w.addr(self.a.0));
        self.w.net.path(a, g)
    }
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "the base of a test's virtual time"
    )]
    pub(crate) fn new(seed: u64) -> Self {
        let start = Instant::now() + Duration::from_secs(86_400);
        Self {
            pki: Pki::new(),
            wall: Wall::new(),
            net: Net::new(seed),
            mailbox: Vec::new(),
            seed,
            start,
            now: start,
            nodes: Vec::new(),
            attempts: 0,
            steps: 0,
            kept: Kept::new(start),
        }
    }

    /// Gives an environment; `key` is that of stateless resets.
    pub(crate) fn env(&self, label: &str, key: u8) -> Env {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        Env {
            seed: Seed::new(seed).child(label),
            wall_clock: Arc::clone(&self.wall) as _,
            crypto: Arc::new(default_provider()),
            secrets: EndpointSecrets::new([key; 32], [key ^ 0xff; 32]),
        }
    }

    fn add(&mut self, kind: Kind, env: Env) -> NodeId {
        let index = self.nodes.len();
        let host = u8::try_from(index + 1).unwrap();
        self.nodes.push(Node {
            addr: SocketAddr::from(([192, 0, 2, host], 4433)),
            env,
            kind,
            peers: BTreeMap::new(),
            answer: Answer::Accept,
            held: false,
            blocked: false,
        });
        NodeId(index)
    }

    pub(crate) fn add_gateway(&mut self, limits: EndpointLimits) -> NodeId {
        self.add_gateway_that(limits, true)
    }

    pub(crate) fn add_gateway_that(&mut self, limits: EndpointLimits, admits: bool) -> NodeId {
        let env = self.env("gateway", 1);
        let tls = self.pki.gateway_tls(admits);
        let mut endpoint = Endpoint::gateway(&tls, limits, &env).unwrap();
        self.kept.record(&mut endpoint);
        self.add(Kind::Adit(Box::new(endpoint)), env)
    }

    /// A new process at the gateway's address that knows nothing of the old one.
    pub(crate) fn restart_gateway(&mut self, node: NodeId, key: u8) {
        let env = self.env("restarted", key);
        let tls = self.pki.gateway_tls(true);
        let mut endpoint = Endpoint::gateway(&tls, EndpointLimits::default(), &env).unwrap();
        self.kept.record(&mut endpoint);
        let node = &mut self.nodes[node.0];
        node.env = env;
        node.kind = Kind::Adit(Box::new(endpoint));
        node.peers.clear();
    }

    pub(crate) fn add_agent(&mut self) -> NodeId {
        let env = self.env(&format!("agent {}", self.nodes.len()), 2);
        let mut endpoint = Endpoint::agent(&env);
        self.kept.record(&mut endpoint);
        self.add(Kind::Adit(Box::new(endpoint)), env)
    }

    pub(crate) fn add_raw_client(&mut self, gateway: NodeId, config: &RawConfig) -> NodeId {
        let raw = Raw::client(config, self.now, self.addr(gateway));
        let env = self.env("raw", 3);
        let node = self.add(Kind::Raw(Box::new(raw)), env);
        self.drain(node);
        node
    }

    pub(crate) fn add_raw_server(&mut self, config: &RawConfig) -> NodeId {
        let raw = Raw::server(&self.pki.server, config);
        let env = self.env("raw", 3);
        self.add(Kind::Raw(Box::new(raw)), env)
    }

    pub(crate) fn connect(&mut self, agent: NodeId, gateway: NodeId) -> At {
        let tls = self.pki.agent_tls();
        self.connect_as(agent, gateway, tls, GATEWAY_NAME)
    }

    pub(crate) fn connect_as(
        &mut self,
        agent: NodeId,
        gateway: NodeId,
        tls: AgentTls,
        name: &str,
    ) -> At {
        let config = AgentConfig {
            tls: Arc::new(tls),
            routes: Arc::new(routes("10.0.0.0/8")),
            intervals: AdvertiserConfig {
                heartbeat_interval: HEARTBEAT_INTERVAL,
                ..AdvertiserConfig::default()
            },
        };
        let remote = self.addr(gateway);
        let now = self.now;
        let node = &mut self.nodes[agent.0];
        let Kind::Adit(endpoint) = &mut node.kind else {
            panic!("a bare peer");
        };
        let conn = endpoint
            .connect(now, &config, remote, name, &node.env)
            .unwrap();
        let id = conn.id();
        let peer = Peer::new(conn, node.answer.clone());
        node.peers.insert(id, peer);
        self.drain(agent);
        (agent, id)
    }

    /// What the node's application does with requests, on connections that exist and on later ones.
    pub(crate) fn set_answer(&mut self, node: NodeId, answer: &Answer) {
        let node = &mut self.nodes[node.0];
        node.answer = answer.clone();
        for peer in node.peers.values_mut() {
            peer.set_answer(answer.clone());
        }
    }

    /// The same socket at another address, as behind a NAT that forgot.
    pub(crate) fn move_to(&mut self, node: NodeId, addr: SocketAddr) {
        self.nodes[node.0].addr = addr;
    }

    /// The driver of a node's connections is slow: inputs come, nobody polls. Timers do not fire.
    pub(crate) fn set_held(&mut self, node: NodeId, held: bool) {
        self.nodes[node.0].held = held;
        for peer in self.nodes[node.0].peers.values_mut() {
            peer.deadline = None;
        }
        self.drain(node);
    }

    /// The socket of a node takes nothing from here on.
    pub(crate) fn set_blocked(&mut self, node: NodeId) {
        self.nodes[node.0].blocked = true;
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Packets and deadlines since the start.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Time since the start.
    pub(crate) fn at(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn addr(&self, node: NodeId) -> SocketAddr {
        self.nodes[node.0].addr
    }

    pub(crate) fn endpoint(&mut self, node: NodeId) -> &mut Endpoint {
        match &mut self.nodes[node.0].kind {
            Kind::Adit(endpoint) => endpoint,
            Kind::Raw(_) => panic!("a bare peer"),
        }
    }

    pub(crate) fn peers(&self, node: NodeId) -> impl Iterator<Item = &Peer> {
        self.nodes[node.0].peers.values()
    }

    pub(crate) fn only_conn(&self, node: NodeId) -> ConnId {
        let mut ids = self.nodes[node.0].peers.keys();
        let (Some(id), None) = (ids.next(), ids.next()) else {
            panic!("not exactly one connection");
        };
        *id
    }

    pub(crate) fn peer(&self, at: At) -> &Peer {
        &self.nodes[at.0.0].peers[&at.1]
    }

    pub(crate) fn flow(&self, at: At, slot: Slot) -> &Flow {
        &self.peer(at).flows[&slot]
    }

    pub(crate) fn events(&self, at: At) -> &[(Duration, Event)] {
        &self.peer(at).events
    }

    pub(crate) fn has(&self, at: At, is: impl Fn(&Event) -> bool) -> bool {
        self.when(at, is).is_some()
    }

    /// When the first such event came.
    pub(crate) fn when(&self, at: At, is: impl Fn(&Event) -> bool) -> Option<Duration> {
        let found = self.events(at).iter().find(|(_, event)| is(event))?;
        Some(found.0)
    }

    pub(crate) fn count(&self, at: At, is: impl Fn(&Event) -> bool) -> usize {
        self.events(at).iter().filter(|(_, e)| is(e)).count()
    }

    pub(crate) fn closed(&self, at: At) -> Option<&Closed> {
        self.events(at).iter().find_map(|(_, event)| match event {
            Event::Closed(closed) => Some(closed),
            _ => None,
        })
    }

    pub(crate) fn opened(&self, at: At, want: AttemptId) -> Option<Slot> {
        self.events(at).iter().find_map(|(_, event)| match event {
            Event::SessionOpened { attempt, slot } if *attempt == want => Some(*slot),
            _ => None,
        })
    }

    /// Asks the agent for a session.
    pub(crate) fn open(&mut self, at: At, target: &str) -> AttemptId {
        self.attempts += 1;
        let attempt = AttemptId(self.attempts);
        let session = SessionId(Uuid::from_u128(self.attempts.into()));
        let now = self.now;
        self.with(at, |peer| {
            peer.attempts.insert(attempt);
            let mut gateway = peer.conn.as_gateway().unwrap();
            gateway.open_session(now, attempt, session, &target.parse().unwrap());
        });
        attempt
    }

    /// Changes what a session's end wants, moves what can be moved, and drains.
    pub(crate) fn flow_mut(&mut self, at: At, slot: Slot, change: impl FnOnce(&mut Flow)) {
        self.with(at, |peer| {
            change(peer.flows.get_mut(&slot).unwrap());
            peer.pump(slot);
        });
    }

    /// Does something to a connection, then drains it.
    pub(crate) fn with<R>(&mut self, at: At, act: impl FnOnce(&mut Peer) -> R) -> R {
        let peer = self.nodes[at.0.0].peers.get_mut(&at.1).unwrap();
        let result = act(peer);
        self.drain(at.0);
        result
    }

    pub(crate) fn conn<R>(&mut self, at: At, act: impl FnOnce(&mut Connection) -> R) -> R {
        self.with(at, |peer| act(&mut peer.conn))
    }

    /// Does something to a bare peer, then drains it.
    pub(crate) fn raw<R>(&mut self, node: NodeId, act: impl FnOnce(&mut Raw) -> R) -> R {
        let Kind::Raw(raw) = &mut self.nodes[node.0].kind else {
            panic!("not a bare peer");
        };
        let result = act(raw);
        self.drain(node);
        result
    }

    /// Puts a datagram on the wire.
    pub(crate) fn inject(&mut self, src: SocketAddr, dst: NodeId, data: &[u8]) {
        let dst = self.addr(dst);
        self.net.send(self.now, (src, dst), None, data);
    }
}

pub(crate) fn routes(subnet: &str) -> RouteSet {
    RouteSet {
        subnets: vec![subnet.parse().unwrap()],
        domains: Vec::new(),
    }
}

/// That of the reference agent: seldom enough for bare peers that answer nothing.
pub(crate) const HEARTBEAT_INTERVAL: Duration = secs(60);

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Drop for World {
    fn drop(&mut self) {
        self.nodes.clear();
        if !std::thread::panicking() {
            self.kept.replay();
        }
    }
}
