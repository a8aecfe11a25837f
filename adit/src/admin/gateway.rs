//! What a gateway answers on its socket.

use std::{fmt, sync::Arc};

use adit_proto_core::{
    id::{AgentId, SessionId},
    target::Target,
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    BoxFuture,
    protocol::{
        AdminError, Answer, CaView, ErrorKind, GatewayStatus, HealthView, Reloaded, Request,
        TokenCreated, TokenRequest, VersionInfo,
    },
    rows::{AgentDetails, AgentRow, DeletedAgent, DrainedAgent, ExplanationView, PeersView},
};
use crate::{
    control::{Actor, Control, ControlError},
    http::health::Health,
    usage::Usage,
};

/// Makes enrolment strings; the error is for people.
pub type TokenMaker =
    Arc<dyn Fn(TokenRequest) -> BoxFuture<Result<TokenCreated, String>> + Send + Sync>;

/// Tells of the peers.
pub type PeerLister = Arc<dyn Fn() -> BoxFuture<PeersView> + Send + Sync>;

/// What a gateway's socket answers from.
#[derive(Clone)]
pub struct AdminBackend {
    /// The gateway and its store.
    pub control: Control,
    /// Makes enrolment strings.
    pub tokens: TokenMaker,
    /// Tells of the peers.
    pub peers: PeerLister,
    /// What only the process itself can do.
    pub order: mpsc::Sender<GatewayOrder>,
    /// Whether it serves.
    pub health: Health,
    /// How full it is.
    pub usage: Usage,
}

/// What a gateway's process is asked to do; each with the way for its answer, whose error is for people.
#[derive(Debug)]
pub enum GatewayOrder {
    /// Read the configuration again; the answer names the keys whose change needs a restart.
    Reload(oneshot::Sender<Result<Vec<String>, String>>),
    /// Tell of the CAs, or change them on behalf of somebody.
    Ca(Actor, CaOrder, oneshot::Sender<Result<CaView, String>>),
}

/// What is asked of a gateway's CAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaOrder {
    /// To tell of them.
    Show,
    /// To let another one sign.
    Rotate,
    /// To trust the former one no more.
    Retire {
        /// Also where agents would have to enrol again.
        force: bool,
    },
}

impl fmt::Debug for AdminBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminBackend")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

impl AdminBackend {
    /// Answers a question, or makes the change that is asked for in the caller's name.
    pub(super) async fn answer(&self, by: Actor, request: Request) -> Result<Answer, AdminError> {
        let control = &self.control;
        Ok(match request {
            Request::Status {} => Answer::Gateway(self.status().await?),
            Request::Version {} => Answer::Version(VersionInfo::own()),
            Request::Health {} => Answer::Health(HealthView::of_gateway(&self.health)),
            Request::Reload {} => {
                let needs_restart = self.ask(GatewayOrder::Reload).await?;
                Answer::Reloaded(Reloaded { needs_restart })
            }
            Request::CaShow {} => self.ca(by, CaOrder::Show).await?,
            Request::CaRotate {} => self.ca(by, CaOrder::Rotate).await?,
            Request::CaRetire { force } => self.ca(by, CaOrder::Retire { force }).await?,
            Request::AgentRenew {} => {
                let text = "this is a gateway; ask an agent";
                return Err(AdminError::new(ErrorKind::BadRequest, text));
            }
            Request::AgentsList {} => {
                let entries = control.agents().await?.into_iter();
                Answer::Agents(entries.flat_map(AgentRow::of).collect())
            }
            Request::AgentsShow { agent } => Answer::AgentDetails(self.details(&agent).await?),
            Request::AgentsDelete { agent } => {
                let id = control.find(&agent).await?.id;
                let done = control.delete_agent(by, id).await?;
                Answer::Deleted(DeletedAgent {
                    id: id.0,
                    name: done.agent.name,
                    closed: done.closed,
                })
            }
            Request::AgentsDrain { agent, drained } => {
                let id = control.find(&agent).await?.id;
                let done = control.drain_agent(by, id, drained).await?;
                Answer::Drained(DrainedAgent {
                    id: id.0,
                    name: done.agent.name,
                    sessions: done.sessions,
                })
            }
            Request::SessionsList {} => {
                let sessions = control.sessions().await?;
                Answer::Sessions(sessions.into_iter().map(Into::into).collect())
            }
            Request::SessionsShow { id } => {
                Answer::Session(control.session(SessionId(id)).await?.into())
            }
            Request::SessionsKill { id } => {
                let session = control.session(SessionId(id)).await?;
                control.kill_session(by, SessionId(id)).await?;
                Answer::Session(session.into())
            }
            Request::PeersList {} => Answer::Peers((self.peers)().await),
            Request::RouteExplain { target, agent } => self.explain(target, agent).await?,
            Request::TokenCreate(request) => Answer::Token(self.create_token(by, request).await?),
            Request::TokenList {} => {
                let tokens = control.tokens().await?;
                Answer::Tokens(tokens.into_iter().map(Into::into).collect())
            }
            Request::TokenRevoke { jti } => {
                Answer::Revoked(control.revoke_token(by, jti).await?.into())
            }
        })
    }

