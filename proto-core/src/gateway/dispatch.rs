//! Opening sessions across all connections: candidates, failover and racing (design 3.5, 8.1, 8.8).

mod attempts;
#[cfg(test)]
mod bed;
mod call;
mod direct;
#[cfg(test)]
mod doubt_tests;
mod forwarding;
#[cfg(test)]
mod forwarding_tests;
mod memory;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use serde::{Deserialize, Serialize};

pub(crate) use self::call::Call;
pub use self::direct::{DirectRange, DirectRule};
use self::{attempts::Opening, memory::FailureMemory};
use super::{
    AttemptError, OpenError,
    hub::{Hub, RegisterError},
    info::{Explanation, Fallback},
    peers::Peers,
    record::Advert,
};
use crate::{
    id::{AgentId, AttemptId, ConnId, SessionId, Slot},
    identity::AgentIdentity,
    journal::Recording,
    limits::{DISPATCH_TIMEOUT, OPENS_MAX, SESSIONS_PER_AGENT_MAX},
    route::RouteSet,
    session_table::Carrier,
    target::Target,
};

/// Owns the [`Hub`] and every session that is being opened, across all connections of a gateway.
///
/// For each [`Dispatch::open`] exactly one [`DispatchOutput::Committed`] or [`DispatchOutput::Failed`] comes out,
/// within [`DISPATCH_TIMEOUT`], unless the session is cancelled before. After any call that takes `&mut self`, poll
/// outputs until there is none: the queue is bounded by what one call asks for, nothing else bounds it.
#[derive(Debug, Default)]
pub struct Dispatch {
    hub: Hub,
    peers: Peers,
    config: DispatchConfig,
    openings: BTreeMap<SessionId, Opening>,
    /// Attempts without an answer. The connection comes first, so that its end finds them, and so that no connection
    /// answers for another.
    attempts: BTreeMap<(ConnId, AttemptId), SessionId>,
    /// Places of committed sessions: what a connection's load still counts.
    carried: BTreeSet<(ConnId, Slot)>,
    /// One entry for each opening.
    timers: BTreeSet<(Instant, SessionId)>,
    failures: FailureMemory,
    attempt_count: u64,
    failover: FailoverCounters,
    stopping: bool,
    outputs: VecDeque<DispatchOutput>,
    recording: Recording,
}

/// How often sessions were not opened by the first agent that was asked, as long as it was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailoverCounters {
    /// Agents asked beside one that had not answered yet.
    pub raced: u64,
    /// Agents that were asked first and overtaken.
    pub overtaken: u64,
}

/// What a [`Dispatch`] is made with; see [`Dispatch::set_config`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchConfig {
    /// Targets that the gateway may dial itself where no agent advertises them; empty means none (design 8.9).
    pub direct: Vec<DirectRule>,
    /// Sessions being opened at a time; the next one is refused.
    pub opens_max: usize,
    /// Sessions open and being opened on one connection of an agent; the next one goes elsewhere.
    pub sessions_per_agent: usize,
}

impl Default for DispatchConfig {
    /// No direct dialling, and the bounds of [`limits`](crate::limits).
    fn default() -> Self {
        Self {
            direct: Vec::new(),
            opens_max: OPENS_MAX,
            sessions_per_agent: SESSIONS_PER_AGENT_MAX as usize,
        }
    }
}

/// What happened on one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentEvent {
    /// It was established, with the identity of its certificate.
    Registered {
        /// Who it is.
        identity: AgentIdentity,
        /// The key was certified as the successor of the agent's present one.
        renewed: bool,
    },
    /// A route advertisement came.
    Routes {
        /// Its epoch.
        epoch: u64,
        /// Its whole set.
        routes: RouteSet,
    },
    /// Another control message came.
    Seen,
    /// Its path stalls (design 8.3).
    Suspect,
    /// Its path moves again.
    Recovered,
    /// An attempt succeeded.
    Opened {
        /// Which.
        attempt: AttemptId,
        /// Where the session is.
        slot: Slot,
    },
    /// An attempt failed.
    Failed {
        /// Which.
        attempt: AttemptId,
        /// Why.
        cause: AttemptError,
    },
    /// A session ended, committed or discarded.
    SessionEnded {
        /// Where it was.
        slot: Slot,
    },
    /// The connection ended; nothing of it comes after.
    Closed,
}

