//! The loop: the earliest of packet, deadline, program and script is next; nothing sleeps, nothing ticks.

mod calm;
mod script;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use adit_proto_core::{
    env::Seed,
    id::{AgentId, SessionId},
    route::RouteSet,
    target::Target,
};

use crate::{
    At,
    choices::Choices,
    crypto,
    disk::Disk,
    facts::{Fact, NodeId},
    faults::{Fault, Order},
    internet::Internet,
    log::Log,
    net::{Arrival, Network},
    node::{
        Ctx, Host, SimWall,
        agent::{Agent, AgentConfig},
        gateway::{Gateway, GatewayConfig},
    },
    oracle::Violation,
    plan::{NodePlan, Plan},
    tcp::{Legs, Script},
};

/// A run under way.
#[derive(Debug)]
pub struct World {
    at: At,
    base: Instant,
    wall_ms: Arc<AtomicU64>,
    net: Network,
    legs: Legs,
    internet: Internet,
    scripts: BTreeMap<SessionId, Script>,
    choices: Choices,
    /// What crashes leave of disks.
    disks: Choices,
    nodes: Vec<Node>,
    /// When each node wants to run.
    wakes: BTreeSet<(At, NodeId)>,
    armed: Vec<Option<At>>,
    script: VecDeque<(At, Fault)>,
    safety: At,
    welcome: BTreeSet<NodeId>,
    homes: BTreeMap<AgentId, Target>,
    /// Agents that have enrolled again, each with the hash of its key.
    enrolled: BTreeMap<NodeId, (AgentId, [u8; 32])>,
    /// The session that the liveness phase waits for.
    probing: Option<SessionId>,
    /// Steps since time last moved.
    steps_here: u32,
    /// Trace and oracles.
    pub log: Log,
}

#[derive(Debug)]
struct Node {
    host: Host,
    disk: Disk,
    process: Process,
    config: Config,
    /// What the socket received while the process stood still.
    backlog: VecDeque<Arrival>,
    /// What the machine has to tell the process, once that runs.
    news: VecDeque<News>,
    /// A process that was told to stop is gone then.
    gone_at: Option<At>,
    /// It was started while it stopped: the next process begins when this one is gone.
    starts_again: bool,
}

#[derive(Debug)]
enum Process {
    None,
    Gateway(Box<Gateway>),
    Agent(Box<Agent>),
}

#[derive(Debug)]
enum News {
    Routes(Arc<RouteSet>),
    Network,
    Order(Order),
}

#[derive(Debug)]
enum Config {
    Gateway(Box<GatewayConfig>),
    Agent(Box<AgentConfig>),
}

/// Steps at one point in virtual time after which a node is taken to spin.
const STEPS_HERE_MAX: u32 = 200_000;
/// Datagrams that the socket of a process that stands still keeps.
const BACKLOG_MAX: usize = 256;
/// Time that a stopped process has to say its farewell.
const FAREWELL: At = Duration::from_millis(1_200);
/// UDP port of every node.
pub const PORT: u16 = 4433;

impl World {
    /// Makes the world of a plan; its processes start at once. One at a time on a thread: the cryptography's randomness
    /// is the thread's, and starts afresh here.
    #[must_use]
    pub fn new(plan: Plan, choices: &mut Choices, log: Log) -> Self {
        crypto::seed_thread(choices.key());
        let secret = Seed::new(choices.key());
        let wall_ms = Arc::<AtomicU64>::default();
        let mut world = Self {
            at: At::ZERO,
            base: base(),
            wall_ms,
            net: Network::new(choices.fork("net")),
            legs: Legs::default(),
            internet: plan.internet,
            scripts: BTreeMap::new(),
            choices: choices.fork("drivers"),
            disks: choices.fork("disks"),
            nodes: Vec::new(),
            wakes: BTreeSet::new(),
            armed: Vec::new(),
            script: VecDeque::new(),
            safety: plan.safety,
            welcome: plan.welcome,
            homes: plan.homes,
            enrolled: BTreeMap::new(),
            probing: None,
            steps_here: 0,
            log,
        };
        let mut script = plan.script;
        script.sort_by_key(|(at, _)| *at);
        world.script = script.into();
        for node in plan.gateways {
            world.add(node, plan.suite, &secret, |c| Config::Gateway(Box::new(c)));
        }
        for node in plan.agents {
            world.add(node, plan.suite, &secret, |c| Config::Agent(Box::new(c)));
        }
        for (from, to, path) in plan.paths {
            let fact = Fact::Path {
                from,
                to,
                path: &path,
            };
            world.log.note(At::ZERO, from, &fact);
            let (from, to) = (world.nodes[from.0].host.net, world.nodes[to.0].host.net);
            world.net.set_path(from, to, path);
        }
        for index in 0..world.nodes.len() {
            world.start(NodeId(index));
        }
        world
    }

