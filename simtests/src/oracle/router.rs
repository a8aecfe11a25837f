//! Each choice of a gateway is the one that a naive reference router makes with the same knowledge: which connection
//! is asked next, when a second one is asked beside it, and when there is nobody left to ask.

mod explain;
mod opening;
mod operated;
mod race;

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    gateway::{
        AttemptError, AttemptFailure, OpenError,
        dispatch::{DispatchConfig, DispatchOutput},
    },
    id::{AgentId, AttemptId, ConnId, SessionId, Slot},
    route::RouteSet,
    target::{Host, Target},
};

use self::opening::{Area, Opening, Tried, allows};
use super::bounds::{AGENT_SILENT, ATTEMPTS_MAX, DISPATCH_STAGGER, ROUTES_PER_AGENT_MAX};
use crate::{
    At,
    facts::{Fact, NodeId, Start},
    model::router::{self, Way},
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Router {
    gateways: BTreeMap<NodeId, Gateway>,
}

/// What one gateway knows, kept in lists.
#[derive(Debug, Default)]
struct Gateway {
    config: DispatchConfig,
    /// In the order of registration.
    conns: Vec<Known>,
    accepted: u64,
    openings: BTreeMap<SessionId, Opening>,
    attempts: BTreeMap<AttemptId, (SessionId, ConnId)>,
    /// When an attempt last failed through an agent, by the part of the network that it was for.
    failed: BTreeMap<(AgentId, Area), At>,
    carried: BTreeSet<(ConnId, Slot)>,
    /// When an agent last had a connection that carried as many sessions as it may, though that may be gone.
    full: BTreeMap<AgentId, At>,
    drained: BTreeSet<AgentId>,
}

#[derive(Debug)]
struct Known {
    way: Way,
    epoch: u64,
    seen: At,
    suspect: bool,
    retired: bool,
    /// When its routes, its path or its load last changed, or another connection of its agent's came or went.
    changed: At,
}

impl Router {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        if let Fact::Started(Start::Gateway { dispatch, .. }) = fact {
            let gateway = Gateway {
                config: dispatch.clone(),
                ..Gateway::default()
            };
            self.gateways.insert(node, gateway);
            return None;
        }
        let gateway = self.gateways.get_mut(&node)?;
        match fact {
            Fact::Dispatch(output) => return gateway.output(at, output),
            Fact::MachineWaits { .. } => return gateway.raced(at),
            Fact::Explained {
                target,
                pinned,
                told,
            } => return gateway.explained(at, target, *pinned, told),
            Fact::Wish {
                session,
                target,
                pinned,
                ..
            } => gateway.wish(at, *session, target, *pinned),
            Fact::GaveUp(session) => drop(gateway.openings.remove(session)),
            Fact::DrainTold { .. } | Fact::Configured { .. } | Fact::Deleted(_) => {
                gateway.operated(at, fact);
            }
            _ => gateway.told(at, fact),
        }
        None
    }
}

impl Gateway {
    fn told(&mut self, at: At, fact: &Fact<'_>) {
        match fact {
            Fact::Registering(conn, identity) => self.conns.push(Known {
                way: Way {
                    conn: *conn,
                    agent: identity.id,
                    routes: RouteSet::default(),
                    load: 0,
                    accepted_nth: 0,
                },
                epoch: 0,
                seen: at,
                suspect: false,
                retired: false,
                changed: at,
            }),
            Fact::RoutesTold {
                conn,
                epoch,
                routes,
            } => self.routes(at, *conn, *epoch, routes),
            Fact::SeenTold(conn) => self.change(*conn, |known| known.seen = at),
            Fact::PathTold { conn, suspect } => {
                self.change(*conn, |known| {
                    (known.suspect, known.changed) = (*suspect, at);
                });
                let waits = |t: &Tried| t.attempt.is_some() && t.conn == *conn;
                for opening in self.openings.values_mut() {
                    opening.must_go_on |= *suspect && opening.tried.iter().any(waits);
                }
            }
            Fact::Answered {
                conn,
                attempt,
                result,
            } => self.answered(at, *conn, *attempt, *result),
            Fact::EndTold(conn, slot) => self.ended(at, *conn, *slot),
            Fact::ClosedTold(conn) => self.closed(at, *conn),
            _ => {}
        }
    }

