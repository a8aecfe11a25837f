//! An agent process: its enrolment, its routes, the driver, and what its operator asks of it.

mod driver;
mod routes;
mod status;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use adit_io_common::{
    agent::{AdvertiserConfig, AgentConfig as DriverConfig, StartError, Status},
    clock::system_env,
};
use adit_proto_core::{
    route::{DomainRoute, RouteSet},
    target::Target,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::driver::AgentDriver;
use super::{reading::Reading, signals::Signals};
use crate::{
    admin::{AdminListener, AgentBackend, AgentOrder, AgentStatus, Backend},
    config::{AgentConfig, ConfigError, agent_socket},
    enroll::{
        files::{AgentFiles, FilesError},
        renewal::AgentPairs,
    },
    exit::{Code, CommandFailure},
    state::StateDir,
};

/// A running agent.
pub struct AgentProcess {
    agent: AgentDriver,
    config: AgentConfig,
    dir: StateDir,
    /// What is advertised, for the status.
    routes: watch::Sender<Vec<String>>,
    /// A domain that was detected.
    detected: Option<DomainRoute>,
    reading: Reading,
    orders: mpsc::Receiver<AgentOrder>,
    services: JoinSet<()>,
}

/// Reads the configuration again.
pub type ConfigSource = Arc<dyn Fn() -> Result<AgentConfig, ConfigError> + Send + Sync>;

impl std::fmt::Debug for AgentProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentProcess").finish_non_exhaustive()
    }
}

impl AgentProcess {
    /// Starts an agent that is enrolled. Needs a tokio runtime, which carries all of it.
    ///
    /// # Errors
    /// What is unusable, and what to do.
    pub fn start(config: &AgentConfig) -> Result<Self, CommandFailure> {
        let dir = StateDir::open_existing(&config.state_dir).map_err(failure)?;
        dir.sweep();
        AgentFiles::finish_enrolment(&dir).map_err(failure)?;
        AgentFiles::replace_damaged_pair(&dir).map_err(failure)?;
        let files = AgentFiles::load(&dir).map_err(failure)?;
        let gateways = gateways(config, &files)?;
        let routes = advertised(config, &dir).map_err(failure)?;
        remark(config, &routes);
        let detected = detected(&routes);
        let socket = AdminListener::bind(&agent_socket(&config.state_dir)).map_err(failure)?;
        // The key of resets need not survive: a restarted agent has another port.
        let env = system_env(None)?;
        let routes = Arc::new(routes);
        let own = status::Identity {
            id: files.id.0,
            name: files.name.clone(),
            gateways: gateways.iter().map(ToString::to_string).collect(),
            dir: dir.clone(),
        };
        let agent = AgentDriver::start(
            config.driver,
            DriverConfig {
                gateways,
                pairs: Arc::new(AgentPairs::new(dir.clone())),
                routes: Arc::clone(&routes),
                restrictions: config.restrictions.clone(),
                intervals: AdvertiserConfig {
                    advertise_interval: config.heartbeat.routes_interval,
                    heartbeat_interval: config.heartbeat.interval,
                },
                unread: u64::from(config.unread.get()) << 20,
            },
            env,
        )
        .map_err(|error| match error {
            StartError::Unusable(text) => CommandFailure::message(Code::Failure, text),
            error @ (StartError::Io(_) | StartError::Gateways(_)) => failure(error),
        })?;
        tracing::info!(agent = %files.id, name = %files.name, routes = routes.len(), "agent running");
        let mut services = JoinSet::new();
        let (publish, status) = watch::channel(AgentStatus::default());
        let (shown, routes) = watch::channel(routes::shown(&routes));
        let (order, orders) = mpsc::channel(ORDERS_MAX);
        let backend = AgentBackend { status, order };
        services.spawn(socket.serve(Backend::Agent(backend)));
        services.spawn(status::report(
            agent.status(),
            agent.handle().sessions(),
            routes,
            publish,
            own,
        ));
        Ok(Self {
            agent,
            config: config.clone(),
            dir,
            routes: shown,
            detected,
            reading: Reading::default(),
            orders,
            services,
        })
    }

