//! Which agents a session may go through, best first (design 3.4, 8.8).

use std::{cmp::Reverse, time::Instant};

use smallvec::SmallVec;

use super::{Entered, Hub};
use crate::{
    gateway::{
        info::{AgentStatus, Candidate, Explanation, Fallback, PassedOver, WhyPassedOver},
        routes::{Matched, Rung, Rungs},
    },
    id::{AgentId, ConnId},
    target::{Host, Target},
};

/// One way for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The connection.
    pub conn: ConnId,
    /// The agent at its other end.
    pub agent: AgentId,
    /// Rung of the ladder of specificity, 0 the most specific that any connection advertises.
    pub rung: usize,
    /// The route that matched; none where the user named the agent.
    pub route: Option<Matched>,
}

/// All ways for one target, best first; see [`Hub::candidates`].
#[derive(Clone, Debug)]
pub struct Candidates<'a> {
    hub: &'a Hub,
    now: Instant,
    ladder: Ladder<'a>,
    /// Rest of the present rung, the best at the end.
    rest: SmallVec<[(Rank, Choice); 4]>,
}

#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack of one call; a box would cost an allocation"
)]
enum Ladder<'a> {
    Pinned(Option<ConnId>),
    Rungs {
        rungs: Rungs<'a>,
        /// Rungs gone by: a connection on one of them was offered there.
        above: SmallVec<[&'a [ConnId]; 4]>,
    },
}

/// What orders the candidates of one rung: fewest sessions, then the newest route set.
type Rank = (usize, Reverse<u64>);

impl Hub {
    /// Gives the candidates for a target in the order in which they are to be tried: the most specific rung first;
    /// within one, the fewest sessions first, then the newest accepted route set. Each agent comes once, at its best
    /// rung.
    ///
    /// Connections that are superseded, suspect or silent for [`AGENT_SILENT`](crate::limits::AGENT_SILENT) are left
    /// out, and so are those of drained agents. With `pinned`, only the newest connection of that agent comes, whatever its routes and its state
    /// (agent-tunnel 10).
    #[must_use]
    pub fn candidates(
        &self,
        now: Instant,
        target: &Target,
        pinned: Option<AgentId>,
    ) -> Candidates<'_> {
        let ladder = match pinned {
            Some(agent) => Ladder::Pinned(self.newest(agent)),
            None => Ladder::Rungs {
                rungs: self.table.lookup(&target.host),
                above: SmallVec::new(),
            },
        };
        Candidates {
            hub: self,
            now,
            ladder,
            rest: SmallVec::new(),
        }
    }

    /// Gives the first of [`Hub::candidates`] that is not skipped, without ordering the others: the time goes
    /// with the length of the rungs looked at.
    pub(in crate::gateway) fn best(
        &self,
        now: Instant,
        target: &Target,
        pinned: Option<AgentId>,
        skip: impl Fn(&Choice) -> bool,
    ) -> Option<Choice> {
        let mut candidates = self.candidates(now, target, pinned);
        if let Ladder::Pinned(_) = candidates.ladder {
            return candidates.find(|choice| !skip(choice));
        }
        self.table
            .lookup(&target.host)
            .enumerate()
            .find_map(|(nth, rung)| {
                let ranked = rung
                    .conns
                    .iter()
                    .filter_map(|&c| self.rank(now, c, nth, rung.route));
                let free = ranked.filter(|(_, choice)| !skip(choice));
                free.min_by_key(|(rank, _)| *rank).map(|(_, choice)| choice)
            })
    }

    /// Tells whether any connection advertises the host, in whatever state it is.
    #[must_use]
    pub fn is_advertised(&self, host: &Host) -> bool {
        self.table.lookup(host).next().is_some()
    }

    /// Tells how a target would be routed. The fallback is `Refuse`; a gateway that dials itself says more
    /// ([`Dispatch::explain`](crate::gateway::dispatch::Dispatch::explain)).
    #[must_use]
    pub fn explain(&self, now: Instant, target: &Target, pinned: Option<AgentId>) -> Explanation {
        let candidate = |choice: Choice| {
            let entered = self.conns.get(&choice.conn)?;
            Some(Candidate {
                agent: choice.agent,
                name: entered.identity.name.clone(),
                route: choice
                    .route
                    .map_or_else(|| "pinned".into(), |r| r.text(&target.host)),
                rung: choice.rung,
                sessions: entered.load,
            })
        };
        Explanation {
            candidates: self
                .candidates(now, target, pinned)
                .filter_map(candidate)
                .collect(),
            peers: Vec::new(),
            passed_over: match pinned {
                Some(_) => Vec::new(),
                None => self.passed_over(now, &target.host),
            },
            fallback: Fallback::Refuse,
        }
    }

    /// Agents with a route for the host that are no candidates, each at its best rung. A superseded connection stands
    /// back for another one of its own agent, so it is none of them.
    fn passed_over(&self, now: Instant, host: &Host) -> Vec<PassedOver> {
        let mut passed: Vec<PassedOver> = Vec::new();
        for rung in self.table.lookup(host) {
            for entered in rung.conns.iter().filter_map(|conn| self.conns.get(conn)) {
                let why = match entered.status(now) {
                    AgentStatus::Superseded => continue,
                    _ if self.is_drained(entered.identity.id) => WhyPassedOver::Drained,
                    AgentStatus::Suspect => WhyPassedOver::Suspect,
                    AgentStatus::Online => continue,
                };
                if !passed
                    .iter()
                    .any(|known| known.agent == entered.identity.id)
                {
                    passed.push(PassedOver {
                        agent: entered.identity.id,
                        name: entered.identity.name.clone(),
                        route: rung.route.text(host),
                        why,
                    });
                }
            }
        }
        passed
    }

    /// Ranks a connection on its rung; none where implicit routing leaves it out.
    fn rank(
        &self,
        now: Instant,
        conn: ConnId,
        rung: usize,
        route: Matched,
    ) -> Option<(Rank, Choice)> {
        let entered = self.conns.get(&conn)?;
        let takes =
            entered.status(now) == AgentStatus::Online && !self.is_drained(entered.identity.id);
        takes.then(|| (entered.rank(), entered.choice(conn, rung, Some(route))))
    }
}

impl Iterator for Candidates<'_> {
    type Item = Choice;

    fn next(&mut self) -> Option<Choice> {
        let Self {
            hub,
            now,
            ladder,
            rest,
        } = self;
        loop {
            if let Some((_, choice)) = rest.pop() {
                return Some(choice);
            }
            match ladder {
                Ladder::Pinned(conn) => {
                    let conn = conn.take()?;
                    return Some(hub.conns.get(&conn)?.choice(conn, 0, None));
                }
                Ladder::Rungs { rungs, above } => {
                    let Rung { route, conns } = rungs.next()?;
                    let known = |conn| above.iter().any(|rung| rung.binary_search(&conn).is_ok());
                    let fresh = conns.iter().filter(|&&conn| !known(conn));
                    rest.extend(fresh.filter_map(|&c| hub.rank(*now, c, above.len(), route)));
                    rest.sort_unstable_by_key(|(rank, _)| Reverse(*rank));
                    above.push(conns);
                }
            }
        }
    }
}

impl Entered {
    fn rank(&self) -> Rank {
        (self.load, Reverse(self.accepted_nth))
    }

    fn choice(&self, conn: ConnId, rung: usize, route: Option<Matched>) -> Choice {
        Choice {
            conn,
            agent: self.identity.id,
            rung,
            route,
        }
    }
}
