//! Opening sessions across connections, with events in any order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use adit_proto_core::{
    gateway::{
        AttemptError, OpenError,
        dispatch::{AgentEvent, DirectRange, DirectRule, Dispatch, DispatchConfig, DispatchOutput},
        info::{AgentInfo, AgentStatus},
    },
    id::{AttemptId, ConnId, SessionId, Slot},
    limits::DISPATCH_TIMEOUT,
    session_table::{Carrier, SessionTable},
    target::Target,
};
use adit_simtests::model::router::{Way, order, specificity};
use uuid::Uuid;

use crate::{
    input::{Input, start},
    routing::{agent_id, host, identity, routes},
};

/// Each session ends once and in time, nothing is asked for a session that ended, candidates come in the order of the
/// naive router, and no load is left when all is over.
pub fn dispatch(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    for _ in 0..STEPS_MAX {
        if !input.has_more() {
            break;
        }
        world.step(&mut input);
        world.drain();
    }
    world.finish();
}

struct World {
    dispatch: Dispatch,
    table: SessionTable,
    now: Instant,
    load_max: usize,
    opens_max: usize,
    conns: u64,
    slots: u64,
    /// When each accepted route set came, as the router's ties need it.
    accepted: BTreeMap<ConnId, (u64, u64)>,
    accepted_count: u64,
    sessions: Vec<Session>,
    waiting: BTreeMap<(ConnId, AttemptId), SessionId>,
    asked: BTreeSet<(SessionId, ConnId)>,
    dialling: BTreeSet<SessionId>,
    carried: BTreeMap<(ConnId, Slot), SessionId>,
}

