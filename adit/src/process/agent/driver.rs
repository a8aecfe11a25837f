//! The agent, whichever driver carries it.

use std::{io, time::Duration};

use adit_io_common::agent::{AgentConfig, AgentHandle, StartError, Status};
use adit_io_mio::Agent as MioAgent;
use adit_io_tokio::agent::Agent as TokioAgent;
use adit_proto_core::env::Env;
use tokio::{sync::watch, time::timeout};

use crate::config::Driver;

/// A running agent.
#[derive(Debug)]
pub(super) enum AgentDriver {
    Tokio(TokioAgent),
    Mio(MioAgent, watch::Receiver<Status>),
}

impl AgentDriver {
    /// Starts an agent; needs a tokio runtime.
    pub(super) fn start(driver: Driver, config: AgentConfig, env: Env) -> Result<Self, StartError> {
        match driver {
            Driver::Tokio => TokioAgent::start(config, env).map(Self::Tokio),
            Driver::Mio => {
                let (publish, status) = watch::channel(Status::default());
                let publish = move |status: &Status| {
                    publish.send_replace(status.clone());
                };
                let agent = MioAgent::start(config, env, Box::new(publish))?;
                Ok(Self::Mio(agent, status))
            }
        }
    }

    /// How the agent is, as it changes.
    pub(super) fn status(&self) -> watch::Receiver<Status> {
        match self {
            Self::Tokio(agent) => agent.status(),
            Self::Mio(_, status) => status.clone(),
        }
    }

    /// The way to it.
    pub(super) fn handle(&self) -> &AgentHandle {
        match self {
            Self::Tokio(agent) => agent.handle(),
            Self::Mio(agent, _) => agent.handle(),
        }
    }

    /// Waits for an end that never comes by itself, and tells why it did. The process should end too.
    pub(super) async fn failed(&mut self) -> io::Error {
        match self {
            Self::Tokio(agent) => agent.failed().await,
            Self::Mio(agent, _) => match agent.ended().await {
                Ok(why) => why,
                Err(_panicked) => io::Error::other("the agent's thread has panicked"),
            },
        }
    }

    /// Closes the connection as soon as the gateway has all that sessions which are over have sent, however long that
    /// takes. Whoever gives up on it calls [`stop`](Self::stop).
    pub(super) async fn farewell(&mut self) {
        self.handle().farewell();
        // However it ends.
        let _why = self.failed().await;
    }

    /// Closes the connection, so that the gateway knows at once. Returns when that is sent, or after `patience`.
    pub(super) async fn stop(self, patience: Duration) {
        match self {
            Self::Tokio(agent) => agent.stop(patience).await,
            Self::Mio(mut agent, _) => {
                agent.handle().stop();
                if timeout(patience, agent.ended()).await.is_err() {
                    agent.quit();
                }
            }
        }
    }
}
