//! What goes wrong, and when it is right again.

use std::{sync::Arc, time::Duration};

use super::{Size, routes};
use crate::{
    At, choices::Choices, facts::NodeId, faults::Fault, internet::Ailment, net::Path, plan::Plan,
};

pub(super) fn draw(choices: &mut Choices, size: Size, plan: &mut Plan) {
    let gateways: Vec<NodeId> = plan.gateway_nodes().collect();
    let agents: Vec<NodeId> = plan.agent_nodes().collect();
    if choices.chance(60) {
        let agent = *choices.pick(&agents);
        keep_waiting(choices, size, plan, agent);
    }
    if size.safety > LONG && choices.chance(500) {
        let gateway = *choices.pick(&gateways);
        come_and_go(choices, plan, gateway);
    }
    for _ in 0..size.faults {
        let gateway = *choices.pick(&gateways);
        let nth = choices.index(agents.len());
        let agent = agents[nth];
        let any = if choices.chance(300) { gateway } else { agent };
        let from = choices.time(Duration::from_millis(200), size.safety);
        let until = from + choices.scaled_time(Duration::from_millis(20), Duration::from_secs(20));
        let pair = if choices.chance(500) {
            (gateway, agent)
        } else {
            (agent, gateway)
        };
        let episode = match choices.between(0, 15) {
            0 | 1 => vec![(from, Fault::Crash(any)), (until, Fault::Start(any))],
            2 => vec![(from, Fault::Stop(any)), (until, Fault::Start(any))],
            3 | 4 => vec![(from, Fault::Freeze(any)), (until, Fault::Thaw(any))],
            5 => vec![
                (from, Fault::Cut(pair.0, pair.1)),
                (until, Fault::Mend(pair.0, pair.1)),
            ],
            6 | 7 => vec![
                (from, Fault::Cut(gateway, agent)),
                (from, Fault::Cut(agent, gateway)),
                (until, Fault::Mend(gateway, agent)),
                (until, Fault::Mend(agent, gateway)),
            ],
            8 => vec![
                (from, Fault::BlockUdp(any)),
                (until, Fault::UnblockUdp(any)),
            ],
            9 => vec![(from, Fault::Rebind(agent))],
            10 => vec![(
                from,
                Fault::SetPath(pair.0, pair.1, Box::new(Path::draw(choices))),
            )],
            11 => cliff(choices, from, until, pair),
            12 => vec![
                (from, Fault::WallClock(any, draw_jump(choices))),
                (until, Fault::WallClock(any, 0)),
            ],
            13 => vec![(from, Fault::BlockSocket(any, (until - from) / 10))],
            14 => change_routes(choices, plan, from, nth, agent),
            _ => vec![(from, Fault::ChangeNetwork(agent))],
        };
        plan.script.extend(episode);
    }
}

/// An agent whose resolver knows no name waits longer and longer, and its network changes meanwhile.
fn keep_waiting(choices: &mut Choices, size: Size, plan: &mut Plan, agent: NodeId) {
    plan.internet.ailing.insert(agent, Ailment::Names);
    for _ in 0..3 {
        let at = choices.time(Duration::from_secs(2), size.safety);
        plan.script.push((at, Fault::ChangeNetwork(agent)));
    }
}

/// A gateway that is away, there for long enough that its agents forget that, and away again.
fn come_and_go(choices: &mut Choices, plan: &mut Plan, gateway: NodeId) {
    let first = choices.time(Duration::from_secs(1), Duration::from_secs(3));
    for from in [first, first + LONG] {
        let until = from + choices.time(Duration::from_secs(11), Duration::from_secs(14));
        plan.script.push((from, Fault::Crash(gateway)));
        plan.script.push((until, Fault::Start(gateway)));
    }
}

/// A run in which connections may have been up for half a minute.
const LONG: At = Duration::from_secs(60);

/// Datagrams above a size vanish for a while.
fn cliff(choices: &mut Choices, from: At, until: At, (a, b): (NodeId, NodeId)) -> Vec<(At, Fault)> {
    let mtu = *choices.pick(&[1_200, 1_232, 1_300, 1_400]);
    let narrow = Path {
        mtu,
        ..Path::clean()
    };
    vec![
        (from, Fault::SetPath(a, b, Box::new(narrow))),
        (until, Fault::SetPath(a, b, Box::new(Path::clean()))),
    ]
}

/// The agent keeps its home.
fn change_routes(
    choices: &mut Choices,
    plan: &Plan,
    from: At,
    nth: usize,
    agent: NodeId,
) -> Vec<(At, Fault)> {
    let home = plan
        .agents
        .get(nth)
        .and_then(|a| a.config.routes.subnets.first());
    // Now and then faster than a gateway takes them.
    let hectic = choices.chance(150);
    let changes = if hectic { 30 } else { choices.scaled(1, 6) };
    let step = choices.scaled(1, if hectic { 100 } else { 2_000 });
    let step = Duration::from_millis(step);
    let mut episode = Vec::new();
    for turn in 0..changes {
        let mut set = routes::draw_routes(choices, nth);
        if let (Some(home), Some(first)) = (home, set.subnets.first_mut()) {
            *first = *home;
        }
        let at = from + step * u32::try_from(turn).unwrap_or(0);
        episode.push((at, Fault::SetRoutes(agent, Arc::new(set), None)));
    }
    episode
}

fn draw_jump(choices: &mut Choices) -> i64 {
    let jump = i64::try_from(choices.scaled(1, 2 * 365 * 86_400_000)).unwrap_or(0);
    if choices.chance(500) { jump } else { -jump }
}