struct Session {
    target: Target,
    since: Instant,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Committed,
    Failed,
    Cancelled,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let shape = input.byte();
        let direct = DirectRange::Subnet(ipnet::Ipv4Net::default().into());
        let direct = DirectRule {
            range: direct,
            port: None,
        };
        let load_max = if shape & 2 == 0 { 100 } else { 2 };
        let opens_max = if shape & 4 == 0 { 100 } else { 3 };
        Self {
            dispatch: Dispatch::new(DispatchConfig {
                direct: Vec::from_iter((shape & 1 != 0).then_some(direct)),
                opens_max,
                sessions_per_agent: load_max,
            }),
            table: SessionTable::new(),
            now: start(),
            load_max,
            opens_max,
            conns: 0,
            slots: 0,
            accepted: BTreeMap::new(),
            accepted_count: 0,
            sessions: Vec::new(),
            waiting: BTreeMap::new(),
            asked: BTreeSet::new(),
            dialling: BTreeSet::new(),
            carried: BTreeMap::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0..3 => self.open(input),
            3 => {
                let event = AgentEvent::Registered {
                    identity: identity(input.byte() % 5, u8::from(input.byte() > 230)),
                    renewed: input.byte() > 230,
                };
                self.conns += 1;
                self.event(ConnId(self.conns), event);
            }
            4 | 5 => {
                let (conn, epoch) = (self.conn(input), u64::from(input.byte() % 6));
                let routes = routes(input);
                let is_there = self.dispatch.hub().identity(conn).is_some();
                let known = self.accepted.get(&conn).map_or(0, |(epoch, _)| *epoch);
                if is_there && epoch > known {
                    self.accepted_count += 1;
                    self.accepted.insert(conn, (epoch, self.accepted_count));
                }
                self.event(conn, AgentEvent::Routes { epoch, routes });
            }
            6..9 => self.answer(input),
            9 => {
                let session = session_id(input.below(self.sessions.len() + 1));
                let result = if input.flag() {
                    Ok(())
                } else {
                    Err(String::new())
                };
                self.dispatch.handle_direct(self.now, session, result);
                if !self.dialling.remove(&session) {
                    self.expect_only_abort(session);
                }
            }
            10 => self.end_session(input),
            11 => self.cancel(input),
            12 => {
                let choices = [AgentEvent::Suspect, AgentEvent::Recovered, AgentEvent::Seen];
                let conn = self.conn(input);
                self.event(conn, input.pick(&choices).clone());
            }
            13 => {
                let conn = self.conn(input);
                self.close(conn);
            }
            _ => self.pass(input),
        }
    }

    /// Mostly one that was registered, whether it is still there or not.
    fn conn(&self, input: &mut Input<'_>) -> ConnId {
        ConnId(1 + u64::from(input.byte()) % (self.conns + 1))
    }

    fn event(&mut self, conn: ConnId, event: AgentEvent) {
        self.dispatch.handle_event(self.now, conn, event);
    }

    fn open(&mut self, input: &mut Input<'_>) {
        let target = Target {
            host: host(input),
            port: 22,
        };
        let pinned = (input.byte() > 200).then(|| agent_id(input.byte() % 5));
        let id = session_id(self.sessions.len());
        self.sessions.push(Session {
            target: target.clone(),
            since: self.now,
            end: None,
        });
        let is_full = self.dispatch.open_count() >= self.opens_max;
        let list = self.dispatch.hub().list(self.now);
        self.dispatch.open(self.now, id, target.clone(), pinned);
        if pinned.is_none() && !is_full {
            self.judge_open(id, &target, &list);
        }
    }

    /// The candidates that were asked are the naive router's first ones.
    fn judge_open(&mut self, id: SessionId, target: &Target, list: &[AgentInfo]) {
        let online = list.iter().filter(|a| a.status == AgentStatus::Online);
        let ways: Vec<Way> = online.map(|info| self.way(info)).collect();
        let free = order(&ways, &target.host)
            .into_iter()
            .filter(|(way, _)| way.load < self.load_max);
        let wanted: Vec<ConnId> = free.map(|(way, _)| way.conn).collect();
        let is_advertised = list
            .iter()
            .any(|info| specificity(&info.routes, &target.host).is_some());
        let mut asked = Vec::new();
        for output in std::iter::from_fn(|| self.dispatch.poll_output()).collect::<Vec<_>>() {
            match &output {
                DispatchOutput::Open { conn, session, .. } if *session == id => asked.push(*conn),
                DispatchOutput::DialDirect { session, .. } if *session == id => {
                    assert!(!is_advertised, "dialled past the agents");
                }
                DispatchOutput::Failed { session, error } if *session == id => {
                    let is_none = *error == OpenError::NoRoute;
                    assert!(!is_none || !is_advertised, "an agent is overlooked");
                    assert!(wanted.is_empty(), "failed without asking");
                }
                DispatchOutput::Open { .. }
                | DispatchOutput::Cancel { .. }
                | DispatchOutput::Discard { .. }
                | DispatchOutput::DialDirect { .. }
                | DispatchOutput::AbortDirect { .. }
                | DispatchOutput::Committed { .. }
                | DispatchOutput::Failed { .. }
                | DispatchOutput::Retire { .. }
                | DispatchOutput::Refused { .. }
                | DispatchOutput::RoutesRefused { .. } => {}
            }
            self.judge(output);
        }
        assert!(
            wanted.starts_with(&asked),
            "{asked:?} are not first of {wanted:?}"
        );
        assert_eq!(asked.is_empty(), wanted.is_empty());
    }

    fn way(&self, info: &AgentInfo) -> Way {
        Way {
            conn: info.conn,
            agent: info.identity.id,
            routes: (*info.routes).clone(),
            load: info.sessions,
            accepted_nth: self.accepted.get(&info.conn).map_or(0, |(_, nth)| *nth),
        }
    }

    /// An attempt ends: one that is waited for, or one that nobody knows.
    fn answer(&mut self, input: &mut Input<'_>) {
        let nth = usize::from(input.byte());
        let known = self.waiting.keys().nth(nth % self.waiting.len().max(1));
        let stray = (
            ConnId(1 + u64::from(input.byte()) % 8),
            AttemptId(u64::from(input.byte())),
        );
        let (conn, attempt) = *known.filter(|_| nth < 224).unwrap_or(&stray);
        let is_waiting = self.waiting.contains_key(&(conn, attempt));
        if input.flag() {
            self.slots += 1;
            let slot = Slot(self.slots);
            self.event(conn, AgentEvent::Opened { attempt, slot });
            if !is_waiting {
                let discard = DispatchOutput::Discard { conn, slot };
                assert_eq!(self.dispatch.poll_output(), Some(discard));
                assert_eq!(self.dispatch.poll_output(), None);
            }
        } else {
            self.waiting.remove(&(conn, attempt));
            let causes = [
                AttemptError::Refused(String::new()),
                AttemptError::TimedOut,
                AttemptError::NoCredit,
            ];
            let cause = input.pick(&causes).clone();
            self.event(conn, AgentEvent::Failed { attempt, cause });
        }
    }

    fn expect_only_abort(&mut self, session: SessionId) {
        while let Some(output) = self.dispatch.poll_output() {
            assert_eq!(output, DispatchOutput::AbortDirect { session });
        }
    }

    fn end_session(&mut self, input: &mut Input<'_>) {
        let nth = usize::from(input.byte());
        let known = self.carried.keys().nth(nth % self.carried.len().max(1));
        let stray = (ConnId(1), Slot(u64::MAX));
        let (conn, slot) = *known.unwrap_or(&stray);
        if let Some(id) = self.carried.remove(&(conn, slot)) {
            assert_eq!(self.table.at(conn, slot), Some(id));
            assert!(self.table.remove(id).is_some());
        }
        self.event(conn, AgentEvent::SessionEnded { slot });
    }

    fn cancel(&mut self, input: &mut Input<'_>) {
        let nth = input.below(self.sessions.len() + 1);
        self.dispatch.cancel(self.now, session_id(nth));
        if let Some(session) = self.sessions.get_mut(nth) {
            session.end = session.end.or(Some(End::Cancelled));
        }
    }

    fn close(&mut self, conn: ConnId) {
        self.waiting.retain(|(c, _), _| *c != conn);
        self.carried.retain(|(c, _), _| *c != conn);
        self.table.remove_conn(conn);
        self.accepted.remove(&conn);
        self.event(conn, AgentEvent::Closed);
    }

    fn pass(&mut self, input: &mut Input<'_>) {
        match (input.flag(), self.dispatch.poll_timeout()) {
            (true, Some(at)) => self.now = at.max(self.now),
            (true, None) | (false, _) => self.now += input.time(),
        }
        self.expire();
    }

    fn expire(&mut self) {
        self.dispatch.handle_timeout(self.now);
        let deadline = self.dispatch.poll_timeout();
        assert!(
            deadline.is_none_or(|at| at > self.now),
            "the timer does not rest"
        );
        self.drain();
        for session in &self.sessions {
            let is_due = self.now >= session.since + DISPATCH_TIMEOUT;
            assert!(session.end.is_some() || !is_due, "a session without an end");
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.dispatch.poll_output() {
            self.judge(output);
        }
        for id in self.waiting.values().chain(&self.dialling) {
            assert_eq!(self.session(*id).end, None, "somebody is still asked");
        }
        let hub = self.dispatch.hub();
        let load: usize = (0..=self.conns).map(|c| hub.load(ConnId(c))).sum();
        assert_eq!(load, self.waiting.len() + self.carried.len());
        let opening = self.sessions.iter().filter(|s| s.end.is_none()).count();
        assert_eq!(self.dispatch.open_count(), opening);
    }

    fn judge(&mut self, output: DispatchOutput) {
        match output {
            DispatchOutput::Open {
                conn,
                attempt,
                session,
                target,
            } => {
                assert_eq!(self.session(session).end, None, "asked after the end");
                assert_eq!(target, self.session(session).target);
                assert!(self.dispatch.hub().identity(conn).is_some());
                assert!(self.asked.insert((session, conn)), "asked twice");
                assert_eq!(self.waiting.insert((conn, attempt), session), None);
            }
            DispatchOutput::Cancel { conn, attempt } => {
                assert!(self.waiting.remove(&(conn, attempt)).is_some());
            }
            DispatchOutput::DialDirect { session, .. } => {
                assert_eq!(self.session(session).end, None);
                assert!(self.dialling.insert(session), "dialled twice");
            }
            DispatchOutput::AbortDirect { session } => {
                self.dialling.remove(&session);
            }
            DispatchOutput::Committed {
                session,
                agent,
                route,
            } => {
                self.end(session, End::Committed);
                self.dialling.remove(&session);
                if let Carrier::Agent { conn, slot } = route {
                    let identity = self.dispatch.hub().identity(conn);
                    assert_eq!(identity.map(|i| i.id), agent);
                    self.waiting
                        .retain(|(c, _), id| *c != conn || *id != session);
                    assert_eq!(self.carried.insert((conn, slot), session), None);
                }
                let target = self.session(session).target.clone();
                let entered = self.table.insert(self.now, session, route, target, agent);
                assert_eq!(entered, Ok(()));
            }
            DispatchOutput::Failed { session, error } => {
                assert!(!error.to_string().is_empty());
                self.end(session, End::Failed);
            }
            DispatchOutput::Discard { conn, slot } => {
                assert!(!self.carried.contains_key(&(conn, slot)));
            }
            DispatchOutput::Retire { conn } => {
                assert!(self.dispatch.hub().identity(conn).is_some());
            }
            DispatchOutput::Refused { .. } | DispatchOutput::RoutesRefused { .. } => {}
        }
    }

    fn session(&self, id: SessionId) -> &Session {
        let Some(session) = usize::try_from(id.0.as_u128())
            .ok()
            .and_then(|nth| self.sessions.get(nth))
        else {
            panic!("a session that nobody opened");
        };
        session
    }

    fn end(&mut self, id: SessionId, end: End) {
        assert_eq!(self.session(id).end, None, "two ends");
        if let Ok(nth) = usize::try_from(id.0.as_u128()) {
            self.sessions[nth].end = Some(end);
        }
    }

    /// Lets everything end, and looks for what is left.
    fn finish(&mut self) {
        self.now += DISPATCH_TIMEOUT;
        self.expire();
        assert_eq!(self.dispatch.poll_timeout(), None);
        assert!(self.waiting.is_empty() && self.dialling.is_empty());
        while let Some(((conn, slot), id)) = self.carried.pop_first() {
            self.table.remove(id);
            self.event(conn, AgentEvent::SessionEnded { slot });
        }
        self.drain();
        let list = self.dispatch.hub().list(self.now);
        assert!(list.iter().all(|info| info.sessions == 0), "load is left");
        let is_direct = |info: &adit_proto_core::gateway::info::SessionInfo| info.agent.is_none();
        assert!(self.table.list(self.now).iter().all(is_direct));
        (1..=self.conns).for_each(|conn| self.close(ConnId(conn)));
        assert_eq!(self.dispatch.hub().agent_count(), 0);
    }
}

fn session_id(nth: usize) -> SessionId {
    SessionId(Uuid::from_u128(nth as u128))
}

/// Keeps an input under a millisecond.
const STEPS_MAX: usize = 64;
