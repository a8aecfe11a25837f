//! A cluster in virtual time. The earliest packet or deadline is next; nothing sleeps.

mod step;
mod wire;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::{
    close::Closed,
    connection::{Connection, PeerHandle},
    endpoint::{Endpoint, EndpointLimits, Protocol},
    env::{EndpointSecrets, Env, Seed},
    id::{CallId, ConnId},
    link::provider::default_provider,
    peer::{
        NodeId,
        capabilities::Capabilities,
        config::PeerConfig,
        directory::Directory,
        epoch::EpochMark,
        ledger::PeerLedger,
        node::{CallError, Node},
        retry::Failure,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;

pub(crate) use self::wire::{App, Wire};
use super::{
    cluster::{Cluster, NoJoins, ring},
    net::{Net, Path},
    pki::{Pair, Wall},
    raw::{Raw, RawConfig},
};

/// A member's place in the bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) usize);

/// A connection at one of its ends.
pub(crate) type At = (Place, ConnId);

pub(crate) struct Member {
    pub(crate) addr: SocketAddr,
    pub(crate) env: Env,
    pub(crate) ledger: Arc<PeerLedger>,
    pub(crate) wires: BTreeMap<ConnId, Wire>,
    pub(crate) app: App,
    /// Who keeps its connections, where the test does not.
    pub(crate) node: Option<Node>,
    pub(crate) outcomes: BTreeMap<CallId, Result<Bytes, CallError>>,
    /// Bodies of the requests that were executed, of all connections.
    pub(crate) executed: Vec<Bytes>,
    /// Events that it takes before it looks at nothing any more; none where it keeps up.
    pub(crate) patience: Option<u32>,
    kind: Kind,
}

enum Kind {
    Adit(Box<Endpoint>),
    Raw(Box<Raw>),
}

/// How a member is set up.
pub(crate) struct Setup {
    pub(crate) id: u64,
    pub(crate) pair: Pair,
    pub(crate) topology: Directory,
    pub(crate) secret: u8,
    pub(crate) boot: u64,
    pub(crate) change: fn(&mut PeerConfig),
}

pub(crate) struct Bed {
    pub(crate) net: Net,
    pub(crate) wall: Arc<Wall>,
    pub(crate) pki: Cluster,
    pub(crate) members: Vec<Member>,
    start: Instant,
    now: Instant,
    calls: u64,
}

impl Bed {
    #[expect(
        clippy::disallowed_methods,
        reason = "the base of a test's virtual time"
    )]
    pub(crate) fn new(seed: u64) -> Self {
        let start = Instant::now() + Duration::from_secs(86_400);
        Self {
            net: Net::new(seed),
            wall: Wall::new(),
            pki: Cluster::new(),
            members: Vec::new(),
            start,
            now: start,
            calls: 0,
        }
    }

    /// Nodes 1 and 2 with everything offered, or as in the reference.
    pub(crate) fn two(seed: u64, capabilities: Capabilities) -> (Self, Place, Place) {
        let mut bed = Self::new(seed);
        let change: fn(&mut PeerConfig) = match capabilities == Capabilities::NONE {
            true => |config| config.capabilities = Capabilities::NONE,
            false => |_| {},
        };
        let mut setup = bed.setup(1);
        setup.change = change;
        let one = bed.add(setup);
        let mut setup = bed.setup(2);
        setup.change = change;
        let two = bed.add(setup);
        (bed, one, two)
    }

    /// Gives a member other records, and tells its connections.
    pub(crate) fn set_topology(&mut self, place: Place, id: u64, topology: &Directory) {
        let security = self.pki.security(id, &self.pki.pairs[&id], topology);
        let (now, member) = (self.now, &mut self.members[place.0]);
        let Kind::Adit(endpoint) = &mut member.kind else {
            panic!("a bare peer");
        };
        let env = member.env.clone();
        let standing = endpoint.set_peer_security(&security, &env).unwrap();
        for wire in member.wires.values_mut() {
            wire.conn.reconsider(now, &standing);
        }
        self.drain(place);
    }

    /// What makes a proper member.
    pub(crate) fn setup(&self, id: u64) -> Setup {
        Setup {
            id,
            pair: self.pki.pairs[&id].clone(),
            topology: self.pki.topology.clone(),
            secret: 3,
            boot: 1,
            change: |_| {},
        }
    }

