//! Gateways, agents and the paths between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use adit_proto_core::{
    agent::{
        advertise::AdvertiserConfig,
        policy::{Policy, Restrictions},
    },
    endpoint::EndpointLimits,
    env::Seed,
    gateway::dispatch::{DirectRange, DirectRule, DispatchConfig},
    id::AgentId,
    limits::{CONNECT_TIMEOUT, UNREAD_BUDGET_MIN},
    link::tls::Admission,
    target::Target,
};
use uuid::Uuid;

use super::{Size, operators, renewals, routes};
use crate::{
    choices::Choices,
    crypto::Suite,
    facts::NodeId,
    internet::Resolution,
    net::{NatConfig, Path},
    node::{agent::AgentConfig, gateway::GatewayConfig},
    pki::{Pair, Pki},
    plan::{DriverPlan, NodePlan, Plan, Roster},
    world::PORT,
};

/// Who an agent is to the gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    /// Enrolled.
    Enrolled,
    /// Its certificate is good, but nobody enrolled it, or it was deleted.
    Unknown,
    /// Its certificate is another authority's.
    Foreign,
    /// The same id, certificate and key as the agent before it: somebody copied the files.
    Copy,
    /// The same id as the agent before it with another key, and both are let in by the roster.
    Rival,
    /// Enrolled, but its pin is of another gateway: it does not trust what it finds.
    Mispinned,
}

pub(super) fn draw(choices: &mut Choices, size: Size) -> Plan {
    let suite = match choices.between(0, 19) {
        19 => Suite::Ecdsa,
        16..=18 => Suite::Hybrid,
        _ => Suite::Plain,
    };
    let key = choices.fork("authority").key();
    let mut pki = Pki::new(suite, key);
    let internet = routes::draw_internet(choices, size.agents);
    let mut plan = Plan {
        suite,
        gateways: Vec::new(),
        agents: Vec::new(),
        welcome: BTreeSet::new(),
        homes: BTreeMap::new(),
        internet,
        paths: Vec::new(),
        script: Vec::new(),
        safety: size.safety,
    };
    let authority = Arc::new(Pki::new(suite, key));
    let gateways = add_agents(choices, size, &mut pki, &authority, &mut plan);
    add_gateways(choices, size, &authority, &mut plan, gateways);
    renewals::draw(&Seed::new(key), size, &mut plan);
    operators::draw(&Seed::new(key), size, &mut plan);
    draw_paths(choices, &mut plan);
    plan
}

/// The gateways' names and certificates are made first, since agents may pin them.
struct Gateways {
    pairs: Vec<Pair>,
    /// One whose certificate is not what its agents look for.
    impostor: Option<usize>,
    roster: Roster,
}

