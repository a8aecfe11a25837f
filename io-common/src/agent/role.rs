//! The agent's role in a connection's task: sessions that the gateway asks for are dialled, facts go to the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use adit_proto_core::{
    agent::{dial::DialError, policy::Policy, supervisor::DialId},
    connection::{Connection, Counters},
    id::{SessionId, Slot},
    output::{Event, Input, Renewed},
    route::RouteSet,
    session_timer::SessionBounds,
    target::Target,
};
use bytes::Bytes;

use super::{AgentInput, renewal::RenewalNews};
use crate::{
    commands::{Command, Commands},
    connection::Role,
    dialling::{Dialler, UnderWay},
    handoff::Sender,
    lines::Lines,
    over::Over,
    pump::Traffic,
    socket::Carried,
};

/// What only an agent asks of a connection.
#[derive(Debug)]
pub enum AgentCommand {
    /// A dial ended.
    Dialled(Slot, Result<TcpStream, DialError>),
    /// Advertise this from here on, and dial by this policy, where it changes.
    Routes(Arc<RouteSet>, Option<Arc<Policy>>),
    /// Ask the gateway for a new certificate.
    Renew(String),
    /// Close once nothing is carried any more.
    Drain,
    /// This machine sends from another address from now on.
    Rebound,
}

/// The connection to one gateway.
pub struct GatewayConnection {
    parts: RoleParts,
    dialler: Arc<dyn Dialler>,
    own: Commands<AgentCommand>,
    sessions: BTreeMap<Slot, Wanted>,
    refusals: Lines,
}

/// What the role has from its agent.
#[derive(Debug)]
pub struct RoleParts {
    /// The attempt that it is.
    pub(super) dial: DialId,
    pub(super) policy: Arc<Policy>,
    pub(super) agent: Sender<AgentInput>,
    /// Sessions open and being opened through the agent, for its status and for its end.
    pub(super) open: Arc<AtomicUsize>,
}

/// A session asked for or open.
struct Wanted {
    session: SessionId,
    target: Target,
    /// While it is dialled; dropping it gives up.
    dial: Option<UnderWay>,
}

impl GatewayConnection {
    /// Begins without sessions; `own` is the way to itself.
    #[must_use]
    pub fn new(parts: RoleParts, dialler: Arc<dyn Dialler>, own: Commands<AgentCommand>) -> Self {
        Self {
            parts,
            dialler,
            own,
            sessions: BTreeMap::new(),
            refusals: Lines::new("session refused"),
        }
    }

    fn tell_renewal(&self, answer: Result<Renewed, String>) {
        self.parts
            .agent
            .push_or_stop(AgentInput::Renewal(RenewalNews::Answered(answer)));
    }

    fn requested(&mut self, slot: Slot, session: SessionId, target: Target) {
        let own = self.own.clone();
        let done = move |result| {
            // A connection that ended meanwhile drops the socket.
            let _ended = own.push(Command::Role(AgentCommand::Dialled(slot, result)));
        };
        let policy = Arc::clone(&self.parts.policy);
        let dial = self.dialler.dial(target.clone(), policy, Box::new(done));
        self.parts.open.fetch_add(1, Ordering::Relaxed);
        self.sessions.insert(
            slot,
            Wanted {
                session,
                target,
                dial: Some(dial),
            },
        );
    }

