//! What a gateway answers on its socket.

use std::{fmt, sync::Arc};

use adit_proto_core::{
    id::{AgentId, SessionId},
    target::Target,
};
use uuid::Uuid;

use super::{
    BoxFuture,
    protocol::{
        AdminError, Answer, ErrorKind, GatewayStatus, Request, TokenCreated, TokenRequest,
        VersionInfo,
    },
    rows::{AgentDetails, AgentRow, DeletedAgent, DrainedAgent, ExplanationView},
};
use crate::control::{Actor, Control, ControlError};

/// Makes enrolment strings; the error is for people.
pub type TokenMaker =
    Arc<dyn Fn(TokenRequest) -> BoxFuture<Result<TokenCreated, String>> + Send + Sync>;

/// What a gateway's socket answers from.
#[derive(Clone)]
pub struct AdminBackend {
    /// The gateway and its store.
    pub control: Control,
    /// Makes enrolment strings.
    pub tokens: TokenMaker,
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
            Request::Reload {} | Request::AgentRenew {} => {
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

    async fn status(&self) -> Result<GatewayStatus, ControlError> {
        let counters = self.control.gateway().counters().await?;
        Ok(GatewayStatus {
            agents_online: counters.agents.online,
            agents: counters.agents.online + counters.agents.suspect,
            sessions: counters.sessions_open,
        })
    }

    async fn details(&self, agent: &str) -> Result<AgentDetails, ControlError> {
        let entry = self.control.agent(agent).await?;
        let sessions = self.control.sessions().await?.into_iter();
        let own = sessions.filter(|row| row.info.agent == Some(entry.record.id));
        let own = own.map(Into::into).collect();
        Ok(AgentDetails::new(entry, own))
    }

    async fn explain(&self, target: String, agent: Option<Uuid>) -> Result<Answer, AdminError> {
        let bad = |e| AdminError::new(ErrorKind::BadRequest, format!("`{target}`: {e}"));
        let target: Target = target.parse().map_err(bad)?;
        let shown = target.to_string();
        let gateway = self.control.gateway();
        let explained = gateway.explain(target, agent.map(AgentId)).await;
        let explained = explained.map_err(ControlError::from)?;
        Ok(Answer::Explanation(ExplanationView::new(shown, explained)))
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