fn add_agents(
    choices: &mut Choices,
    size: Size,
    pki: &mut Pki,
    authority: &Arc<Pki>,
    plan: &mut Plan,
) -> Gateways {
    let mut foreign = Pki::new(plan.suite, choices.fork("foreign authority").key());
    let (pairs, impostor) = draw_gateway_pairs(choices, size, pki, &mut foreign);
    let mut roster = Roster::default();
    let mut previous: Option<(AgentId, Pair, usize)> = None;
    let mut spoiled = BTreeSet::new();
    let mut mute = BTreeSet::new();
    let mut original = false;
    for nth in 0..size.agents {
        // A gateway keeps two connections of one agent, so one copy of its files is the most that stays connected.
        let identity = if size.all_welcome {
            Identity::Enrolled
        } else {
            draw_identity(choices, original)
        };
        original = !matches!(identity, Identity::Copy | Identity::Rival);
        let (mut id, mut pair, mut home) = (AgentId(uuid(choices, nth)), None, nth);
        if let (Identity::Copy | Identity::Rival, Some((of, same, at))) = (identity, &previous) {
            (id, home) = (*of, *at);
            pair = (identity == Identity::Copy).then(|| same.clone());
        }
        let name = format!("agent-{nth}");
        let pair = pair.unwrap_or_else(|| match identity {
            Identity::Foreign => foreign.agent(id.0, &name),
            Identity::Enrolled
            | Identity::Unknown
            | Identity::Copy
            | Identity::Rival
            | Identity::Mispinned => pki.agent(id.0, &name),
        });
        if identity != Identity::Unknown && identity != Identity::Foreign {
            roster.0.insert((id, pair.spki_sha256));
        }
        let node = NodeId(size.gateways + nth);
        match identity {
            Identity::Enrolled => drop(plan.welcome.insert(node)),
            Identity::Copy if plan.welcome.contains(&NodeId(node.0 - 1)) => {
                plan.welcome.insert(node);
            }
            Identity::Copy => {}
            Identity::Rival => drop(spoiled.insert(id)),
            Identity::Unknown | Identity::Foreign | Identity::Mispinned => {}
        }
        let pin = draw_pin(choices, identity, &pairs);
        let config = AgentConfig {
            id,
            tls: Arc::new(pki.agent_tls(&pair, pin)),
            authority: Arc::clone(authority),
            renewal: None,
            trusts: identity != Identity::Mispinned,
            gateways: draw_gateway_list(choices, size.gateways),
            routes: Arc::new(routes::draw_routes(choices, home)),
            intervals: draw_intervals(choices),
            mute: choices.chance(15),
            restrictions: Restrictions::default(),
        };
        mute.extend(config.mute.then_some(id));
        plan.homes.insert(id, routes::home_target(home, 1));
        previous = Some((id, pair, home));
        plan.agents.push(draw_agent_node(choices, nth, config));
    }
    // Nothing can be asked of these.
    plan.homes.retain(|id, _| !mute.contains(id));
    keep_welcome(size, plan, &spoiled, impostor);
    Gateways {
        pairs,
        impostor,
        roster,
    }
}

/// Leaves out who cannot count on being let in.
fn keep_welcome(size: Size, plan: &mut Plan, spoiled: &BTreeSet<AgentId>, impostor: Option<usize>) {
    // Whoever of two rivals is there first keeps the other out.
    let first = size.gateways;
    let agents = &plan.agents;
    plan.welcome
        .retain(|node| !spoiled.contains(&agents[node.0 - first].config.id));
    plan.welcome
        .retain(|node| knows_another(&agents[node.0 - first].config.gateways, impostor));
}

/// Certificates of the gateways; that of an impostor is another authority's, another host's or an agent's.
fn draw_gateway_pairs(
    choices: &mut Choices,
    size: Size,
    pki: &mut Pki,
    foreign: &mut Pki,
) -> (Vec<Pair>, Option<usize>) {
    let mut pairs: Vec<Pair> = (0..size.gateways)
        .map(|nth| pki.gateway(&gateway_name(nth), &gateway_addrs(nth)))
        .collect();
    if size.gateways == 1 || !choices.chance(80) {
        return (pairs, None);
    }
    let nth = choices.index(size.gateways);
    pairs[nth] = match choices.between(0, 2) {
        0 => foreign.gateway(&gateway_name(nth), &gateway_addrs(nth)),
        1 => pki.gateway("elsewhere.example.test", &[]),
        _ => pki.agent(uuid(choices, usize::MAX), &gateway_name(nth)),
    };
    (pairs, Some(nth))
}

/// Tells whether a list holds a gateway other than the impostor.
fn knows_another(known: &[Target], impostor: Option<usize>) -> bool {
    let Some(nth) = impostor else {
        return true;
    };
    let hosts = [gateway_name(nth), gateway_addrs(nth)[0].to_string()];
    known.iter().any(|t| !hosts.contains(&t.host.to_string()))
}

fn draw_identity(choices: &mut Choices, may_copy: bool) -> Identity {
    match choices.between(0, 29) {
        29 => Identity::Unknown,
        28 => Identity::Foreign,
        27 if may_copy => Identity::Copy,
        26 if may_copy => Identity::Rival,
        25 => Identity::Mispinned,
        _ => Identity::Enrolled,
    }
}

fn draw_pin(choices: &mut Choices, identity: Identity, pairs: &[Pair]) -> Option<[u8; 32]> {
    if identity == Identity::Mispinned {
        return Some(choices.key());
    }
    // A pin holds for one gateway, so it is for agents that know one only.
    (pairs.len() == 1 && choices.chance(300)).then(|| pairs[0].spki_sha256)
}