/// What a [`Dispatch`] wants done, or has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DispatchOutput {
    /// Ask the agent at the other end for a session; to be answered by [`AgentEvent::Opened`] or
    /// [`AgentEvent::Failed`].
    Open {
        /// Through this connection.
        conn: ConnId,
        /// To be named in the answer.
        attempt: AttemptId,
        /// For the agent's log.
        session: SessionId,
        /// Where it goes.
        target: Target,
    },
    /// Nobody waits for this attempt any more. An answer is allowed and has no effect, but a success is discarded.
    Cancel {
        /// The connection.
        conn: ConnId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Close what a late success opened; it never carries a byte of the user's.
    Discard {
        /// The connection.
        conn: ConnId,
        /// The place on it.
        slot: Slot,
    },
    /// Dial the target from here, under the gateway's own policy; to be answered by [`Dispatch::handle_direct`].
    DialDirect {
        /// The session.
        session: SessionId,
        /// Where it goes.
        target: Target,
    },
    /// Give up dialling, and close what was dialled, for a session that is not open.
    AbortDirect {
        /// The session.
        session: SessionId,
    },
    /// The session is open.
    Committed {
        /// The session.
        session: SessionId,
        /// The agent that carries it; none for a direct one.
        agent: Option<AgentId>,
        /// What carries it.
        route: Carrier,
    },
    /// The session was not opened.
    Failed {
        /// The session.
        session: SessionId,
        /// Why.
        error: OpenError,
    },
    /// Close this connection: its agent has two newer ones (design 8.7).
    Retire {
        /// The connection.
        conn: ConnId,
    },
    /// Close this connection: it was not registered.
    Refused {
        /// The connection.
        conn: ConnId,
        /// Why.
        error: RegisterError,
    },
    /// An advertisement was too long and has no effect; the connection's earlier routes stay.
    RoutesRefused {
        /// The connection.
        conn: ConnId,
        /// Routes that it held.
        count: usize,
    },
}

impl Dispatch {
    /// Makes one without agents.
    #[must_use]
    pub fn new(config: DispatchConfig) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Exchanges what it was made with. Sessions that are open, and attempts that are under way, go on.
    pub fn set_config(&mut self, config: DispatchConfig) {
        let call = || Call::SetConfig(config.clone());
        self.called(None, call);
        self.config = config;
    }

    /// How often agents were raced since the start.
    #[must_use]
    pub fn failover(&self) -> FailoverCounters {
        self.failover
    }

    /// What is gone by at present.
    #[must_use]
    pub fn config(&self) -> &DispatchConfig {
        &self.config
    }

