//! Processes: a gateway or an agent with its socket, its connections and its sessions, driven as a driver would.

pub mod agent;
mod files;
pub mod gateway;
pub mod renewal;
mod wire;
mod wires;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use adit_proto_core::{
    env::{EndpointSecrets, Env, Seed, WallClock},
    id::SessionId,
    journal::Journal,
};

use crate::{
    At,
    choices::Choices,
    crypto::{self, Suite},
    disk::Disk,
    facts::{Fact, NodeId},
    internet::Internet,
    log::Log,
    net::{HostId, Network},
    pki::WALL_START_MS,
    tcp::{Legs, Script},
};

/// What nodes share while one of them acts.
#[derive(Debug)]
pub struct Ctx<'a> {
    /// Virtual time.
    pub at: At,
    /// What the core's `Instant`s start from.
    pub base: Instant,
    /// The network.
    pub net: &'a mut Network,
    /// TCP connections to programs.
    pub legs: &'a mut Legs,
    /// Trace and oracles.
    pub log: &'a mut Log,
    /// Decisions of drivers: partial drains.
    pub choices: &'a mut Choices,
    /// Targets and names.
    pub internet: &'a Internet,
    /// What the targets of sessions do.
    pub scripts: &'a mut BTreeMap<SessionId, Script>,
    /// The machine's disk.
    pub disk: &'a mut Disk,
}

impl Ctx<'_> {
    pub(crate) fn now(&self) -> Instant {
        self.base + self.at
    }

    /// Where what happens is taken down, if anywhere.
    pub(crate) fn journal(&self) -> Option<Journal> {
        let sink = self.log.journal.clone()?;
        Some(Journal::new(self.base, sink))
    }

    pub(crate) fn since(&self, instant: Instant) -> At {
        instant.saturating_duration_since(self.base)
    }

    pub(crate) fn note(&mut self, node: NodeId, fact: &Fact<'_>) {
        self.log.note(self.at, node, fact);
    }

    /// Hands a datagram to the network.
    pub(crate) fn send(
        &mut self,
        host: &Host,
        (src, dst): (SocketAddr, SocketAddr),
        ecn: Option<u8>,
        data: &[u8],
    ) {
        let fate = self.net.send(self.at, host.net, src, dst, ecn, data);
        let fact = Fact::Sent {
            src,
            dst,
            data,
            fate,
        };
        self.note(host.id, &fact);
    }
}

/// A machine in the network, and how its process is.
#[derive(Debug)]
pub struct Host {
    /// Its place in the world.
    pub id: NodeId,
    /// Its place in the network.
    pub net: HostId,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
    /// Its UDP port.
    pub port: u16,
    /// Its wall clock.
    pub wall: Arc<SimWall>,
    /// What it has made durable: the source of its keys.
    pub seed: Seed,
    /// Processes that it has started.
    pub incarnation: u32,
    /// Its process stands still.
    pub frozen: bool,
    /// Its socket takes nothing until then.
    pub blocked_until: At,
    /// Its timers fire so much too late.
    pub timer_slack: At,
    /// Time between a connection's task and the process's, each way.
    pub bus_delay: At,
    /// Chance in a thousand that a poll is broken off early.
    pub lazy: u32,
    /// Datagrams that the socket takes for one send.
    pub batch: usize,
    /// Keys, key exchange, signatures.
    pub suite: Suite,
}

impl Host {
    /// Gives a process that starts its outside world. Its keys are those of the machine, its randomness its own.
    pub(crate) fn env(&self) -> Env {
        let process = self.seed.child(&format!("process {}", self.incarnation));
        Env {
            seed: process,
            wall_clock: Arc::clone(&self.wall) as Arc<dyn WallClock>,
            crypto: crypto::provider(self.suite),
            secrets: EndpointSecrets::new(
                self.seed.derive_bytes("reset key"),
                self.seed.derive_bytes("token key"),
            ),
        }
    }

    /// The address that a datagram to `remote` comes from.
    pub(crate) fn src_for(&self, remote: SocketAddr) -> SocketAddr {
        let fits = |ip: &&IpAddr| ip.is_ipv4() == remote.is_ipv4();
        let ip = self.addrs.iter().find(fits).or_else(|| self.addrs.first());
        let unspecified = IpAddr::from([0, 0, 0, 0]);
        SocketAddr::new(ip.copied().unwrap_or(unspecified), self.port)
    }
}

/// A wall clock that runs with virtual time and may be set.
#[derive(Debug, Default)]
pub struct SimWall {
    now_ms: Arc<AtomicU64>,
    off_ms: AtomicI64,
}

impl SimWall {
    /// Makes a clock that runs with `now_ms`, milliseconds since the start.
    #[must_use]
    pub fn new(now_ms: &Arc<AtomicU64>, off_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            now_ms: Arc::clone(now_ms),
            off_ms: AtomicI64::new(off_ms),
        })
    }

    /// How wrong it is.
    #[must_use]
    pub fn off_ms(&self) -> i64 {
        self.off_ms.load(Relaxed)
    }

    /// Sets it, relative to what is right.
    pub fn set(&self, off_ms: i64) {
        self.off_ms.store(off_ms, Relaxed);
    }
}

impl WallClock for SimWall {
    fn unix_ms(&self) -> u64 {
        let right = WALL_START_MS + self.now_ms.load(Relaxed);
        right.saturating_add_signed(self.off_ms.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_runs_with_virtual_time_and_keeps_its_error() {
        let now_ms = Arc::<AtomicU64>::default();
        let (early, right) = (SimWall::new(&now_ms, -500), SimWall::new(&now_ms, 0));
        now_ms.store(2_000, Relaxed);
        assert_eq!(early.unix_ms(), WALL_START_MS + 1_500);
        assert_eq!(right.unix_ms(), WALL_START_MS + 2_000);
        early.set(7);
        assert_eq!(early.unix_ms(), WALL_START_MS + 2_007);
        early.set(i64::MIN);
        assert_eq!(early.unix_ms(), 0);
    }

    fn host(addrs: &[&str], incarnation: u32) -> Host {
        Host {
            id: NodeId(0),
            net: HostId(0),
            addrs: addrs.iter().map(|ip| ip.parse().unwrap()).collect(),
            port: 4433,
            wall: SimWall::new(&Arc::default(), 0),
            seed: Seed::new([1; 32]),
            incarnation,
            frozen: false,
            blocked_until: At::ZERO,
            timer_slack: At::ZERO,
            bus_delay: At::ZERO,
            lazy: 0,
            batch: 10,
            suite: Suite::Plain,
        }
    }

    #[test]
    fn a_datagram_comes_from_an_address_of_its_destinations_family() {
        let both = host(&["10.0.0.1", "2001:db8::1"], 1);
        let six = "[2001:db8::9]:1".parse().unwrap();
        let four = "10.0.0.9:1".parse().unwrap();
        assert_eq!(both.src_for(six), "[2001:db8::1]:4433".parse().unwrap());
        assert_eq!(both.src_for(four), "10.0.0.1:4433".parse().unwrap());
        // The network says that there is no way.
        let old = host(&["10.0.0.1"], 1);
        assert_eq!(old.src_for(six), "10.0.0.1:4433".parse().unwrap());
    }

    #[test]
    fn a_process_that_starts_again_draws_something_else() {
        let drawn = |incarnation| {
            host(&["10.0.0.1"], incarnation)
                .env()
                .seed
                .derive_bytes("x")
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }
}
