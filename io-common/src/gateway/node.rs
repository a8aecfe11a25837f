//! The gateway's one owner of `Dispatch` and of the table of sessions: users' wishes in, commands to connections out.

mod ends;
mod operate;
mod peers;
#[cfg(test)]
mod tests;
mod wishes;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt,
    sync::Arc,
    time::Instant,
};

use adit_proto_core::{
    agent::policy::Policy,
    close::CloseReason,
    env::Seed,
    gateway::dispatch::{AgentEvent, Dispatch, DispatchOutput},
    id::{AgentId, ConnId, SessionId, Slot},
    journal::Journal,
    link::tls::Admission,
    session_table::SessionTable,
    session_timer::SessionBounds,
};
use futures_channel::oneshot;
use rand_chacha::ChaCha12Rng;

use self::{
    peers::HoldingWatch,
    wishes::{Asked, Asker, Wish},
};
use super::{
    Confirm,
    carriage::Carriage,
    counters::{Bytes, NodeCounters},
    handle::OpenRequest,
    input::{FromConnection, NodeInput, NodeSettings},
};
use crate::{
    burst::Burst, commands::Command, dialling::Dialler, handoff::Sender, lines::Lines, over::Over,
    pump::Traffic, splice::Spliced,
};

/// What a node needs of its driver.
pub trait NodeHost {
    /// Joins two sockets; how that ends comes as [`NodeInput::SessionOver`].
    fn splice(&mut self, session: SessionId, spliced: Spliced);

    /// Ends a session whose sockets are joined; one that has just ended by itself needs no more.
    fn end_splice(&mut self, session: SessionId, how: Over);
}

/// Decides where sessions go, and knows those that are open.
pub struct Node {
    dispatch: Dispatch,
    sessions: SessionTable,
    ids: ChaCha12Rng,
    /// What direct rules mean for a dial, after name resolution; ports were looked at before.
    direct: Arc<Policy>,
    dialler: Arc<dyn Dialler>,
    bounds: SessionBounds,
    admission: Arc<dyn Admission>,
    confirm: Confirm,
    connections: BTreeMap<ConnId, Carriage>,
    /// Sessions being opened.
    wishes: BTreeMap<SessionId, Wish>,
    askers: BTreeMap<Asker, SessionId>,
    /// Open sessions: who asked for them.
    users: BTreeMap<SessionId, OpenRequest>,
    /// Open sessions that the gateway carries itself and whose sockets are joined.
    spliced: BTreeSet<SessionId>,
    /// Sessions of connections that are over, which still tell their users the rest.
    flushing: BTreeMap<ConnId, BTreeSet<Slot>>,
    /// Open sessions that an operator has ended.
    killed: BTreeSet<SessionId>,
    watch: Option<HoldingWatch>,
    own: Sender<NodeInput>,
    failed_handshakes: Burst,
    refused_agents: Lines,
    refused_routes: Lines,
    counters: NodeCounters,
    bytes: Arc<Bytes>,
    /// It takes its leave, or stops: agents that come are sent away.
    leaving: bool,
    /// Who waits until it has taken its leave.
    farewells: Vec<oneshot::Sender<()>>,
    /// It was told to stop.
    stopping: bool,
}

impl Node {
    /// Makes a node without agents; `own` is the way to itself.
    #[must_use]
    pub fn new(
        settings: NodeSettings,
        admission: Arc<dyn Admission>,
        confirm: Confirm,
        seed: &Seed,
        dialler: Arc<dyn Dialler>,
        own: Sender<NodeInput>,
    ) -> Self {
        let direct = Arc::new(operate::direct_policy(&settings.dispatch));
        Self {
            dispatch: Dispatch::new(settings.dispatch),
            bounds: settings.sessions,
            sessions: SessionTable::new(),
            ids: seed.derive("session-id"),
            direct,
            dialler,
            admission,
            confirm,
            connections: BTreeMap::new(),
            wishes: BTreeMap::new(),
            askers: BTreeMap::new(),
            users: BTreeMap::new(),
            spliced: BTreeSet::new(),
            flushing: BTreeMap::new(),
            killed: BTreeSet::new(),
            watch: None,
            own,
            failed_handshakes: Burst::default(),
            refused_agents: Lines::new("agent not registered"),
            refused_routes: Lines::new("route set refused: too many routes"),
            counters: NodeCounters::default(),
            bytes: Arc::default(),
            leaving: false,
            farewells: Vec::new(),
            stopping: false,
        }
    }

