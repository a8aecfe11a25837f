//! What an agent's socket answers.

use tokio::sync::{mpsc, oneshot, watch};

use super::protocol::{
    AdminError, AgentStatus, Answer, ErrorKind, HealthView, Reloaded, Request, VersionInfo,
};

/// What an agent's socket answers from.
#[derive(Clone, Debug)]
pub struct AgentBackend {
    /// Where the agent publishes its status.
    pub status: watch::Receiver<AgentStatus>,
    /// What it is asked to do.
    pub order: mpsc::Sender<AgentOrder>,
}

/// What an agent is asked to do; each with the way for its answer.
#[derive(Debug)]
pub enum AgentOrder {
    /// Read the configuration again; the answer names the keys whose change needs a restart, the error is for people.
    Reload(oneshot::Sender<Result<Vec<String>, String>>),
    /// Renew the certificate; false where that is under way already.
    Renew(oneshot::Sender<bool>),
}

impl AgentBackend {
    pub(super) async fn answer(&self, request: Request) -> Result<Answer, AdminError> {
        let failed = |text: String| AdminError::new(ErrorKind::Failed, text);
        match request {
            Request::Status {} => Ok(Answer::Agent(Box::new(self.status.borrow().clone()))),
            Request::Health {} => Ok(Answer::Health(self.health())),
            Request::Version {} => Ok(Answer::Version(VersionInfo::own())),
            Request::Reload {} => {
                let outcome = self.ask(AgentOrder::Reload).await?;
                let reloaded = outcome.map(|needs_restart| Reloaded { needs_restart });
                reloaded.map(Answer::Reloaded).map_err(failed)
            }
            Request::AgentRenew {} => match self.ask(AgentOrder::Renew).await? {
                true => Ok(Answer::Done {}),
                false => Err(failed("a renewal is under way already".to_owned())),
            },
            Request::AgentsList {}
            | Request::AgentsShow { .. }
            | Request::AgentsDelete { .. }
            | Request::AgentsDrain { .. }
            | Request::SessionsList {}
            | Request::SessionsShow { .. }
            | Request::SessionsKill { .. }
            | Request::RouteExplain { .. }
            | Request::TokenCreate(_)
            | Request::TokenList {}
            | Request::TokenRevoke { .. }
            | Request::CaShow {}
            | Request::CaRotate {}
            | Request::CaRetire { .. } => {
                let text = "this is an agent; ask a gateway";
                Err(AdminError::new(ErrorKind::BadRequest, text))
            }
        }
    }

    fn health(&self) -> HealthView {
        let status = self.status.borrow();
        let detail = match (&status.gateway, &status.last_error) {
            (Some(gateway), _) if status.connected => format!("connected to {gateway}"),
            (_, Some(error)) => format!("not connected: {error}"),
            (_, None) => "not connected".to_owned(),
        };
        HealthView {
            healthy: status.connected,
            role: "agent".to_owned(),
            detail,
        }
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<T>) -> AgentOrder,
    ) -> Result<T, AdminError> {
        let stopping = || AdminError::new(ErrorKind::Stopping, "the agent is stopping");
        let (reply, answer) = oneshot::channel();
        let sent = self.order.send(order(reply)).await;
        sent.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }
}