    fn add<C>(
        &mut self,
        plan: NodePlan<C>,
        suite: crypto::Suite,
        secret: &Seed,
        config: impl FnOnce(C) -> Config,
    ) {
        let id = NodeId(self.nodes.len());
        let net = match plan.nat {
            Some(nat) => self.net.add_host_behind_nat(plan.addrs.clone(), nat),
            None => self.net.add_host(plan.addrs.clone()),
        };
        let host = Host {
            id,
            net,
            addrs: plan.addrs,
            port: PORT,
            wall: SimWall::new(&self.wall_ms, plan.wall_off_ms),
            seed: secret.child(&format!("node {}", id.0)),
            incarnation: 0,
            frozen: false,
            blocked_until: At::ZERO,
            timer_slack: plan.driver.timer_slack,
            bus_delay: plan.driver.bus_delay,
            lazy: plan.driver.lazy,
            batch: plan.driver.batch,
            suite,
        };
        self.nodes.push(Node {
            host,
            disk: Disk::new(),
            process: Process::None,
            config: config(plan.config),
            backlog: VecDeque::new(),
            news: VecDeque::new(),
            gone_at: None,
            starts_again: false,
        });
        self.armed.push(None);
    }

    /// Virtual time.
    #[must_use]
    pub fn at(&self) -> At {
        self.at
    }

