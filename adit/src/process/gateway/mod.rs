//! A gateway process: state folder, CA, store, tunnel, enrolment, ingress and administration.

mod certificates;
mod driver;
mod http;
mod orders;
mod peers;
mod reload;
mod tokens;
mod tunnel;

use std::{
    fmt,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use adit_io_common::{
    clock::system_env,
    gateway::{GatewayHandle, StartError},
};
use adit_proto_core::{
    env::EndpointSecrets,
    target::{Host, Target},
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

pub use self::reload::ConfigSource;
use self::{
    certificates::{CHECK_INTERVAL, Certificates, Shown},
    peers::Peers,
    reload::Reloadable,
    tunnel::Tunnel,
};
use super::{journal::ProcessJournal, signals::Signals, unix_now};
use crate::{
    admin::{AdminBackend, AdminListener, GatewayOrder, TokenMaker},
    config::{EnrollTls, GatewayConfig, admin_socket},
    control::Control,
    enroll::listener::{ListenError, ListenerTls, OperatorCert},
    exit::{Code, CommandFailure},
    http::{
        HttpCounters,
        health::{Condition, Health},
    },
    ingress::{self, IngressListener, websocket::WebSockets},
    live::Live,
    pki::{EndpointKeys, ca::Ca, names::ServerNames},
    state::{StateDir, StateLock},
    store::Store,
    token::TokenKey,
};

/// What a gateway has on disk, opened.
pub struct GatewayState {
    dir: StateDir,
    names: ServerNames,
    ca: Arc<Live<Ca>>,
    tokens: Arc<TokenKey>,
    store: Store,
    shown: Shown,
    keys: EndpointKeys,
    /// No other gateway uses the folder while this lives.
    _lock: StateLock,
}

/// A running gateway.
pub struct GatewayProcess {
    peers: Peers,
    gateway: Tunnel,
    /// Behind the tunnel: fields are dropped in their order, whichever way the process ends.
    journal: ProcessJournal,
    /// Ends with the process: enrolment, ingress, administration.
    services: JoinSet<()>,
    /// Listeners that stop first.
    doors: Vec<AbortHandle>,
    health: Health,
    tokens: TokenMaker,
    control: Control,
    ingress: Vec<(Box<str>, SocketAddr)>,
    websockets: Option<WebSockets>,
    enroll: SocketAddr,
    orders: mpsc::Receiver<GatewayOrder>,
    reloadable: Reloadable,
    /// What the HTTP listener shows, where the operator supplies it.
    operator_tls: LiveTls,
    certificates: Certificates,
    _state: GatewayState,
}

impl fmt::Debug for GatewayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayState").finish_non_exhaustive()
    }
}

impl GatewayState {
    /// Opens the state folder and makes what is missing in it.
    ///
    /// # Errors
    /// What is unusable, and what to do.
    pub fn open(config: &GatewayConfig) -> Result<Self, CommandFailure> {
        let now = unix_now();
        let dir = StateDir::open(&config.state_dir).map_err(failure)?;
        let lock = dir.lock().map_err(failure)?;
        let names = ServerNames::parse(config.tunnel.names.iter().map(ToString::to_string))
            .map_err(config_failure)?;
        let gateway_id = config.provisioner.gateway_id;
        let ca = Ca::open(&dir, now).map_err(failure)?;
        Ok(Self {
            shown: Shown::open(&dir, &ca, &names, now).map_err(failure)?,
            keys: EndpointKeys::open(&dir).map_err(failure)?,
            tokens: Arc::new(TokenKey::open(&dir, gateway_id).map_err(failure)?),
            store: Store::open(&dir).map_err(failure)?,
            ca: Arc::new(Live::new(ca)),
            names,
            dir,
            _lock: lock,
        })
    }

    /// Pin of the tunnel's key: SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn tunnel_pin(&self) -> [u8; 32] {
        self.shown.tunnel.spki_sha256()
    }
}

impl fmt::Debug for GatewayProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayProcess").finish_non_exhaustive()
    }
}