    /// How the connection is, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.agent.status()
    }

    /// Runs until a signal asks for the end. The first one withdraws the routes, so that new sessions go elsewhere, and
    /// lets those that are open end for the grace period; a second one ends at once. SIGHUP has the configuration read
    /// again, and so has a connection that comes after one was lost.
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
        let (mut status, mut was_up, mut was_lost) = (self.agent.status(), false, false);
        loop {
            tokio::select! {
                () = signals.next() => break,
                () = hangup.next() => {
                    // Told in the log.
                    let _outcome = self.reload(&source).await;
                }
                Ok(()) = status.changed() => {
                    let is_up = status.borrow_and_update().connected.is_some();
                    was_lost |= was_up && !is_up;
                    was_up = is_up;
                    // Only now has the network that it comes over told what it has to tell.
                    if is_up && std::mem::take(&mut was_lost) {
                        self.refresh(&source).await;
                    }
                }
                Some(order) = self.orders.recv() => self.take(order, &source).await,
                why = self.agent.failed() => {
                    return Err(CommandFailure::message(Code::Failure, format!("the agent failed: {why}")));
                }
            }
        }
        tracing::info!(
            grace_s = self.config.grace.as_secs(),
            "stopping: routes withdrawn; a second signal ends at once"
        );
        self.agent.handle().withdraw();
        let (sessions, grace) = (self.agent.handle().sessions(), self.config.grace);
        let ended = async {
            let mut tick = tokio::time::interval(TICK);
            while sessions.load(Ordering::Relaxed) > 0 {
                tick.tick().await;
            }
            // What they have sent may still be under way.
            if status.borrow().connected.is_some() {
                self.agent.farewell().await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(grace) => tracing::warn!("grace period over; cutting the sessions left"),
            () = signals.next() => tracing::warn!("second signal; cutting the sessions left"),
        }
        self.stop().await;
        Ok(())
    }

    /// Does what the operator asks for over the socket.
    async fn take(&mut self, order: AgentOrder, source: &ConfigSource) {
        // Whoever asked may have gone; what was asked for is done.
        match order {
            AgentOrder::Reload(reply) => drop(reply.send(self.reload(source).await)),
            AgentOrder::Renew(reply) => {
                let begun = self.agent.handle().renew().await;
                let _gone = reply.send(begun.unwrap_or(false));
            }
        }
    }

    /// Takes a changed configuration over; one that is bad changes nothing. Sessions are not touched.
    async fn reload(&mut self, source: &ConfigSource) -> Result<Vec<String>, String> {
        let outcome = self.try_reload(source).await;
        match &outcome {
            Ok(restart) => {
                for key in restart {
                    tracing::warn!(key, "this change takes effect when the agent is restarted");
                }
                tracing::info!(
                    routes = self.routes.borrow().len(),
                    "configuration reloaded"
                );
            }
            Err(error) => {
                tracing::error!(%error, "configuration not reloaded; the former one stays in force");
            }
        }
        outcome
    }

    /// The connection is another one than before, perhaps over another network: a domain that is detected may be another
    /// one, too. Nothing is said where nothing has changed.
    async fn refresh(&mut self, source: &ConfigSource) {
        let now = |process: &Self| (process.routes.borrow().clone(), process.config.clone());
        let before = now(self);
        match self.try_reload(source).await {
            Ok(_) if now(self) == before => {}
            Ok(_) => tracing::info!(
                routes = self.routes.borrow().len(),
                "configuration read again, as the connection was lost"
            ),
            Err(error) => {
                tracing::error!(%error, "configuration not read again, as the connection was lost; the former one stays in force");
            }
        }
    }

    async fn try_reload(&mut self, source: &ConfigSource) -> Result<Vec<String>, String> {
        let (source, dir) = (Arc::clone(source), self.dir.clone());
        let read = move || {
            let config = source().map_err(|error| error.to_string())?;
            let routes = advertised(&config, &dir).map_err(|error| error.to_string())?;
            Ok((config, routes))
        };
        let (config, mut routes) = self.reading.run(read).await?;
        // A network that names no domain takes none away: it may only be about to come up.
        if config.detect_domain && routes.domains.is_empty() {
            routes.domains.extend(self.detected.clone());
        }
        let shown = routes::shown(&routes);
        if *self.routes.borrow() != shown {
            remark(&config, &routes);
        }
        self.detected = detected(&routes);
        let taken = self.agent.handle().reload(routes, &config.restrictions);
        taken.map_err(|error| error.to_string())?;
        crate::log::set_level(&config.log.level)?;
        let restart = restart_only(&self.config, &config);
        self.routes.send_replace(shown);
        self.config = AgentConfig {
            advertise: config.advertise,
            detect_domain: config.detect_domain,
            restrictions: config.restrictions,
            grace: config.grace,
            ..self.config.clone()
        };
        Ok(restart.into_iter().map(str::to_owned).collect())
    }

    /// Ends now: the gateway is told, sessions are cut.
    pub async fn stop(mut self) {
        self.services.abort_all();
        self.agent.stop(CLOSE_PATIENCE).await;
        tracing::info!("agent stopped");
    }
}

