//! The gateway's role in a connection's task: facts to the node, commands from it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::{
    close::Closed,
    connection::{Connection, Counters},
    gateway::dispatch::AgentEvent,
    id::{AgentId, AttemptId, ConnId, SessionId, Slot},
    identity::AgentIdentity,
    output::{Event, Renewed},
    target::Target,
};
use tracing::field::{DisplayValue, display};

use super::{
    Hooks,
    agent_lines::{About, AgentLines},
    counters::Bytes,
    input::{FromConnection, NodeInput},
};
use crate::{
    commands::{Command, Commands},
    connection::Role,
    handoff::Sender,
    over::Over,
    pump::Traffic,
};

/// Heartbeats are passed on at most this often; an agent that sends more cannot fill the node's queue.
const SEEN_INTERVAL: Duration = Duration::from_millis(500);

/// What only a gateway asks of a connection.
#[derive(Debug)]
pub enum GatewayCommand {
    /// Open a session.
    Open {
        /// By this attempt.
        attempt: AttemptId,
        /// Its id.
        session: SessionId,
        /// Where to.
        target: Target,
    },
    /// Give an attempt up.
    Cancel(AttemptId),
    /// The answer to the agent's wish for a new certificate.
    Renewed(Result<Renewed, String>),
}

/// What all connections of a gateway share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where they count.
    pub bytes: Arc<Bytes>,
    /// How many lines each agent may cause.
    pub lines: AgentLines,
}

/// One agent's connection.
#[derive(Debug)]
pub struct AgentConnection {
    id: ConnId,
    remote: SocketAddr,
    identity: Option<AgentIdentity>,
    node: Sender<NodeInput>,
    hooks: Hooks,
    /// The way to itself, for answers of the certificate authority.
    own: Commands<GatewayCommand>,
    seen: Option<Instant>,
    shared: Shared,
}

impl AgentConnection {
    /// Begins without an agent; `own` is the way to itself.
    #[must_use]
    pub fn new(
        conn: &Connection,
        node: Sender<NodeInput>,
        hooks: Hooks,
        own: Commands<GatewayCommand>,
        shared: Shared,
    ) -> Self {
        let remote = SocketAddr::new(conn.remote().ip().to_canonical(), conn.remote().port());
        Self {
            id: conn.id(),
            remote,
            identity: None,
            node,
            hooks,
            own,
            seen: None,
            shared,
        }
    }

    /// Tells whether a line of a kind may be written now. Before the agent is known there is nothing to tell of it.
    fn may_tell(&self, about: About) -> bool {
        let lines = &self.shared.lines;
        self.identity
            .as_ref()
            .is_some_and(|identity| lines.allow(identity.id, about))
    }

    /// For the log.
    fn agent(&self) -> Option<DisplayValue<AgentId>> {
        self.identity.as_ref().map(|identity| display(identity.id))
    }

    fn tell(&self, event: AgentEvent) {
        self.node
            .push_or_stop(NodeInput::Connection(self.id, FromConnection::Event(event)));
    }

    fn established(&mut self, identity: AgentIdentity) {
        if self.shared.lines.allow(identity.id, About::Visits) {
            tracing::info!(agent = %identity.id, name = %identity.name, remote = %self.remote, conn = %self.id, "agent connected");
        }
        self.identity = Some(identity.clone());
        let renewed = (self.hooks.is_renewed)(&identity);
        self.node.push_or_stop(NodeInput::Connection(
            self.id,
            FromConnection::Up(self.own.clone()),
        ));
        self.tell(AgentEvent::Registered { identity, renewed });
    }

    fn renewal(&self, csr_pem: String) {
        let Some(identity) = self.identity.clone() else {
            return;
        };
        let (agent, own, lines) = (identity.id, self.own.clone(), self.shared.lines.clone());
        let answer = move |answer: Result<Renewed, String>| {
            match &answer {
                _ if !lines.allow(agent, About::Renewals) => {}
                Ok(_) => tracing::info!(%agent, "certificate renewed"),
                Err(reason) => tracing::warn!(%agent, %reason, "certificate not renewed"),
            }
            // A connection that closed meanwhile asks again on its next one.
            let _closed = own.push(Command::Role(GatewayCommand::Renewed(answer)));
        };
        (self.hooks.renew)(identity, csr_pem, Box::new(answer));
    }