impl GatewayProcess {
    /// Binds every listener, then starts. Needs a tokio runtime; it carries what is not a shard's.
    ///
    /// # Errors
    /// What is unusable or in use, and what to do.
    pub fn start(config: &GatewayConfig) -> Result<Self, CommandFailure> {
        let state = GatewayState::open(config)?;
        let admin = AdminListener::bind(&admin_socket(&config.state_dir)).map_err(failure)?;
        let doors = bind_doors(config)?;
        let enroll = bind_tcp("enroll", config.enroll.listen)?;
        let metrics = bind_metrics(config)?;
        let enroll_addr = enroll.local_addr()?;
        let https = https(config, &state)?;
        let counters = Arc::<HttpCounters>::default();
        let listeners = http::Listeners::default();
        let watch = driver::Watch::new(&state, Arc::clone(&counters));
        let (gateway, journal) = start_tunnel(config, &state, &watch)?;
        let endpoint = public_endpoint(config, gateway.local_addr())?;
        let strings = tokens::maker(&state, enroll_url(config, enroll_addr, &https), https.pin());
        let tokens = http::verifier(config, &state);
        let mut services = JoinSet::new();
        services.spawn(state.store.watch());
        let tls = live_tls(config, enroll_addr, &https)?;
        let (own, operator_tls) = by_owner(config, &tls);
        let certificates = Certificates::new(&state, &watch, gateway.handle(), own);
        let control = Control::new(state.store.clone(), gateway.handle());
        let health = Health::new(state.store.clone());
        let peers = Peers::start(config, &state, gateway.handle())?;
        let served = http::Served {
            config,
            tokens: Arc::clone(&tokens),
            state: &state,
            watch,
            health: &health,
            control: &control,
            counters: Arc::clone(&counters),
            listeners: listeners.clone(),
            peers: &peers,
        };
        let websockets = served.websockets();
        let public = served.public(&endpoint.to_string(), websockets.as_ref());
        let at = Arc::clone(&listeners.enrolment);
        services.spawn(http::serve("enrolment", enroll, tls, public, at));
        if let Some(metrics) = metrics {
            let watch = served.watch(&doors, websockets.as_ref());
            http::serve_metrics(&mut services, metrics, watch, &listeners)?;
        }
        let (order, orders) = mpsc::channel(ORDERS_MAX);
        services.spawn(admin.serve(AdminBackend {
            control: control.clone(),
            tokens: Arc::clone(&strings),
            peers: peers.lister(),
            order,
            health: health.clone(),
            usage: served.usage(&doors, websockets.as_ref()),
        }));
        let mut process = Self {
            services,
            doors: Vec::new(),
            health,
            tokens: strings,
            control,
            ingress: Vec::new(),
            enroll: enroll_addr,
            orders,
            reloadable: Reloadable::new(config, tokens, counters, &doors, websockets.clone()),
            websockets,
            operator_tls,
            certificates,
            _state: state,
            peers,
            gateway,
            journal,
        };
        process.open(doors, &endpoint)?;
        Ok(process)
    }

    /// Lets users in, and takes down from here on what happens.
    fn open(
        &mut self,
        doors: Vec<IngressListener>,
        endpoint: &impl fmt::Display,
    ) -> Result<(), CommandFailure> {
        for door in doors {
            let addr = door.local_addr()?;
            tracing::info!(ingress = %door.name(), %addr, "ingress open");
            self.ingress.push((door.name().into(), addr));
            let task = self.services.spawn(door.serve(self.gateway.handle()));
            self.doors.push(task);
        }
        self.health.set(Condition::Ready);
        self.journal.start()?;
        let (tunnel, enroll) = (self.gateway.local_addr(), self.enroll);
        tracing::info!(%tunnel, %endpoint, %enroll, "gateway running");
        Ok(())
    }

    /// Makes enrolment strings.
    #[must_use]
    pub fn tokens(&self) -> TokenMaker {
        Arc::clone(&self.tokens)
    }

    /// The way in for operators.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The way in for users.
    #[must_use]
    pub fn handle(&self) -> GatewayHandle {
        self.gateway.handle()
    }

    /// Address of an ingress by its name, as it is bound.
    #[must_use]
    pub fn ingress(&self, name: &str) -> Option<SocketAddr> {
        self.ingress
            .iter()
            .find(|(known, _)| &**known == name)
            .map(|(_, addr)| *addr)
    }