    fn dialled(&mut self, conn: &mut Connection, slot: Slot, result: Result<TcpStream, DialError>) {
        let Some(mut agent) = conn.as_agent() else {
            return;
        };
        let Some(wanted) = self.sessions.get_mut(&slot) else {
            return;
        };
        wanted.dial = None;
        match result {
            Ok(tcp) if agent.accept(slot).is_ok() => {
                // Through the queue, as it is the task that owns the sockets.
                let _ended = self.own.push(Command::Attach(
                    slot,
                    Carried::new(tcp),
                    Bytes::new(),
                    SessionBounds::default(),
                ));
                return;
            }
            Ok(_given_up) => {}
            Err(error) => {
                if self.refusals.allow() {
                    tracing::info!(session = %wanted.session, target = %wanted.target, %error, "session refused");
                }
                // One that the gateway gave up needs no answer.
                let _given_up = agent.refuse(slot, &error.to_string());
            }
        }
        self.sessions.remove(&slot);
        self.parts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Role for GatewayConnection {
    type Command = AgentCommand;

    fn on_event(&mut self, _now: Instant, conn: &mut Connection, event: Event) {
        match event {
            Event::Established { .. } => self
                .parts
                .agent
                .push_or_stop(AgentInput::Established(self.parts.dial)),
            Event::SessionRequested {
                slot,
                session,
                target,
            } => self.requested(slot, session, target),
            Event::SessionEnded { slot, .. } => {
                // An open one is reported by its pump; one that is still dialled is given up.
                if self
                    .sessions
                    .get(&slot)
                    .is_some_and(|wanted| wanted.dial.is_some())
                    && let Some(wanted) = self.sessions.remove(&slot)
                {
                    self.parts.open.fetch_sub(1, Ordering::Relaxed);
                    tracing::debug!(session = %wanted.session, target = %wanted.target, "session given up by the gateway");
                }
            }
            Event::RenewalAnswered(answer) => self.tell_renewal(answer),
            Event::PathSuspect => tracing::warn!("path to the gateway stalls"),
            Event::PathRecovered => tracing::info!("path to the gateway works again"),
            Event::Closed(why) => {
                let counters = conn.counters();
                if counters != Counters::default() {
                    tracing::warn!(
                        ?counters,
                        "the gateway sent what the protocol has no use for"
                    );
                }
                // Those that are open are over already, or tell their end themselves.
                for _given_up in self.sessions.extract_if(.., |_, w| w.dial.is_some()) {
                    self.parts.open.fetch_sub(1, Ordering::Relaxed);
                }
                self.parts
                    .agent
                    .push_or_stop(AgentInput::Closed(self.parts.dial, why));
            }
            // The task's own, or a gateway's.
            Event::RoutesAccepted { .. }
            | Event::Seen
            | Event::SessionOpened { .. }
            | Event::SessionRefused { .. }
            | Event::SessionRest { .. }
            | Event::SessionReadable(_)
            | Event::SessionWritable(_)
            | Event::RenewalRequested { .. }
            | Event::Peer(_) => {}
        }
    }

    fn on_command(&mut self, now: Instant, conn: &mut Connection, command: AgentCommand) {
        match command {
            AgentCommand::Dialled(slot, result) => self.dialled(conn, slot, result),
            AgentCommand::Routes(routes, policy) => {
                if let Some(policy) = policy {
                    self.parts.policy = policy;
                }
                let set = conn
                    .as_agent()
                    .map(|mut agent| agent.set_routes(now, routes));
                if let Some(Err(error)) = set {
                    tracing::error!(%error, "routes not changed");
                }
            }
            AgentCommand::Renew(csr_pem) => {
                let asked = conn.as_agent().map(|mut agent| agent.renew(csr_pem));
                if let Some(Err(error)) = asked {
                    self.tell_renewal(Err(error.to_string()));
                }
            }
            AgentCommand::Rebound => conn.handle_input(now, Input::SocketRebound),
            AgentCommand::Drain => {
                if let Some(mut agent) = conn.as_agent() {
                    agent.drain();
                }
            }
        }
    }

    /// An agent tells nobody.
    fn on_moved(&self, _sent: u64, _received: u64) {}

    /// They stay where they are until they are over.
    fn on_flushing(&mut self, _slots: BTreeSet<Slot>) {}

    fn on_session_over(&mut self, slot: Slot, traffic: Traffic, how: Over) {
        self.parts.open.fetch_sub(1, Ordering::Relaxed);
        let Some(wanted) = self.sessions.remove(&slot) else {
            return;
        };
        tracing::info!(
            session = %wanted.session,
            target = %wanted.target,
            sent = traffic.received,
            received = traffic.sent,
            ms = u64::try_from(traffic.duration().as_millis()).unwrap_or(u64::MAX),
            reason = how.text(),
            "session ended"
        );
        if let Over::NotRead(unread_for) = how {
            tracing::warn!(
                session = %wanted.session,
                target = %wanted.target,
                unread_s = unread_for.as_secs(),
                "its target does not read, nor do others: see why they have stopped"
            );
        }
    }
}

impl fmt::Debug for GatewayConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayConnection")
            .field("dial", &self.parts.dial)
            .finish_non_exhaustive()
    }
}
