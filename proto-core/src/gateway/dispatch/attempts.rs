//! One session's way through its candidates (design 8.8).

use std::time::Instant;

use smallvec::SmallVec;

use super::{Dispatch, DispatchOutput};
use crate::{
    gateway::{AttemptError, AttemptFailure, OpenError, hub::Choice, peers::PeerChoice},
    id::{AgentId, AttemptId, ConnId, SessionId, Slot},
    limits::{ATTEMPTS_MAX, DISPATCH_LOOK_AGAIN, DISPATCH_STAGGER},
    peer::NodeId,
    session_table::Carrier,
    target::Target,
};

/// A session that is being opened.
#[derive(Debug)]
pub(super) struct Opening {
    target: Target,
    pinned: Option<AgentId>,
    /// It came from a peer, so it goes to none, and is not dialled from here: one hop, to an agent (design 8.15).
    is_forwarded: bool,
    deadline: Instant,
    /// When the next candidate is tried, or looked for, beside those that have not answered.
    race_at: Option<Instant>,
    /// In the order of the attempts, at most `ATTEMPTS_MAX`.
    tried: SmallVec<[Tried; 2]>,
}

#[derive(Debug)]
struct Tried {
    /// None for a peer, and where the gateway dials itself.
    agent: Option<AgentId>,
    peer: Option<NodeId>,
    /// What it went out on.
    conn: Option<ConnId>,
    /// When it went out.
    since: Instant,
    /// It went out on a connection that has been superseded since, so the agent may be asked once more.
    outdated: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting { conn: ConnId, attempt: AttemptId },
    Dialling,
    Failed(AttemptError),
}

/// Whether another candidate is asked in the same instant as the next one. One is enough: the failures of many agents may
/// be remembered, and a target is not to be dialled by all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    /// If the next one failed lately.
    IfDoubtful,
    No,
}

impl Opening {
    pub(super) fn new(target: Target, pinned: Option<AgentId>, deadline: Instant) -> Self {
        Self {
            target,
            pinned,
            is_forwarded: false,
            deadline,
            race_at: None,
            tried: SmallVec::new(),
        }
    }

