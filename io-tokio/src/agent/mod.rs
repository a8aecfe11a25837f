//! The agent: one connection to one of its gateways, kept up by the core's `Supervisor`.

mod role;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

use adit_proto_core::{
    agent::{
        dial::ResolveError,
        policy::Policy,
        supervisor::{DialId, GatewayIndex, LossKind, Supervisor, SupervisorError, SupervisorStep},
    },
    close::{CloseReason, Closed},
    endpoint::{AgentConfig as CoreConfig, ConnectError, Endpoint},
    env::Env,
    id::ConnId,
    link::tls::AgentTls,
    route::RouteSet,
    target::Target,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Sleep, sleep_until},
};

use self::role::{AgentCommand, GatewayConnection};
use crate::{
    connection_task::{Command, ConnectionTask, connection_queues},
    dial::resolve,
    handoff::{Receiver, Sender, handoff},
    receive::Receive,
    udp::UdpPort,
};

pub use adit_proto_core::agent::advertise::AdvertiserConfig;

/// What an agent is started with.
pub struct AgentConfig {
    /// Gateways, tried in turn.
    pub gateways: Vec<Target>,
    /// Certificates, key, pin; asked for before every attempt, so that renewed files are used (agent-tunnel 13).
    pub tls: TlsSource,
    /// What is advertised, and allowed.
    pub routes: Arc<RouteSet>,
    /// Intervals of control messages.
    pub intervals: AdvertiserConfig,
}

/// Reads certificates and key.
pub type TlsSource = Box<dyn Fn() -> Result<AgentTls, String> + Send>;

impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentConfig")
            .field("gateways", &self.gateways)
            .finish_non_exhaustive()
    }
}

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The UDP socket.
    #[error("UDP socket: {0}")]
    Io(#[from] io::Error),
    /// The list of gateways.
    #[error(transparent)]
    Gateways(#[from] SupervisorError),
    /// Certificates, key or routes.
    #[error("{0}")]
    Unusable(String),
}

/// How the agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The gateway's address while connected.
    pub connected: Option<SocketAddr>,
    /// Since when.
    pub since: Option<SystemTime>,
    /// Why the last connection or attempt ended.
    pub last_error: Option<String>,
}

impl Status {
    /// A connection or an attempt ended. One that lost against the connection in use is no error to tell of.
    fn ended(&mut self, was_up: bool, why: String) {
        if was_up {
            self.connected = None;
            self.since = None;
        }
        if self.connected.is_none() {
            self.last_error = Some(why);
        }
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    status: watch::Receiver<Status>,
    sessions: Arc<AtomicUsize>,
    inputs: Sender<AgentInput>,
    task: JoinHandle<io::Error>,
}

/// What the agent's task is told.
#[derive(Debug)]
pub(crate) enum AgentInput {
    Resolved(GatewayIndex, Result<Vec<IpAddr>, ResolveError>),
    Established(DialId),
    Closed(DialId, Closed),
    Withdraw,
    Stop,
}

/// Messages that wait for the agent's task; a handful per connection.
const INPUTS_LEN: usize = 65_536;

impl Agent {
    /// Starts an agent on the present tokio runtime, which carries all of it.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: AgentConfig, env: Env) -> Result<Self, StartError> {
        // Unusable files are told at once, not with the first attempt.
        let tls = (config.tls)().map_err(StartError::Unusable)?;
        drop(tls);
        let port = Arc::new(UdpPort::bind((Ipv6Addr::UNSPECIFIED, 0).into())?);
        let dual_stack = port.local_addr()?.is_ipv6();
        let receive = Receive::new(Endpoint::agent(&env), port);
        let supervisor = Supervisor::new(Instant::now(), config.gateways.clone(), &env.seed)?;
        let (inputs, inputs_rx) = handoff(INPUTS_LEN);
        let (status_tx, status) = watch::channel(Status::default());
        let sessions = Arc::<AtomicUsize>::default();
        let task = AgentTask {
            policy: Arc::new(Policy::new(&config.routes)),
            config,
            env,
            receive,
            dual_stack,
            supervisor,
            dials: BTreeMap::new(),
            inputs: inputs_rx,
            own: inputs.clone(),
            batch: VecDeque::new(),
            status: status_tx,
            sessions: Arc::clone(&sessions),
            timer: Box::pin(sleep_until(tokio::time::Instant::now())),
            stopping: false,
        };
        let task = tokio::spawn(tokio::task::unconstrained(task));
        Ok(Self {
            status,
            sessions,
            inputs,
            task,
        })
    }

