//! The agent: one task that receives and keeps one connection up, and a task for each connection.

mod network;
mod task;

use std::{
    io,
    net::Ipv6Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_io_common::{
    agent::{AgentConfig, AgentCore, AgentHandle, INPUTS_LEN, StartError, Status},
    handoff::handoff,
};
use adit_proto_core::env::Env;
use tokio::{sync::watch, task::JoinHandle};

use self::task::AgentTask;
use crate::{receive::Receive, udp::Port};

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    handle: AgentHandle,
    status: watch::Receiver<Status>,
    task: JoinHandle<io::Error>,
}

impl Agent {
    /// Starts an agent on the present tokio runtime, which carries all of it.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: AgentConfig, env: Env) -> Result<Self, StartError> {
        let port = Arc::new(Port::bind((Ipv6Addr::UNSPECIFIED, 0).into())?);
        let (own, inputs) = handoff(INPUTS_LEN);
        let local = port.get().local_addr()?;
        let core = AgentCore::new(Instant::now(), config, env, local, own.clone())?;
        let receive = Receive::new(core.endpoint(), port);
        let (publish, status) = watch::channel(Status::default());
        let handle = AgentHandle::new(own.clone(), core.sessions());
        let task = AgentTask::new(core, receive, (own, inputs), publish);
        let task = tokio::spawn(tokio::task::unconstrained(task));
        Ok(Self {
            handle,
            status,
            task,
        })
    }

    /// How the agent is, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The way to the agent.
    #[must_use]
    pub fn handle(&self) -> &AgentHandle {
        &self.handle
    }

    /// Waits for the end of a task that never ends by itself, and tells why it did. The process should end too.
    pub async fn failed(&mut self) -> io::Error {
        (&mut self.task).await.unwrap_or_else(io::Error::other)
    }

    /// Closes the connection as soon as the gateway has all that sessions which are over have sent, however long that
    /// takes; those that are open are cut then. Whoever gives up on it calls [`stop`](Self::stop).
    pub async fn farewell(&mut self) {
        self.handle.farewell();
        let _stopped = (&mut self.task).await;
    }

    /// Closes the connection, so that the gateway knows at once. Returns when that is sent, or after `patience`.
    pub async fn stop(self, patience: Duration) {
        if self.task.is_finished() {
            return;
        }
        self.handle.stop();
        let abort = self.task.abort_handle();
        let _patience_over = tokio::time::timeout(patience, self.task).await;
        abort.abort();
    }
}
