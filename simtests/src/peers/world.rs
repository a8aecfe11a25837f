//! The loop of the peers' world: the earliest of packet, deadline and script is next; nothing sleeps, nothing ticks.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use adit_proto_core::{
    env::Seed,
    peer::{
        NodeId as PeerId,
        directory::Directory,
        key::{ClusterSecret, KeyId, KeyRing},
        rpc_type::RpcType,
    },
};
use bytes::Bytes;

use super::{
    client::Client,
    cluster::{addrs, generation, holders, id_of, member, pin},
    compromised::Compromised,
    facts::{Fact, Holder, Serial},
    log::Log,
    member::{Ctx, Member},
    oracle::TALKS_WITHIN,
    script::{Act, Plan},
    strike::Arsenal,
};
use crate::{
    At,
    choices::Choices,
    crypto,
    facts::NodeId,
    net::{Arrival, HostId, Network},
    node::SimWall,
    pki::{Pair, Pki},
    world::base,
};

/// A run under way.
#[derive(Debug)]
pub(super) struct World {
    pub(super) at: At,
    pub(super) base: Instant,
    wall_ms: Arc<AtomicU64>,
    pub(super) net: Network,
    pub(super) choices: Choices,
    pub(super) members: Vec<Member>,
    pub(super) compromised: Compromised,
    pub(super) clients: Vec<Client>,
    pub(super) arsenal: Arsenal,
    pub(super) holders: BTreeMap<SocketAddr, (Holder, bool)>,
    /// Where each member knows the others to be, by their places.
    known: Vec<Vec<SocketAddr>>,
    pub(super) pki: Pki,
    secret: Seed,
    next_pairs: BTreeMap<usize, Pair>,
    script: VecDeque<(At, Act)>,
    safety: At,
    last: (usize, bool),
    serials: u64,
    steps_here: u32,
    /// Nothing disturbs any more, so handlers answer at once.
    is_calm: bool,
    /// Trace and oracles.
    pub(super) log: Log,
}

/// Steps at one point in virtual time after which a node is taken to spin.
const STEPS_HERE_MAX: u32 = 100_000;

impl World {
    /// Makes the world of a plan; its processes start at once. One at a time on a thread.
    pub(super) fn new(plan: Plan, choices: &mut Choices, log: Log) -> Result<Self, rustls::Error> {
        crypto::seed_thread(choices.key());
        let secret = Seed::new(choices.key());
        let mut pki = Pki::new(plan.suite, choices.key());
        let mut net = Network::new(choices.fork("net"));
        let ring = generation(&secret, 1).map_or_else(
            || KeyRing::new(KeyId(1), ClusterSecret::insecure()),
            |s| KeyRing::new(KeyId(1), s),
        );
        let wall_ms = Arc::<AtomicU64>::default();
        let mut topology = Directory::default();
        let mut members = Vec::new();
        for (index, drawn) in plan.members.iter().enumerate() {
            let pair = pki.peer("node");
            let host = net.add_host(addrs(index).map(|addr| addr.ip()).into());
            pin(&mut topology, id_of(index), &[&pair]);
            let machine = (index, host, plan.suite);
            let wall = SimWall::new(&wall_ms, drawn.clock_off_ms);
            members.push(member(drawn, machine, wall, (&secret, &pki), pair, &ring));
        }
        let last = members.len();
        let pair = pki.peer("node");
        pin(&mut topology, id_of(last), &[&pair]);
        let [addr, _] = addrs(last);
        let host = net.add_host(vec![addr.ip()]);
        let seed = secret.child("compromised");
        let bare = (id_of(last), host, addr);
        let compromised = Compromised::new(&seed, bare, pair, ring)?;
        for member in &mut members {
            member.topology = topology.clone();
        }
        let known: Vec<SocketAddr> = (0..=last).map(|index| addrs(index)[0]).collect();
        let mut world = Self {
            at: At::ZERO,
            base: base(),
            wall_ms,
            net,
            choices: choices.fork("drivers"),
            known: vec![known; last],
            holders: holders(last),
            members,
            compromised,
            clients: Vec::new(),
            arsenal: Arsenal::default(),
            pki,
            secret,
            next_pairs: BTreeMap::new(),
            script: plan.script.into(),
            safety: plan.safety,
            last: plan.last,
            serials: 0,
            steps_here: 0,
            is_calm: false,
            log,
        };
        for place in 0..last {
            // The first start is in epoch 1, as after a loss.
            world.start(place, true);
        }
        Ok(world)
    }