    fn wish(&mut self, at: At, session: SessionId, target: &Target, pinned: Option<AgentId>) {
        let opening = Opening::new(at, target.clone(), pinned);
        self.openings.insert(session, opening);
    }

    fn change(&mut self, conn: ConnId, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.conns.iter_mut().find(|known| known.way.conn == conn) {
            change(known);
        }
    }

    fn ended(&mut self, at: At, conn: ConnId, slot: Slot) {
        if self.carried.remove(&(conn, slot)) {
            self.unload(at, conn);
        }
    }

    fn unload(&mut self, at: At, conn: ConnId) {
        self.note_full(at, conn);
        self.change(conn, |known| {
            known.way.load -= 1;
            known.changed = at;
        });
    }

    /// Whoever looked at the connection up to here found no room.
    fn note_full(&mut self, at: At, conn: ConnId) {
        if let Some(way) = self.way(conn)
            && way.load >= self.config.sessions_per_agent
        {
            self.full.insert(way.agent, at);
        }
    }

    fn routes(&mut self, at: At, conn: ConnId, epoch: u64, routes: &RouteSet) {
        let next = self.accepted + 1;
        let Some(known) = self.conns.iter_mut().find(|known| known.way.conn == conn) else {
            return;
        };
        known.seen = at;
        if epoch <= known.epoch || routes.len() > ROUTES_PER_AGENT_MAX {
            return;
        }
        (known.epoch, known.way.routes, known.way.accepted_nth) = (epoch, routes.clone(), next);
        known.changed = at;
        self.accepted = next;
        let agent = known.way.agent;
        if self.newest(agent) != Some(conn) {
            return;
        }
        // What went out over the agent's older connections may be asked for once more over this one.
        for opening in self.openings.values_mut() {
            for tried in &mut opening.tried {
                let now = tried.agent == agent && tried.attempt.is_some() && tried.conn != conn;
                opening.must_go_on |= now && !tried.outdated;
                tried.outdated |= now;
            }
        }
    }

    fn answered(
        &mut self,
        at: At,
        conn: ConnId,
        attempt: AttemptId,
        result: Result<Slot, &AttemptError>,
    ) {
        let Some((session, _)) = self.attempts.remove(&attempt) else {
            return;
        };
        match result {
            Ok(slot) => {
                self.carried.insert((conn, slot));
                self.succeeded(at, session, attempt);
            }
            Err(cause) => {
                self.unload(at, conn);
                self.failed(at, session, attempt, cause);
            }
        }
    }

    fn succeeded(&mut self, at: At, session: SessionId, attempt: AttemptId) {
        let Some(opening) = self.openings.get(&session) else {
            return;
        };
        let area = Area::of(&opening.target);
        let is_it = |tried: &Tried| tried.attempt == Some(attempt);
        let place = opening.tried.iter().position(is_it);
        let Some((winner, before)) = place.and_then(|at| opening.tried[..=at].split_last()) else {
            return;
        };
        // Who was asked before and had its time is held to have failed.
        for tried in before {
            let waited = tried.attempt.is_some() && at >= tried.since + DISPATCH_STAGGER;
            if waited && tried.agent != winner.agent {
                self.failed.insert((tried.agent, area.clone()), at);
            }
        }
        self.failed.remove(&(winner.agent, area));
    }

    fn failed(&mut self, at: At, session: SessionId, attempt: AttemptId, cause: &AttemptError) {
        let Some(opening) = self.openings.get_mut(&session) else {
            return;
        };
        let area = Area::of(&opening.target);
        let tried = opening.tried.iter_mut();
        for tried in tried.filter(|t| t.attempt == Some(attempt)) {
            // Whoever answers before its time keeps nobody waiting.
            let answered = matches!(cause, AttemptError::Refused(_));
            let place = (tried.agent, area.clone());
            if !answered || at >= tried.since + DISPATCH_STAGGER {
                self.failed.insert(place, at);
            } else {
                self.failed.remove(&place);
            }
            tried.attempt = None;
        }
        opening.waiting_since = None;
        opening.turn_from = opening.tried.len();
        opening.beside_at = None;
    }