    async fn ca(&self, by: Actor, order: CaOrder) -> Result<Answer, AdminError> {
        let view = self.ask(|reply| GatewayOrder::Ca(by, order, reply));
        view.await.map(Answer::Ca)
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, String>>) -> GatewayOrder,
    ) -> Result<T, AdminError> {
        let stopping = || AdminError::new(ErrorKind::Stopping, "the gateway is stopping");
        let (reply, answer) = oneshot::channel();
        let sent = self.order.send(order(reply)).await;
        sent.map_err(|_| stopping())?;
        let outcome = answer.await.map_err(|_| stopping())?;
        outcome.map_err(|text| AdminError::new(ErrorKind::Failed, text))
    }

    async fn status(&self) -> Result<GatewayStatus, ControlError> {
        let counters = self.control.gateway().counters().await?;
        Ok(GatewayStatus {
            agents_online: counters.agents.online,
            agents: counters.agents.online + counters.agents.suspect,
            sessions: counters.sessions_open,
            usage: self.usage.rows(&counters),
        })
    }

    async fn details(&self, agent: &str) -> Result<AgentDetails, ControlError> {
        let entry = self.control.agent(agent).await?;
        let sessions = self.control.sessions().await?.into_iter();
        let own = sessions.filter(|row| row.info.agent == Some(entry.record.id));
        let own = own.map(Into::into).collect();
        let conns = entry.connections.iter().map(|info| info.conn).collect();
        let glances = self.control.gateway().look(conns).await?;
        Ok(AgentDetails::new(entry, &glances, own))
    }

    async fn explain(&self, target: String, agent: Option<Uuid>) -> Result<Answer, AdminError> {
        let bad = |e| AdminError::new(ErrorKind::BadRequest, format!("`{target}`: {e}"));
        let target: Target = target.parse().map_err(bad)?;
        let shown = target.to_string();
        let gateway = self.control.gateway();
        let explained = gateway.explain(target, agent.map(AgentId)).await;
        let explained = explained.map_err(ControlError::from)?;
        let mut view = ExplanationView::new(shown, explained);
        if !view.peers.is_empty() {
            let known = (self.peers)().await;
            for candidate in &mut view.peers {
                let row = known.peers.iter().find(|row| row.id == candidate.node);
                candidate.forward = row.map(|row| row.forward.clone()).unwrap_or_default();
            }
        }
        Ok(Answer::Explanation(view))
    }

    async fn create_token(
        &self,
        by: Actor,
        request: TokenRequest,
    ) -> Result<TokenCreated, AdminError> {
        let made = (self.tokens)(request).await;
        let made = made.map_err(|m| AdminError::new(ErrorKind::Failed, m))?;
        tracing::info!(%by, token = %made.jti, name = made.name, "token created");
        Ok(made)
    }
}

impl HealthView {
    /// The same that `/readyz` says, but a fault of the disk alone is no reason to restart a gateway.
    pub(crate) fn of_gateway(health: &Health) -> Self {
        let why = health.ready().err();
        Self {
            healthy: health.serving().is_ok(),
            role: "gateway".to_owned(),
            detail: why.map_or_else(|| "ready".to_owned(), |why| why.to_string()),
        }
    }
}

impl From<ControlError> for AdminError {
    fn from(error: ControlError) -> Self {
        let kind = match &error {
            ControlError::UnknownAgent(_)
            | ControlError::UnknownName(_)
            | ControlError::UnknownSession(_)
            | ControlError::UnknownToken(_) => ErrorKind::NotFound,
            ControlError::AmbiguousName { .. } => ErrorKind::Ambiguous,
            ControlError::TokenUsed { .. } | ControlError::Store(_) => ErrorKind::Failed,
            ControlError::Stopping => ErrorKind::Stopping,
        };
        Self::new(kind, error.to_string())
    }
}
