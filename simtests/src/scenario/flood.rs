//! Many bulk sessions on one connection, and what must get past them: a few small ones, changed routes, a farewell.

use std::{sync::Arc, time::Duration};

use adit_proto_core::{
    endpoint::EndpointLimits, gateway::dispatch::DispatchConfig, limits::UNREAD_BUDGET_MIN,
};

use super::{Size, routes, topology};
use crate::{
    At,
    choices::Choices,
    facts::NodeId,
    faults::{Fault, Wish},
    net::Path,
    plan::Plan,
    tcp::{Ending, Script},
};

/// What the bulk sessions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bulk {
    /// Users who do not read what their targets send.
    Unread,
    /// The same, with more than the gateway's budget for that allows.
    Hoard,
    /// Users who send more than the path carries.
    Upload,
    /// Targets that send more than the path carries: the agent's own messages have to get past it.
    Download,
    /// More users at once than the agent lets the gateway ask for, some of whom go away at once.
    Crowd,
}

const GATEWAY: NodeId = NodeId(0);
const AGENT: NodeId = NodeId(1);
/// Sessions that an agent lets a gateway ask for before it has heard of any.
const GRANTED: u32 = 1_024;
/// When the sender stops in the middle of it, and when it is back: later than its peer takes a path for dead.
const STOP_AT: At = Duration::from_millis(2_900);
const START_AT: At = Duration::from_millis(8_500);
/// When the small sessions come, and in which time they must be over.
const SMALL_FROM: At = Duration::from_secs(2);
const SMALL_WITHIN: At = Duration::from_secs(5);
/// For how long users do not read.
const STALL: Duration = Duration::from_secs(60);
/// When the agent's routes change, and in which time the gateway must know.
const CHANGE_AT: At = Duration::from_secs(2);
const CHANGE_WITHIN: At = Duration::from_secs(2);

/// Draws one gateway, one agent, a path without faults, and the load.
pub(super) fn draw(choices: &mut Choices) -> Plan {
    let kinds = [Bulk::Unread, Bulk::Hoard, Bulk::Upload, Bulk::Download];
    let bulk = *choices.pick(&kinds);
    load(choices, bulk, None)
}

/// Draws the same with a crowd of small sessions.
pub(super) fn draw_crowd(choices: &mut Choices) -> Plan {
    load(choices, Bulk::Crowd, None)
}

/// Draws the same, and who sends the bulk stops in the middle of it.
pub(super) fn draw_stop(choices: &mut Choices) -> Plan {
    let senders = [(Bulk::Upload, GATEWAY), (Bulk::Download, AGENT)];
    let (bulk, sender) = *choices.pick(&senders);
    load(choices, bulk, Some(sender))
}

fn load(choices: &mut Choices, bulk: Bulk, stops: Option<NodeId>) -> Plan {
    let size = Size {
        gateways: 1,
        agents: if bulk == Bulk::Hoard { 2 } else { 1 },
        users: 0,
        bytes_max: 0,
        faults: 0,
        all_welcome: true,
        safety: Duration::from_secs(9),
    };
    let mut plan = topology::draw(choices, size);
    behave(&mut plan);
    let path = Path {
        rate_bps: match bulk {
            // Still under way when the changed routes are due.
            Bulk::Download => choices.between(8_000_000, 12_000_000),
            Bulk::Unread | Bulk::Hoard | Bulk::Upload | Bulk::Crowd => {
                choices.between(20_000_000, 60_000_000)
            }
        },
        delay: choices.time(Duration::from_millis(1), Duration::from_millis(20)),
        queue_bytes: 256 << 10,
        ..Path::clean()
    };
    let agents: Vec<NodeId> = plan.agent_nodes().collect();
    let both_ways = |agent| {
        [
            (GATEWAY, agent, path.clone()),
            (agent, GATEWAY, path.clone()),
        ]
    };
    plan.paths = agents.into_iter().flat_map(both_ways).collect();
    let (sessions, bytes) = match bulk {
        Bulk::Unread => (choices.between(68, 90), 300 << 10),
        // Besides a few that pause in front of a page.
        Bulk::Hoard => (choices.between(3, 6), choices.between(1_400, 2_000) << 10),
        Bulk::Upload => (choices.between(36, 44), 600 << 10),
        Bulk::Download => (choices.between(10, 14), 600 << 10),
        Bulk::Crowd => (0, 0),
    };
    if bulk == Bulk::Crowd {
        crowd(choices, &mut plan);
    }
    if bulk == Bulk::Hoard {
        pages(choices, &mut plan);
    }
    for nth in 0..sessions {
        let at = choices.time(Duration::from_millis(500), Duration::from_millis(900));
        let mut wish = bulk_wish(bulk, bytes, choices);
        if bulk == Bulk::Hoard && nth % 2 == 1 {
            // What all connections may hold is shared by two.
            wish.target = routes::home_target(1, 1);
        }
        plan.script.push((at, Fault::Open(Box::new(wish))));
    }
    if let Some(node) = stops {
        plan.script.push((STOP_AT, Fault::Stop(node)));
        plan.script.push((START_AT, Fault::Start(node)));
        return plan;
    }
    for turn in 0..4 {
        let at = SMALL_FROM + Duration::from_millis(500) * turn;
        let wish = small_wish(choices, 1_000);
        plan.script.push((at, Fault::Open(Box::new(wish))));
    }
    let changed = Arc::new(routes::draw_routes(choices, 0));
    let change = Fault::SetRoutes(AGENT, changed, Some(CHANGE_WITHIN));
    plan.script.push((CHANGE_AT, change));
    plan
}