    fn closed(&mut self, at: At, conn: ConnId) {
        self.note_full(at, conn);
        let agent = self.way(conn).map(|way| way.agent);
        self.conns.retain(|known| known.way.conn != conn);
        for known in self
            .conns
            .iter_mut()
            .filter(|known| Some(known.way.agent) == agent)
        {
            known.changed = at;
        }
        self.carried.retain(|(on, _)| *on != conn);
        let gone: Vec<AttemptId> = self
            .attempts
            .iter()
            .filter(|(_, (_, on))| *on == conn)
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in gone {
            if let Some((session, _)) = self.attempts.remove(&attempt) {
                self.failed(at, session, attempt, &AttemptError::ConnectionLost);
            }
        }
    }

    fn output(&mut self, at: At, output: &DispatchOutput) -> Option<String> {
        match output {
            DispatchOutput::Open {
                conn,
                attempt,
                session,
                ..
            } => return self.open(at, *conn, *attempt, *session),
            DispatchOutput::Cancel { conn, attempt } => {
                if self.attempts.remove(attempt).is_some() {
                    self.unload(at, *conn);
                }
            }
            DispatchOutput::Committed { session, .. } => drop(self.openings.remove(session)),
            DispatchOutput::Failed { session, error } => {
                let opening = self.openings.remove(session)?;
                if let OpenError::TimedOut = error {
                    let waiting = opening.tried.iter().filter(|t| t.attempt.is_some());
                    let area = Area::of(&opening.target);
                    self.failed
                        .extend(waiting.map(|t| ((t.agent, area.clone()), at)));
                }
                return self.given_up(at, *session, opening, error);
            }
            DispatchOutput::Retire { conn } => self.change(*conn, |known| known.retired = true),
            DispatchOutput::Refused { conn, .. } => {
                self.conns.retain(|known| known.way.conn != *conn);
            }
            DispatchOutput::DialDirect { session, target } => {
                return self.direct(*session, target);
            }
            DispatchOutput::Discard { .. }
            | DispatchOutput::AbortDirect { .. }
            | DispatchOutput::RoutesRefused { .. } => {}
        }
        None
    }

    fn open(
        &mut self,
        at: At,
        conn: ConnId,
        attempt: AttemptId,
        session: SessionId,
    ) -> Option<String> {
        let Some(mut opening) = self.openings.remove(&session) else {
            return Some(format!("{session} is asked for, and nobody wants it"));
        };
        let mut best = self.best(at, &mut opening);
        // One that was full meanwhile may have been passed over then, and is not asked again.
        while let Some(way) = best.as_ref().filter(|way| way.conn != conn)
            && self.was_full(way.agent, opening.since)
        {
            opening.pass_over(way);
            best = self.best(at, &mut opening);
        }
        if best.as_ref().map(|way| way.conn) != Some(conn) {
            let text = format!(
                "{session} to {} is asked for over {conn}; the best is {best:?} of {:?}",
                opening.target, self.conns
            );
            return Some(text);
        }
        let agent = best.map(|way| way.agent)?;
        if let Some(since) = opening.waiting_since
            && at < since + DISPATCH_STAGGER
            && !self.is_in_doubt(at, &opening)
        {
            return Some(format!(
                "{session} is asked for over {conn} as well, {:?} after the one before",
                at - since
            ));
        }
        opening.tried.push(Tried {
            agent,
            attempt: Some(attempt),
            conn,
            since: at,
            outdated: false,
        });
        opening.waiting_since = Some(at);
        opening.ask_beside(at, self.failed_lately(at, agent, &opening));
        self.openings.insert(session, opening);
        self.attempts.insert(attempt, (session, conn));
        self.change(conn, |known| known.way.load += 1);
        None
    }

