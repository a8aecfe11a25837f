//! One gateway and its agents, each behind a NAT of its own and a path of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use adit_proto_core::{
    agent::{
        advertise::AdvertiserConfig,
        policy::{Policy, Restrictions},
    },
    domain::DomainPattern,
    endpoint::EndpointLimits,
    gateway::dispatch::DispatchConfig,
    id::AgentId,
    link::tls::Admission,
    route::{DomainRoute, RouteSet},
    target::Target,
};
use uuid::Builder;

use crate::{
    At,
    choices::Choices,
    crypto::Suite,
    facts::NodeId,
    faults::{Fault, Wish},
    internet::{Internet, Resolution},
    log::Log,
    net::{NatConfig, Path},
    node::{agent::AgentConfig, gateway::GatewayConfig},
    observer::{Observer, Sight, Sighting},
    oracle::{Oracles, Violation},
    pki::Pki,
    plan::{DriverPlan, NodePlan, Plan, Roster},
    tcp::{Ending, Script},
    trace::Trace,
    world::{PORT, World},
};

/// The gateway's node.
pub(super) const GATEWAY: NodeId = NodeId(0);
/// By then all agents are connected and nothing is under way.
pub(super) const READY: At = Duration::from_secs(10);

/// The node of an agent.
pub(super) const fn agent(nth: usize) -> NodeId {
    NodeId(1 + nth)
}

/// A plan in the making.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) choices: Choices,
    pub(super) plan: Plan,
}

impl Bed {
    /// Draws gateway, agents and paths. `routes` gives what the nth agent advertises.
    pub(super) fn draw(seed: u64, agents: usize, routes: fn(usize) -> RouteSet) -> Self {
        let mut choices = Choices::from_seed(seed);
        // The exchange of production, with flights as long.
        let suite = Suite::Hybrid;
        let key = choices.key();
        let mut pki = Pki::new(suite, key);
        let authority = Arc::new(Pki::new(suite, key));
        let mut roster = Roster::default();
        let mut nodes = Vec::new();
        let mut paths = Vec::new();
        for nth in 0..agents {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&choices.key()[..16]);
            let id = AgentId(Builder::from_random_bytes(bytes).into_uuid());
            let pair = pki.agent(id.0, &format!("agent-{nth}"));
            roster.0.insert((id, pair.spki_sha256));
            let config = AgentConfig {
                id,
                tls: Arc::new(pki.agent_tls(&pair, None)),
                authority: Arc::clone(&authority),
                renewal: None,
                trusts: true,
                gateways: vec![SocketAddr::new(GATEWAY_IP, PORT).into()],
                routes: Arc::new(routes(nth)),
                intervals: AdvertiserConfig::default(),
                mute: false,
                restrictions: Restrictions::default(),
            };
            nodes.push(draw_agent(&mut choices, nth, config));
            let path = draw_path(&mut choices);
            paths.push((agent(nth), GATEWAY, path.clone()));
            paths.push((GATEWAY, agent(nth), path));
        }
        let pair = pki.gateway("gw.example.test", &[GATEWAY_IP]);
        let roster = Arc::new(roster);
        let admission = Arc::clone(&roster) as Arc<dyn Admission>;
        let config = GatewayConfig {
            tls: Arc::new(pki.gateway_tls(&pair, admission)),
            roster,
            authority,
            impostor: false,
            limits: EndpointLimits::default(),
            dispatch: DispatchConfig::default(),
            direct: Arc::new(Policy::direct(&[], Vec::new())),
        };
        let gateway = NodePlan {
            config,
            addrs: vec![GATEWAY_IP],
            nat: None,
            wall_off_ms: 0,
            driver: draw_driver(&mut choices),
        };
        let plan = Plan {
            suite,
            gateways: vec![gateway],
            agents: nodes,
            welcome: BTreeSet::new(),
            homes: BTreeMap::new(),
            internet: internet(),
            paths,
            script: Vec::new(),
            safety: At::ZERO,
        };
        Self { choices, plan }
    }

    /// The id of an agent.
    pub(super) fn id(&self, nth: usize) -> AgentId {
        self.plan.agents[nth].config.id
    }

    /// Does something at a time; what is added first comes first.
    pub(super) fn at(&mut self, at: At, fault: Fault) {
        self.plan.script.push((at, fault));
    }

    /// Opens a session with a little data both ways.
    pub(super) fn open(&mut self, at: At, target: &Target, pinned: Option<AgentId>) {
        let script = |ending| Script {
            ending,
            ..Script::short(LITTLE)
        };
        let programs = (script(Ending::Fin), script(Ending::FinAfterPeer));
        self.wish(at, target, pinned, programs);
    }

    /// Opens a session through an agent that stays open; its programs write from time to time, or only at first.
    pub(super) fn hold(&mut self, at: At, nth: usize, busy: bool) {
        let script = Script {
            total: if busy { 1 << 20 } else { LITTLE },
            chunk: LITTLE,
            gap: Duration::from_millis(250),
            ending: Ending::Hold,
            ..Script::silent()
        };
        let id = self.id(nth);
        self.wish(at, &by_address(), Some(id), (script.clone(), script));
    }

    fn wish(
        &mut self,
        at: At,
        target: &Target,
        pinned: Option<AgentId>,
        (user, target_script): (Script, Script),
    ) {
        let wish = Wish {
            gateway: GATEWAY,
            target: target.clone(),
            pinned,
            user,
            target_script,
            promise: None,
            patience: None,
        };
        self.at(at, Fault::Open(Box::new(wish)));
    }

    /// Makes the first agent, which carries so many sessions, the one that new sessions go to: each of the others
    /// carries more of them, and by more than can be under way to the first at a time.
    pub(super) fn prefer_first(&mut self, carried: u64) {
        for _ in 0..carried {
            let busy = self.choices.chance(500);
            self.hold(READY, 0, busy);
        }
        for nth in 1..self.plan.agents.len() {
            for _ in 0..carried + MARGIN {
                self.hold(READY, nth, false);
            }
        }
    }

    /// Starts the world.
    pub(super) fn start(mut self, trace: Trace) -> World {
        let log = Log::new(trace, Oracles::default());
        let mut world = World::new(self.plan, &mut self.choices, log);
        world.log.observer = Some(Observer::with_room(ROOM));
        world
    }
}