    /// Takes down from here on what happens; to be called before anything else is.
    pub fn record_in(&mut self, now: Instant, journal: &Journal) {
        self.dispatch.record_in(now, journal);
    }

    /// An agent gets no new sessions by routing from the start on.
    pub fn set_drained(&mut self, agent: AgentId) {
        self.dispatch.set_drained(agent, true);
    }

    /// What connections add the bytes of their sessions to.
    pub fn bytes(&self) -> Arc<Bytes> {
        Arc::clone(&self.bytes)
    }

    /// It was told to stop, and nothing is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stopping && self.is_left()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let watch = self.watch.as_ref().map(|watch| watch.look_at);
        self.dispatch.poll_timeout().into_iter().chain(watch).min()
    }

    /// A time may be over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.dispatch.handle_timeout(now);
        self.look_for_silent(now);
        self.drain(now);
    }

    /// Takes what has come.
    pub fn handle_input(&mut self, now: Instant, input: NodeInput, host: &mut impl NodeHost) {
        self.take(now, input, host);
        self.drain(now);
        self.tell_farewells();
    }

    fn take(&mut self, now: Instant, input: NodeInput, host: &mut impl NodeHost) {
        match input {
            NodeInput::Open {
                number,
                request,
                reply,
            } => self.open(now, request, Asked::User { number, reply }),
            NodeInput::GiveUp(number) => self.give_up(now, Asker::User(number)),
            NodeInput::Connection(conn, what) => self.connection(now, conn, what),
            NodeInput::HandshakeFailed { remote, why } => {
                self.counters.handshakes_failed += 1;
                if let Some(count) = self.failed_handshakes.note(now) {
                    tracing::warn!(%remote, %why, count, "handshake failed; is the agent enrolled with this gateway?");
                }
            }
            NodeInput::Oddities(counters) => self.counters.odd(counters),
            NodeInput::Dialled(session, result) => self.dialled(now, session, result),
            NodeInput::Splice(session, spliced) => self.splice(session, spliced, host),
            NodeInput::SessionOver {
                session,
                traffic,
                how,
            } => self.session_over(session, traffic, how),
            // Whoever asked may have gone; then nobody needs the answer.
            NodeInput::Agents(reply) => drop(reply.send(self.dispatch.hub().list(now))),
            NodeInput::Agent(id, reply) => drop(reply.send(self.dispatch.hub().list_of(now, id))),
            NodeInput::Sessions(reply) => drop(reply.send(self.list_sessions(now))),
            NodeInput::Look(conns, reply) => drop(reply.send(self.look(&conns))),
            NodeInput::Counters(reply) => drop(reply.send(self.snapshot(now))),
            NodeInput::IsBusy(reply) => {
                let _gone = reply.send(!self.users.is_empty() || !self.wishes.is_empty());
            }
            NodeInput::Explain {
                target,
                agent,
                reply,
            } => {
                drop(reply.send(self.dispatch.explain(now, &target, agent)));
            }
            NodeInput::IsConnected { agent, reply } => {
                let _gone = reply.send(self.dispatch.hub().newest(agent).is_some());
            }
            NodeInput::Drain {
                agent,
                drained,
                reply,
            } => {
                self.dispatch.set_drained(agent, drained);
                self.holding_changed();
                let _gone = reply.send(());
            }
            NodeInput::Kill { session, reply } => {
                let _gone = reply.send(self.kill(session, host));
            }
            NodeInput::Disconnect { agent, reply } => {
                let _gone = reply.send(self.disconnect(now, agent));
            }
            NodeInput::Configure(settings, reply) => {
                self.configure(settings);
                let _gone = reply.send(());
            }
            NodeInput::Peers(told) => self.told_by_peers(now, told),
            NodeInput::Farewell(reply) => self.farewell(now, reply, host),
            NodeInput::Stop => self.stop(now, host),
        }
    }

    fn connection(&mut self, now: Instant, conn: ConnId, what: FromConnection) {
        match what {
            FromConnection::Up(sender) => self.connection_up(conn, Carriage::Agent(sender)),
            FromConnection::SessionOver { slot, traffic, how } => {
                if let Some(session) = self.sessions.at(conn, slot) {
                    self.session_over(session, traffic, how);
                }
                self.flushed(conn, slot);
            }
            FromConnection::Flushing(slots) => self.connection_flushes(conn, slots),
            // Its handshake was admitted before the agent was deleted, and its connections were closed before this
            // one was known. Deleting comes before closing, so either this look or the closing finds it (design 3.8).
            FromConnection::Event(AgentEvent::Registered { identity, .. })
                if !self.admission.admit(&identity) =>
            {
                self.command(conn, Command::Close(CloseReason::Revoked));
            }
            FromConnection::Event(event) => {
                let closed = matches!(event, AgentEvent::Closed);
                let renewed = matches!(event, AgentEvent::Registered { renewed: true, .. });
                self.handle_event(now, conn, event);
                // Only now: an agent that is refused must keep its former key.
                if renewed && let Some(identity) = self.dispatch.hub().identity(conn) {
                    (self.confirm)(identity);
                }
                if closed {
                    self.connection_over(conn);
                }
            }
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.dispatch.poll_output() {
            match output {
                DispatchOutput::Open {
                    conn,
                    attempt,
                    session,
                    target,
                } => {
                    if let Some(carriage) = self.connections.get(&conn) {
                        let wish = self.wishes.get(&session);
                        carriage.open(attempt, session, target, wish.map(|wish| &wish.request));
                    }
                }
                DispatchOutput::Cancel { conn, attempt } => {
                    if let Some(carriage) = self.connections.get(&conn) {
                        carriage.cancel(attempt);
                    }
                }
                DispatchOutput::Discard { conn, slot } => {
                    self.command(conn, Command::Discard(slot))
                }
                DispatchOutput::DialDirect { session, target } => self.dial_direct(session, target),
                DispatchOutput::AbortDirect { session } => {
                    if let Some(wish) = self.wishes.get_mut(&session) {
                        wish.dial = None;
                    }
                }
                DispatchOutput::Committed {
                    session,
                    agent,
                    route,
                } => self.committed(now, session, agent, route),
                DispatchOutput::Failed { session, error } => self.failed(session, error),
                DispatchOutput::Retire { conn } => {
                    self.command(conn, Command::Close(CloseReason::Superseded))
                }
                DispatchOutput::Refused { conn, error } => {
                    self.counters.not_registered += 1;
                    if self.refused_agents.allow() {
                        tracing::warn!(%conn, %error, "agent not registered");
                    }
                    self.command(
                        conn,
                        Command::Close(CloseReason::NotAdmitted(error.to_string())),
                    );
                }
                DispatchOutput::RoutesRefused { conn, count } => {
                    self.counters.routes_refused += 1;
                    if self.refused_routes.allow() {
                        tracing::warn!(%conn, count, "route set refused: too many routes");
                    }
                }
            }
        }
    }

    /// A connection that is gone answers with its end, which the core takes for an answer.
    fn command(&self, conn: ConnId, command: Command<Infallible>) {
        if let Some(sender) = self.connections.get(&conn) {
            sender.push_or_stop(command);
        }
    }

    /// One that an operator has ended meanwhile, or that comes when nothing may begin, gets no further.
    fn splice(&mut self, session: SessionId, spliced: Spliced, host: &mut impl NodeHost) {
        let over = match self.killed.contains(&session) {
            true => Some(Over::Killed),
            false => self.leaving.then_some(Over::Cut),
        };
        if let Some(how) = over {
            spliced.user.reset(how.text());
            return self.session_over(session, Traffic::begin(), how);
        }
        self.spliced.insert(session);
        host.splice(session, spliced);
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("connections", &self.connections.len())
            .field("sessions", &self.users.len())
            .finish_non_exhaustive()
    }
}