    pub(crate) fn env(&self, label: &str, key: u8) -> Env {
        Env {
            seed: Seed::new([7; 32]).child(label),
            wall_clock: Arc::clone(&self.wall) as _,
            crypto: Arc::new(default_provider()),
            secrets: EndpointSecrets::new([key; 32], [key ^ 0xff; 32]),
        }
    }

    pub(crate) fn add(&mut self, setup: Setup) -> Place {
        let index = self.members.len();
        let (env, ledger, endpoint) = self.start(&setup, index);
        self.push(env, ledger, Kind::Adit(Box::new(endpoint)))
    }

    /// A process begins, at the place of a former one or a new one.
    fn start(&self, setup: &Setup, index: usize) -> (Env, Arc<PeerLedger>, Endpoint) {
        let key = u8::try_from(index).unwrap();
        let env = self.env(&format!("node {index} {}", setup.boot), key);
        let epochs = Box::new(EpochMark::new(0));
        let ledger = Arc::new(PeerLedger::new(setup.boot, ring(setup.secret), epochs));
        let mut config = PeerConfig::new(Arc::clone(&ledger), Arc::new(NoJoins));
        (setup.change)(&mut config);
        let security = self.pki.security(setup.id, &setup.pair, &setup.topology);
        let limits = EndpointLimits::default();
        let endpoint = Endpoint::peer(&config, &security, limits, &env).unwrap();
        (env, ledger, endpoint)
    }

    /// A process dies, and another begins at its address that knows nothing of it.
    pub(crate) fn restart(&mut self, place: Place, setup: &Setup) {
        let (env, ledger, endpoint) = self.start(setup, place.0);
        let member = &mut self.members[place.0];
        (member.env, member.ledger) = (env, ledger);
        member.kind = Kind::Adit(Box::new(endpoint));
        member.wires.clear();
    }

    fn push(&mut self, env: Env, ledger: Arc<PeerLedger>, kind: Kind) -> Place {
        let index = self.members.len();
        let host = u8::try_from(index + 1).unwrap();
        self.members.push(Member {
            addr: SocketAddr::from(([192, 0, 2, host], 7000)),
            env,
            ledger,
            wires: BTreeMap::new(),
            app: App::Echo,
            node: None,
            outcomes: BTreeMap::new(),
            executed: Vec::new(),
            patience: None,
            kind,
        });
        Place(index)
    }

    /// An endpoint that was made by the test.
    pub(crate) fn add_endpoint(
        &mut self,
        env: Env,
        ledger: Arc<PeerLedger>,
        endpoint: Endpoint,
    ) -> Place {
        self.push(env, ledger, Kind::Adit(Box::new(endpoint)))
    }

    pub(crate) fn add_raw(&mut self, config: &RawConfig, to: Place) -> Place {
        let raw = Raw::client(config, self.now, self.addr(to));
        let env = self.env("raw", 99);
        let ledger = Arc::new(PeerLedger::new(1, ring(3), Box::new(EpochMark::new(0))));
        let place = self.push(env, ledger, Kind::Raw(Box::new(raw)));
        self.drain(place);
        place
    }

    /// A bare peer that takes connections, with the certificate of a node.
    pub(crate) fn add_raw_server(&mut self, config: &RawConfig, id: u64) -> Place {
        let raw = Raw::server(&self.pki.pairs[&id], config);
        let env = self.env("raw", 98);
        let ledger = Arc::new(PeerLedger::new(1, ring(3), Box::new(EpochMark::new(0))));
        self.push(env, ledger, Kind::Raw(Box::new(raw)))
    }

    pub(crate) fn raw<R>(&mut self, place: Place, act: impl FnOnce(&mut Raw) -> R) -> R {
        let Kind::Raw(raw) = &mut self.members[place.0].kind else {
            panic!("no bare peer");
        };
        let result = act(raw);
        self.drain(place);
        result
    }

    pub(crate) fn addr(&self, place: Place) -> SocketAddr {
        self.members[place.0].addr
    }

    pub(crate) fn member(&mut self, place: Place) -> &mut Member {
        &mut self.members[place.0]
    }

