//! Which agents renew their certificates in a run, and when.

use std::collections::BTreeMap;

use adit_proto_core::{agent::renewal::Validity, env::Seed, id::AgentId};
use rand_chacha::{ChaCha12Rng, rand_core::Rng};

use super::Size;
use crate::{
    At, facts::NodeId, faults::Fault, node::renewal::RenewalPlan, pki::WALL_START_MS, plan::Plan,
};

/// Has some agents' certificates come due before or in the run. From a seed of its own, so that all else stays as it is.
///
/// Only agents that know one gateway renew with another key: further ones would have to learn of it, which takes a
/// cluster. And only those whose id nobody shares.
pub(super) fn draw(seed: &Seed, size: Size, plan: &mut Plan) {
    let mut rng = seed.derive("renewals");
    let mut bearers: BTreeMap<AgentId, u32> = BTreeMap::new();
    for agent in &plan.agents {
        *bearers.entry(agent.config.id).or_default() += 1;
    }
    let in_this_run = below(&mut rng, 1_000) < 300;
    let restored = below(&mut rng, 1_000) < 300;
    for (nth, agent) in plan.agents.iter_mut().enumerate() {
        let chosen = below(&mut rng, 1_000) < 400;
        let due_in = below(&mut rng, size.safety.as_secs() + 2 * SPREAD_S);
        let config = &mut agent.config;
        let alone = config.gateways.len() == 1 && bearers.get(&config.id) == Some(&1);
        if in_this_run && chosen && alone && !size.all_welcome {
            config.renewal = Some(RenewalPlan {
                name: format!("agent-{nth}"),
                validity: due_at(due_in),
            });
        }
    }
    if in_this_run && restored && !size.all_welcome {
        restore(&mut rng, size, plan);
    }
}

/// One gateway's store is that of the beginning from some time on.
fn restore(rng: &mut ChaCha12Rng, size: Size, plan: &mut Plan) {
    let gateways: Vec<NodeId> = plan.gateway_nodes().collect();
    let count = gateways.len() as u64;
    let Some(gateway) = usize::try_from(below(rng, count))
        .ok()
        .and_then(|nth| gateways.get(nth))
    else {
        return;
    };
    let from = At::from_millis(below(rng, size.safety.as_secs() * 1_000));
    let away = At::from_millis(20 + below(rng, 3_000));
    plan.script.push((from, Fault::Restore(*gateway)));
    plan.script.push((from + away, Fault::Start(*gateway)));
}

/// Has one agent renew up to a second before so many seconds of the run have passed.
pub(super) fn renew_at(plan: &mut Plan, nth: usize, seconds: i64) {
    let start = i64::try_from(WALL_START_MS / 1_000).unwrap_or(i64::MAX);
    let due = start + seconds;
    if let Some(agent) = plan.agents.get_mut(nth) {
        agent.config.renewal = Some(RenewalPlan {
            name: format!("agent-{nth}"),
            validity: Validity {
                not_before: due - 20,
                not_after: due + 10,
            },
        });
    }
}

/// The life of a certificate that comes due up to [`SPREAD_S`] before then, `due_in` counted from that long before the
/// run.
fn due_at(due_in: u64) -> Validity {
    let start = i64::try_from(WALL_START_MS / 1_000).unwrap_or(i64::MAX);
    let due = start + i64::try_from(due_in).unwrap_or(0) - i64::try_from(SPREAD_S).unwrap_or(0);
    // A third of the life is left then, and the machine comes up to a tenth of that earlier.
    let margin = 10 * i64::try_from(SPREAD_S).unwrap_or(0);
    Validity {
        not_before: due - 2 * margin,
        not_after: due + margin,
    }
}

fn below(rng: &mut ChaCha12Rng, bound: u64) -> u64 {
    rng.next_u64() % bound.max(1)
}

const SPREAD_S: u64 = 10;
