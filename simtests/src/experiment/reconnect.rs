//! A failure is over: the time until the gateway has the agent and its routes again.

use std::time::Duration;

use adit_proto_core::id::AgentId;

use super::{
    Measured, Taken,
    bed::{self, Bed, GATEWAY, READY, agent},
    track::tracks,
};
use crate::{
    At, choices::Choices, facts::NodeId, faults::Fault, observer::Sight, oracle::Violation,
    trace::Trace, world::World,
};

/// What is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The agent was stopped and starts.
    AgentStop,
    /// The agent crashed and starts.
    AgentCrash,
    /// Nothing passed, either way, for so long that both ends gave the connection up.
    Cut,
    /// The same, from the gateway to the agent only.
    LossToAgent,
    /// The same, from the agent to the gateway only.
    LossFromAgent,
    /// The agent's NAT forgot its mapping; the connection is kept.
    Rebind,
    /// The agent's machine has another address, and its process was told; the connection is kept.
    NetworkChange,
    /// The gateway was stopped and starts.
    GatewayStop,
    /// The gateway crashed and starts.
    GatewayCrash,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AgentStop,
        Self::AgentCrash,
        Self::Cut,
        Self::LossToAgent,
        Self::LossFromAgent,
        Self::Rebind,
        Self::NetworkChange,
        Self::GatewayStop,
        Self::GatewayCrash,
    ];

    /// A name for tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AgentStop => "agent stop and start",
            Self::AgentCrash => "agent crash and start",
            Self::Cut => "path cut and mended",
            Self::LossToAgent => "loss to the agent, mended",
            Self::LossFromAgent => "loss from the agent, mended",
            Self::Rebind => "NAT rebind",
            Self::NetworkChange => "network change",
            Self::GatewayStop => "gateway stop and start",
            Self::GatewayCrash => "gateway crash and start",
        }
    }

    /// How long the failure lasts.
    fn draw_length(self, choices: &mut Choices) -> At {
        let low = match self {
            Self::Rebind | Self::NetworkChange => return At::ZERO,
            Self::AgentCrash | Self::GatewayCrash => Duration::from_millis(100),
            // A process that is told to stop takes 200 ms.
            Self::AgentStop | Self::GatewayStop => Duration::from_millis(250),
            // Less is a pause that the connection survives, after at most 4 s and what is under way.
            Self::Cut | Self::LossToAgent | Self::LossFromAgent => Duration::from_secs(6),
        };
        choices.scaled_time(low, Duration::from_secs(20))
    }

    fn script(self, from: At, until: At) -> Vec<(At, Fault)> {
        let (there, back) = ((agent(0), GATEWAY), (GATEWAY, agent(0)));
        match self {
            Self::AgentStop => around(from, Fault::Stop, until, Fault::Start, agent(0)),
            Self::AgentCrash => around(from, Fault::Crash, until, Fault::Start, agent(0)),
            Self::GatewayStop => around(from, Fault::Stop, until, Fault::Start, GATEWAY),
            Self::GatewayCrash => around(from, Fault::Crash, until, Fault::Start, GATEWAY),
            Self::Cut => [there, back]
                .into_iter()
                .flat_map(|(a, b)| [(from, Fault::Cut(a, b)), (until, Fault::Mend(a, b))])
                .collect(),
            Self::LossToAgent => one_way(from, until, back),
            Self::LossFromAgent => one_way(from, until, there),
            Self::Rebind => vec![(from, Fault::Rebind(agent(0)))],
            Self::NetworkChange => vec![(from, Fault::ChangeNetwork(agent(0)))],
        }
    }

    /// Whether the connection outlives the failure, so that only sessions show that it works.
    const fn keeps_connection(self) -> bool {
        match self {
            Self::Rebind | Self::NetworkChange => true,
            Self::AgentStop
            | Self::AgentCrash
            | Self::Cut
            | Self::LossToAgent
            | Self::LossFromAgent
            | Self::GatewayStop
            | Self::GatewayCrash => false,
        }
    }
}

fn one_way(from: At, until: At, (a, b): (NodeId, NodeId)) -> Vec<(At, Fault)> {
    vec![(from, Fault::Cut(a, b)), (until, Fault::Mend(a, b))]
}

