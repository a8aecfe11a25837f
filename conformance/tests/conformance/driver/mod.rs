//! A driver as the scenarios see it.

mod mio;
pub(crate) mod peers;
mod tokio;

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use adit_io_common::{
    agent::{AgentConfig, AgentHandle, Status},
    gateway::{GatewayConfig, GatewayHandle},
    peers::PeersConfig,
    replica::{Link, LinkError, Replica},
};
use adit_proto_core::{env::Env, replica::ReplicaId};

use self::peers::Started;
pub(crate) use self::{mio::MioDriver, tokio::TokioDriver};

/// Called with how an agent is, as it changes.
pub(crate) type Publish = Box<dyn FnMut(&Status) + Send>;

/// Starts agents and gateways.
pub(crate) trait Driver: Sync {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// Starts a gateway; its address may be in use.
    fn start_gateway(
        &self,
        config: GatewayConfig,
        env: &Env,
    ) -> Result<Box<dyn GatewayNode>, String>;

    /// Starts an agent.
    fn start_agent(&self, config: AgentConfig, env: Env, publish: Publish) -> Box<dyn AgentNode>;

    /// Dials a replica, and waits for what comes of it.
    fn dial_replica(
        &self,
        replica: &Replica,
        addr: SocketAddr,
        target: ReplicaId,
    ) -> Result<Link, LinkError>;

    /// Starts the peers of a gateway; their address may be in use.
    fn start_peers(&self, config: PeersConfig, env: Env) -> Result<Started, String>;

    /// Accepts replicas until there are so many links, and waits for them.
    fn accept_replicas(&self, replica: &Replica, listener: TcpListener, count: usize) -> Vec<Link>;
}

/// What agents and gateways have in common. Each call returns when it is done, or after `patience`.
pub(crate) trait Node: Send {
    /// Lets sessions that are over reach the other side, and closes; tells whether that was done in time.
    fn farewell(&mut self, patience: Duration) -> bool;

    /// Closes now, so that the other side knows; tells whether it ended in time. Nothing of it is left afterwards.
    fn stop(self: Box<Self>, patience: Duration) -> bool;

    /// Ends as a process that is killed does: nobody is told but by what the system closes.
    fn quit(self: Box<Self>);
}

/// A running gateway.
pub(crate) trait GatewayNode: Node {
    fn handle(&self) -> GatewayHandle;

    fn local_addr(&self) -> SocketAddr;
}

/// A running agent.
pub(crate) trait AgentNode: Node {
    fn handle(&self) -> &AgentHandle;
}

/// The driver of the gateway and that of its agents; or of the replica that is dialled and of those that dial it;
/// or of two peers.
#[derive(Clone, Copy)]
pub(crate) struct Pairing {
    pub(crate) gateway: &'static dyn Driver,
    pub(crate) agent: &'static dyn Driver,
}

impl Pairing {
    pub(crate) const ALL: [Self; 4] = [
        Self::of(&TokioDriver, &TokioDriver),
        Self::of(&TokioDriver, &MioDriver),
        Self::of(&MioDriver, &TokioDriver),
        Self::of(&MioDriver, &MioDriver),
    ];

    const fn of(gateway: &'static dyn Driver, agent: &'static dyn Driver) -> Self {
        Self { gateway, agent }
    }

    /// Gateway first.
    pub(crate) fn name(self) -> String {
        format!("{}-{}", self.gateway.name(), self.agent.name())
    }
}
