//! The gateway: one UDP socket, a task per agent, one node that decides where sessions go.

mod agent_lines;
mod counters;
mod handle;
mod input;
mod node;
mod role;

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use adit_proto_core::{
    connection::Connection,
    endpoint::{Endpoint, EndpointLimits},
    env::Env,
    gateway::dispatch::DispatchConfig,
    id::AgentId,
    identity::AgentIdentity,
    link::tls::{GatewayTls, TlsError},
    output::Renewed,
    session_timer::SessionBounds,
};
use tokio::task::JoinHandle;

pub use self::counters::{GatewayCounters, NodeCounters, SessionEnding};
pub use self::handle::{
    GatewayHandle, OpenRequest, PendingSession, SessionRow, SetTlsError, Stopped,
};
use self::{
    agent_lines::AgentLines,
    input::{NodeInput, NodeSettings},
    node::Node,
    role::{AgentConnection, GatewayCommand, Shared},
};
use crate::{
    connection_task::{ConnectionSender, ConnectionTask, connection_queues},
    handoff::{Sender, handoff},
    receive::{FromTask, Receive},
    shards::Shards,
    udp::UdpPort,
};

/// Answers an agent's wish for a new certificate: its proven identity and its signing request in PEM.
pub type Renew = Arc<
    dyn Fn(AgentIdentity, String) -> Pin<Box<dyn Future<Output = Result<Renewed, String>> + Send>>
        + Send
        + Sync,
>;

/// Notes that an agent has connected with what it was issued last: a renewed key becomes its only one, and the string of an
/// enrolment is good no more.
pub type Confirm = Arc<dyn Fn(&AgentIdentity) + Send + Sync>;

/// What a gateway asks of whoever keeps its certificates and agents.
#[derive(Clone)]
pub struct Hooks {
    /// Signs renewals.
    pub renew: Renew,
    /// Tells whether an agent shows what it was issued last, by an enrolment or a renewal, and that has not been confirmed
    /// yet; may not block.
    pub is_renewed: Arc<dyn Fn(&AgentIdentity) -> bool + Send + Sync>,
    /// Told of an agent that is registered with such a key or certificate: what it had before counts no more. May not
    /// block.
    pub confirm: Confirm,
    /// Told of an agent whose connection ended; it may have another one. May not block.
    pub left: Arc<dyn Fn(&AgentIdentity) + Send + Sync>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

/// What a gateway is started with.
pub struct GatewayConfig {
    /// UDP address of the tunnel.
    pub listen: SocketAddr,
    /// Certificates, keys, admission.
    pub tls: GatewayTls,
    /// Bounds of the endpoint.
    pub limits: EndpointLimits,
    /// Direct dialling and bounds of sessions.
    pub dispatch: DispatchConfig,
    /// Bounds on the time of a session.
    pub sessions: SessionBounds,
    /// Agents that get no new sessions by routing from the start on.
    pub drained: Vec<AgentId>,
    /// Certificates and agents.
    pub hooks: Hooks,
    /// Threads, at least 1; the caller's is the first.
    pub threads: usize,
}

impl fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayConfig")
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Why a gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// The UDP socket or a thread.
    Io(io::Error),
    /// Certificates or keys.
    Tls(TlsError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    handle: GatewayHandle,
    node: Sender<NodeInput>,
    to_endpoint: Sender<FromTask>,
    local_addr: SocketAddr,
    endpoint: JoinHandle<io::Result<()>>,
    node_task: JoinHandle<()>,
}

/// Messages that wait for the node. Each producer's own are bounded: by its sessions and opens.
const NODE_LEN: usize = 1 << 22;

impl Gateway {
    /// Starts a gateway. Must be called on a tokio runtime with I/O and time; that runtime receives all datagrams.
    ///
    /// # Errors
    /// [`StartError`]: the address is in use, or certificates are unusable.
    pub fn start(config: GatewayConfig, env: &Env) -> Result<Self, StartError> {
        let endpoint =
            Endpoint::gateway(&config.tls, config.limits, env).map_err(StartError::Tls)?;
        let port = Arc::new(UdpPort::bind(config.listen).map_err(StartError::Io)?);
        let receive = Receive::new(endpoint, port);
        let local_addr = receive.local_addr().map_err(StartError::Io)?;
        let shards = Shards::start(config.threads.max(1)).map_err(StartError::Io)?;
        let (node, inputs) = handoff(NODE_LEN);
        let settings = NodeSettings {
            dispatch: config.dispatch,
            sessions: config.sessions,
        };
        let confirm = Arc::clone(&config.hooks.confirm);
        let own = node.clone();
        let admission = Arc::clone(&config.tls.admission);
        let mut task = Node::new(settings, admission, confirm, &env.seed, inputs, own);
        for agent in config.drained {
            task.set_drained(agent);
        }
        let bytes = task.bytes();
        let node_task = tokio::spawn(task.run());
        let to_endpoint = receive.to_endpoint();
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
            handle: GatewayHandle::new(node.clone(), to_endpoint.clone(), bytes, env.clone()),
            node,
            to_endpoint,
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

    /// Closes every connection as soon as its agent has all that sessions which are over have sent, however long that
    /// takes; those that are open are cut then. Agents that come meanwhile are sent away. Afterwards, or to give up on it,
    /// call [`stop`](Self::stop).
    pub async fn farewell(&mut self) {
        self.node.push_or_stop(NodeInput::Farewell);
        // Not for the endpoint: it may have handshakes that nobody means to end.
        ended(&mut self.node_task).await;
    }

    /// Closes every connection, so that agents know at once, and sessions with them. Returns when the closes have
    /// been sent and the sessions' ends logged, or after `patience`.
    pub async fn stop(mut self, patience: std::time::Duration) {
        self.node.push_or_stop(NodeInput::Stop);
        self.to_endpoint.push_or_stop(FromTask::Stop);
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
                spawn(
                    *conn,
                    shards,
                    node,
                    hooks,
                    &sender,
                    ConnectionTaskParts {
                        port: Arc::clone(&port),
                        queues,
                        to_endpoint: to_endpoint.clone(),
                        shared: shared.clone(),
                    },
                );
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

struct ConnectionTaskParts {
    port: Arc<UdpPort>,
    queues: crate::connection_task::ConnectionReceiver<GatewayCommand>,
    to_endpoint: Sender<FromTask>,
    shared: Shared,
}

fn spawn(
    conn: Connection,
    shards: &Shards,
    node: &Sender<NodeInput>,
    hooks: &Hooks,
    sender: &ConnectionSender<GatewayCommand>,
    parts: ConnectionTaskParts,
) {
    let role = AgentConnection::new(
        &conn,
        node.clone(),
        hooks.clone(),
        sender.clone(),
        parts.shared,
    );
    let place = shards.place();
    let runtime = place.runtime.clone();
    runtime.spawn(async move {
        let task = ConnectionTask::new(
            conn,
            role,
            parts.port,
            parts.queues,
            parts.to_endpoint,
            place.is_first,
        );
        // It bounds its own work per poll.
        tokio::task::unconstrained(task).await;
        drop(place);
    });
}