fn draw_intervals(choices: &mut Choices) -> AdvertiserConfig {
    if choices.chance(700) {
        return AdvertiserConfig::default();
    }
    let (low, high) = (Duration::from_millis(200), Duration::from_secs(60));
    AdvertiserConfig {
        advertise_interval: choices.scaled_time(low, high),
        heartbeat_interval: choices.scaled_time(low, high),
    }
}

fn draw_gateway_list(choices: &mut Choices, count: usize) -> Vec<Target> {
    let first = choices.index(count);
    let known = choices.between(1, count as u64);
    (0..usize::try_from(known).unwrap_or(1))
        .map(|turn| {
            let nth = (first + turn) % count;
            let ip = gateway_addrs(nth)[0];
            if choices.chance(500) {
                SocketAddr::new(ip, PORT).into()
            } else {
                let name = gateway_name(nth);
                Target::new(&name, PORT).unwrap_or_else(|_| SocketAddr::new(ip, PORT).into())
            }
        })
        .collect()
}

fn draw_agent_node(
    choices: &mut Choices,
    nth: usize,
    config: AgentConfig,
) -> NodePlan<AgentConfig> {
    let low = u8::try_from(nth + 1).unwrap_or(u8::MAX);
    let six = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, u16::from(low));
    let behind_nat = choices.chance(500);
    let inner: Ipv4Addr = match behind_nat {
        true => Ipv4Addr::new(192, 168, low, 2),
        false => Ipv4Addr::new(198, 51, 100, low),
    };
    let mut addrs: Vec<IpAddr> = vec![inner.into()];
    if choices.chance(400) && !behind_nat {
        addrs.push(six.into());
    }
    let nat = behind_nat.then(|| NatConfig {
        outer: vec![
            Ipv4Addr::new(203, 0, 113, low).into(),
            Ipv4Addr::new(203, 0, 112, low).into(),
        ],
        idle_timeout: choices.scaled_time(Duration::from_millis(300), Duration::from_secs(120)),
        endpoint_dependent: choices.chance(500),
        inbound_refreshes: choices.chance(500),
    });
    NodePlan {
        config,
        addrs,
        nat,
        wall_off_ms: draw_skew(choices),
        driver: draw_driver(choices),
    }
}

fn add_gateways(
    choices: &mut Choices,
    size: Size,
    pki: &Arc<Pki>,
    plan: &mut Plan,
    gateways: Gateways,
) {
    let roster = Arc::new(gateways.roster);
    // Answers that come when the agent has gone on to its next gateway.
    let slow_names = size.gateways > 1 && choices.chance(120);
    for (nth, pair) in gateways.pairs.iter().enumerate() {
        let mut addrs = gateway_addrs(nth);
        // An address in the name service where nobody is.
        if choices.chance(150) {
            addrs.insert(0, Ipv4Addr::new(192, 0, 2, 250).into());
        }
        let after = if slow_names {
            choices.time(CONNECT_TIMEOUT * 9 / 10, CONNECT_TIMEOUT * 5 / 4)
        } else {
            Duration::from_millis(choices.between(0, 50))
        };
        plan.internet
            .names
            .insert(gateway_name(nth).into(), Resolution::Found(addrs, after));
        let (direct, policy) = draw_direct(choices);
        let config = GatewayConfig {
            tls: Arc::new(pki.gateway_tls(pair, Arc::clone(&roster) as Arc<dyn Admission>)),
            roster: Arc::clone(&roster),
            authority: Arc::clone(pki),
            impostor: gateways.impostor == Some(nth),
            limits: draw_limits(choices, size),
            dispatch: DispatchConfig {
                direct,
                ..draw_dispatch(choices)
            },
            direct: Arc::new(policy),
        };
        plan.gateways.push(NodePlan {
            config,
            addrs: gateway_addrs(nth),
            nat: None,
            wall_off_ms: draw_skew(choices),
            driver: draw_driver(choices),
        });
    }
}

