//! The agent's one task: receives, performs what the core's machines ask for, and reports.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use adit_proto_core::{
    agent::{
        policy::Policy,
        renewal::Renewal,
        supervisor::{Credentials, DialId, LossKind, Supervisor, SupervisorStep},
    },
    close::{CloseReason, Closed},
    endpoint::{AgentConfig as CoreConfig, ConnectError},
    env::Env,
    id::ConnId,
    link::tls::AgentTls,
    route::RouteSet,
};
use tokio::{
    sync::watch,
    time::{Sleep, sleep_until},
};

use super::{
    AgentConfig, AgentInput, StartError, Status,
    attempt::Wish,
    files::Files,
    network::{Sources, Watch, source_towards, sources},
    role::{AgentCommand, GatewayConnection},
};
use crate::{
    connection_task::{Command, ConnectionTask, connection_queues},
    handoff::{Receiver, Sender},
    receive::Receive,
    resolver::{GATEWAYS_MAX, Resolver, TARGETS_MAX},
};

/// Receives, keeps one connection up, and reports.
pub(super) struct AgentTask {
    pub(super) config: AgentConfig,
    policy: Arc<Policy>,
    /// Names that sessions ask for; they hold up no other.
    target_names: Resolver,
    gateway_names: Resolver,
    /// From where the gateway in use is reached.
    source: Option<IpAddr>,
    last_dialled: Option<SocketAddr>,
    /// From where this machine sent when it was last looked at.
    sources: Sources,
    /// Tells of changes until it is dropped.
    _network: Option<Watch>,
    pub(super) env: Env,
    receive: Receive<AgentCommand>,
    /// The socket is an IPv6 one that also takes IPv4.
    dual_stack: bool,
    pub(super) supervisor: Supervisor,
    pub(super) renewal: Renewal,
    dials: BTreeMap<DialId, (ConnId, SocketAddr)>,
    /// Attempts whose key pair is being read.
    pub(super) reading: BTreeSet<DialId>,
    /// Reads key pairs for attempts.
    reads: Files,
    /// Changes them, for renewals.
    pub(super) files: Files,
    inputs: Receiver<AgentInput>,
    pub(super) own: Sender<AgentInput>,
    batch: VecDeque<AgentInput>,
    pub(super) status: watch::Sender<Status>,
    sessions: Arc<AtomicUsize>,
    timer: Pin<Box<Sleep>>,
    stopping: Option<HowToStop>,
}

/// What a connection is told when the agent stops.
type HowToStop = fn(CloseReason) -> Command<AgentCommand>;

/// For a key pair that is read: well within the time of an attempt.
const READ_PATIENCE: Duration = Duration::from_secs(5);
/// For one that is made, written or moved: a slow disk takes a while.
const FILES_PATIENCE: Duration = Duration::from_secs(30);
/// Batches received before the task lets others run.
const ROUNDS_MAX: usize = 16;