    /// Address of the enrolment listener, as it is bound.
    #[must_use]
    pub fn enroll(&self) -> SocketAddr {
        self.enroll
    }

    /// Runs until a signal asks for the end. The first one stops taking users and lets sessions end for the grace
    /// period; a second one ends at once. SIGHUP has the configuration read again.
    ///
    /// # Errors
    /// When what carries the traffic has failed.
    pub async fn run(
        mut self,
        signals: Signals,
        source: ConfigSource,
    ) -> Result<(), CommandFailure> {
        let Signals {
            stop: mut signals,
            reload: mut hangup,
        } = signals;
        let mut due = tokio::time::interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                () = signals.next() => break,
                () = hangup.next() => {
                    // Told in the log.
                    let _outcome = self.reload(&source).await;
                }
                Some(order) = self.orders.recv() => self.take(order, &source).await,
                _ = due.tick() => self.check_certificates().await,
                why = self.gateway.failed() => {
                    return Err(CommandFailure::message(Code::Failure, format!("the tunnel failed: {why}")));
                }
                why = self.peers.failed() => {
                    return Err(CommandFailure::message(Code::Failure, format!("the connections to peers failed: {why}")));
                }
            }
        }
        // Whoever waits for an answer is told that there will be none.
        self.orders.close();
        while self.orders.try_recv().is_ok() {}
        self.health.set(Condition::Stopping);
        tracing::info!(
            grace_s = self.reloadable.config.grace.as_secs(),
            "stopping: no new users; a second signal ends at once"
        );
        for door in &self.doors {
            door.abort();
        }
        self.peers.leave();
        let grace = self.reloadable.config.grace;
        let ended = async {
            self.sessions_ended().await;
            // What they have sent may still be under way.
            self.gateway.farewell().await;
        };
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(grace) => tracing::warn!("grace period over; cutting the sessions left"),
            () = signals.next() => tracing::warn!("second signal; cutting the sessions left"),
        }
        self.stop().await;
        Ok(())
    }

    /// Ends now: agents are told, sessions are cut.
    pub async fn stop(mut self) {
        self.services.abort_all();
        // Its sessions end first, so that peers are told how.
        self.gateway.stop(CLOSE_PATIENCE).await;
        self.peers.stop(CLOSE_PATIENCE).await;
        let told = async {
            let mut tick = tokio::time::interval(DRAIN_TICK);
            while is_busy(self.websockets.as_ref()) {
                tick.tick().await;
            }
        };
        // Late: those users do not listen.
        let _told = tokio::time::timeout(CLOSE_PATIENCE, told).await;
        // It waits for the disk, not for long, which is all that is left to do.
        drop(self.journal);
        tracing::info!("gateway stopped");
    }

    async fn sessions_ended(&self) {
        let handle = self.gateway.handle();
        let mut tick = tokio::time::interval(DRAIN_TICK);
        while handle.is_busy().await.unwrap_or(false) || is_busy(self.websockets.as_ref()) {
            tick.tick().await;
        }
    }
}

fn is_busy(websockets: Option<&WebSockets>) -> bool {
    websockets.is_some_and(WebSockets::is_busy)
}

fn bind_metrics(config: &GatewayConfig) -> Result<Option<TcpListener>, CommandFailure> {
    let listen = config.metrics.listen;
    listen.map(|at| bind_tcp("metrics", at)).transpose()
}

fn bind_doors(config: &GatewayConfig) -> Result<Vec<IngressListener>, CommandFailure> {
    let doors = ingress::configs(config).into_iter();
    let bound: Result<_, _> = doors.map(IngressListener::bind).collect();
    bound.map_err(failure)
}

fn start_tunnel(
    config: &GatewayConfig,
    state: &GatewayState,
    watch: &driver::Watch,
) -> Result<(Tunnel, ProcessJournal), CommandFailure> {
    let env = system_env(Some(EndpointSecrets::new(
        *state.keys.reset_key,
        *state.keys.address_token_key,
    )))?;
    let asked = config.journal.as_ref();
    let (written, journal) = ProcessJournal::begin(asked, "gateway", config.driver, &env);
    let driver = driver::config(config, state, watch, journal);
    let started = Tunnel::start(config.driver, driver, &env);
    let started = started.map_err(|error| match error {
        StartError::Io(error) => CommandFailure::message(
            Code::Failure,
            format!(
                "tunnel: cannot listen on UDP {}: {error}",
                config.tunnel.listen
            ),
        ),
        StartError::Tls(error) => failure(error),
    });
    Ok((started?, written))
}