    /// Virtual time.
    pub(super) fn at(&self) -> At {
        self.at
    }

    /// Runs the safety phase and the liveness phase.
    pub(super) fn run(&mut self) {
        let over = self.script.back().map_or(self.safety, |(at, _)| *at);
        self.run_until(over.max(self.safety), |_| false);
        self.settle();
    }

    /// The faults end: every pair talks, and does so again after one more restart.
    fn settle(&mut self) {
        self.net.calm();
        self.clients.clear();
        self.is_calm = true;
        self.log.note(self.at, NodeId(0), &Fact::Calm);
        for place in 0..self.members.len() {
            for about in 0..self.members.len() {
                self.act(Act::Tell(place, about));
            }
            if self.members[place].process.is_none() {
                self.start(place, false);
            }
        }
        self.all_talk();
        let (place, is_lost) = self.last;
        self.start(place, is_lost);
        self.all_talk();
        // What was asked before has its outcome by then.
        self.run_until(self.at + OUTCOMES_WITHIN, |_| false);
        self.log.end(self.at);
    }

    /// Each node asks each other one until it is answered.
    fn all_talk(&mut self) {
        let since = self.at;
        let count = self.members.len();
        let mut open: BTreeMap<(usize, usize), (Option<Serial>, At)> = BTreeMap::new();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                open.insert((from, to), (None, self.at));
            }
        }
        while !open.is_empty() && self.log.violation.is_none() {
            let due = open
                .iter()
                .filter(|(_, (serial, at))| serial.is_none() && *at <= self.at);
            let due: Vec<(usize, usize)> = due.map(|(pair, _)| *pair).collect();
            for (from, to) in due {
                let serial = self.wish(from, to, RpcType::Ping, 0);
                open.insert((from, to), (serial, self.at));
            }
            self.run_until(self.at + 100 * MS, |_| false);
            for from in 0..count {
                for (serial, is_ok) in self.members[from].outcomes() {
                    let asked = open.iter().find(|(_, (wish, _))| *wish == Some(serial));
                    let Some((&(from, to), _)) = asked else {
                        continue;
                    };
                    open.insert((from, to), (None, self.at + 400 * MS));
                    if is_ok {
                        open.remove(&(from, to));
                        let (with, after) = (id_of(to), self.at - since);
                        let fact = Fact::Talked { with, after };
                        self.log.note(self.at, NodeId(from), &fact);
                    }
                }
            }
            if self.at - since > TALKS_WITHIN {
                let ((from, to), _) = open.pop_first().unwrap_or_default();
                let text = format!("{} does not reach {}", id_of(from), id_of(to));
                self.log.accuse("again", self.at, text);
            }
        }
    }

    fn run_until(&mut self, until: At, done: impl Fn(&Self) -> bool) {
        while self.log.violation.is_none() && !done(self) {
            match self.next_at().filter(|at| *at <= until) {
                Some(at) => {
                    self.advance(at.max(self.at));
                    self.step();
                }
                None => return self.advance(until.max(self.at)),
            }
        }
    }

    fn next_at(&mut self) -> Option<At> {
        let base = self.base;
        let members = self.members.iter().filter_map(|m| m.next_at(base)).min();
        let clients = self
            .clients
            .iter_mut()
            .filter_map(|c| c.next_at(base))
            .min();
        let bare = self.compromised.deadline();
        let bare = bare.map(|at| at.saturating_duration_since(base));
        let script = self.script.front().map(|(at, _)| *at);
        [self.net.next_at(), members, clients, bare, script]
            .into_iter()
            .flatten()
            .min()
    }

    fn advance(&mut self, at: At) {
        if at > self.at {
            self.at = at;
            self.steps_here = 0;
            let ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
            self.wall_ms.store(ms, Relaxed);
        }
    }

    /// One packet, or everybody who is due, or one act.
    fn step(&mut self) {
        self.steps_here += 1;
        if self.steps_here > STEPS_HERE_MAX {
            let text = "nothing moves in time any more".to_owned();
            return self.log.accuse("ended", self.at, text);
        }
        if let Some(arrival) = self.net.pop(self.at) {
            return self.deliver(arrival);
        }
        if self.script.front().is_some_and(|(at, _)| *at <= self.at) {
            if let Some((_, act)) = self.script.pop_front() {
                self.act(act);
            }
            return;
        }
        let (at, base) = (self.at, self.base);
        for place in 0..self.members.len() {
            if self.members[place]
                .next_at(base)
                .is_some_and(|due| due <= at)
            {
                self.with(place, Member::run);
            }
        }
        let now = base + at;
        self.compromised.bare.expire(now);
        for client in &mut self.clients {
            client.bare.expire(now);
        }
        self.run_adversary();
    }

    fn deliver(&mut self, arrival: Arrival) {
        let now = self.base + self.at;
        let HostId(to) = arrival.to;
        if to < self.members.len() {
            return self.with(to, |member, ctx| member.receive(ctx, arrival));
        }
        let (src, data) = (arrival.src, arrival.data);
        let node = NodeId(to);
        let fact = Fact::Received { src, data: &data };
        self.log.note(self.at, node, &fact);
        let bare = if self.compromised.host == arrival.to {
            Some((&mut self.compromised.bare, self.compromised.addr))
        } else {
            let client = self.clients.iter_mut().find(|c| c.host == arrival.to);
            client.map(|client| (&mut client.bare, client.addr))
        };
        let reply = bare.and_then(|(bare, addr)| {
            let (remote, data) = bare.receive(now, src, data)?;
            Some(((addr, remote), data))
        });
        if let Some((ends, data)) = reply {
            self.send(arrival.to, ends, &data);
        }
        self.run_adversary();
    }

    /// Lets a member act.
    pub(super) fn with<R>(
        &mut self,
        place: usize,
        act: impl FnOnce(&mut Member, &mut Ctx<'_>) -> R,
    ) -> R {
        let mut ctx = Ctx {
            at: self.at,
            base: self.base,
            net: &mut self.net,
            log: &mut self.log,
            choices: &mut self.choices,
            holders: &self.holders,
            is_calm: self.is_calm,
        };
        act(&mut self.members[place], &mut ctx)
    }

    pub(super) fn send(&mut self, host: HostId, ends: (SocketAddr, SocketAddr), data: &[u8]) {
        let fate = self.net.send(self.at, host, ends.0, ends.1, None, data);
        let fact = Fact::Sent { ends, data, fate };
        self.log.note(self.at, NodeId(host.0), &fact);
    }

    /// Another mark, that no body has had.
    pub(super) fn serial(&mut self) -> Serial {
        self.serials += 1;
        Serial(self.serials)
    }

    fn wish(&mut self, from: usize, to: usize, kind: RpcType, len: usize) -> Option<Serial> {
        self.members[from].process.as_ref()?;
        let serial = self.serial();
        let mut body = serial.0.to_le_bytes().to_vec();
        body.resize(body.len() + len, 0);
        let (is_exposed, to) = (to == self.members.len(), id_of(to));
        self.with(from, |member, ctx| {
            member.wish(ctx, (to, is_exposed), (serial, kind), Bytes::from(body));
        });
        Some(serial)
    }

    fn start(&mut self, place: usize, is_lost: bool) {
        let known = self.known[place].iter().enumerate();
        let peers: Vec<(PeerId, SocketAddr)> =
            known.map(|(index, addr)| (id_of(index), *addr)).collect();
        self.with(place, |member, ctx| member.start(ctx, is_lost, &peers));
    }

    fn act(&mut self, act: Act) {
        let fact = Fact::Fault(format!("{act:?}"));
        self.log.note(self.at, NodeId(0), &fact);
        match act {
            Act::Kill(place) => self.with(place, Member::end),
            Act::Start(place, is_lost) => self.start(place, is_lost),
            Act::Cut(from, to) => self.net.cut(HostId(from), HostId(to)),
            Act::Mend(from, to) => self.net.mend(HostId(from), HostId(to)),
            Act::Block(place) => self.net.block(HostId(place)),
            Act::Unblock(place) => self.net.unblock(HostId(place)),
            Act::Path(from, to, path) => self.net.set_path(HostId(from), HostId(to), path),
            Act::Move(place) => self.with(place, Member::rebind),
            Act::Tell(place, about) => self.tell(place, about),
            Act::Clock(place, off_ms) => self.members[place].wall.set(off_ms),
            Act::AddKey(place, key) => {
                if let Some(secret) = generation(&self.secret, key) {
                    self.change_keys(place, |ring| ring.add(KeyId(key), secret.clone()).is_ok());
                }
            }
            Act::Promote(place, key) => {
                self.change_keys(place, |ring| ring.promote(KeyId(key)).is_ok());
            }
            Act::Retire(place, key) => {
                self.change_keys(place, |ring| ring.retire(KeyId(key)).is_ok());
                if let Some(member) = self.members.get_mut(place) {
                    member.retired = member.retired.max(key);
                }
            }
            Act::Trust(place) => {
                let pair = self.pki.peer("node");
                self.pin_everywhere(place, &[self.members[place].pair.clone(), pair.clone()]);
                self.next_pairs.insert(place, pair);
            }
            Act::Certify(place) => {
                if let Some(pair) = self.next_pairs.remove(&place) {
                    self.members[place].pair = pair;
                    self.with(place, Member::exchange_security);
                    let fact = Fact::Certified(id_of(place));
                    self.log.note(self.at, NodeId(place), &fact);
                }
            }
            Act::Distrust(place) => {
                self.pin_everywhere(place, &[self.members[place].pair.clone()]);
                let fact = Fact::Distrusted(id_of(place));
                self.log.note(self.at, NodeId(place), &fact);
            }
            Act::Wish(from, to, kind, len) => {
                self.wish(from, to, kind, len);
            }
            Act::Strike(target) => self.strike(target),
        }
    }

    fn tell(&mut self, place: usize, about: usize) {
        let addr = self.members[about].addr();
        self.known[place][about] = addr;
        if place != about {
            self.with(place, |member, ctx| member.hear(ctx, (id_of(about), addr)));
        }
    }

    /// Changes the ring on disk and in the process.
    fn change_keys(&mut self, place: usize, change: impl Fn(&mut KeyRing) -> bool) {
        match self.members.get_mut(place) {
            Some(member) => member.change_keys(&change),
            None => _ = change(&mut self.compromised.ring),
        }
    }

    fn pin_everywhere(&mut self, of: usize, pairs: &[Pair]) {
        let pairs: Vec<&Pair> = pairs.iter().collect();
        for place in 0..self.members.len() {
            pin(&mut self.members[place].topology, id_of(of), &pairs);
            self.with(place, Member::exchange_security);
        }
    }

    /// What the cluster's first keys were, those that a node has given up.
    pub(super) fn old_secret(&self, generation: u8) -> [u8; 32] {
        self.secret.derive_bytes(&format!("cluster {generation}"))
    }
}

/// The longest that a call takes.
const OUTCOMES_WITHIN: At = Duration::from_secs(61);
const MS: Duration = Duration::from_millis(1);
