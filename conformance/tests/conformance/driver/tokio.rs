//! The tokio driver: a runtime for each node, with which the node is killed.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use adit_io_common::{
    agent::{AgentConfig, AgentHandle},
    gateway::{GatewayConfig, GatewayHandle},
    peers::PeersConfig,
    replica::{Link, LinkError, Replica},
};
use adit_io_tokio::{Gateway, agent::Agent, replica};
use adit_proto_core::{env::Env, replica::ReplicaId};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::timeout,
};

use super::{
    AgentNode, Driver, GatewayNode, Node, Publish,
    peers::{Started, start_tokio},
};
use crate::bed::wait::{SOON, until};

pub(crate) struct TokioDriver;

struct TokioGateway {
    gateway: Gateway,
    runtime: Runtime,
}

struct TokioAgent {
    agent: Agent,
    /// Tells of the agent's status until the agent is gone.
    watch: JoinHandle<()>,
    runtime: Runtime,
}

impl Driver for TokioDriver {
    fn name(&self) -> &'static str {
        "tokio"
    }

    fn start_gateway(
        &self,
        config: GatewayConfig,
        env: &Env,
    ) -> Result<Box<dyn GatewayNode>, String> {
        let runtime = runtime();
        let gateway = {
            let _inside = runtime.enter();
            Gateway::start(config, env).map_err(|error| error.to_string())?
        };
        Ok(Box::new(TokioGateway { gateway, runtime }))
    }

    fn start_agent(
        &self,
        config: AgentConfig,
        env: Env,
        mut publish: Publish,
    ) -> Box<dyn AgentNode> {
        let runtime = runtime();
        let agent = {
            let _inside = runtime.enter();
            Agent::start(config, env).unwrap()
        };
        let mut status = agent.status();
        let watch = runtime.spawn(async move {
            while status.changed().await.is_ok() {
                publish(&status.borrow_and_update());
            }
        });
        Box::new(TokioAgent {
            agent,
            watch,
            runtime,
        })
    }

    fn start_peers(&self, config: PeersConfig, env: Env) -> Result<Started, String> {
        start_tokio(config, env)
    }

    fn dial_replica(
        &self,
        replica: &Replica,
        addr: SocketAddr,
        target: ReplicaId,
    ) -> Result<Link, LinkError> {
        let dial = replica::dial(replica, addr, target);
        runtime().block_on(async { timeout(SOON, dial).await.expect("in time") })
    }

    fn accept_replicas(&self, replica: &Replica, listener: TcpListener, count: usize) -> Vec<Link> {
        runtime().block_on(async {
            let mut acceptor = replica::Acceptor::new(replica.clone(), listener).unwrap();
            let mut links = Vec::new();
            while links.len() < count {
                let accepted = timeout(SOON, acceptor.accept()).await;
                links.push(accepted.expect("in time"));
            }
            links
        })
    }
}

impl Node for TokioGateway {
    fn farewell(&mut self, patience: Duration) -> bool {
        let farewell = self.gateway.farewell();
        self.runtime
            .block_on(async { timeout(patience, farewell).await.is_ok() })
    }

    fn stop(self: Box<Self>, patience: Duration) -> bool {
        let Self { gateway, runtime } = *self;
        let stop = gateway.stop(patience);
        let limit = patience.mul_f32(0.9);
        let in_time = runtime.block_on(async { timeout(limit, stop).await.is_ok() });
        see_no_task(&runtime);
        runtime.shutdown_timeout(SOON);
        in_time
    }

    fn quit(self: Box<Self>) {
        self.runtime.shutdown_timeout(SOON);
    }
}

impl GatewayNode for TokioGateway {
    fn handle(&self) -> GatewayHandle {
        self.gateway.handle()
    }

    fn local_addr(&self) -> SocketAddr {
        self.gateway.local_addr()
    }
}

impl Node for TokioAgent {
    fn farewell(&mut self, patience: Duration) -> bool {
        let farewell = self.agent.farewell();
        self.runtime
            .block_on(async { timeout(patience, farewell).await.is_ok() })
    }

    fn stop(self: Box<Self>, patience: Duration) -> bool {
        let Self {
            agent,
            watch,
            runtime,
        } = *self;
        let limit = patience.mul_f32(0.9);
        let in_time = runtime.block_on(async {
            let in_time = timeout(limit, agent.stop(patience)).await.is_ok();
            timeout(SOON, watch)
                .await
                .expect("the agent is gone")
                .unwrap();
            in_time
        });
        see_no_task(&runtime);
        runtime.shutdown_timeout(SOON);
        in_time
    }

    fn quit(self: Box<Self>) {
        self.runtime.shutdown_timeout(SOON);
    }
}

impl AgentNode for TokioAgent {
    fn handle(&self) -> &AgentHandle {
        self.agent.handle()
    }
}

/// Waits until nothing runs any more, of sessions either.
pub(super) fn see_no_task(runtime: &Runtime) {
    let metrics = runtime.metrics();
    until("no task is left", || {
        (metrics.num_alive_tasks() == 0).then_some(())
    });
}

pub(super) fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}