/// Nothing but the load is in anybody's way.
pub(super) fn behave(plan: &mut Plan) {
    plan.internet.hosts.clear();
    for gateway in &mut plan.gateways {
        gateway.wall_off_ms = 0;
        gateway.config.limits = EndpointLimits::default();
        gateway.config.dispatch = DispatchConfig::default();
    }
    for agent in &mut plan.agents {
        agent.wall_off_ms = 0;
        agent.config.mute = false;
    }
}

/// Users who pause with little, sooner than others with much.
fn pages(choices: &mut Choices, plan: &mut Plan) {
    let in_all = choices.chance(500);
    for gateway in &mut plan.gateways {
        let limits = &mut gateway.config.limits;
        let budget = match in_all {
            true => &mut limits.unread_in_all,
            false => &mut limits.unread,
        };
        *budget = UNREAD_BUDGET_MIN;
    }
    for _ in 0..choices.between(5, 20) {
        let bytes = choices.between(1, 200_000);
        let wish = bulk_wish(Bulk::Hoard, bytes, choices);
        let at = choices.time(Duration::from_millis(300), Duration::from_millis(600));
        plan.script.push((at, Fault::Open(Box::new(wish))));
    }
}

fn bulk_wish(bulk: Bulk, bytes: u64, choices: &mut Choices) -> Wish {
    let sender = Script {
        total: bytes,
        chunk: bytes,
        ending: Ending::FinAfterPeer,
        ..Script::silent()
    };
    let receiver = Script {
        ending: Ending::Hold,
        stall: matches!(bulk, Bulk::Unread | Bulk::Hoard).then_some((0, STALL)),
        ..Script::silent()
    };
    let (user, target_script) = match bulk {
        Bulk::Unread | Bulk::Hoard | Bulk::Download => (receiver, sender),
        Bulk::Upload | Bulk::Crowd => (sender, receiver),
    };
    wish(choices, user, target_script, None)
}

/// All at one time, so that nothing of the agent's comes in between.
fn crowd(choices: &mut Choices, plan: &mut Plan) {
    // After addresses of the gateway that lead nowhere, and before any other session.
    let (low, high) = (Duration::from_millis(1_500), Duration::from_millis(1_900));
    let at = choices.time(low, high);
    for turn in 0..GRANTED + 60 {
        let mut wish = small_wish(choices, 10);
        if turn >= GRANTED && choices.chance(500) {
            // Sooner than anything comes back.
            let (low, high) = (Duration::from_micros(100), Duration::from_millis(1));
            wish.patience = Some(choices.time(low, high));
            wish.promise = None;
        }
        plan.script.push((at, Fault::Open(Box::new(wish))));
    }
}

fn small_wish(choices: &mut Choices, bytes: u64) -> Wish {
    let user = Script {
        ending: Ending::Fin,
        ..Script::short(bytes)
    };
    wish(choices, user, Script::short(bytes), Some(SMALL_WITHIN))
}

fn wish(choices: &mut Choices, user: Script, target_script: Script, promise: Option<At>) -> Wish {
    let host = u8::try_from(choices.between(1, 254)).unwrap_or(1);
    Wish {
        gateway: GATEWAY,
        target: routes::home_target(0, host),
        pinned: None,
        user,
        target_script,
        promise,
        patience: None,
    }
}
