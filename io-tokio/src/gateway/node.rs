//! The gateway's one owner of `Dispatch` and of the table of sessions: users' wishes in, commands to connections out.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::{
    agent::policy::Policy,
    close::CloseReason,
    env::Seed,
    gateway::{
        OpenError,
        dispatch::{AgentEvent, Dispatch, DispatchOutput},
        info::{AgentInfo, Explanation},
    },
    id::{AgentId, ConnId, SessionId, Slot},
    session_table::{Carrier, SessionTable},
    target::Target,
};
use rand_chacha::{ChaCha12Rng, rand_core::Rng};
use tokio::{net::TcpStream, sync::oneshot, task::AbortHandle};
use uuid::Builder;

use super::{
    Confirm,
    handle::{OpenRequest, PendingSession, SessionRow},
    role::GatewayCommand,
};
use crate::{
    burst::Burst,
    connection_task::{Command, ConnectionSender, Over},
    dial::dial,
    handoff::{Receiver, Sender},
    pump::Traffic,
};

/// What the node is told.
#[derive(Debug)]
pub(crate) enum NodeInput {
    /// A user wants a session. The number is for giving it up.
    Open {
        number: u64,
        request: OpenRequest,
        reply: oneshot::Sender<Result<PendingSession, OpenError>>,
    },
    /// The user of that wish went away.
    GiveUp(u64),
    /// Something happened on a connection.
    Connection(ConnId, FromConnection),
    /// A handshake came to nothing.
    HandshakeFailed {
        remote: SocketAddr,
        why: String,
    },
    /// A direct dial ended.
    Dialled(SessionId, Result<TcpStream, String>),
    /// A session that was not a connection's is over, or one whose socket was never attached.
    SessionOver {
        session: SessionId,
        traffic: Traffic,
        how: Over,
    },
    Agents(oneshot::Sender<Vec<AgentInfo>>),
    Sessions(oneshot::Sender<Vec<SessionRow>>),
    /// Is a session open or being opened?
    IsBusy(oneshot::Sender<bool>),
    Explain {
        target: Target,
        agent: Option<AgentId>,
        reply: oneshot::Sender<Explanation>,
    },
    IsConnected {
        agent: AgentId,
        reply: oneshot::Sender<bool>,
    },
    /// Close everything, and end with the last connection.
    Stop,
}

/// What a connection tells the node.
#[derive(Debug)]
pub(crate) enum FromConnection {
    /// It is established; the way to its task.
    Up(ConnectionSender<GatewayCommand>),
    Event(AgentEvent),
    SessionOver {
        slot: Slot,
        traffic: Traffic,
        how: Over,
    },
}

/// A session's users and wishes that the core does not need to know.
#[derive(Debug)]
struct Wish {
    number: u64,
    request: OpenRequest,
    reply: oneshot::Sender<Result<PendingSession, OpenError>>,
    dial: Option<AbortHandle>,
    dialled: Option<TcpStream>,
}

/// The task.
pub(crate) struct Node {
    dispatch: Dispatch,
    sessions: SessionTable,
    ids: ChaCha12Rng,
    direct: Arc<Policy>,
    confirm: Confirm,
    connections: BTreeMap<ConnId, ConnectionSender<GatewayCommand>>,
    /// Sessions being opened.
    wishes: BTreeMap<SessionId, Wish>,
    numbers: BTreeMap<u64, SessionId>,
    /// Open sessions: who asked for them.
    users: BTreeMap<SessionId, OpenRequest>,
    inputs: Receiver<NodeInput>,
    own: Sender<NodeInput>,
    failed_handshakes: Burst,
    stopping: bool,
}

impl Node {
    pub(crate) fn new(
        dispatch: Dispatch,
        direct: Arc<Policy>,
        confirm: Confirm,
        seed: &Seed,
        inputs: Receiver<NodeInput>,
        own: Sender<NodeInput>,
    ) -> Self {
        Self {
            dispatch,
            sessions: SessionTable::new(),
            ids: seed.derive("session-id"),
            direct,
            confirm,
            connections: BTreeMap::new(),
            wishes: BTreeMap::new(),
            numbers: BTreeMap::new(),
            users: BTreeMap::new(),
            inputs,
            own,
            failed_handshakes: Burst::default(),
            stopping: false,
        }
    }