fn gateways(config: &AgentConfig, files: &AgentFiles) -> Result<Vec<Target>, CommandFailure> {
    if !config.endpoints.is_empty() {
        return Ok(config.endpoints.clone());
    }
    let parse = |text: &String| {
        text.parse::<Target>().map_err(|error| {
            CommandFailure::message(Code::Failure, format!("gateway address {text:?}: {error}"))
        })
    };
    files.quic_endpoints.iter().map(parse).collect()
}

fn advertised(config: &AgentConfig, dir: &StateDir) -> Result<RouteSet, FilesError> {
    routes::advertised(config, dir, Path::new(RESOLVER_FILE))
}

fn detected(routes: &RouteSet) -> Option<DomainRoute> {
    routes.domains.iter().find(|d| d.auto_detected).cloned()
}

/// Has a word on what cannot work, and on what was found.
fn remark(config: &AgentConfig, routes: &RouteSet) {
    match detected(routes) {
        Some(domain) => {
            tracing::info!(domain = %domain.pattern, "advertising the domain that this machine searches");
        }
        None if config.detect_domain && routes.domains.is_empty() => tracing::warn!(
            file = RESOLVER_FILE,
            "no domain of two labels or more is searched by this machine; name one in [advertise]"
        ),
        None => {}
    }
    if routes.is_empty() {
        tracing::warn!(
            "nothing is advertised, so no session will come: set [advertise] or use `agent up --advertise`"
        );
    }
    for net in &routes.subnets {
        if net.network().is_ipv6() {
            tracing::warn!(%net, "the protocol cannot carry IPv6 subnets; only names reach IPv6 targets");
        }
    }
}

/// Keys that differ and that only a start looks at.
fn restart_only(now: &AgentConfig, new: &AgentConfig) -> Vec<&'static str> {
    let keys = [
        ("state_dir", now.state_dir == new.state_dir),
        ("driver", now.driver == new.driver),
        ("heartbeat", now.heartbeat == new.heartbeat),
        ("limits", now.unread == new.unread),
        ("gateway.endpoints", now.endpoints == new.endpoints),
        ("log.format", now.log.format == new.log.format),
    ];
    let changed = keys.into_iter().filter(|(_, same)| !same);
    changed.map(|(key, _)| key).collect()
}

fn failure(error: impl std::error::Error + Send + Sync + 'static) -> CommandFailure {
    CommandFailure::new(Code::Failure, error)
}

/// Time for the farewell to leave.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// How often a stopping agent looks whether sessions are left.
const TICK: Duration = Duration::from_millis(100);
/// Orders from the socket that wait.
const ORDERS_MAX: usize = 16;
const RESOLVER_FILE: &str = "/etc/resolv.conf";
