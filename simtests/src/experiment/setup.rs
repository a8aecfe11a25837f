//! Sessions are opened while the agent that they go to first is sick, beside one that is well.

use std::time::Duration;

use adit_proto_core::id::AgentId;

use super::{
    Measured, Taken,
    bed::{self, Bed, GATEWAY, READY, agent},
    track::tracks,
};
use crate::{
    At, facts::NodeId, faults::Fault, internet::Ailment, net::Path, oracle::Violation,
    trace::Trace, world::World,
};

/// What the preferred agent suffers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Nothing,
    /// Its target never answers.
    TargetSilent,
    /// Its resolver never answers.
    ResolverSilent,
    /// Its process stands still.
    Frozen,
    /// Its path loses 30 % either way.
    Lossy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Nothing,
        Self::TargetSilent,
        Self::ResolverSilent,
        Self::Frozen,
        Self::Lossy,
    ];

    /// A name for tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "both well",
            Self::TargetSilent => "silent target",
            Self::ResolverSilent => "silent resolver",
            Self::Frozen => "frozen",
            Self::Lossy => "30 % loss",
        }
    }

    fn afflict(self, bed: &mut Bed, at: At) {
        let sick = agent(0);
        let ailing = &mut bed.plan.internet.ailing;
        match self {
            Self::Nothing => {}
            Self::TargetSilent => drop(ailing.insert(sick, Ailment::Targets)),
            Self::ResolverSilent => drop(ailing.insert(sick, Ailment::Resolver)),
            Self::Frozen => bed.at(at, Fault::Freeze(sick)),
            Self::Lossy => {
                for (from, to) in [(sick, GATEWAY), (GATEWAY, sick)] {
                    let path = lossy(bed, from, to);
                    bed.at(at, Fault::SetPath(from, to, Box::new(path)));
                }
            }
        }
    }
}

fn lossy(bed: &Bed, from: NodeId, to: NodeId) -> Path {
    let mut paths = bed.plan.paths.iter();
    let path = paths.find(|(a, b, _)| (*a, *b) == (from, to));
    Path {
        loss_ppm: 300_000,
        ..path.map_or_else(Path::clean, |(_, _, path)| path.clone())
    }
}

/// Measures the time from the wish to the open session, for a number of sessions one after the other.
pub(super) fn measure(kind: Kind, seed: u64, trace: Trace) -> Measured {
    let mut bed = Bed::draw(seed, 2, bed::shared_routes);
    let sick = bed.id(0);
    let carried = match kind {
        // Its target has been silent for as long as it is there.
        Kind::TargetSilent => 0,
        Kind::Nothing | Kind::ResolverSilent | Kind::Frozen | Kind::Lossy => {
            bed.choices.between(1, 8)
        }
    };
    bed.prefer_first(carried);
    let named = bed.choices.chance(500) || kind == Kind::ResolverSilent;
    let target = if named {
        bed::by_name()
    } else {
        bed::by_address()
    };
    let from = READY
        + bed
            .choices
            .time(Duration::from_secs(2), Duration::from_secs(4));
    kind.afflict(&mut bed, from);
    let mut at = from;
    for _ in 0..SESSIONS {
        bed.open(at, &target, None);
        at += bed
            .choices
            .time(Duration::from_millis(200), Duration::from_millis(800));
    }
    let mut world = bed.start(trace);
    Measured {
        taken: bed::begin(&mut world, 2).and_then(|()| judge(&mut world, at, sick)),
        lines: world.log.trace.take_lines(),
    }
}

fn judge(world: &mut World, last_at: At, sick: AgentId) -> Result<Vec<Taken>, Violation> {
    bed::watch(world, last_at, |_| false)?;
    bed::watch(world, last_at + OUTCOME_WITHIN, |w| {
        let mut users = tracks(bed::sightings(w)).into_iter();
        users.all(|t| t.pinned.is_some() || t.committed.is_some() || t.failed)
    })?;
    let mut users = tracks(bed::sightings(world));
    users.retain(|track| track.pinned.is_none());
    let preferred = users.first().and_then(|track| track.asked);
    let text = "the sick agent is not the preferred one";
    bed::expect(world, preferred == Some(sick), text)?;
    let times = users.iter().map(|t| Some(t.committed? - t.wished));
    Ok(vec![Taken {
        what: "wish to an open session",
        times: times.collect(),
    }])
}

/// Sessions of one seed.
const SESSIONS: usize = 12;
/// The gateway gives a session up after 30 s.
const OUTCOME_WITHIN: At = Duration::from_secs(32);

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(kind: Kind) -> At {
        let taken = measure(kind, 4, Trace::silent()).taken.unwrap();
        assert_eq!(taken[0].times.len(), SESSIONS);
        let times = taken[0].times.iter().flatten();
        *times.max().unwrap()
    }

    #[test]
    fn a_sick_agent_costs_the_stagger_and_no_more() {
        // Beside the stagger of 250 ms a round trip of up to 200 ms, and the wait for what was lost.
        for kind in Kind::ALL {
            assert!(longest(kind) < Duration::from_secs(2), "{kind:?}");
        }
        assert!(longest(Kind::Nothing) < longest(Kind::TargetSilent));
    }

    #[test]
    fn a_seed_gives_the_same_times_twice() {
        let run = || measure(Kind::Lossy, 1, Trace::with_lines(1));
        assert_eq!(run(), run());
    }
}
