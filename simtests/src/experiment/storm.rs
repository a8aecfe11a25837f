//! Thousands of agents come back after their gateway has crashed and started.

use std::{collections::BTreeMap, time::Duration};

use adit_proto_core::{id::AgentId, route::RouteSet};
use ipnet::Ipv4Net;

use super::bed::{self, Bed, GATEWAY};
use crate::{
    At,
    faults::Fault,
    log::Log,
    observer::{Observer, Sight},
    oracle::{Oracles, Violation},
    trace::Trace,
    world::World,
};

/// What a storm gave. Times are those from a gateway's start to an agent's routes at it; none for an agent that did not
/// come while the storm was watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storm {
    /// After the first start, which all agents share.
    pub first: Vec<Option<At>>,
    /// After the gateway's return.
    pub back: Vec<Option<At>>,
    /// Virtual time at the end.
    pub at: At,
    /// Facts of the run.
    pub facts: u64,
}

/// Starts a gateway and its agents at once, crashes the gateway when all are connected, and starts it again.
///
/// # Errors
/// What a judge found.
pub fn measure(seed: u64, agents: usize, away: At) -> Result<Storm, Violation> {
    let mut bed = Bed::draw(seed, agents, own_routes);
    let ids: Vec<AgentId> = (0..agents).map(|nth| bed.id(nth)).collect();
    let mut oracles = Oracles::default();
    oracles.light = true;
    let log = Log::new(Trace::silent(), oracles);
    let mut world = World::new(bed.plan, &mut bed.choices, log);
    let first = connect(&mut world, &ids)?;
    // What is lost sooner counts as never established.
    let settled_at = world.at() + SETTLE;
    bed::watch(&mut world, settled_at, |_| false)?;
    world.act(Fault::Crash(GATEWAY));
    let back_at = world.at() + away;
    bed::watch(&mut world, back_at, |_| false)?;
    world.act(Fault::Start(GATEWAY));
    let back = connect(&mut world, &ids)?;
    Ok(Storm {
        first,
        back,
        at: world.at(),
        facts: world.log.trace.hashes().records,
    })
}

/// Waits until the gateway has the routes of all agents, or for long.
fn connect(world: &mut World, ids: &[AgentId]) -> Result<Vec<Option<At>>, Violation> {
    let from = world.at();
    world.log.observer = Some(Observer::with_room(ROOM_PER_AGENT * ids.len()));
    bed::watch(world, from + WITHIN, |w| {
        w.gateway(GATEWAY)
            .is_some_and(|gateway| gateway.dispatch().hub().agent_count() == ids.len())
            && routed(w).len() == ids.len()
    })?;
    let routed = routed(world);
    let since = |id| routed.get(id).map(|at| *at - from);
    Ok(ids.iter().map(since).collect())
}

fn routed(world: &World) -> BTreeMap<AgentId, At> {
    let mut routed = BTreeMap::new();
    for sighting in bed::sightings(world) {
        if let Sight::Routed(agent) = sighting.what {
            routed.entry(agent).or_insert(sighting.at);
        }
    }
    routed
}

/// A subnet of its own for each of the first 65,536 agents.
fn own_routes(nth: usize) -> RouteSet {
    let [.., high, low] = nth.to_be_bytes();
    RouteSet {
        subnets: vec![Ipv4Net::new_assert([10, high, low, 0].into(), 24).into()],
        domains: Vec::new(),
    }
}

/// A connection that was up for 5 s counts for the wait after its loss.
const SETTLE: At = Duration::from_secs(6);
/// Twice the longest wait after a refusal for load.
const WITHIN: At = Duration::from_secs(120);
/// Each agent is registered and routed, and may be so again.
const ROOM_PER_AGENT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_agents_come_back_each_time_alike() {
        let storm = measure(1, 40, Duration::from_secs(1)).unwrap();
        assert_eq!(storm.back.len(), 40);
        let longest = storm.back.iter().map(|t| t.unwrap()).max();
        // The longest wait of the series, a ping that finds the gateway changed, and a few round trips.
        assert!(longest < Some(Duration::from_secs(6)), "{longest:?}");
        assert_eq!(storm, measure(1, 40, Duration::from_secs(1)).unwrap());
    }
}