    /// Has the application forget the bodies that it has.
    pub(crate) fn let_go(&mut self, place: Place) {
        let member = &mut self.members[place.0];
        member.executed.clear();
        for wire in member.wires.values_mut() {
            wire.requests.clear();
            wire.answers.clear();
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn at(&self) -> Duration {
        self.now - self.start
    }

    /// Both directions of a path.
    pub(crate) fn both(&mut self, a: Place, b: Place, change: impl Fn(&mut Path)) {
        let (a, b) = (self.addr(a), self.addr(b));
        change(self.net.path(a, b));
        change(self.net.path(b, a));
    }

    /// Dials as `node`, or nobody in particular.
    pub(crate) fn dial(&mut self, from: Place, to: Place, node: Option<u64>) -> At {
        self.dial_for(from, to, node, Protocol::Rpc)
    }

    pub(crate) fn dial_for(
        &mut self,
        from: Place,
        to: Place,
        node: Option<u64>,
        protocol: Protocol,
    ) -> At {
        let remote = self.addr(to);
        let id = self.begin_dial(from, remote, node.map(NodeId), protocol);
        self.drain(from);
        (from, id)
    }

    pub(crate) fn peer_of(
        &mut self,
        place: Place,
        conn: ConnId,
        act: impl FnOnce(&mut PeerHandle<'_>),
    ) {
        if let Some(wire) = self.members[place.0].wires.get_mut(&conn) {
            act(&mut wire.conn.as_peer().unwrap());
        }
    }

    /// Dials, and leaves the rest to the next drain.
    pub(crate) fn begin_dial(
        &mut self,
        from: Place,
        remote: SocketAddr,
        node: Option<NodeId>,
        protocol: Protocol,
    ) -> ConnId {
        let now = self.now;
        let member = &mut self.members[from.0];
        let Kind::Adit(endpoint) = &mut member.kind else {
            panic!("a bare peer");
        };
        let env = member.env.clone();
        let conn = endpoint
            .dial_peer(now, protocol, node, remote, &env)
            .unwrap();
        let id = conn.id();
        member.wires.insert(id, Wire::new(conn));
        id
    }

    /// Dials and waits until both sides have agreed.
    pub(crate) fn connect(&mut self, from: Place, to: Place, node: u64) -> At {
        let at = self.dial(from, to, Some(node));
        let up = self.run_until(secs(5), |bed| bed.wire(at).agreed.is_some());
        assert!(up, "no connection: {:?}", self.wire(at).closed);
        at
    }

    pub(crate) fn wire(&self, at: At) -> &Wire {
        &self.members[at.0.0].wires[&at.1]
    }

    pub(crate) fn only_wire(&self, place: Place) -> At {
        let mut ids = self.members[place.0].wires.keys();
        let (Some(id), None) = (ids.next(), ids.next()) else {
            panic!("not exactly one connection");
        };
        (place, *id)
    }

    /// Does something to a connection, then drains it.
    pub(crate) fn with<R>(&mut self, at: At, act: impl FnOnce(&mut Connection) -> R) -> R {
        let wire = self.members[at.0.0].wires.get_mut(&at.1).unwrap();
        let result = act(&mut wire.conn);
        self.drain(at.0);
        result
    }

    pub(crate) fn call(&mut self, at: At, kind: RpcType, payload: impl Into<Bytes>) -> CallId {
        self.calls += 1;
        let (call, now) = (CallId(self.calls), self.now);
        let payload = payload.into();
        let made = self.with(at, |conn| {
            conn.as_peer().unwrap().call(now, call, kind, payload)
        });
        made.unwrap();
        call
    }

    /// How a call ended, within 20 s.
    pub(crate) fn outcome(&mut self, at: At, call: CallId) -> Result<Bytes, Failure> {
        let over = |bed: &Self| bed.wire(at).answers.contains_key(&call);
        assert!(self.run_until(Duration::from_secs(20), over), "no outcome");
        self.wire(at).answers[&call].clone()
    }

    pub(crate) fn ask(&mut self, at: At, kind: RpcType, body: &[u8]) -> Result<Bytes, Failure> {
        let call = self.call(at, kind, Bytes::copy_from_slice(body));
        self.outcome(at, call)
    }

    pub(crate) fn ask_when_up(
        &mut self,
        at: At,
        kind: RpcType,
        body: &[u8],
    ) -> Result<Bytes, Failure> {
        let up = self.run_until(secs(5), |bed| bed.wire(at).agreed.is_some());
        assert!(up, "no connection: {:?}", self.wire(at).closed);
        self.ask(at, kind, body)
    }

    pub(crate) fn closed(&mut self, at: At) -> Closed {
        let over = |bed: &Self| bed.wire(at).closed.is_some();
        assert!(self.run_until(Duration::from_secs(40), over), "not closed");
        self.wire(at).closed.clone().unwrap()
    }
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) const BOTH: [Capabilities; 2] = [Capabilities::NONE, Capabilities::ALL];