/// Waits until all agents are connected.
pub(super) fn begin(world: &mut World, agents: usize) -> Result<(), Violation> {
    watch(world, READY, |_| false)?;
    let routed = |s: &&Sighting| matches!(s.what, Sight::Routed(_));
    let count = sightings(world).iter().filter(routed).count();
    expect(world, count == agents, "not all agents are connected")
}

/// Runs until the condition holds or the time has come. The condition is looked at from time to time.
pub(super) fn watch(
    world: &mut World,
    until: At,
    done: impl Fn(&World) -> bool,
) -> Result<(), Violation> {
    while world.at() < until && !done(world) {
        world.run_until((world.at() + GLANCE).min(until), |_| false);
        if let Some(found) = world.violation() {
            return Err(found.clone());
        }
    }
    let missed = world.log.observer.as_ref().map_or(0, Observer::missed);
    expect(world, missed == 0, "more happened than there is room for")
}

/// What the observer saw.
pub(super) fn sightings(world: &World) -> &[Sighting] {
    world.log.observer.as_ref().map_or(&[], Observer::sightings)
}

/// Finds fault with the experiment itself.
pub(super) fn expect(world: &World, holds: bool, text: &str) -> Result<(), Violation> {
    let found = Violation {
        oracle: "experiment",
        at: world.at(),
        text: text.to_owned(),
    };
    if holds { Ok(()) } else { Err(found) }
}

/// What agents of one site advertise.
pub(super) fn shared_routes(_nth: usize) -> RouteSet {
    let domain = DomainPattern::parse("*.corp.test").ok();
    RouteSet {
        subnets: "10.1.0.0/16".parse().into_iter().collect(),
        domains: domain
            .map(|pattern| DomainRoute {
                pattern,
                auto_detected: false,
            })
            .into_iter()
            .collect(),
    }
}

/// A target of the site.
pub(super) fn by_address() -> Target {
    SocketAddr::new(TARGET_IP, 80).into()
}

/// The same by its name.
pub(super) fn by_name() -> Target {
    Target::new(TARGET_NAME, 80).unwrap_or_else(|_| by_address())
}

fn internet() -> Internet {
    let found = Resolution::Found(vec![TARGET_IP], Duration::from_millis(2));
    let mut internet = Internet::default();
    internet.names.insert(TARGET_NAME.into(), found);
    internet
}

fn draw_agent(choices: &mut Choices, nth: usize, config: AgentConfig) -> NodePlan<AgentConfig> {
    let low = u32::try_from(nth + 1).unwrap_or(u32::MAX);
    let outer = |net: Ipv4Addr| Ipv4Addr::from_bits(net.to_bits() + low).into();
    NodePlan {
        config,
        addrs: vec![Ipv4Addr::new(192, 168, 0, 2).into()],
        nat: Some(NatConfig {
            outer: vec![
                outer(Ipv4Addr::new(198, 18, 0, 0)),
                outer(Ipv4Addr::new(198, 19, 0, 0)),
            ],
            idle_timeout: Duration::from_secs(120),
            endpoint_dependent: choices.chance(500),
            inbound_refreshes: true,
        }),
        wall_off_ms: 0,
        driver: draw_driver(choices),
    }
}

fn draw_path(choices: &mut Choices) -> Path {
    let rate_bps = choices.scaled(10_000_000, 1_000_000_000);
    Path {
        rate_bps,
        // 50 ms.
        queue_bytes: rate_bps / 160,
        // Even up to its end: agents whose delays are equal would speak at the same instants.
        delay: choices.scaled_time(Duration::from_micros(1_024), Duration::from_millis(100)),
        loss_ppm: if choices.chance(400) {
            choices.scaled(64, 10_000)
        } else {
            0
        },
        ..Path::clean()
    }
}

fn draw_driver(choices: &mut Choices) -> DriverPlan {
    let us = |choices: &mut Choices, high| Duration::from_micros(choices.scaled(1, high));
    DriverPlan {
        timer_slack: if choices.chance(500) {
            us(choices, 5_000)
        } else {
            At::ZERO
        },
        bus_delay: if choices.chance(500) {
            us(choices, 2_000)
        } else {
            At::ZERO
        },
        ..DriverPlan::default()
    }
}

const GATEWAY_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const TARGET_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
const TARGET_NAME: &str = "db.corp.test";
/// Bytes of a short session, and of a write.
const LITTLE: u64 = 500;
/// Sessions more on each other agent.
const MARGIN: u64 = 30;
/// How often conditions are looked at.
const GLANCE: At = Duration::from_millis(50);
/// Moments of a run with few agents.
const ROOM: usize = 10_000;