    /// The connection to ask next. Agents that carry as much as they may are passed over, and count as asked.
    fn best(&self, at: At, opening: &mut Opening) -> Option<Way> {
        loop {
            if opening.tried.len() >= ATTEMPTS_MAX {
                return None;
            }
            let way = self.candidate(at, opening)?;
            if way.load < self.config.sessions_per_agent {
                return Some(way);
            }
            opening.pass_over(&way);
        }
    }

    /// The agent may have been passed over, which counts as asked; on a newer connection it is not asked again.
    fn was_full(&self, agent: AgentId, since: At) -> bool {
        self.full.get(&agent).is_some_and(|at| *at >= since)
    }

    fn candidate(&self, at: At, opening: &Opening) -> Option<Way> {
        // An agent is asked once, and once more over a newer connection.
        let asked = |way: &Way| {
            let same = |t: &Tried| t.agent == way.agent && (!t.outdated || t.conn == way.conn);
            opening.tried.iter().any(same)
        };
        if let Some(agent) = opening.pinned {
            let newest = self.way(self.newest(agent)?)?;
            return (!asked(newest)).then(|| newest.clone());
        }
        let mut ways = self.online(at);
        ways.retain(|way| !asked(way));
        router::order(&ways, &opening.target.host)
            .first()
            .map(|(way, _)| (*way).clone())
    }

    fn online(&self, at: At) -> Vec<Way> {
        let online = self.conns.iter().filter(|known| self.is_online(at, known));
        online.map(|known| known.way.clone()).collect()
    }

    fn way(&self, conn: ConnId) -> Option<&Way> {
        let known = self.conns.iter().find(|known| known.way.conn == conn);
        known.map(|known| &known.way)
    }

    fn newest(&self, agent: AgentId) -> Option<ConnId> {
        self.live(agent).last().map(|known| known.way.conn)
    }

    fn live(&self, agent: AgentId) -> impl DoubleEndedIterator<Item = &Known> {
        self.conns
            .iter()
            .filter(move |known| known.way.agent == agent && !known.retired)
    }

    /// New sessions go over the agent's newest connection that has routes.
    fn is_online(&self, at: At, known: &Known) -> bool {
        let mut newest_first = self.live(known.way.agent).rev();
        let current = newest_first.find(|k| k.way.accepted_nth > 0);
        !known.retired
            && !known.suspect
            && !self.drained.contains(&known.way.agent)
            && at < known.seen + AGENT_SILENT
            && current.is_some_and(|current| current.way.conn == known.way.conn)
    }

    fn is_advertised(&self, host: &Host) -> bool {
        self.conns
            .iter()
            .filter(|known| !known.retired)
            .any(|known| router::specificity(&known.way.routes, host).is_some())
    }

    fn given_up(
        &self,
        at: At,
        session: SessionId,
        mut opening: Opening,
        error: &OpenError,
    ) -> Option<String> {
        let wrong = match error {
            OpenError::NoRoute => self.is_advertised(&opening.target.host),
            OpenError::NoneOnline => {
                !self.is_advertised(&opening.target.host) || self.best(at, &mut opening).is_some()
            }
            OpenError::AgentUnknown(agent) => self.newest(*agent).is_some(),
            OpenError::AllFailed(failures) => {
                let direct = failures.iter().any(|failure| failure.agent.is_none());
                let full = |agent| {
                    let no_credit = |f: &AttemptFailure| {
                        f.agent == Some(agent) && f.cause == AttemptError::NoCredit
                    };
                    failures.iter().any(no_credit)
                };
                while let Some(way) = self.best(at, &mut opening)
                    && full(way.agent)
                    && self.was_full(way.agent, opening.since)
                {
                    opening.pass_over(&way);
                }
                !direct && self.best(at, &mut opening).is_some()
            }
            _ => false,
        };
        wrong.then(|| {
            format!(
                "{session} to {} failed by {error:?}; known are {:?}",
                opening.target, self.conns
            )
        })
    }

    fn may_dial(&self, target: &Target) -> bool {
        self.config.direct.iter().any(|rule| allows(rule, target))
    }

    fn direct(&self, session: SessionId, target: &Target) -> Option<String> {
        (!self.may_dial(target) || self.is_advertised(&target.host))
            .then(|| format!("{session} to {target} is dialled from here"))
    }
}