    /// The same for a session that a peer forwarded.
    pub(super) fn forwarded(self) -> Self {
        Self {
            is_forwarded: true,
            ..self
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn is_dialling(&self) -> bool {
        self.tried
            .iter()
            .any(|t| matches!(t.state, State::Dialling))
    }

    fn is_waiting(&self) -> bool {
        self.tried
            .iter()
            .any(|t| matches!(t.state, State::Waiting { .. }))
    }

    fn timer(&self) -> Instant {
        self.race_at
            .map_or(self.deadline, |at| at.min(self.deadline))
    }

    fn is_settled(&self) -> bool {
        self.tried
            .iter()
            .all(|t| matches!(t.state, State::Failed(_)))
    }

    fn place_of(&self, attempt: AttemptId) -> Option<usize> {
        let is_it =
            |t: &Tried| matches!(t.state, State::Waiting { attempt: a, .. } if a == attempt);
        self.tried.iter().position(is_it)
    }

    /// Tells whether it was not marked yet.
    fn mark_outdated(&mut self, attempt: AttemptId) -> bool {
        let at = self.place_of(attempt);
        let tried = at.and_then(|at| self.tried.get_mut(at));
        tried.is_some_and(|tried| !std::mem::replace(&mut tried.outdated, true))
    }

    /// Agents that were asked before the one that won and had their time, but did not answer in it.
    fn overtaken_by(&self, now: Instant, place: usize) -> impl Iterator<Item = AgentId> {
        let winner = self.tried.get(place).and_then(|tried| tried.agent);
        let before = self.tried.iter().take(place);
        let silent = before.filter(move |tried| {
            matches!(tried.state, State::Waiting { .. }) && now >= tried.since + DISPATCH_STAGGER
        });
        silent
            .filter_map(|tried| tried.agent)
            .filter(move |agent| Some(*agent) != winner)
    }

    /// Notes that an attempt failed. Tells through which agent, and whether it kept the user waiting: it did not where it
    /// answered before the next one would have been asked, as that a port of the target is closed.
    fn mark_failed(
        &mut self,
        now: Instant,
        attempt: AttemptId,
        cause: AttemptError,
    ) -> Option<(AgentId, bool)> {
        let at = self.place_of(attempt)?;
        let tried = self.tried.get_mut(at)?;
        let is_prompt = now < tried.since + DISPATCH_STAGGER;
        let is_answer = matches!(cause, AttemptError::Refused(_));
        tried.state = State::Failed(cause);
        Some((tried.agent?, !(is_prompt && is_answer)))
    }

    fn failures(self) -> Vec<AttemptFailure> {
        let failure = |tried: Tried| match tried.state {
            State::Failed(cause) => Some(AttemptFailure {
                agent: tried.agent,
                peer: tried.peer,
                cause,
            }),
            State::Waiting { .. } | State::Dialling => None,
        };
        self.tried.into_iter().filter_map(failure).collect()
    }
}

impl Dispatch {
    /// Tries the next candidate, and one more beside it where that failed lately; ends the session where none is left
    /// and none is waited for.
    pub(super) fn advance(&mut self, now: Instant, session: SessionId) {
        self.with_timer(session, |dispatch| {
            let mut beside = Beside::IfDoubtful;
            while let Some(next) = dispatch.try_next(now, session, beside) {
                beside = next;
            }
        });
        if self.openings.get(&session).is_some_and(Opening::is_settled) {
            self.settle(now, session);
        }
    }

    /// Tries the next candidate at once, beside one whose path has begun to stall.
    pub(super) fn race(&mut self, now: Instant, session: SessionId) {
        if self.openings.contains_key(&session) {
            self.advance(now, session);
        }
    }

    /// Asks an agent's newest connection too for what its older ones have not answered: they may be dead, as after a
    /// restart of the agent (design 3.5, 8.7).
    pub(super) fn ask_again(&mut self, now: Instant, newest: ConnId) {
        for older in self.hub.superseded_by(newest) {
            for (attempt, session) in self.attempts_of(older) {
                let opening = self.openings.get_mut(&session);
                if opening.is_some_and(|opening| opening.mark_outdated(attempt)) {
                    self.race(now, session);
                }
            }
        }
    }

    pub(super) fn handle_opened(
        &mut self,
        now: Instant,
        conn: ConnId,
        attempt: AttemptId,
        slot: Slot,
    ) {
        let session = self.attempts.remove(&(conn, attempt));
        let Some((session, mut opening)) = session.and_then(|s| Some((s, self.take_opening(s)?)))
        else {
            return self.emit(DispatchOutput::Discard { conn, slot });
        };
        self.carried.insert((conn, slot));
        let agent = opening.place_of(attempt).and_then(|place| {
            for agent in opening.overtaken_by(now, place) {
                self.failures.note(now, agent, &opening.target.host);
                self.failover.overtaken += 1;
            }
            opening.tried.remove(place).agent
        });
        if let Some(agent) = agent {
            self.failures.forget(agent, &opening.target.host);
        }
        let route = match self.peers.node_of(conn) {
            Some(node) => Carrier::Peer { node, conn, slot },
            None => Carrier::Agent { conn, slot },
        };
        self.emit(DispatchOutput::Committed {
            session,
            agent,
            route,
        });
        self.abandon(session, &opening);
    }

    pub(super) fn handle_failed(
        &mut self,
        now: Instant,
        conn: ConnId,
        attempt: AttemptId,
        cause: AttemptError,
    ) {
        let Some(session) = self.attempts.remove(&(conn, attempt)) else {
            return;
        };
        self.sub_load(conn);
        let Some(opening) = self.openings.get_mut(&session) else {
            return;
        };
        match opening.mark_failed(now, attempt, cause) {
            Some((agent, true)) => self.failures.note(now, agent, &opening.target.host),
            Some((agent, false)) => self.failures.forget(agent, &opening.target.host),
            None => {}
        }
        self.advance(now, session);
    }

    pub(super) fn handle_closed(&mut self, now: Instant, conn: ConnId) {
        let cause = match self.peers.node_of(conn) {
            None => AttemptError::ConnectionLost,
            Some(_) => AttemptError::PeerLost,
        };
        self.hub.unregister(conn);
        self.peers.disconnect(conn);
        let places = (conn, Slot(0))..=(conn, Slot(u64::MAX));
        let gone: Vec<_> = self.carried.range(places).copied().collect();
        for place in gone {
            self.carried.remove(&place);
        }
        for (attempt, _) in self.attempts_of(conn) {
            self.handle_failed(now, conn, attempt, cause.clone());
        }
    }

    pub(super) fn fail_direct(&mut self, session: SessionId, text: String) {
        let failure = AttemptFailure {
            agent: None,
            peer: None,
            cause: AttemptError::Dial(text),
        };
        if self.take_opening(session).is_some() {
            let error = OpenError::AllFailed(vec![failure]);
            self.emit(DispatchOutput::Failed { session, error });
        }
    }

    /// Ends a session whose candidates together took too long.
    pub(super) fn expire(&mut self, now: Instant, session: SessionId) {
        if let Some(opening) = self.openings.get(&session) {
            for tried in &opening.tried {
                if let (Some(agent), State::Waiting { .. }) = (tried.agent, &tried.state) {
                    self.failures.note(now, agent, &opening.target.host);
                }
            }
        }
        self.fail(session, OpenError::TimedOut);
    }

    /// Ends a session whatever is waited for.
    pub(super) fn fail(&mut self, session: SessionId, error: OpenError) {
        if let Some(opening) = self.take_opening(session) {
            self.emit(DispatchOutput::Failed { session, error });
            self.abandon(session, &opening);
        }
    }

    /// Gives up everything that is waited for.
    pub(super) fn abandon(&mut self, session: SessionId, opening: &Opening) {
        for tried in &opening.tried {
            match tried.state {
                State::Waiting { conn, attempt } => {
                    self.attempts.remove(&(conn, attempt));
                    self.sub_load(conn);
                    self.emit(DispatchOutput::Cancel { conn, attempt });
                }
                State::Dialling => self.emit(DispatchOutput::AbortDirect { session }),
                State::Failed(_) => {}
            }
        }
    }

    pub(super) fn take_opening(&mut self, session: SessionId) -> Option<Opening> {
        let opening = self.openings.remove(&session)?;
        self.timers.remove(&(opening.timer(), session));
        Some(opening)
    }

    pub(super) fn attempts_of(&self, conn: ConnId) -> Vec<(AttemptId, SessionId)> {
        let range = (conn, AttemptId(0))..=(conn, AttemptId(u64::MAX));
        let of_conn = self.attempts.range(range);
        of_conn
            .map(|(&(_, attempt), &session)| (attempt, session))
            .collect()
    }

    /// Asks the best agent that was not asked yet. Tells whether to ask another at once, and whether yet another may
    /// follow that one.
    fn try_next(&mut self, now: Instant, session: SessionId, beside: Beside) -> Option<Beside> {
        let opening = self.openings.get_mut(&session)?;
        opening.race_at = None;
        if opening.tried.len() >= ATTEMPTS_MAX || opening.is_dialling() {
            return None;
        }
        // The connection that superseded the one asked may have gone again, so that the old one is the agent's best.
        let tried = |choice: &Choice| {
            let asked = |t: &Tried| {
                t.agent == Some(choice.agent) && (!t.outdated || t.conn == Some(choice.conn))
            };
            opening.tried.iter().any(asked)
        };
        let local = self.hub.best(now, &opening.target, opening.pinned, tried);
        let asked = |node| opening.tried.iter().any(|t| t.peer == Some(node));
        let peer = (!opening.is_forwarded)
            .then(|| self.peers.best(&opening.target, opening.pinned, asked))
            .flatten()
            .filter(|peer| local.is_none_or(|local| peer.is_before(&local)));
        if let Some(peer) = peer {
            self.ask_peer(now, session, peer);
            return None;
        }
        let Some(choice) = local else {
            // One may come, or come back, while the others keep the session waiting, as for stream credit.
            opening.race_at = (!opening.is_settled()).then(|| now + DISPATCH_LOOK_AGAIN);
            return None;
        };
        if self.hub.load(choice.conn) >= self.config.sessions_per_agent {
            opening.tried.push(Tried {
                agent: Some(choice.agent),
                peer: None,
                conn: Some(choice.conn),
                since: now,
                state: State::Failed(AttemptError::NoCredit),
                outdated: false,
            });
            return Some(beside);
        }
        self.attempt_count += 1;
        let (conn, attempt) = (choice.conn, AttemptId(self.attempt_count));
        let host = &opening.target.host;
        let in_doubt =
            beside == Beside::IfDoubtful && self.failures.is_recent(now, choice.agent, host);
        if opening.is_waiting() {
            self.failover.raced += 1;
        }
        opening.race_at = (!in_doubt).then(|| now + DISPATCH_STAGGER);
        opening.tried.push(Tried {
            agent: Some(choice.agent),
            peer: None,
            conn: Some(conn),
            since: now,
            outdated: false,
            state: State::Waiting { conn, attempt },
        });
        let target = opening.target.clone();
        self.attempts.insert((conn, attempt), session);
        self.hub.add_load(conn);
        self.emit(DispatchOutput::Open {
            conn,
            attempt,
            session,
            target,
        });
        in_doubt.then_some(Beside::No)
    }

    /// Asks a peer to carry the session. Its failures are not remembered: it remembers those of its own agents.
    fn ask_peer(&mut self, now: Instant, session: SessionId, peer: PeerChoice) {
        let Some(opening) = self.openings.get_mut(&session) else {
            return;
        };
        self.attempt_count += 1;
        let (conn, attempt) = (peer.conn, AttemptId(self.attempt_count));
        opening.race_at = Some(now + DISPATCH_STAGGER);
        opening.tried.push(Tried {
            agent: None,
            peer: Some(peer.node),
            conn: Some(conn),
            since: now,
            outdated: false,
            state: State::Waiting { conn, attempt },
        });
        let target = opening.target.clone();
        self.attempts.insert((conn, attempt), session);
        self.peers.add_load(conn);
        self.emit(DispatchOutput::Open {
            conn,
            attempt,
            session,
            target,
        });
    }

    /// Ends a session that waits for nothing, or has the gateway dial where no agent was there to ask.
    fn settle(&mut self, now: Instant, session: SessionId) {
        let Some(opening) = self.openings.get_mut(&session) else {
            return;
        };
        if !opening.tried.is_empty() {
            let failures = self.take_opening(session).map(Opening::failures);
            let error = OpenError::AllFailed(failures.unwrap_or_default());
            return self.emit(DispatchOutput::Failed { session, error });
        }
        let (target, is_forwarded) = (opening.target.clone(), opening.is_forwarded);
        let of_peers = !is_forwarded && self.peers.is_advertised(&target.host);
        let error = if !is_forwarded && self.may_dial(&target) {
            None
        } else if of_peers || self.hub.is_advertised(&target.host) {
            Some(OpenError::NoneOnline)
        } else {
            Some(OpenError::NoRoute)
        };
        if let Some(error) = error {
            return self.fail(session, error);
        }
        if let Some(opening) = self.openings.get_mut(&session) {
            opening.tried.push(Tried {
                agent: None,
                peer: None,
                conn: None,
                since: now,
                outdated: false,
                state: State::Dialling,
            });
        }
        self.emit(DispatchOutput::DialDirect { session, target });
    }

    /// Changes an opening and puts its timer where it belongs then.
    fn with_timer(&mut self, session: SessionId, change: impl FnOnce(&mut Self)) {
        let timer = |d: &Self| d.openings.get(&session).map(Opening::timer);
        let before = timer(self);
        change(self);
        let after = timer(self);
        if before != after {
            before.map(|at| self.timers.remove(&(at, session)));
            after.map(|at| self.timers.insert((at, session)));
        }
    }
}
