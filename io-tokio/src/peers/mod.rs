//! Connections between gateways: one task that receives and owns the pool, and a task for each connection.

mod task;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_io_common::{
    gateway::StartError,
    handoff::handoff,
    peers::{INPUTS_LEN, PeersConfig, PeersCore, PeersHandle, Requests},
};
use adit_proto_core::env::Env;
use tokio::task::JoinHandle;

use self::task::PeersTask;
use crate::{receive::Receive, udp::Port};

/// The other nodes of a running gateway. Dropping it is [`PeersHandle::stop`] without a grace.
#[derive(Debug)]
pub struct Peers {
    handle: PeersHandle,
    local_addr: SocketAddr,
    task: JoinHandle<io::Error>,
}

impl Peers {
    /// Starts on the present tokio runtime, which carries all of it. The second value is what peers ask; whoever drops it
    /// refuses all of that.
    ///
    /// # Errors
    /// [`StartError`]: the address is in use, or certificates are of no use.
    pub fn start(config: PeersConfig, env: Env) -> Result<(Self, Requests), StartError> {
        let port = Arc::new(Port::bind(config.listen).map_err(StartError::Io)?);
        let local_addr = port.get().local_addr().map_err(StartError::Io)?;
        let (own, inputs) = handoff(INPUTS_LEN);
        let made = PeersCore::new(Instant::now(), config, env, local_addr, own);
        let (core, endpoint, handle, requests) = made.map_err(StartError::Tls)?;
        let task = PeersTask::new(core, Receive::new(endpoint, port), inputs);
        let task = tokio::spawn(tokio::task::unconstrained(task));
        let peers = Self {
            handle,
            local_addr,
            task,
        };
        Ok((peers, requests))
    }

    /// The way in.
    #[must_use]
    pub fn handle(&self) -> PeersHandle {
        self.handle.clone()
    }

    /// The UDP address in use.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits for the end of a task that never ends by itself, and tells why it did. The process should end too.
    pub async fn failed(&mut self) -> io::Error {
        (&mut self.task).await.unwrap_or_else(io::Error::other)
    }

    /// As [`PeersHandle::stop`] with this grace. Returns when nothing is left, or after `patience`, which is to be longer.
    pub async fn stop(mut self, grace: Duration, patience: Duration) {
        if self.task.is_finished() {
            return;
        }
        self.handle.stop(grace);
        let _patience_over = tokio::time::timeout(patience, &mut self.task).await;
        self.task.abort();
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.handle.stop(Duration::ZERO);
    }
}
