//! A cluster in virtual time. The earliest packet or deadline is next; nothing sleeps.

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
    id::{CallId, ConnId, Slot},
    link::provider::default_provider,
    output::{Event, Input, Output, PathMeta, Routed, TransmitBuf},
    peer::{
        NodeId,
        capabilities::Capabilities,
        config::PeerConfig,
        directory::Directory,
        epoch::EpochMark,
        event::PeerEvent,
        interest::Interest,
        ledger::PeerLedger,
        negotiate::Agreed,
        node::{CallError, Node},
        retry::Failure,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;

use super::{
    cluster::{Cluster, NoJoins, ring},
    forward::Forwards,
    net::{Net, Packet, Path},
    pki::{Pair, Wall},
    raw::{Raw, RawConfig},
};

/// A member's place in the bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) usize);

/// A connection at one of its ends.
pub(crate) type At = (Place, ConnId);

/// What a member's application does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    /// Sends the body back.
    Echo,
    /// Leaves them.
    Hold,
    Fail,
    Refuse,
}

/// A connection and all that it said.
pub(crate) struct Wire {
    pub(crate) conn: Connection,
    buf: TransmitBuf,
    deadline: Option<Instant>,
    /// Times in a row that it fired and was due again at once.
    past: u32,
    pub(crate) agreed: Option<Agreed>,
    bound: Option<NodeId>,
    pub(crate) answers: BTreeMap<CallId, Result<Bytes, Failure>>,
    pub(crate) requests: Vec<(Slot, NodeId, RpcType, Bytes)>,
    pub(crate) given_up: Vec<Slot>,
    /// Of the requests, in their order.
    pub(crate) interest: Vec<Interest>,
    pub(crate) closed: Option<Closed>,
    pub(crate) suspect_at: Option<Instant>,
    pub(crate) forwards: Forwards,
}

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

impl Wire {
    fn new(conn: Connection) -> Self {
        Self {
            conn,
            buf: TransmitBuf::new(10),
            deadline: None,
            past: 0,
            agreed: None,
            bound: None,
            answers: BTreeMap::new(),
            requests: Vec::new(),
            given_up: Vec::new(),
            interest: Vec::new(),
            closed: None,
            suspect_at: None,
            forwards: Forwards::default(),
        }
    }

    /// No busy loop. Where the path's round-trip time was forgotten the engine's probe may be due a moment before, once.
    fn has_fired(&mut self, at: Instant) {
        let is_past = self.deadline.is_some_and(|next| next <= at);
        self.past = if is_past { self.past + 1 } else { 0 };
        assert!(self.past < 3, "waits for the past");
    }

    fn take(&mut self, now: Instant, app: App, event: Event, executed: &mut Vec<Bytes>) {
        assert!(self.closed.is_none(), "event after Closed: {event:?}");
        match event {
            Event::Peer(PeerEvent::Up { agreed, .. }) => {
                assert!(self.agreed.replace(agreed).is_none(), "up twice");
            }
            Event::Peer(PeerEvent::Bound { node }) => {
                assert!(self.bound.replace(node).is_none(), "bound twice");
            }
            Event::Peer(PeerEvent::Answered { call, outcome }) => {
                let again = self.answers.insert(call, outcome);
                assert!(again.is_none(), "{call} answered twice");
            }
            Event::Peer(PeerEvent::Requested {
                slot,
                from,
                kind,
                payload,
                interest,
                ..
            }) => {
                assert!(interest.lasts());
                self.interest.push(interest);
                assert!(self.agreed.is_some(), "a call before the handshake");
                assert_eq!(self.bound, Some(from));
                self.requests.push((slot, from, kind, payload.clone()));
                executed.push(payload.clone());
                let mut peer = self.conn.as_peer().unwrap();
                match app {
                    App::Echo => peer.answer(now, slot, payload).unwrap(),
                    App::Hold => {}
                    App::Fail => peer.fail(slot).unwrap(),
                    App::Refuse => peer.refuse(now, slot, Duration::from_millis(7)).unwrap(),
                }
            }
            Event::Peer(PeerEvent::GivenUp(slot)) => self.given_up.push(slot),
            Event::PathSuspect => self.suspect_at = Some(now),
            Event::PathRecovered => self.suspect_at = None,
            Event::Closed(closed) => self.closed = Some(closed),
            other => self.forwards.take(other),
        }
    }
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) const BOTH: [Capabilities; 2] = [Capabilities::NONE, Capabilities::ALL];

const STEPS_MAX: usize = 2_000_000;