    fn seen(&mut self, now: Instant) {
        let recent = |seen| now.saturating_duration_since(seen) < SEEN_INTERVAL;
        if !self.seen.is_some_and(recent) {
            self.seen = Some(now);
            self.tell(AgentEvent::Seen);
        }
    }

    fn closed(&self, conn: &Connection, why: &Closed) {
        let counters = conn.counters();
        if counters != Counters::default() {
            if self.may_tell(About::Oddities) {
                tracing::warn!(agent = self.agent(), conn = %self.id, ?counters, "the agent sent what the protocol has no use for");
            }
            self.node.push_or_stop(NodeInput::Oddities(counters));
        }
        match &self.identity {
            Some(identity) => {
                if self.may_tell(About::Visits) {
                    tracing::info!(agent = %identity.id, name = %identity.name, conn = %self.id, %why, "agent disconnected");
                }
                (self.hooks.left)(identity);
                self.tell(AgentEvent::Closed);
            }
            None => {
                self.node.push_or_stop(NodeInput::HandshakeFailed {
                    remote: self.remote,
                    why: why.to_string(),
                });
            }
        }
    }
}

impl Role for AgentConnection {
    type Command = GatewayCommand;

    fn on_event(&mut self, now: Instant, conn: &mut Connection, event: Event) {
        match event {
            Event::Established {
                identity: Some(identity),
            } => self.established(identity),
            Event::RoutesAccepted { epoch, routes } => {
                if self.may_tell(About::Routes) {
                    tracing::info!(
                        agent = self.agent(),
                        epoch,
                        subnets = routes.subnets.len(),
                        domains = routes.domains.len(),
                        "routes accepted"
                    );
                }
                self.tell(AgentEvent::Routes { epoch, routes });
            }
            Event::Seen => self.seen(now),
            Event::SessionOpened { attempt, slot } => {
                self.tell(AgentEvent::Opened { attempt, slot })
            }
            Event::SessionRefused { attempt, cause } => {
                self.tell(AgentEvent::Failed { attempt, cause })
            }
            Event::SessionEnded { slot, .. } => self.tell(AgentEvent::SessionEnded { slot }),
            Event::PathSuspect => {
                if self.may_tell(About::Path) {
                    tracing::warn!(agent = self.agent(), conn = %self.id, "path to the agent stalls; new sessions go elsewhere");
                }
                self.tell(AgentEvent::Suspect);
            }
            Event::PathRecovered => {
                if self.may_tell(About::Path) {
                    tracing::info!(agent = self.agent(), conn = %self.id, "path to the agent works again");
                }
                self.tell(AgentEvent::Recovered);
            }
            Event::RenewalRequested { csr_pem } => self.renewal(csr_pem),
            Event::Closed(why) => self.closed(conn, &why),
            // The task's own, or an agent's.
            Event::Established { identity: None }
            | Event::SessionRequested { .. }
            | Event::SessionRest { .. }
            | Event::SessionReadable(_)
            | Event::SessionWritable(_)
            | Event::RenewalAnswered(_)
            | Event::Peer(_) => {}
        }
    }

    fn on_command(&mut self, now: Instant, conn: &mut Connection, command: GatewayCommand) {
        let Some(mut gateway) = conn.as_gateway() else {
            return;
        };
        match command {
            GatewayCommand::Open {
                attempt,
                session,
                target,
            } => gateway.open_session(now, attempt, session, &target),
            GatewayCommand::Cancel(attempt) => gateway.cancel(attempt),
            GatewayCommand::Renewed(answer) => {
                if !gateway.answer_renewal(answer) {
                    tracing::debug!(conn = %self.id, "renewal came too late for this connection");
                }
            }
        }
    }

    fn on_moved(&self, sent: u64, received: u64) {
        self.shared.bytes.add(sent, received);
    }

    fn on_flushing(&mut self, slots: BTreeSet<Slot>) {
        if !slots.is_empty() {
            let flushing = FromConnection::Flushing(slots);
            self.node
                .push_or_stop(NodeInput::Connection(self.id, flushing));
        }
    }

    fn on_session_over(&mut self, slot: Slot, traffic: Traffic, how: Over) {
        self.node.push_or_stop(NodeInput::Connection(
            self.id,
            FromConnection::SessionOver { slot, traffic, how },
        ));
    }
}