fn draw_limits(choices: &mut Choices, size: Size) -> EndpointLimits {
    let usual = EndpointLimits::default();
    if choices.chance(800) {
        return usual;
    }
    let small = |choices: &mut Choices, low, high| {
        usize::try_from(choices.between(low, high)).unwrap_or(usize::MAX)
    };
    EndpointLimits {
        // Each agent may be there twice, and an old connection is drained late: not everybody need be welcome.
        connections: size.agents + small(choices, 0, 10),
        handshakes: small(choices, 2, 20),
        handshakes_retry: small(choices, 0, 5),
        handshakes_per_source: small(choices, 2, 10),
        unread: *choices.pick(&[usual.unread, UNREAD_BUDGET_MIN]),
        unread_in_all: *choices.pick(&[usual.unread_in_all, UNREAD_BUDGET_MIN]),
    }
}

fn draw_dispatch(choices: &mut Choices) -> DispatchConfig {
    let usual = DispatchConfig::default();
    DispatchConfig {
        opens_max: match choices.chance(200) {
            true => usize::try_from(choices.scaled(1, 30)).unwrap_or(1),
            false => usual.opens_max,
        },
        sessions_per_agent: match choices.chance(200) {
            true => usize::try_from(choices.scaled(1, 20)).unwrap_or(1),
            false => usual.sessions_per_agent,
        },
        direct: Vec::new(),
    }
}

fn draw_direct(choices: &mut Choices) -> (Vec<DirectRule>, Policy) {
    let net = match choices.between(0, 3) {
        1 => "8.8.0.0/16",
        2 => "10.200.0.0/16",
        _ => return (Vec::new(), Policy::direct(&[], Vec::new())),
    };
    let Ok(net) = net.parse() else {
        return (Vec::new(), Policy::direct(&[], Vec::new()));
    };
    let rule = DirectRule {
        range: DirectRange::Subnet(net),
        port: choices.chance(500).then_some(80),
    };
    (vec![rule], Policy::direct(&[net], Vec::new()))
}

fn draw_skew(choices: &mut Choices) -> i64 {
    match choices.between(0, 19) {
        // Beyond the certificates' life, either way.
        19 => 3 * YEAR_MS,
        18 => -3 * YEAR_MS,
        15..=17 => i64::try_from(choices.between(0, 7_200_000)).unwrap_or(0) - 3_600_000,
        _ => 0,
    }
}

fn draw_driver(choices: &mut Choices) -> DriverPlan {
    let us = |choices: &mut Choices, high| Duration::from_micros(choices.scaled(1, high));
    DriverPlan {
        timer_slack: match choices.chance(300) {
            true => us(choices, 5_000),
            false => Duration::ZERO,
        },
        bus_delay: match choices.chance(400) {
            true => us(choices, 2_000),
            false => Duration::ZERO,
        },
        lazy: match choices.chance(150) {
            true => u32::try_from(choices.scaled(1, 200)).unwrap_or(1),
            false => 0,
        },
        batch: *choices.pick(&[10, 1, 2, 40]),
    }
}

/// Paths between each agent and each gateway, either way.
fn draw_paths(choices: &mut Choices, plan: &mut Plan) {
    let agents: Vec<NodeId> = plan.agent_nodes().collect();
    for gateway in plan.gateway_nodes() {
        for agent in &agents {
            if choices.chance(400) {
                continue;
            }
            let there = Path::draw(choices);
            let back = if choices.chance(300) {
                Path::draw(choices)
            } else {
                there.clone()
            };
            plan.paths.push((*agent, gateway, there));
            plan.paths.push((gateway, *agent, back));
        }
    }
}

fn gateway_name(nth: usize) -> String {
    format!("gw{nth}.example.test")
}

fn gateway_addrs(nth: usize) -> Vec<IpAddr> {
    let low = u8::try_from(nth + 1).unwrap_or(u8::MAX);
    vec![
        Ipv4Addr::new(192, 0, 2, low).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(low)).into(),
    ]
}

/// Also when a fuzzer's bytes are used up no two agents share an id by chance.
fn uuid(choices: &mut Choices, nth: usize) -> Uuid {
    let key = choices.fork(&format!("agent {nth}")).key();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&key[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

const YEAR_MS: i64 = 365 * 86_400_000;
