//! Users, what they want, and what programs at both ends do.

use std::time::Duration;

use adit_proto_core::id::AgentId;
use uuid::Uuid;

use super::{Size, routes};
use crate::{
    At,
    choices::Choices,
    facts::NodeId,
    faults::{Fault, Wish},
    plan::Plan,
    tcp::{Ending, Script},
};

pub(super) fn draw(choices: &mut Choices, size: Size, plan: &mut Plan) {
    let ids: Vec<AgentId> = plan.agents.iter().map(|agent| agent.config.id).collect();
    // Either spread over the run, or all at once.
    let crowd = choices.chance(200).then(|| draw_time(choices, size));
    for _ in 0..size.users {
        let at = match crowd {
            Some(at) if choices.chance(800) => {
                at + Duration::from_micros(choices.between(0, 50_000))
            }
            Some(_) | None => draw_time(choices, size),
        };
        let wish = Wish {
            gateway: NodeId(choices.index(size.gateways)),
            target: routes::draw_target(choices, size.agents),
            pinned: draw_pinned(choices, &ids),
            user: draw_script(choices, size),
            target_script: draw_script(choices, size),
            promise: None,
            patience: choices
                .chance(80)
                .then(|| choices.scaled_time(Duration::from_micros(100), Duration::from_secs(10))),
        };
        plan.script.push((at, Fault::Open(Box::new(wish))));
    }
}

fn draw_time(choices: &mut Choices, size: Size) -> At {
    choices.time(Duration::from_millis(100), size.safety)
}

fn draw_pinned(choices: &mut Choices, ids: &[AgentId]) -> Option<AgentId> {
    match choices.between(0, 19) {
        // Somebody who is not there.
        19 => Some(AgentId(Uuid::nil())),
        16..=18 => Some(*choices.pick(ids)),
        _ => None,
    }
}

fn draw_script(choices: &mut Choices, size: Size) -> Script {
    let total = if choices.chance(100) {
        0
    } else {
        choices.scaled(1, size.bytes_max)
    };
    let paced = choices.chance(250);
    Script {
        total,
        chunk: if paced {
            choices.scaled(1, 16 << 10).max(total / 100)
        } else {
            total
        },
        gap: if paced {
            choices.scaled_time(Duration::from_millis(1), Duration::from_secs(1))
        } else {
            At::ZERO
        },
        ending: *choices.pick(&[Ending::Fin, Ending::Fin, Ending::FinAfterPeer, Ending::Hold]),
        stall: choices.chance(100).then(|| {
            let time = choices.scaled_time(Duration::from_millis(10), Duration::from_secs(20));
            (choices.scaled(1, size.bytes_max), time)
        }),
        reset_after: choices
            .chance(120)
            .then(|| choices.scaled_time(Duration::from_micros(100), Duration::from_secs(10))),
        reset_discards: choices.chance(500),
        latency: choices.scaled_time(Duration::from_micros(50), Duration::from_millis(5)),
    }
}
