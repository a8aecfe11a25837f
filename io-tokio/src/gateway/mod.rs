//! The gateway: one task that receives, a task per agent, one for the node that decides where sessions go.

mod node_task;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use adit_io_common::{
    gateway::{
        AgentConnection, AgentLines, EndpointOrder, GatewayCommand, GatewayConfig, GatewayHandle,
        Hooks, NODE_LEN, Node, NodeInput, NodeSettings, Shared, StartError,
    },
    handoff::{Sender, handoff},
    resolver::{Resolver, TARGETS_MAX},
};
use adit_proto_core::{connection::Connection, endpoint::Endpoint, env::Env};
use tokio::task::JoinHandle;

use crate::{
    connection_task::{ConnectionReceiver, ConnectionTask, connection_queues},
    dial::TokioDialler,
    receive::{FromTask, Receive},
    shards::Shards,
    udp::Port,
};

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    handle: GatewayHandle,
    node: Sender<NodeInput>,
    orders: Sender<EndpointOrder>,
    local_addr: SocketAddr,
    endpoint: JoinHandle<io::Result<()>>,
    node_task: JoinHandle<()>,
}

impl Gateway {
    /// Starts a gateway. Must be called on a tokio runtime with I/O and time; that runtime receives all datagrams.
    ///
    /// # Errors
    /// [`StartError`]: the address is in use, or certificates are unusable.
    pub fn start(config: GatewayConfig, env: &Env) -> Result<Self, StartError> {
        let mut endpoint =
            Endpoint::gateway(&config.tls, config.limits, env).map_err(StartError::Tls)?;
        if let Some(journal) = &config.journal {
            endpoint.record_in(journal.clone());
        }
        let port = Arc::new(Port::bind(config.listen).map_err(StartError::Io)?);
        let local_addr = port.get().local_addr().map_err(StartError::Io)?;
        let receive = Receive::new(endpoint, port);
        let shards = Shards::start(config.threads.max(1)).map_err(StartError::Io)?;
        let (node, inputs) = handoff(NODE_LEN);
        let settings = NodeSettings {
            dispatch: config.dispatch,
            sessions: config.sessions,
        };
        let confirm = Arc::clone(&config.hooks.confirm);
        let admission = Arc::clone(&config.tls.admission);
        let dialler = Arc::new(TokioDialler::new(Resolver::new(TARGETS_MAX)));
        let own = node.clone();
        let mut machine = Node::new(settings, admission, confirm, &env.seed, dialler, own);
        if let Some(journal) = &config.journal {
            machine.record_in(Instant::now(), journal);
        }
        for agent in config.drained {
            machine.set_drained(agent);
        }
        let bytes = machine.bytes();
        let node_task = tokio::spawn(node_task::run(machine, inputs, node.clone()));
        let orders = receive.to_order();
        let task = GatewayTask {
            receive,
            shards,
            node: node.clone(),
            hooks: config.hooks,
            shared: Shared {
                bytes: Arc::clone(&bytes),
                lines: AgentLines::default(),
            },
        };
        let endpoint = tokio::spawn(tokio::task::unconstrained(task));
        Ok(Self {
            handle: GatewayHandle::new(node.clone(), orders.clone(), bytes, env.clone()),
            node,
            orders,
            local_addr,
            endpoint,
            node_task,
        })
    }

    /// The way in for users and administration.
    #[must_use]
    pub fn handle(&self) -> GatewayHandle {
        self.handle.clone()
    }

    /// The UDP address in use.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits for the end of a task that never ends by itself, and tells why it did. The process should end too.
    pub async fn failed(&mut self) -> io::Error {
        tokio::select! {
            ended = &mut self.endpoint => match ended {
                Ok(Err(error)) => error,
                Ok(Ok(())) => io::Error::other("stopped"),
                Err(panicked) => io::Error::other(panicked),
            },
            ended = &mut self.node_task => io::Error::other(match ended {
                Ok(()) => "stopped".to_owned(),
                Err(panicked) => panicked.to_string(),
            }),
        }
    }

    /// As [`GatewayHandle::farewell`]. Afterwards, or to give up on it, call [`stop`](Self::stop).
    pub async fn farewell(&self) {
        // One that has stopped is over too.
        let _stopped = self.handle.farewell().await;
    }

    /// Closes every connection, so that agents know at once, and sessions with them. Returns when the closes have
    /// been sent and the sessions' ends logged, or after `patience`.
    pub async fn stop(mut self, patience: Duration) {
        self.node.push_or_stop(NodeInput::Stop);
        self.orders.push_or_stop(EndpointOrder::Stop);
        let both = async { tokio::join!(ended(&mut self.endpoint), ended(&mut self.node_task)) };
        let _patience_over = tokio::time::timeout(patience, both).await;
        self.endpoint.abort();
        self.node_task.abort();
    }
}

/// Waits for the end of a task that may have been waited for before.
async fn ended<T>(task: &mut JoinHandle<T>) {
    if !task.is_finished() {
        let _how = task.await;
    }
}

/// Receives, and makes a task for every connection that a peer begins.
struct GatewayTask {
    receive: Receive<GatewayCommand>,
    shards: Shards,
    node: Sender<NodeInput>,
    hooks: Hooks,
    shared: Shared,
}

/// Batches received before the task lets others run.
const ROUNDS_MAX: usize = 16;

impl Future for GatewayTask {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        for _ in 0..ROUNDS_MAX {
            let (shards, node, hooks, shared) =
                (&this.shards, &this.node, &this.hooks, &this.shared);
            let port = Arc::clone(this.receive.port());
            let to_endpoint = this.receive.to_endpoint();
            let tasks = this.receive.poll_tasks(cx);
            let received = this.receive.poll_receive(cx, |conn| {
                let (sender, queues) = connection_queues();
                let (node, hooks, own) = (node.clone(), hooks.clone(), sender.commands.clone());
                let role = AgentConnection::new(&conn, node, hooks, own, shared.clone());
                spawn((*conn, role), shards, &port, queues, &to_endpoint);
                sender
            });
            if this.receive.is_done() {
                return Poll::Ready(Ok(()));
            }
            match (tasks, received) {
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
                (_, Poll::Ready(Err(error))) => {
                    tracing::error!(%error, "receiving on the tunnel's socket failed");
                    return Poll::Ready(Err(error));
                }
                _ => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn spawn(
    (conn, role): (Connection, AgentConnection),
    shards: &Shards,
    port: &Arc<Port>,
    queues: ConnectionReceiver<GatewayCommand>,
    to_endpoint: &Sender<FromTask>,
) {
    let place = shards.place();
    let runtime = place.runtime.clone();
    let (port, to_endpoint) = (Arc::clone(port), to_endpoint.clone());
    runtime.spawn(async move {
        let task = ConnectionTask::new(conn, role, port, queues, to_endpoint);
        // It bounds its own work per poll.
        tokio::task::unconstrained(task).await;
        drop(place);
    });
}
