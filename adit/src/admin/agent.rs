//! What an agent's socket answers.

use std::{
    fmt,
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    time::Instant,
};

use super::protocol::{
    AdminError, AgentStatus, Answer, ErrorKind, HealthView, Reloaded, Request, VersionInfo,
};

/// What an agent's socket answers from.
pub struct AgentBackend {
    /// Tells how the agent is.
    pub status: Box<dyn Fn() -> AgentStatus + Send + Sync>,
    /// Has the agent do something; false where too much waits already.
    pub order: Box<dyn Fn(AgentOrder) -> bool + Send + Sync>,
}

impl fmt::Debug for AgentBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentBackend").finish_non_exhaustive()
    }
}

/// What an agent is asked to do; each with the way for its answer, which is dropped where the agent stops first.
#[derive(Debug)]
pub enum AgentOrder {
    /// Read the configuration again; the answer names the keys whose change needs a restart, the error is for people.
    Reload(SyncSender<Result<Vec<String>, String>>),
    /// Renew the certificate; false where that is under way already.
    Renew(SyncSender<bool>),
}

impl AgentBackend {
    pub(super) fn answer(&self, request: Request, until: Instant) -> Result<Answer, AdminError> {
        match request {
            Request::Status {} => Ok(Answer::Agent(Box::new((self.status)()))),
            Request::Health {} => Ok(Answer::Health(self.health())),
            Request::Version {} => Ok(Answer::Version(VersionInfo::own())),
            Request::Reload {} => {
                let outcome = self.ask(AgentOrder::Reload, until)?;
                let reloaded = outcome.map(|needs_restart| Reloaded { needs_restart });
                reloaded.map(Answer::Reloaded).map_err(|e| failed(&e))
            }
            Request::AgentRenew {} => match self.ask(AgentOrder::Renew, until)? {
                true => Ok(Answer::Done {}),
                false => Err(failed("a renewal is under way already")),
            },
            Request::AgentsList {}
            | Request::AgentsShow { .. }
            | Request::AgentsDelete { .. }
            | Request::AgentsDrain { .. }
            | Request::SessionsList {}
            | Request::SessionsShow { .. }
            | Request::SessionsKill { .. }
            | Request::PeersList {}
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
        let status = (self.status)();
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

    fn ask<T>(
        &self,
        order: impl FnOnce(SyncSender<T>) -> AgentOrder,
        until: Instant,
    ) -> Result<T, AdminError> {
        let (reply, answer) = sync_channel(1);
        if !(self.order)(order(reply)) {
            return Err(failed("too much is asked of the agent at once"));
        }
        let left = until.saturating_duration_since(Instant::now());
        answer.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => failed("it takes too long; the agent goes on with it"),
            RecvTimeoutError::Disconnected => {
                AdminError::new(ErrorKind::Stopping, "the agent is stopping")
            }
        })
    }
}

fn failed(text: &str) -> AdminError {
    AdminError::new(ErrorKind::Failed, text)
}