    /// How the agent is, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Counts open sessions, as they come and go.
    #[must_use]
    pub fn sessions(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.sessions)
    }

    /// Advertises nothing more, on this connection and on later ones: the gateway asks for no more sessions, and those
    /// that are open go on.
    pub fn withdraw(&self) {
        self.inputs.push_or_stop(AgentInput::Withdraw);
    }

    /// Waits for the end of a task that never ends by itself, and tells why it did. The process should end too.
    pub async fn failed(&mut self) -> io::Error {
        (&mut self.task).await.unwrap_or_else(io::Error::other)
    }

    /// Closes the connection, so that the gateway knows at once. Returns when that is sent, or after `patience`.
    pub async fn stop(self, patience: std::time::Duration) {
        self.inputs.push_or_stop(AgentInput::Stop);
        let abort = self.task.abort_handle();
        let _patience_over = tokio::time::timeout(patience, self.task).await;
        abort.abort();
    }
}

/// Receives, keeps one connection up, and reports.
struct AgentTask {
    config: AgentConfig,
    policy: Arc<Policy>,
    env: Env,
    receive: Receive<AgentCommand>,
    /// The socket is an IPv6 one that also takes IPv4.
    dual_stack: bool,
    supervisor: Supervisor,
    dials: BTreeMap<DialId, (ConnId, SocketAddr)>,
    inputs: Receiver<AgentInput>,
    own: Sender<AgentInput>,
    batch: VecDeque<AgentInput>,
    status: watch::Sender<Status>,
    sessions: Arc<AtomicUsize>,
    timer: Pin<Box<Sleep>>,
    stopping: bool,
}

/// Batches received before the task lets others run.
const ROUNDS_MAX: usize = 16;

impl AgentTask {
    fn take_inputs(&mut self, cx: &Context<'_>) -> bool {
        if self.inputs.poll_take(cx, &mut self.batch).is_pending() {
            return false;
        }
        while let Some(input) = self.batch.pop_front() {
            let now = Instant::now();
            match input {
                AgentInput::Resolved(gateway, answer) => {
                    self.supervisor.handle_resolved(now, gateway, answer)
                }
                AgentInput::Established(dial) => self.supervisor.handle_established(now, dial),
                AgentInput::Closed(dial, why) => self.closed(now, dial, &why),
                AgentInput::Withdraw => {
                    self.config.routes = Arc::default();
                    for sender in self.receive.connections() {
                        let command = Command::Role(AgentCommand::Withdraw);
                        sender.commands.push_or_stop(command);
                    }
                }
                AgentInput::Stop => {
                    self.stopping = true;
                    self.receive.stop();
                    self.supervisor.shutdown();
                }
            }
        }
        true
    }

    fn closed(&mut self, now: Instant, dial: DialId, why: &Closed) {
        let was_up = self.supervisor.connection() == Some(dial);
        if let Some((_, gateway)) = self.dials.remove(&dial) {
            if was_up {
                tracing::warn!(%gateway, %why, "connection to the gateway lost");
            } else {
                tracing::debug!(%gateway, %why, "attempt to connect ended");
            }
        }
        let why_text = why.to_string();
        self.status
            .send_modify(|status| status.ended(was_up, why_text));
        self.supervisor
            .handle_closed(now, dial, LossKind::from(why));
    }

    fn run_supervisor(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        let now = Instant::now();
        if self.supervisor.poll_timeout().is_some_and(|at| at <= now) {
            self.supervisor.handle_timeout(now);
            any = true;
        }
        while let Some(step) = self.supervisor.poll_step() {
            any = true;
            self.perform(now, step);
        }
        if let Some(at) = self.supervisor.poll_timeout() {
            if self.timer.deadline() != at.into() {
                self.timer.as_mut().reset(at.into());
            }
            any |= self.timer.as_mut().poll(cx).is_ready();
        }
        any
    }