    /// Reads the registry.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Number of sessions that are being opened.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.openings.len()
    }

    /// Tells how a target would be routed, direct dialling included.
    #[must_use]
    pub fn explain(&self, now: Instant, target: &Target, pinned: Option<AgentId>) -> Explanation {
        let direct = pinned.is_none() && self.may_dial(target);
        Explanation {
            fallback: if direct {
                Fallback::Direct
            } else {
                Fallback::Refuse
            },
            peers: self.explain_peers(now, target, pinned),
            ..self.hub.explain(now, target, pinned)
        }
    }

    /// Starts to open a session, through the agent `pinned` only where one is named. A session id that is being
    /// opened already is the caller's mistake and changes nothing.
    pub fn open(
        &mut self,
        now: Instant,
        session: SessionId,
        target: Target,
        pinned: Option<AgentId>,
    ) {
        let call = || Call::Open(session, target.clone(), pinned);
        self.called(Some(now), call);
        let has_peer = |agent: &AgentId| self.peers.has_agent(*agent);
        let unknown = self.unknown(pinned).filter(|agent| !has_peer(agent));
        let opening = Opening::new(target, pinned, now + DISPATCH_TIMEOUT);
        self.begin(now, session, opening, unknown);
    }

    fn unknown(&self, pinned: Option<AgentId>) -> Option<AgentId> {
        pinned.filter(|agent| self.hub.newest(*agent).is_none())
    }

    /// Starts to open a session unless it cannot be.
    fn begin(
        &mut self,
        now: Instant,
        session: SessionId,
        opening: Opening,
        unknown: Option<AgentId>,
    ) {
        if self.openings.contains_key(&session) {
            return;
        }
        let refusal = if self.stopping {
            Some(OpenError::Stopping)
        } else if self.openings.len() >= self.config.opens_max {
            Some(OpenError::TooMany)
        } else {
            unknown.map(OpenError::AgentUnknown)
        };
        if let Some(error) = refusal {
            return self.emit(DispatchOutput::Failed { session, error });
        }
        self.timers.insert((opening.deadline(), session));
        self.openings.insert(session, opening);
        self.advance(now, session);
    }

    /// Gives up a session whose user went away. Nothing is told of it any more; one that is not being opened is left
    /// alone.
    pub fn cancel(&mut self, now: Instant, session: SessionId) {
        self.called(Some(now), || Call::Cancel(session));
        if let Some(opening) = self.take_opening(session) {
            self.abandon(session, &opening);
        }
    }

    /// Refuses every session that is being opened and every later one. Open sessions are not touched.
    pub fn stop(&mut self, now: Instant) {
        self.called(Some(now), || Call::Stop);
        self.stopping = true;
        while let Some((&session, _)) = self.openings.first_key_value() {
            self.fail(session, OpenError::Stopping);
        }
    }

    /// Says whether an agent is to get new sessions by routing; see [`Hub::set_drained`].
    pub fn set_drained(&mut self, agent: AgentId, drained: bool) {
        let call = || Call::SetDrained(agent, drained);
        self.called(None, call);
        self.hub.set_drained(agent, drained);
    }

    /// Takes the connections of an agent out at once, those that retire included, and gives them back to be closed; but
    /// for those that `stays` says are good, as where the agent has enrolled again meanwhile. What waited for their
    /// answers goes on with other agents; their later events, the end included, have no effect.
    #[must_use = "these connections have to be closed"]
    pub fn disconnect(
        &mut self,
        now: Instant,
        agent: AgentId,
        stays: impl Fn(&AgentIdentity) -> bool,
    ) -> Vec<ConnId> {
        let of_it = self.hub.connections_of(agent);
        let stays = |conn: &ConnId| self.hub.identity(*conn).is_some_and(&stays);
        let (stay, go) = of_it.into_iter().partition(stays);
        self.called(Some(now), || Call::Disconnect(agent, stay));
        self.take_out(now, &go);
        go
    }

    fn take_out(&mut self, now: Instant, conns: &[ConnId]) {
        // All of them first: what waits for one must not be asked of the next.
        for conn in conns {
            self.hub.unregister(*conn);
        }
        for conn in conns {
            self.handle_closed(now, *conn);
        }
    }

    /// Takes what happened on a connection. Events of a connection that is not registered, and answers to attempts
    /// that are over, have no effect, but a late success is discarded.
    pub fn handle_event(&mut self, now: Instant, conn: ConnId, event: AgentEvent) {
        let call = || Call::Event(conn, event.clone());
        self.called(Some(now), call);
        match event {
            AgentEvent::Registered { identity, renewed } => {
                match self.hub.register(now, conn, identity, renewed) {
                    Ok(done) => {
                        if let Some(conn) = done.retire {
                            self.emit(DispatchOutput::Retire { conn });
                        }
                    }
                    Err(error) => self.emit(DispatchOutput::Refused { conn, error }),
                }
            }
            AgentEvent::Routes { epoch, routes } => {
                let count = routes.len();
                match self.hub.set_routes(now, conn, epoch, routes) {
                    Some(Advert::TooMany) => {
                        self.emit(DispatchOutput::RoutesRefused { conn, count });
                    }
                    Some(Advert::Accepted) => self.ask_again(now, conn),
                    Some(Advert::Refreshed | Advert::Stale) | None => {}
                }
            }
            AgentEvent::Seen => self.hub.seen(now, conn),
            AgentEvent::Suspect => {
                self.set_suspect(conn, true);
                for (_, session) in self.attempts_of(conn) {
                    self.race(now, session);
                }
            }
            AgentEvent::Recovered => self.set_suspect(conn, false),
            AgentEvent::Opened { attempt, slot } => self.handle_opened(now, conn, attempt, slot),
            AgentEvent::Failed { attempt, cause } => self.handle_failed(now, conn, attempt, cause),
            AgentEvent::SessionEnded { slot } => {
                if self.carried.remove(&(conn, slot)) {
                    self.sub_load(conn);
                }
            }
            AgentEvent::Closed => self.handle_closed(now, conn),
        }
    }

    /// Takes the answer to [`DispatchOutput::DialDirect`]. A success that nobody waits for is aborted.
    pub fn handle_direct(&mut self, now: Instant, session: SessionId, result: Result<(), String>) {
        let call = || Call::Direct(session, result.clone());
        self.called(Some(now), call);
        let dialling = self
            .openings
            .get(&session)
            .is_some_and(Opening::is_dialling);
        match result {
            Ok(()) if !dialling => self.emit(DispatchOutput::AbortDirect { session }),
            Err(_) if !dialling => {}
            Ok(()) => {
                self.take_opening(session);
                self.emit(DispatchOutput::Committed {
                    session,
                    agent: None,
                    route: Carrier::Direct,
                });
            }
            Err(text) => self.fail_direct(session, text),
        }
    }

    /// Lets time pass: the next candidate where one is slow, an end where all are.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.called(Some(now), || Call::Timeout);
        while let Some(&(at, session)) = self.timers.first() {
            if at > now {
                return;
            }
            if self
                .openings
                .get(&session)
                .is_some_and(|o| now < o.deadline())
            {
                self.advance(now, session);
            } else {
                self.expire(now, session);
            }
        }
    }

    /// When [`Dispatch::handle_timeout`] is wanted next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<DispatchOutput> {
        let output = self.outputs.pop_front();
        match &output {
            Some(output) => self.recording.output(|_| format!("{output:?}")),
            None => self.recording.flush(),
        }
        output
    }

    /// Tells whether the gateway dials this target itself: it is allowed and no agent advertises it, not even one
    /// that is silent (design 8.8).
    fn may_dial(&self, target: &Target) -> bool {
        !self.hub.is_advertised(&target.host)
            && !self.peers.is_advertised(&target.host)
            && self.config.direct.iter().any(|r| r.allows(target))
    }

    fn emit(&mut self, output: DispatchOutput) {
        self.outputs.push_back(output);
    }
}