    /// Runs until told to stop and all connections have ended.
    pub(crate) async fn run(mut self) {
        let mut batch = VecDeque::new();
        loop {
            let deadline = self.dispatch.poll_timeout();
            let far = Instant::now() + Duration::from_secs(3_600);
            tokio::select! {
                () = self.inputs.take(&mut batch) => {}
                () = tokio::time::sleep_until(deadline.unwrap_or(far).into()) => {}
            }
            let now = Instant::now();
            while let Some(input) = batch.pop_front() {
                self.take(now, input);
                self.drain(now);
            }
            // The connections tell how their sessions ended before they tell their own end.
            if self.stopping && self.connections.is_empty() {
                return;
            }
            self.dispatch.handle_timeout(now);
            self.drain(now);
        }
    }

    fn take(&mut self, now: Instant, input: NodeInput) {
        match input {
            NodeInput::Open {
                number,
                request,
                reply,
            } => self.open(now, number, request, reply),
            NodeInput::GiveUp(number) => {
                if let Some(session) = self.numbers.remove(&number) {
                    self.forget_wish(session);
                    self.dispatch.cancel(now, session);
                }
            }
            NodeInput::Connection(conn, what) => self.connection(now, conn, what),
            NodeInput::HandshakeFailed { remote, why } => {
                if let Some(count) = self.failed_handshakes.note(now) {
                    tracing::warn!(%remote, %why, count, "handshake failed; is the agent enrolled with this gateway?");
                }
            }
            NodeInput::Dialled(session, result) => {
                let outcome = match (result, self.wishes.get_mut(&session)) {
                    (Ok(tcp), Some(wish)) => {
                        wish.dialled = Some(tcp);
                        Ok(())
                    }
                    (Ok(_unwanted), None) => return,
                    (Err(reason), _) => Err(reason),
                };
                self.dispatch.handle_direct(now, session, outcome);
            }
            NodeInput::SessionOver {
                session,
                traffic,
                how,
            } => self.session_over(session, traffic, how),
            // Whoever asked may have gone; then nobody needs the answer.
            NodeInput::Agents(reply) => drop(reply.send(self.dispatch.hub().list(now))),
            NodeInput::Sessions(reply) => drop(reply.send(self.list_sessions(now))),
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
            NodeInput::Stop => self.stop(now),
        }
    }

    fn open(
        &mut self,
        now: Instant,
        number: u64,
        request: OpenRequest,
        reply: oneshot::Sender<Result<PendingSession, OpenError>>,
    ) {
        let mut bytes = [0; 16];
        self.ids.fill_bytes(&mut bytes);
        let session = SessionId(Builder::from_random_bytes(bytes).into_uuid());
        let (target, agent) = (request.target.clone(), request.agent);
        self.numbers.insert(number, session);
        self.wishes.insert(
            session,
            Wish {
                number,
                request,
                reply,
                dial: None,
                dialled: None,
            },
        );
        self.dispatch.open(now, session, target, agent);
    }