    fn perform(&mut self, now: Instant, step: SupervisorStep) {
        match step {
            SupervisorStep::Resolve {
                gateway,
                host,
                port,
            } => {
                let own = self.own.clone();
                tokio::spawn(async move {
                    let answer = resolve(&host, port).await;
                    own.push_or_stop(AgentInput::Resolved(gateway, answer));
                });
            }
            SupervisorStep::Connect {
                dial,
                addr,
                server_name,
                ..
            } => {
                if let Err(error) = self.connect(now, dial, addr, &server_name) {
                    tracing::error!(%addr, %error, "cannot connect to the gateway");
                    self.status.send_modify(|status| status.ended(false, error));
                    self.supervisor
                        .handle_closed(now, dial, LossKind::LocalError);
                }
            }
            SupervisorStep::Close { dial } => {
                let reason = if self.stopping {
                    CloseReason::AgentStopping
                } else {
                    CloseReason::Redundant
                };
                if let Some(sender) = self
                    .dials
                    .get(&dial)
                    .and_then(|(conn, _)| self.receive.sender(*conn))
                {
                    sender.commands.push_or_stop(Command::Close(reason));
                }
            }
            SupervisorStep::Up { dial, .. } => {
                let gateway = self.dials.get(&dial).map(|(_, addr)| *addr);
                tracing::info!(
                    gateway = gateway.map(tracing::field::display),
                    "connected to the gateway"
                );
                self.status.send_modify(|status| {
                    status.connected = gateway;
                    status.since = Some(SystemTime::now());
                    status.last_error = None;
                });
            }
            SupervisorStep::Waiting { until, cause, .. } => {
                let ms = u64::try_from(until.saturating_duration_since(now).as_millis())
                    .unwrap_or(u64::MAX);
                tracing::info!(
                    wait_ms = ms,
                    ?cause,
                    "waiting before the next attempt to connect"
                );
            }
        }
    }

    fn connect(
        &mut self,
        now: Instant,
        dial: DialId,
        addr: SocketAddr,
        server_name: &str,
    ) -> Result<(), String> {
        let core = CoreConfig {
            tls: Arc::new((self.config.tls)()?),
            routes: Arc::clone(&self.config.routes),
            intervals: self.config.intervals,
        };
        // An IPv6 socket reaches IPv4 by the mapped address.
        let remote = match addr.ip() {
            IpAddr::V4(ip) if self.dual_stack => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port())
            }
            IpAddr::V4(_) | IpAddr::V6(_) => addr,
        };
        let connect = self
            .receive
            .endpoint
            .connect(now, &core, remote, server_name, &self.env);
        let conn = connect.map_err(|error: ConnectError| error.to_string())?;
        let (sender, queues) = connection_queues();
        let role = GatewayConnection::new(
            dial,
            Arc::clone(&self.policy),
            self.own.clone(),
            sender.clone(),
            Arc::clone(&self.sessions),
        );
        self.dials.insert(dial, (conn.id(), addr));
        self.receive.know(conn.id(), sender);
        let (port, to_endpoint) = (Arc::clone(self.receive.port()), self.receive.to_endpoint());
        let task = ConnectionTask::new(conn, role, port, queues, to_endpoint, true);
        // It bounds its own work per poll.
        tokio::spawn(tokio::task::unconstrained(task));
        Ok(())
    }
}

impl Future for AgentTask {
    type Output = io::Error;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Error> {
        let this = self.get_mut();
        for _ in 0..ROUNDS_MAX {
            let mut any = this.take_inputs(cx);
            any |= this.run_supervisor(cx);
            any |= this.receive.poll_tasks(cx).is_ready();
            // An agent's endpoint takes no connections, so nothing is ever accepted.
            let received = this.receive.poll_receive(cx, |_| connection_queues().0);
            match received {
                Poll::Ready(Ok(())) => any = true,
                Poll::Ready(Err(error)) => {
                    tracing::error!(%error, "receiving on the agent's socket failed");
                    return Poll::Ready(error);
                }
                Poll::Pending => {}
            }
            if this.receive.is_done() {
                return Poll::Ready(io::Error::other("stopped"));
            }
            if !any {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl fmt::Debug for AgentTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = self.sessions.load(Ordering::Relaxed);
        f.debug_struct("AgentTask")
            .field("sessions", &sessions)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loser_of_a_race_is_no_error_of_the_connection() {
        let mut status = Status {
            connected: Some(([192, 0, 2, 1], 4433).into()),
            since: Some(SystemTime::now()),
            last_error: None,
        };
        status.ended(false, "redundant".to_owned());
        assert_eq!(status.last_error, None);
        status.ended(true, "lost".to_owned());
        assert_eq!((status.connected, status.since), (None, None));
        assert_eq!(status.last_error.as_deref(), Some("lost"));
        status.ended(false, "timed out".to_owned());
        assert_eq!(status.last_error.as_deref(), Some("timed out"));
    }
}
