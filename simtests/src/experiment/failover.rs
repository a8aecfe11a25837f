//! An agent fails that new sessions go to first; from then on users come, and another agent reaches the target too.

use std::time::Duration;

use adit_proto_core::id::AgentId;

use super::{
    Measured, Taken,
    bed::{self, Bed, GATEWAY, READY, agent},
    track::tracks,
};
use crate::{At, choices::Choices, faults::Fault, oracle::Violation, trace::Trace, world::World};

/// How the agent fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its process closes its connections and ends.
    Stop,
    /// Its process ends without a word.
    Crash,
    /// Nothing passes, either way.
    BlackHole,
    /// Nothing comes to the agent.
    LostToAgent,
    /// Nothing comes from the agent.
    LostFromAgent,
    /// Nothing passes for a few seconds.
    Partition,
    /// Its NAT forgets its mapping; it can be reached again as soon as it says something.
    Rebind,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Stop,
        Self::Crash,
        Self::BlackHole,
        Self::LostToAgent,
        Self::LostFromAgent,
        Self::Partition,
        Self::Rebind,
    ];

    /// A name for tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Crash => "crash",
            Self::BlackHole => "black hole",
            Self::LostToAgent => "loss to the agent",
            Self::LostFromAgent => "loss from the agent",
            Self::Partition => "partition that heals",
            Self::Rebind => "NAT rebind",
        }
    }

    fn script(self, choices: &mut Choices, at: At) -> Vec<(At, Fault)> {
        let (to, from) = ((GATEWAY, agent(0)), (agent(0), GATEWAY));
        let cut = |(from, to)| (at, Fault::Cut(from, to));
        match self {
            Self::Stop => vec![(at, Fault::Stop(agent(0)))],
            Self::Crash => vec![(at, Fault::Crash(agent(0)))],
            Self::BlackHole => vec![cut(to), cut(from)],
            Self::LostToAgent => vec![cut(to)],
            Self::LostFromAgent => vec![cut(from)],
            Self::Partition => {
                let end = at + choices.time(Duration::from_secs(1), Duration::from_secs(6));
                let mend = |(from, to)| (end, Fault::Mend(from, to));
                vec![cut(to), cut(from), mend(to), mend(from)]
            }
            Self::Rebind => vec![(at, Fault::Rebind(agent(0)))],
        }
    }
}

/// Measures the time from the failure to the first session opened after it that works, and for each session of the
/// next 5 s the time from the wish to the first byte.
///
/// A session works when its user has the first byte through another agent, or has completed.
pub(super) fn measure(kind: Kind, seed: u64, trace: Trace) -> Measured {
    let (mut bed, failed_at) = prepare(kind, seed);
    let (failing, agents) = (bed.id(0), bed.plan.agents.len());
    let mut at = failed_at + bed.choices.time(At::ZERO, GAP_MAX);
    while at < failed_at + USERS_FOR {
        bed.open(at, &bed::by_address(), None);
        at += bed.choices.time(GAP_MIN, GAP_MAX);
    }
    let mut world = bed.start(trace);
    Measured {
        taken: bed::begin(&mut world, agents).and_then(|()| judge(&mut world, failed_at, failing)),
        lines: world.log.trace.take_lines(),
    }
}

fn judge(world: &mut World, failed_at: At, failing: AgentId) -> Result<Vec<Taken>, Violation> {
    bed::watch(world, failed_at + USERS_FOR, |_| false)?;
    bed::watch(world, failed_at + USERS_FOR + OUTCOME_WITHIN, |w| {
        let mut users = tracks(bed::sightings(w)).into_iter();
        users.all(|t| t.pinned.is_some() || t.is_over())
    })?;
    let mut users = tracks(bed::sightings(world));
    users.retain(|track| track.pinned.is_none());
    let probe = users.first().and_then(|probe| probe.asked);
    let text = "the agent that fails is not the preferred one";
    bed::expect(world, probe == Some(failing), text)?;
    users.retain(|track| track.wished >= failed_at);
    let works = users.iter().filter_map(|track| match track.carrier {
        Some(carrier) if carrier != failing => track.first_byte,
        Some(_) | None => track.completed,
    });
    let each = users.iter().map(|t| Some(t.first_byte? - t.wished));
    Ok(vec![
        Taken {
            what: "failure to a session that works",
            times: vec![works.min().map(|at| at - failed_at)],
        },
        Taken {
            what: "each session, wish to first byte",
            times: each.collect(),
        },
    ])
}

fn prepare(kind: Kind, seed: u64) -> (Bed, At) {
    let agents = 2 + usize::from(Choices::from_seed(seed).chance(500));
    let mut bed = Bed::draw(seed, agents, bed::shared_routes);
    let carried = bed.choices.between(1, 8);
    bed.prefer_first(carried);
    let failed_at = READY
        + bed
            .choices
            .time(Duration::from_secs(2), Duration::from_secs(4));
    // Shows whom the gateway prefers.
    bed.open(failed_at - PROBE_BEFORE, &bed::by_address(), None);
    let script = kind.script(&mut bed.choices, failed_at);
    bed.plan.script.extend(script);
    (bed, failed_at)
}

/// Time between two users.
const GAP_MIN: At = Duration::from_millis(50);
/// See [`GAP_MIN`].
const GAP_MAX: At = Duration::from_millis(100);
/// Users come for so long.
const USERS_FOR: At = Duration::from_secs(5);
/// The gateway gives a session up after 30 s, and one that is open on a dead path is known to be dead by then.
const OUTCOME_WITHIN: At = Duration::from_secs(35);
const PROBE_BEFORE: At = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_session_works_within_the_stagger_and_a_few_round_trips() {
        // 250 ms until the next agent is asked, up to 100 ms until the first user, 200 ms a round trip.
        let bound = Duration::from_millis(1_500);
        for kind in Kind::ALL {
            let taken = measure(kind, 3, Trace::silent()).taken.unwrap();
            let [Some(took)] = taken[0].times[..] else {
                panic!("{kind:?}: {taken:?}");
            };
            assert!(took < bound, "{kind:?}: {took:?}");
            assert!(taken[1].times.len() >= 50);
        }
    }

    #[test]
    fn a_seed_gives_the_same_times_twice() {
        let run = |seed| measure(Kind::Crash, seed, Trace::with_lines(1));
        assert_eq!(run(5), run(5));
        assert_ne!(run(5).taken, run(6).taken);
    }
}