impl AgentTask {
    pub(super) fn new(
        config: AgentConfig,
        env: Env,
        receive: Receive<AgentCommand>,
        (own, inputs): (Sender<AgentInput>, Receiver<AgentInput>),
        status: watch::Sender<Status>,
        sessions: Arc<AtomicUsize>,
    ) -> Result<Self, StartError> {
        // Unusable files are told at once, not with the first attempt.
        drop(
            config
                .pairs
                .tls(Credentials::Current)
                .map_err(StartError::Unusable)?,
        );
        let validity = config.pairs.validity().map_err(StartError::Unusable)?;
        let kept = config.pairs.kept();
        let network = Watch::begin(own.clone());
        if let Err(error) = &network {
            tracing::warn!(%error, "this machine's addresses cannot be watched; changes are noticed some seconds later");
        }
        let network = network.ok();
        let now = Instant::now();
        let supervisor = Supervisor::new(now, config.gateways.clone(), kept, &env.seed)?;
        Ok(Self {
            policy: Arc::new(Policy::new(&config.routes).restricted(&config.restrictions)),
            renewal: Renewal::new(now, validity, kept.next, &env.seed),
            target_names: Resolver::new(TARGETS_MAX),
            gateway_names: Resolver::new(GATEWAYS_MAX),
            source: None,
            last_dialled: None,
            sources: sources(None),
            _network: network,
            supervisor,
            reading: BTreeSet::new(),
            reads: Files::new(Arc::clone(&config.pairs), READ_PATIENCE),
            files: Files::new(Arc::clone(&config.pairs), FILES_PATIENCE),
            dual_stack: receive.port().local_addr()?.is_ipv6(),
            config,
            env,
            receive,
            dials: BTreeMap::new(),
            inputs,
            own,
            batch: VecDeque::new(),
            status,
            sessions,
            timer: Box::pin(sleep_until(tokio::time::Instant::now())),
            stopping: None,
        })
    }

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
                AgentInput::Attempt(attempt) => self.attempt(now, *attempt),
                AgentInput::Established(dial) => self.supervisor.handle_established(now, dial),
                AgentInput::Closed(dial, why) => self.closed(now, dial, &why),
                AgentInput::Routes(routes, policy) => self.set_routes(&routes, policy),
                AgentInput::NetworkChanged => self.network_changed(now),
                AgentInput::Renewal(news) => self.take_news(now, news),
                AgentInput::Renew(reply) => {
                    // Whoever asked may have gone; the renewal is wanted all the same.
                    let _gone = reply.send(self.renewal.handle_wish(now));
                }
                AgentInput::Farewell => self.stop(Command::Farewell),
                AgentInput::Stop => self.stop(Command::Stop),
            }
        }
        true
    }

    fn stop(&mut self, how: HowToStop) {
        if self.stopping.replace(how).is_some() {
            // They were told to take their time.
            for sender in self.receive.connections() {
                let command = how(CloseReason::AgentStopping);
                sender.commands.push_or_stop(command);
            }
        }
        self.receive.stop();
        self.supervisor.shutdown();
    }

    fn set_routes(&mut self, routes: &Arc<RouteSet>, policy: Option<Arc<Policy>>) {
        self.config.routes = Arc::clone(routes);
        if let Some(policy) = &policy {
            self.policy = Arc::clone(policy);
        }
        for sender in self.receive.connections() {
            let command = AgentCommand::Routes(Arc::clone(routes), policy.clone());
            sender.commands.push_or_stop(Command::Role(command));
        }
    }

    /// A gateway that is not connected is tried at once where this machine sends from elsewhere now; most changes are of
    /// no account for it, and on some machines there are many. A connection that is up moves only where it is reached
    /// from another address: the first packet from there shows the gateway the way.
    fn network_changed(&mut self, now: Instant) {
        let sources = sources(self.last_dialled);
        if std::mem::replace(&mut self.sources, sources) != sources {
            self.supervisor.handle_network_change(now);
            self.target_names.begin_anew();
        }
        let up = self.supervisor.connection();
        let Some((dial, gateway)) = up.and_then(|dial| Some((dial, self.dials.get(&dial)?.1)))
        else {
            return;
        };
        let source = source_towards(gateway);
        if source.is_some() && source != self.source {
            tracing::info!(%gateway, source = source.map(tracing::field::display), "this machine's address has changed; the connection moves");
            self.source = source;
            self.command(dial, Command::Role(AgentCommand::Rebound));
        }
    }

    fn closed(&mut self, now: Instant, dial: DialId, why: &Closed) {
        let was_up = self.supervisor.connection() == Some(dial);
        if let Some((_, gateway)) = self.dials.remove(&dial) {
            if was_up && *why == Closed::Local {
                tracing::info!(%gateway, "connection to the gateway closed, to be made anew");
            } else if was_up {
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
        if self.supervisor.connection().is_none() {
            self.renewal.handle_down();
        }
    }

    fn run_machines(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        let now = Instant::now();
        if self.supervisor.poll_timeout().is_some_and(|at| at <= now) {
            self.supervisor.handle_timeout(now);
            any = true;
        }
        if self.renewal.poll_timeout().is_some_and(|at| at <= now) {
            self.renewal.handle_timeout(now, self.unix_s());
            any = true;
        }
        while let Some(step) = self.supervisor.poll_step() {
            any = true;
            self.perform(now, step);
        }
        while let Some(step) = self.renewal.poll_step() {
            any = true;
            self.perform_renewal(now, step);
        }
        self.tell_rest(now);
        let due = [
            self.supervisor.poll_timeout(),
            self.renewal
                .poll_timeout()
                .filter(|_| self.stopping.is_none()),
        ];
        if let Some(at) = due.into_iter().flatten().min() {
            if self.timer.deadline() != at.into() {
                self.timer.as_mut().reset(at.into());
            }
            any |= self.timer.as_mut().poll(cx).is_ready();
        }
        any
    }

    fn perform(&mut self, now: Instant, step: SupervisorStep) {
        match step {
            SupervisorStep::Resolve { gateway, host, .. } => {
                let (own, resolver) = (self.own.clone(), self.gateway_names.clone());
                // A round does not wait for what an earlier one has asked in vain.
                resolver.begin_anew();
                tokio::spawn(async move {
                    let answer = resolver.resolve(&host).await;
                    own.push_or_stop(AgentInput::Resolved(gateway, answer));
                });
            }
            SupervisorStep::Connect {
                dial,
                addr,
                server_name,
                credentials,
                ..
            } => {
                let wish = Wish {
                    dial,
                    addr,
                    server_name,
                    credentials,
                };
                self.reading.insert(dial);
                wish.read(self.reads.clone(), self.own.clone());
            }
            SupervisorStep::Close { dial } => self.close(now, dial),
            SupervisorStep::Drain { dial } => {
                self.command(dial, Command::Role(AgentCommand::Drain));
            }
            SupervisorStep::Adopt => self.adopt(),
            SupervisorStep::Discard => self.discard(),
            SupervisorStep::Revert => self.revert(),
            SupervisorStep::Up { dial, .. } => {
                let gateway = self.dials.get(&dial).map(|(_, addr)| *addr);
                self.source = gateway.and_then(source_towards);
                tracing::info!(
                    gateway = gateway.map(tracing::field::display),
                    "connected to the gateway"
                );
                self.status.send_modify(|status| {
                    status.connected = gateway;
                    status.since = Some(SystemTime::now());
                    status.last_error = None;
                });
                // With a former pair nothing is renewed before it has proved itself.
                if !self.supervisor.is_renewing() {
                    self.renewal.handle_up(now, self.unix_s());
                }
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

    fn close(&mut self, now: Instant, dial: DialId) {
        if self.reading.remove(&dial) {
            let why = LossKind::from(&Closed::Local);
            return self.supervisor.handle_closed(now, dial, why);
        }
        let command = match self.stopping {
            Some(how) => how(CloseReason::AgentStopping),
            None => Command::Close(CloseReason::Redundant),
        };
        self.command(dial, command);
    }

    /// One that has ended needs no command.
    pub(super) fn command(&self, dial: DialId, command: Command<AgentCommand>) {
        let conn = self.dials.get(&dial).map(|(conn, _)| *conn);
        if let Some(sender) = conn.and_then(|conn| self.receive.sender(conn)) {
            sender.commands.push_or_stop(command);
        }
    }

    pub(super) fn connect(
        &mut self,
        now: Instant,
        wish: &Wish,
        tls: AgentTls,
    ) -> Result<(), (LossKind, String)> {
        let (dial, addr) = (wish.dial, wish.addr);
        let core = CoreConfig {
            tls: Arc::new(tls),
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
        let connect =
            self.receive
                .endpoint
                .connect(now, &core, remote, &wish.server_name, &self.env);
        let conn = connect.map_err(|error| {
            let why = match &error {
                ConnectError::Tls(_) => LossKind::PairUnusable,
                ConnectError::Routes(_) | ConnectError::Target(_) | _ => LossKind::LocalError,
            };
            (why, error.to_string())
        })?;
        let (sender, queues) = connection_queues();
        let role = GatewayConnection::new(
            dial,
            (Arc::clone(&self.policy), self.target_names.clone()),
            self.own.clone(),
            sender.clone(),
            Arc::clone(&self.sessions),
        );
        self.dials.insert(dial, (conn.id(), addr));
        self.last_dialled = Some(addr);
        self.sources = sources(self.last_dialled);
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
            any |= this.run_machines(cx);
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
