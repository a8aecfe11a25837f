//! The agent, all but its sockets: performs what the core's machines ask for, and reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Instant, SystemTime},
};

use adit_proto_core::{
    agent::{
        dial::ResolveError,
        policy::Policy,
        renewal::Renewal,
        role::check_routes,
        supervisor::{Credentials, DialId, GatewayIndex, LossKind, Supervisor, SupervisorStep},
    },
    close::{CloseReason, Closed},
    endpoint::{AgentConfig as CoreConfig, ConnectError, Endpoint, EndpointLimits},
    env::Env,
    id::ConnId,
    link::tls::AgentTls,
    route::RouteSet,
};

use super::{
    AgentConfig, AgentInput, StartError, Status,
    attempt::Wish,
    files::Files,
    role::{AgentCommand, RoleParts},
    sources::{Sources, source_towards, sources},
};
use crate::{
    commands::Command,
    handoff::Sender,
    resolver::{GATEWAYS_MAX, Lookup, Resolver, TARGETS_MAX},
    udp::for_socket,
};

/// What an agent needs of its driver.
pub trait AgentHost {
    /// Has the endpoint begin a connection, and carries it with a role of these parts.
    ///
    /// # Errors
    /// Those of [`Endpoint::connect`].
    fn connect(
        &mut self,
        now: Instant,
        wanted: &Wanted<'_>,
        parts: RoleParts,
    ) -> Result<ConnId, ConnectError>;

    /// Gives a command to a connection; one that has ended needs none.
    fn command(&mut self, conn: ConnId, command: Command<AgentCommand>);

    /// Gives a command to every connection.
    fn command_all(&mut self, make: &dyn Fn() -> Command<AgentCommand>);

    /// Tells how the agent is.
    fn publish(&mut self, status: &Status);

    /// Ends once no connection is left.
    fn stop(&mut self);
}

/// A connection that is to be begun.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Certificates, routes and intervals.
    pub config: CoreConfig,
    /// The gateway's address, as the socket takes it.
    pub remote: SocketAddr,
    /// The name that its certificate must have.
    pub server_name: &'a str,
    /// Where randomness and clocks come from.
    pub env: &'a Env,
}

/// Keeps one connection up, and reports. After whatever was called, and when [`poll_timeout`](Self::poll_timeout) says
/// so, [`run`](Self::run) is to be called.
pub struct AgentCore {
    pub(super) config: AgentConfig,
    policy: Arc<Policy>,
    /// Names that sessions ask for; they hold up no other.
    target_names: Resolver,
    gateway_names: Resolver,
    lookups: BTreeMap<GatewayIndex, Lookup>,
    /// From where the gateway in use is reached.
    source: Option<IpAddr>,
    last_dialled: Option<SocketAddr>,
    /// From where this machine sent when it was last looked at.
    sources: Sources,
    pub(super) env: Env,
    /// The socket is an IPv6 one that also takes IPv4.
    dual_stack: bool,
    pub(super) supervisor: Supervisor,
    pub(super) renewal: Renewal,
    dials: BTreeMap<DialId, (ConnId, SocketAddr)>,
    /// Attempts whose key pair is being read.
    pub(super) reading: BTreeSet<DialId>,
    pub(super) files: Files,
    own: Sender<AgentInput>,
    pub(super) status: Status,
    published: Status,
    sessions: Arc<AtomicUsize>,
    stopping: Option<HowToStop>,
}

/// What a connection is told when the agent stops.
type HowToStop = fn(CloseReason) -> Command<AgentCommand>;