    /// The first violation.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.log.violation()
    }

    /// The gateway's process at a node, while it runs.
    #[must_use]
    pub fn gateway(&self, node: NodeId) -> Option<&Gateway> {
        match &self.nodes.get(node.0)?.process {
            Process::Gateway(gateway) => Some(gateway),
            Process::Agent(_) | Process::None => None,
        }
    }

    /// The agent's process at a node, while it runs.
    #[must_use]
    pub fn agent(&self, node: NodeId) -> Option<&Agent> {
        match &self.nodes.get(node.0)?.process {
            Process::Agent(agent) => Some(agent),
            Process::Gateway(_) | Process::None => None,
        }
    }

    /// Runs the safety phase and the liveness phase; gives the first violation.
    pub fn run(&mut self) -> Option<&Violation> {
        self.run_until(self.safety, |_| false);
        self.settle();
        self.violation()
    }

    /// Runs until the condition holds or the time has come or an oracle has spoken; tells whether the condition holds.
    pub fn run_until(&mut self, until: At, done: impl Fn(&Self) -> bool) -> bool {
        loop {
            if self.violation().is_some() || done(self) {
                return self.violation().is_none();
            }
            match self.next_at().filter(|at| *at <= until) {
                Some(at) => {
                    self.advance(at.max(self.at));
                    self.step();
                }
                None => {
                    self.advance(until.max(self.at));
                    return done(self);
                }
            }
        }
    }

    fn next_at(&self) -> Option<At> {
        [
            self.net.next_at(),
            self.legs.next_at(),
            self.wakes.first().map(|(at, _)| *at),
            self.script.front().map(|(at, _)| *at),
        ]
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

    /// One packet, or all programs that are due, or one node, or one action.
    fn step(&mut self) {
        self.steps_here += 1;
        if self.steps_here > STEPS_HERE_MAX {
            let text = "nothing moves in time any more".to_owned();
            self.accuse("deadlines", text);
            return;
        }
        if let Some(arrival) = self.net.pop(self.at) {
            self.deliver(arrival);
        } else if self.legs.next_at().is_some_and(|at| at <= self.at) {
            self.legs.run(self.at, &mut self.log);
            while let Some((node, conn, slot)) = self.legs.poll_ready() {
                match &mut self.nodes[node.0].process {
                    Process::Gateway(gateway) => gateway.ready(conn, slot),
                    Process::Agent(agent) => agent.ready(conn, slot),
                    Process::None => continue,
                }
                self.run_node(node);
            }
        } else if let Some(&(at, node)) = self.wakes.first().filter(|(at, _)| *at <= self.at) {
            self.wakes.remove(&(at, node));
            self.armed[node.0] = None;
            self.run_node(node);
        } else if self.script.front().is_some_and(|(at, _)| *at <= self.at)
            && let Some((_, fault)) = self.script.pop_front()
        {
            self.act(fault);
        }
    }

    fn deliver(&mut self, arrival: Arrival) {
        // Hosts were added in the order of the nodes.
        let node = NodeId(arrival.to.0);
        let (frozen, backlog) = {
            let node = &self.nodes[node.0];
            (node.host.frozen, node.backlog.len())
        };
        if frozen {
            if backlog < BACKLOG_MAX {
                self.nodes[node.0].backlog.push_back(arrival);
            }
            return;
        }
        self.receive(node, arrival);
        self.run_node(node);
    }

    fn receive(&mut self, node: NodeId, arrival: Arrival) {
        self.with(node, |process, host, ctx| match process {
            Process::Gateway(gateway) => gateway.receive(ctx, host, arrival),
            Process::Agent(agent) => agent.receive(ctx, host, arrival),
            Process::None => {}
        });
    }

    /// Lets a node do what it has to, and notes when it wants to run again.
    fn run_node(&mut self, node: NodeId) {
        if self.nodes[node.0].host.frozen {
            return;
        }
        if self.nodes[node.0].gone_at.is_some_and(|at| at <= self.at) {
            return self.leave(node);
        }
        let next = self.with(node, |process, host, ctx| match process {
            Process::Gateway(gateway) => {
                gateway.run(ctx, host);
                gateway.next_at(ctx, host)
            }
            Process::Agent(agent) => {
                agent.run(ctx, host);
                agent.next_at(ctx, host)
            }
            Process::None => None,
        });
        let over = match &self.nodes[node.0].process {
            Process::Gateway(gateway) => gateway.is_over(),
            Process::Agent(agent) => agent.is_over(),
            Process::None => false,
        };
        if over {
            return self.leave(node);
        }
        let gone = self.nodes[node.0].gone_at;
        self.arm(node, next.into_iter().chain(gone).min());
    }

    fn arm(&mut self, node: NodeId, at: Option<At>) {
        if self.armed[node.0] == at {
            return;
        }
        if let Some(old) = self.armed[node.0] {
            self.wakes.remove(&(old, node));
        }
        self.armed[node.0] = at;
        self.wakes.extend(at.map(|at| (at, node)));
    }

    fn start(&mut self, node: NodeId) {
        if !matches!(self.nodes[node.0].process, Process::None) {
            self.nodes[node.0].starts_again = self.nodes[node.0].gone_at.is_some();
            return;
        }
        self.nodes[node.0].host.incarnation += 1;
        self.nodes[node.0].gone_at = None;
        self.with_config(node, |process, config, host, ctx| {
            *process = match config {
                Config::Gateway(config) => {
                    Process::Gateway(Box::new(Gateway::start(ctx, host, config)))
                }
                Config::Agent(config) => Process::Agent(Box::new(Agent::start(ctx, host, config))),
            };
        });
        self.run_node(node);
    }

    /// A process that was stopped ends, and the next one begins if it was to.
    fn leave(&mut self, node: NodeId) {
        let again = self.nodes[node.0].starts_again;
        self.kill(node);
        if again {
            self.start(node);
        }
    }

    fn kill(&mut self, node: NodeId) {
        let process = std::mem::replace(&mut self.nodes[node.0].process, Process::None);
        self.nodes[node.0].backlog.clear();
        self.nodes[node.0].news.clear();
        self.nodes[node.0].gone_at = None;
        self.nodes[node.0].starts_again = false;
        self.nodes[node.0].host.frozen = false;
        self.arm(node, None);
        self.with(node, |_, host, ctx| match process {
            Process::Gateway(gateway) => gateway.kill(ctx, host),
            Process::Agent(agent) => agent.kill(ctx, host),
            Process::None => {}
        });
    }

    /// The whole machine ends: what its disk has not synced may be lost.
    fn crash(&mut self, node: NodeId) {
        self.kill(node);
        let mut choices = self.disks.fork("crash");
        self.nodes[node.0].disk.crash(&mut choices);
    }

    /// As a crash, and then a backup of the beginning takes the disk's place.
    fn restore(&mut self, node: NodeId) {
        self.kill(node);
        self.nodes[node.0].disk = Disk::new();
    }

    fn with<R>(
        &mut self,
        node: NodeId,
        act: impl FnOnce(&mut Process, &Host, &mut Ctx<'_>) -> R,
    ) -> R {
        self.with_config(node, |process, _, host, ctx| act(process, host, ctx))
    }

    fn with_config<R>(
        &mut self,
        node: NodeId,
        act: impl FnOnce(&mut Process, &Config, &Host, &mut Ctx<'_>) -> R,
    ) -> R {
        let node = &mut self.nodes[node.0];
        let mut ctx = Ctx {
            at: self.at,
            base: self.base,
            net: &mut self.net,
            legs: &mut self.legs,
            log: &mut self.log,
            choices: &mut self.choices,
            internet: &self.internet,
            scripts: &mut self.scripts,
            disk: &mut node.disk,
        };
        act(&mut node.process, &node.config, &node.host, &mut ctx)
    }

    fn accuse(&mut self, oracle: &'static str, text: String) {
        let at = self.at;
        self.log.accuse(Violation { oracle, at, text });
    }
}

/// Far from the clock's zero, so that subtractions never underflow. Traces hold offsets only.
pub(crate) fn base() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}