fn around(
    from: At,
    begin: fn(NodeId) -> Fault,
    until: At,
    end: fn(NodeId) -> Fault,
    node: NodeId,
) -> Vec<(At, Fault)> {
    vec![(from, begin(node)), (until, end(node))]
}

/// Measures, for each agent that was away, the time from the end of the failure until the gateway has its routes.
/// Where the connection is kept: until the first byte of a session through that agent.
pub(super) fn measure(kind: Kind, seed: u64, trace: Trace) -> Measured {
    let mut choices = Choices::from_seed(seed);
    let agents = usize::try_from(choices.between(1, 4)).unwrap_or(1);
    let mut bed = Bed::draw(seed, agents, bed::shared_routes);
    for _ in 0..bed.choices.between(0, 4) {
        let busy = bed.choices.chance(500);
        bed.hold(READY, 0, busy);
    }
    // After more than 30 s the series of waits starts afresh.
    let from = READY
        + bed
            .choices
            .time(Duration::from_secs(2), Duration::from_secs(30));
    let until = from + kind.draw_length(&mut bed.choices);
    let script = kind.script(from, until);
    bed.plan.script.extend(script);
    let away: Vec<AgentId> = match kind {
        Kind::GatewayStop | Kind::GatewayCrash => (0..agents).map(|nth| bed.id(nth)).collect(),
        Kind::AgentStop
        | Kind::AgentCrash
        | Kind::Cut
        | Kind::LossToAgent
        | Kind::LossFromAgent
        | Kind::Rebind
        | Kind::NetworkChange => vec![bed.id(0)],
    };
    if kind.keeps_connection() {
        ask(&mut bed, until);
    }
    let mut world = bed.start(trace);
    Measured {
        taken: bed::begin(&mut world, agents).and_then(|()| judge(&mut world, kind, until, &away)),
        lines: world.log.trace.take_lines(),
    }
}

fn judge(
    world: &mut World,
    kind: Kind,
    until: At,
    away: &[AgentId],
) -> Result<Vec<Taken>, Violation> {
    let back = |w: &World, id| match kind.keeps_connection() {
        true => answered(w, until),
        false => routed(w, id, until),
    };
    bed::watch(world, until, |_| false)?;
    bed::watch(world, until + BACK_WITHIN, |w| {
        away.iter().all(|id| back(w, *id).is_some())
    })?;
    let times = away.iter().map(|id| Some(back(world, *id)? - until));
    Ok(vec![Taken {
        what: match kind.keeps_connection() {
            true => "to a session through the agent",
            false => "to routes at the gateway",
        },
        times: times.collect(),
    }])
}

/// Users who want the first agent, one after the other.
fn ask(bed: &mut Bed, from: At) {
    let id = bed.id(0);
    let mut at = from;
    while at < from + Duration::from_secs(5) {
        bed.open(at, &bed::by_address(), Some(id));
        at += bed
            .choices
            .time(Duration::from_millis(50), Duration::from_millis(100));
    }
}

fn answered(world: &World, from: At) -> Option<At> {
    let tracks = tracks(bed::sightings(world));
    let asked = tracks.iter().filter(|track| track.wished >= from);
    asked.filter_map(|track| track.first_byte).min()
}

fn routed(world: &World, agent: AgentId, from: At) -> Option<At> {
    let mut later = bed::sightings(world).iter().filter(|s| s.at >= from);
    later.find(|s| s.what == Sight::Routed(agent)).map(|s| s.at)
}

/// Longer than any wait between two attempts to connect.
const BACK_WITHIN: At = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_back_within_its_longest_wait_and_a_round() {
        // At most 4 s between two rounds, and 10 s for one that began too early.
        let bound = Duration::from_secs(14);
        for kind in Kind::ALL {
            let taken = measure(kind, 2, Trace::silent()).taken.unwrap();
            for took in &taken[0].times {
                assert!(took.is_some_and(|t| t < bound), "{kind:?}: {taken:?}");
            }
        }
    }

    #[test]
    fn every_agent_of_a_gateway_counts() {
        let agents = |seed| {
            let measured = measure(Kind::GatewayCrash, seed, Trace::silent());
            measured.taken.unwrap()[0].times.len()
        };
        assert!((0..6).map(agents).max() > Some(1));
    }

    #[test]
    fn a_seed_gives_the_same_times_twice() {
        let run = || measure(Kind::Cut, 1, Trace::with_lines(1));
        assert_eq!(run(), run());
    }
}