    fn connection(&mut self, now: Instant, conn: ConnId, what: FromConnection) {
        match what {
            FromConnection::Up(sender) => {
                self.connections.insert(conn, sender);
            }
            FromConnection::SessionOver { slot, traffic, how } => {
                if let Some(session) = self.sessions.at(conn, slot) {
                    self.session_over(session, traffic, how);
                }
            }
            FromConnection::Event(event) => {
                let closed = matches!(event, AgentEvent::Closed);
                let renewed = matches!(event, AgentEvent::Registered { renewed: true, .. });
                self.dispatch.handle_event(now, conn, event);
                // Only now: an agent that is refused must keep its former key.
                if renewed && let Some(identity) = self.dispatch.hub().identity(conn) {
                    (self.confirm)(identity);
                }
                if closed {
                    self.connections.remove(&conn);
                    // Sessions whose sockets were attached have been reported one by one already.
                    for (session, _) in self.sessions.remove_conn(conn) {
                        self.users.remove(&session);
                    }
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
                    self.command(
                        conn,
                        Command::Role(GatewayCommand::Open {
                            attempt,
                            session,
                            target,
                        }),
                    );
                }
                DispatchOutput::Cancel { conn, attempt } => {
                    self.command(conn, Command::Role(GatewayCommand::Cancel(attempt)));
                }
                DispatchOutput::Discard { conn, slot } => {
                    self.command(conn, Command::Discard(slot))
                }
                DispatchOutput::DialDirect { session, target } => self.dial_direct(session, target),
                DispatchOutput::AbortDirect { session } => {
                    if let Some(dial) = self
                        .wishes
                        .get_mut(&session)
                        .and_then(|wish| wish.dial.take())
                    {
                        dial.abort();
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
                    tracing::warn!(%conn, %error, "agent not registered");
                    self.command(
                        conn,
                        Command::Close(CloseReason::NotAdmitted(error.to_string())),
                    );
                }
                DispatchOutput::RoutesRefused { conn, count } => {
                    tracing::warn!(%conn, count, "route set refused: too many routes");
                }
            }
        }
    }

    /// A connection that is gone answers with its end, which the core takes for an answer.
    fn command(&self, conn: ConnId, command: Command<GatewayCommand>) {
        if let Some(sender) = self.connections.get(&conn) {
            sender.commands.push_or_stop(command);
        }
    }

    fn dial_direct(&mut self, session: SessionId, target: Target) {
        let (policy, own) = (Arc::clone(&self.direct), self.own.clone());
        let task = tokio::spawn(async move {
            let result = dial(target, policy)
                .await
                .map_err(|error| error.to_string());
            own.push_or_stop(NodeInput::Dialled(session, result));
        });
        if let Some(wish) = self.wishes.get_mut(&session) {
            wish.dial = Some(task.abort_handle());
        }
    }

    fn committed(
        &mut self,
        now: Instant,
        session: SessionId,
        agent: Option<AgentId>,
        route: Carrier,
    ) {
        let Some(wish) = self.forget_wish(session) else {
            return;
        };
        let pending = match (route, wish.dialled) {
            (Carrier::Agent { conn, slot }, _) => {
                let Some(sender) = self.connections.get(&conn) else {
                    return;
                };
                PendingSession::through_agent(
                    session,
                    slot,
                    sender.commands.clone(),
                    self.own.clone(),
                )
            }
            (Carrier::Direct, Some(tcp)) => PendingSession::direct(session, tcp, self.own.clone()),
            (Carrier::Direct, None) => return,
        };
        // The id was drawn here, and a place on a connection is never used twice.
        let entered = self
            .sessions
            .insert(now, session, route, wish.request.target.clone(), agent);
        debug_assert!(entered.is_ok(), "a session is entered once");
        self.users.insert(session, wish.request);
        // A user who went away meanwhile drops the session, which ends it.
        drop(wish.reply.send(Ok(pending)));
    }

    fn failed(&mut self, session: SessionId, error: OpenError) {
        if let Some(wish) = self.forget_wish(session) {
            drop(wish.reply.send(Err(error)));
        }
    }

    fn forget_wish(&mut self, session: SessionId) -> Option<Wish> {
        let wish = self.wishes.remove(&session)?;
        self.numbers.remove(&wish.number);
        if let Some(dial) = &wish.dial {
            dial.abort();
        }
        Some(wish)
    }

    fn session_over(&mut self, session: SessionId, traffic: Traffic, how: Over) {
        let Some(entry) = self.sessions.remove(session) else {
            return;
        };
        let user = self.users.remove(&session);
        tracing::info!(
            %session,
            user = user.as_ref().map(|user| tracing::field::display(user.user)),
            ingress = user.as_ref().map(|user| tracing::field::display(&user.ingress)),
            target = %entry.target,
            agent = entry.agent.map(tracing::field::display),
            sent = traffic.sent,
            received = traffic.received,
            ms = u64::try_from(traffic.duration().as_millis()).unwrap_or(u64::MAX),
            reason = how.text(),
            "session ended"
        );
    }

    fn list_sessions(&self, now: Instant) -> Vec<SessionRow> {
        let rows = self.sessions.list(now).into_iter();
        rows.map(|info| SessionRow {
            user: self.users.get(&info.id).map(|user| user.user),
            ingress: self.users.get(&info.id).map(|user| user.ingress.clone()),
            info,
        })
        .collect()
    }

    fn stop(&mut self, now: Instant) {
        self.stopping = true;
        self.dispatch.stop(now);
        self.drain(now);
        for sender in self.connections.values() {
            sender
                .commands
                .push_or_stop(Command::Close(CloseReason::GatewayStopping));
        }
    }
}
