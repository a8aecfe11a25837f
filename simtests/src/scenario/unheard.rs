//! A gateway that leaves an agent's control messages unread, while its QUIC goes on to acknowledge everything.

use std::{sync::Arc, time::Duration};

use adit_proto_core::agent::advertise::AdvertiserConfig;

use super::{Size, flood, routes, topology, users};
use crate::{choices::Choices, faults::Fault, plan::Plan};

/// Draws agents without other trouble, of which the first changes its routes so often, and so fast, that its gateway
/// puts off what it says for longer than it waits for an answer.
pub(super) fn draw(choices: &mut Choices) -> Plan {
    let size = Size {
        gateways: *choices.pick(&[1, 2]),
        agents: *choices.pick(&[1, 2, 3]),
        users: 6,
        bytes_max: 10_000,
        faults: 0,
        all_welcome: true,
        safety: Duration::from_secs(50),
    };
    let mut plan = topology::draw(choices, size);
    flood::behave(&mut plan);
    plan.paths.clear();
    users::draw(choices, size, &mut plan);
    let agents: Vec<_> = plan.agent_nodes().collect();
    let (Some(agent), Some(node)) = (plan.agents.first_mut(), agents.first()) else {
        return plan;
    };
    agent.config.intervals = AdvertiserConfig {
        heartbeat_interval: choices.time(Duration::from_secs(1), Duration::from_secs(5)),
        ..AdvertiserConfig::default()
    };
    let home = routes::home(0);
    let first = choices.time(Duration::from_secs(2), Duration::from_secs(8));
    for turn in 0..CHANGES {
        let mut set = routes::draw_routes(choices, 0);
        // Each differs from the one before.
        set.subnets.retain(|net| *net == home || turn % 2 == 0);
        set.subnets
            .extend((turn % 2 == 1).then(|| routes::home(200)));
        let at = first + Duration::from_millis(2) * turn;
        plan.script
            .push((at, Fault::SetRoutes(*node, Arc::new(set), None)));
    }
    plan
}

/// Half a second of silence for each but the first few.
const CHANGES: u32 = 100;