fn https(config: &GatewayConfig, state: &GatewayState) -> Result<ListenerTls, CommandFailure> {
    Ok(match &config.enroll.tls {
        EnrollTls::Own => ListenerTls::Own(state.shown.https.clone()),
        EnrollTls::Operator { cert, key } => {
            ListenerTls::Operator(OperatorCert::read(cert, key).map_err(config_failure)?)
        }
        EnrollTls::PlainHttp => ListenerTls::Plain,
    })
}

/// What the HTTP listener shows, to be exchanged while it does; none without TLS.
fn live_tls(
    config: &GatewayConfig,
    bound: SocketAddr,
    https: &ListenerTls,
) -> Result<LiveTls, CommandFailure> {
    let insecure = config.enroll.tls == EnrollTls::PlainHttp;
    let tls = https
        .server_config(bound, insecure)
        .map_err(config_failure)?;
    Ok(tls.map(|config| Arc::new(Live::new(config))))
}

type LiveTls = Option<Arc<Live<rustls::ServerConfig>>>;

/// Gives what the HTTP listener shows to who exchanges it: a certificate of ours, or else the operator's.
fn by_owner(config: &GatewayConfig, shown: &LiveTls) -> (LiveTls, LiveTls) {
    match config.enroll.tls {
        EnrollTls::Own => (shown.clone(), None),
        EnrollTls::Operator { .. } => (None, shown.clone()),
        EnrollTls::PlainHttp => (None, None),
    }
}

/// What the HTTP listener is to show, where the operator supplies it.
fn operator_tls(config: &GatewayConfig) -> Result<Option<rustls::ServerConfig>, ListenError> {
    match &config.enroll.tls {
        EnrollTls::Operator { cert, key } => OperatorCert::read(cert, key)?.config().map(Some),
        EnrollTls::Own | EnrollTls::PlainHttp => Ok(None),
    }
}

/// What agents are told to connect to; its host stands in the tunnel's certificate, as the configuration's reader has seen.
fn public_endpoint(config: &GatewayConfig, bound: SocketAddr) -> Result<Target, CommandFailure> {
    let first = config.tunnel.names.first().cloned();
    match (&config.tunnel.public_endpoint, first) {
        (Some(endpoint), _) => Ok(endpoint.clone()),
        (None, Some(host)) => Ok(Target {
            host,
            port: bound.port(),
        }),
        (None, None) => Err(CommandFailure::message(
            Code::Config,
            "tunnel.names: at least one name is needed",
        )),
    }
}

fn enroll_url(config: &GatewayConfig, bound: SocketAddr, https: &ListenerTls) -> String {
    config.enroll.url.clone().unwrap_or_else(|| {
        let scheme = if matches!(https, ListenerTls::Plain) {
            "http"
        } else {
            "https"
        };
        let host = config.tunnel.names.first().map_or_else(
            || bound.ip().to_string(),
            |host| match host {
                Host::Ip(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
                Host::Ip(_) | Host::Name(_) => host.to_string(),
            },
        );
        format!("{scheme}://{host}:{}", bound.port())
    })
}

fn bind_tcp(what: &str, addr: SocketAddr) -> Result<TcpListener, CommandFailure> {
    TcpListener::bind(addr).map_err(|error| {
        CommandFailure::message(
            Code::Failure,
            format!("{what}: cannot listen on TCP {addr}: {error}"),
        )
    })
}

fn failure(error: impl std::error::Error + Send + Sync + 'static) -> CommandFailure {
    CommandFailure::new(Code::Failure, error)
}

fn config_failure(error: impl std::error::Error + Send + Sync + 'static) -> CommandFailure {
    CommandFailure::new(Code::Config, error)
}

/// Orders from the socket that wait.
const ORDERS_MAX: usize = 16;
/// Time for the farewells to leave.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// How often a stopping gateway looks whether sessions are left.
const DRAIN_TICK: Duration = Duration::from_millis(100);
