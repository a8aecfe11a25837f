//! What operators do in a run: they delete agents and enrol them again, take them out for maintenance, and change what
//! gateways and agents were set up with.

use std::collections::BTreeMap;

use adit_proto_core::{
    agent::policy::Restrictions, endpoint::EndpointLimits, env::Seed,
    gateway::dispatch::DispatchConfig, id::AgentId,
};
use rand_chacha::{ChaCha12Rng, rand_core::Rng};

use super::Size;
use crate::{
    At,
    facts::NodeId,
    faults::{Fault, Order},
    plan::Plan,
};

/// Draws orders and restrictions for some runs. From a seed of its own, so that all else stays as it is.
pub(super) fn draw(seed: &Seed, size: Size, plan: &mut Plan) {
    let rng = &mut seed.derive("operators");
    if size.all_welcome {
        return;
    }
    if chance(rng, 250) {
        restrict(rng, plan);
    }
    if chance(rng, 200) {
        delete(rng, size, plan);
    }
    if chance(rng, 200) {
        drain(rng, size, plan);
    }
    if chance(rng, 200) {
        change_settings(rng, size, plan);
    }
}

/// Every home's first addresses stay within reach, at the port where they are asked for.
fn restrict(rng: &mut ChaCha12Rng, plan: &mut Plan) {
    for (nth, agent) in plan.agents.iter_mut().enumerate() {
        if chance(rng, 400) {
            continue;
        }
        let half = format!("172.20.{}.128/25", nth % 250);
        let denied: &[&str] = match below(rng, 4) {
            0 => &["10.1.2.9/32", "10.200.0.0/16"],
            1 => &["10.0.0.0/8"],
            2 => &[&half, "fd12::/16"],
            _ => &[],
        };
        let ports = match below(rng, 4) {
            0 => vec![80..=80],
            1 => vec![22..=79, 80..=100],
            _ => Vec::new(),
        };
        agent.config.restrictions = Restrictions {
            ports,
            deny: denied.iter().filter_map(|net| net.parse().ok()).collect(),
        };
    }
}

/// One agent is deleted at every gateway, and may enrol again with another key. Nobody shares its id, and it renews
/// nothing.
fn delete(rng: &mut ChaCha12Rng, size: Size, plan: &mut Plan) {
    let mut bearers: BTreeMap<AgentId, u32> = BTreeMap::new();
    for agent in &plan.agents {
        *bearers.entry(agent.config.id).or_default() += 1;
    }
    let nodes: Vec<NodeId> = plan.agent_nodes().collect();
    let may = |node: &NodeId| {
        let agent = plan.agents.get(node.0 - plan.gateways.len());
        plan.welcome.contains(node)
            && agent.is_some_and(|agent| {
                agent.config.renewal.is_none() && bearers.get(&agent.config.id) == Some(&1)
            })
    };
    let candidates: Vec<NodeId> = nodes.into_iter().filter(may).collect();
    let Some(node) = pick(rng, &candidates) else {
        return;
    };
    let nth = node.0 - plan.gateways.len();
    let Some(config) = plan.agents.get(nth).map(|agent| agent.config.clone()) else {
        return;
    };
    plan.welcome.remove(&node);
    let at = time(rng, size.safety / 2);
    let again = chance(rng, 600).then(|| at + At::from_millis(100 + below(rng, 5_000)));
    let pair = config
        .authority
        .renewed(config.id.0, &format!("agent-{nth}"), ENROLLED_AGAIN);
    for gateway in plan.gateway_nodes() {
        let delete = Order::Delete(config.id);
        plan.script.push((at, Fault::Order(gateway, delete)));
        if let Some(again) = again {
            let enroll = Order::Enroll(config.id, pair.spki_sha256);
            plan.script.push((again, Fault::Order(gateway, enroll)));
        }
    }
    if let Some(again) = again {
        let tls = config.authority.agent_tls(&pair, config.tls.gateway_pin);
        let at = again + At::from_millis(below(rng, 1_000));
        let key = Fault::NewKey(node, tls.into(), pair.spki_sha256);
        let episode = [key, Fault::Crash(node), Fault::Start(node)];
        plan.script.extend(episode.map(|fault| (at, fault)));
    }
}

/// Some agents get no new sessions for a while, or for good.
fn drain(rng: &mut ChaCha12Rng, size: Size, plan: &mut Plan) {
    let gateways: Vec<NodeId> = plan.gateway_nodes().collect();
    let ids: Vec<AgentId> = plan.agents.iter().map(|agent| agent.config.id).collect();
    for _ in 0..=below(rng, 4) {
        let (Some(gateway), Some(id)) = (pick(rng, &gateways), pick(rng, &ids)) else {
            return;
        };
        let from = time(rng, size.safety);
        plan.script
            .push((from, Fault::Order(gateway, Order::Drain(id, true))));
        if chance(rng, 700) {
            let until = from + At::from_millis(100 + below(rng, 10_000));
            plan.script
                .push((until, Fault::Order(gateway, Order::Drain(id, false))));
        }
    }
}

/// Bounds and certificates of gateways are exchanged while they run.
fn change_settings(rng: &mut ChaCha12Rng, size: Size, plan: &mut Plan) {
    let gateways: Vec<NodeId> = plan.gateway_nodes().collect();
    for _ in 0..=below(rng, 4) {
        let Some(gateway) = pick(rng, &gateways) else {
            return;
        };
        let Some(node) = plan.gateways.get(gateway.0) else {
            return;
        };
        let order = match chance(rng, 400) {
            true => Order::Certificate,
            false => {
                let dispatch = DispatchConfig {
                    opens_max: small(rng, 30),
                    sessions_per_agent: small(rng, 20),
                    direct: match chance(rng, 300) {
                        true => Vec::new(),
                        false => node.config.dispatch.direct.clone(),
                    },
                };
                let limits = EndpointLimits {
                    // As where they are drawn at first: not everybody need be welcome.
                    connections: size.agents + small(rng, 10),
                    ..node.config.limits
                };
                Order::Configure(Box::new((limits, dispatch)))
            }
        };
        let at = time(rng, size.safety);
        plan.script.push((at, Fault::Order(gateway, order)));
    }
}

fn time(rng: &mut ChaCha12Rng, safety: At) -> At {
    At::from_millis(500 + below(rng, safety.as_secs() * 1_000))
}

fn small(rng: &mut ChaCha12Rng, high: u64) -> usize {
    usize::try_from(1 + below(rng, high)).unwrap_or(1)
}

fn pick<T: Copy>(rng: &mut ChaCha12Rng, of: &[T]) -> Option<T> {
    let nth = below(rng, of.len() as u64);
    of.get(usize::try_from(nth).unwrap_or(0)).copied()
}

fn chance(rng: &mut ChaCha12Rng, in_thousand: u64) -> bool {
    below(rng, 1_000) < in_thousand
}

fn below(rng: &mut ChaCha12Rng, bound: u64) -> u64 {
    rng.next_u64() % bound.max(1)
}

/// Tells its key from those of renewals, which are counted from 0.
const ENROLLED_AGAIN: u64 = 1_000;