impl AgentCore {
    /// Makes an agent that begins to connect when it runs first. `local` is the address of its socket.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn new(
        now: Instant,
        config: AgentConfig,
        env: Env,
        local: SocketAddr,
        own: Sender<AgentInput>,
    ) -> Result<Self, StartError> {
        check_routes(&config.routes).map_err(|error| StartError::Unusable(error.to_string()))?;
        // Unusable files are told at once, not with the first attempt.
        drop(
            config
                .pairs
                .tls(Credentials::Current)
                .map_err(StartError::Unusable)?,
        );
        let validity = config.pairs.validity().map_err(StartError::Unusable)?;
        let kept = config.pairs.kept();
        let mut supervisor = Supervisor::new(now, config.gateways.clone(), kept, &env.seed)?;
        if let Some(journal) = &config.journal {
            supervisor.record_in(journal);
        }
        Ok(Self {
            policy: Arc::new(Policy::new(&config.routes).restricted(&config.restrictions)),
            renewal: Renewal::new(now, validity, kept.next, &env.seed),
            target_names: Resolver::new(TARGETS_MAX),
            gateway_names: Resolver::new(GATEWAYS_MAX),
            lookups: BTreeMap::new(),
            source: None,
            last_dialled: None,
            sources: sources(None),
            supervisor,
            reading: BTreeSet::new(),
            files: Files::new(Arc::clone(&config.pairs), own.clone()),
            dual_stack: local.is_ipv6(),
            config,
            env,
            dials: BTreeMap::new(),
            own,
            status: Status::default(),
            published: Status::default(),
            sessions: Arc::default(),
            stopping: None,
        })
    }

    /// The endpoint that the agent's driver is to have.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        let mut endpoint = Endpoint::agent(&self.env);
        endpoint.set_limits(EndpointLimits {
            unread: self.config.unread,
            unread_in_all: self.config.unread,
            ..EndpointLimits::default()
        });
        if let Some(journal) = &self.config.journal {
            endpoint.record_in(journal.clone());
        }
        endpoint
    }

    /// Asks about the names that sessions want.
    #[must_use]
    pub fn target_names(&self) -> Resolver {
        self.target_names.clone()
    }

    /// Counts open sessions, as they come and go.
    #[must_use]
    pub fn sessions(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.sessions)
    }

    /// Takes what has come.
    pub fn take(&mut self, now: Instant, input: AgentInput, host: &mut impl AgentHost) {
        match input {
            AgentInput::Resolved(gateway, answer) => self.resolved(now, gateway, answer),
            AgentInput::Filed(call, input) => {
                if self.files.answered(call) {
                    self.take(now, *input, host);
                }
            }
            AgentInput::Attempt(attempt) => self.attempt(now, *attempt, host),
            AgentInput::Established(dial) => self.supervisor.handle_established(now, dial),
            AgentInput::Closed(dial, why) => self.closed(now, dial, &why),
            AgentInput::Routes(routes, policy) => self.set_routes(&routes, policy, host),
            AgentInput::NetworkChanged => self.network_changed(now, host),
            AgentInput::Renewal(news) => self.take_news(now, news),
            AgentInput::Renew(reply) => {
                // Whoever asked may have gone; the renewal is wanted all the same.
                let _gone = reply.send(self.renewal.handle_wish(now));
            }
            AgentInput::Farewell => self.stop(Command::Farewell, host),
            AgentInput::Stop => self.stop(Command::Stop, host),
        }
    }

    fn stop(&mut self, how: HowToStop, host: &mut impl AgentHost) {
        self.stopping = Some(how);
        // All of them: some were told to take their time, and of those that came to nothing the supervisor knows no more.
        host.command_all(&|| how(CloseReason::AgentStopping));
        host.stop();
        self.supervisor.shutdown();
    }

    fn set_routes(
        &mut self,
        routes: &Arc<RouteSet>,
        policy: Option<Arc<Policy>>,
        host: &mut impl AgentHost,
    ) {
        self.config.routes = Arc::clone(routes);
        if let Some(policy) = &policy {
            self.policy = Arc::clone(policy);
        }
        host.command_all(&|| {
            let command = AgentCommand::Routes(Arc::clone(routes), policy.clone());
            Command::Role(command)
        });
    }

    fn resolved(
        &mut self,
        now: Instant,
        gateway: GatewayIndex,
        answer: Result<Vec<IpAddr>, ResolveError>,
    ) {
        self.lookups.remove(&gateway);
        self.supervisor.handle_resolved(now, gateway, answer);
    }

    /// A gateway that is not connected is tried at once where this machine sends from elsewhere now; most changes are of
    /// no account for it, and on some machines there are many. A connection that is up moves only where it is reached
    /// from another address: the first packet from there shows the gateway the way.
    fn network_changed(&mut self, now: Instant, host: &mut impl AgentHost) {
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
            self.command(dial, Command::Role(AgentCommand::Rebound), host);
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
        self.status.ended(was_up, why_text);
        self.supervisor
            .handle_closed(now, dial, LossKind::from(why));
        if self.supervisor.connection().is_none() {
            self.renewal.handle_down();
        }
    }

    /// When [`run`](Self::run) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let renewal = self.renewal.poll_timeout();
        let due = [
            self.supervisor.poll_timeout(),
            renewal.filter(|_| self.stopping.is_none()),
            self.files.poll_timeout(),
            self.lookups.values().filter_map(Lookup::waits_until).min(),
        ];
        due.into_iter().flatten().min()
    }

    /// Does what is due and what the machines ask for; tells whether there was anything.
    pub fn run(&mut self, now: Instant, host: &mut impl AgentHost) -> bool {
        let mut any = self.expire(now, host);
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
            self.perform(now, step, host);
        }
        while let Some(step) = self.renewal.poll_step() {
            any = true;
            self.perform_renewal(now, step, host);
        }
        self.tell_rest(now);
        if self.status != self.published {
            host.publish(&self.status);
            self.published = self.status.clone();
        }
        any
    }

    /// Gives up what has not been answered in its time.
    fn expire(&mut self, now: Instant, host: &mut impl AgentHost) -> bool {
        let mut any = false;
        while let Some(hung) = self.files.expire(now) {
            any = true;
            self.take(now, hung, host);
        }
        let is_due = |lookup: &Lookup| lookup.waits_until().is_some_and(|at| at <= now);
        let busy = |(gateway, lookup): (&GatewayIndex, &Lookup)| is_due(lookup).then_some(*gateway);
        while let Some(gateway) = self.lookups.iter().find_map(busy) {
            any = true;
            self.resolved(now, gateway, Err(ResolveError::Busy));
        }
        any
    }

    fn perform(&mut self, now: Instant, step: SupervisorStep, host: &mut impl AgentHost) {
        match step {
            SupervisorStep::Resolve {
                gateway,
                host: name,
                ..
            } => {
                // A round does not wait for what an earlier one has asked in vain.
                self.gateway_names.begin_anew();
                let own = self.own.clone();
                let lookup = self.gateway_names.resolve(&name, move |answer| {
                    own.push_or_stop(AgentInput::Resolved(gateway, answer));
                });
                self.lookups.insert(gateway, lookup);
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
                self.read_pair(now, wish);
            }
            SupervisorStep::Close { dial } => self.close(now, dial, host),
            SupervisorStep::Drain { dial } => {
                self.command(dial, Command::Role(AgentCommand::Drain), host);
            }
            SupervisorStep::Adopt => self.adopt(now),
            SupervisorStep::Discard => self.discard(now),
            SupervisorStep::Revert => self.revert(now),
            SupervisorStep::Up { dial, .. } => {
                let gateway = self.dials.get(&dial).map(|(_, addr)| *addr);
                self.source = gateway.and_then(source_towards);
                tracing::info!(
                    gateway = gateway.map(tracing::field::display),
                    "connected to the gateway"
                );
                self.status.connected = gateway;
                self.status.since = Some(SystemTime::now());
                self.status.last_error = None;
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

    fn close(&mut self, now: Instant, dial: DialId, host: &mut impl AgentHost) {
        if self.reading.remove(&dial) {
            let why = LossKind::from(&Closed::Local);
            return self.supervisor.handle_closed(now, dial, why);
        }
        let command = match self.stopping {
            Some(how) => how(CloseReason::AgentStopping),
            None => Command::Close(CloseReason::Redundant),
        };
        self.command(dial, command, host);
    }

    /// One that has ended needs no command.
    pub(super) fn command(
        &self,
        dial: DialId,
        command: Command<AgentCommand>,
        host: &mut impl AgentHost,
    ) {
        if let Some((conn, _)) = self.dials.get(&dial) {
            host.command(*conn, command);
        }
    }

    pub(super) fn connect(
        &mut self,
        now: Instant,
        wish: &Wish,
        tls: AgentTls,
        host: &mut impl AgentHost,
    ) -> Result<(), (LossKind, String)> {
        let (dial, addr) = (wish.dial, wish.addr);
        let core = CoreConfig {
            tls: Arc::new(tls),
            routes: Arc::clone(&self.config.routes),
            intervals: self.config.intervals,
        };
        let remote = for_socket(addr, self.dual_stack);
        let wanted = Wanted {
            config: core,
            remote,
            server_name: &wish.server_name,
            env: &self.env,
        };
        let parts = RoleParts {
            dial,
            policy: Arc::clone(&self.policy),
            agent: self.own.clone(),
            open: Arc::clone(&self.sessions),
        };
        let conn = host.connect(now, &wanted, parts).map_err(|error| {
            let why = match &error {
                ConnectError::Tls(_) => LossKind::PairUnusable,
                ConnectError::Routes(_) | ConnectError::Target(_) | _ => LossKind::LocalError,
            };
            (why, error.to_string())
        })?;
        self.dials.insert(dial, (conn, addr));
        self.last_dialled = Some(addr);
        self.sources = sources(self.last_dialled);
        Ok(())
    }
}

impl fmt::Debug for AgentCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = self.sessions.load(Ordering::Relaxed);
        f.debug_struct("AgentCore")
            .field("sessions", &sessions)
            .finish_non_exhaustive()
    }
}
