//! An agent process: its enrolment, its routes, the driver, and its status for `agent status`.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, UNIX_EPOCH},
};

use adit_io_tokio::{
    agent::{AdvertiserConfig, Agent, AgentConfig as DriverConfig, StartError},
    system_env,
};
use adit_proto_core::{link::tls::AgentTls, route::RouteSet, target::Target};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{sync::watch, task::JoinSet};
use zeroize::Zeroizing;

use super::signals::StopSignals;
use crate::{
    admin::{AdminListener, AgentStatus, Backend},
    config::{AgentConfig, agent_socket},
    enroll::{files::AgentFiles, routes::stored_routes},
    exit::{Code, CommandFailure},
    state::StateDir,
};

/// A running agent.
pub struct AgentProcess {
    agent: Agent,
    services: JoinSet<()>,
    grace: Duration,
}

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
        let files = AgentFiles::load(&dir).map_err(failure)?;
        let gateways = gateways(config, &files)?;
        let routes = routes(config, &dir)?;
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
        let socket = AdminListener::bind(&agent_socket(&config.state_dir)).map_err(failure)?;
        // The key of resets need not survive: a restarted agent has another port.
        let env = system_env(None)?;
        let routes = Arc::new(routes);
        let agent = Agent::start(
            DriverConfig {
                gateways,
                tls: Box::new(move || read_tls(&dir)),
                routes: Arc::clone(&routes),
                intervals: AdvertiserConfig {
                    advertise_interval: config.heartbeat.routes_interval,
                    heartbeat_interval: config.heartbeat.interval,
                },
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
        services.spawn(socket.serve(Backend::Agent(status)));
        services.spawn(report(agent.status(), agent.sessions(), routes, publish));
        Ok(Self {
            agent,
            services,
            grace: config.grace,
        })
    }

    /// How the connection is, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<adit_io_tokio::agent::Status> {
        self.agent.status()
    }

    /// Runs until a signal asks for the end. The first one withdraws the routes, so that new sessions go elsewhere, and
    /// lets those that are open end for the grace period; a second one ends at once.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub async fn run(mut self) -> Result<(), CommandFailure> {
        let mut signals = StopSignals::listen()?;
        tokio::select! {
            () = signals.next() => {}
            why = self.agent.failed() => {
                return Err(CommandFailure::message(Code::Failure, format!("the agent failed: {why}")));
            }
        }
        tracing::info!(
            grace_s = self.grace.as_secs(),
            "stopping: routes withdrawn; a second signal ends at once"
        );
        self.agent.withdraw();
        let sessions = self.agent.sessions();
        let ended = async {
            let mut tick = tokio::time::interval(TICK);
            while sessions.load(Ordering::Relaxed) > 0 {
                tick.tick().await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(self.grace) => tracing::warn!("grace period over; cutting the sessions left"),
            () = signals.next() => tracing::warn!("second signal; cutting the sessions left"),
        }
        self.stop().await;
        Ok(())
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

/// What the configuration says, else what `agent up` was given.
fn routes(config: &AgentConfig, dir: &StateDir) -> Result<RouteSet, CommandFailure> {
    if !config.advertise.is_empty() {
        return Ok(config.advertise.clone());
    }
    Ok(stored_routes(dir).map_err(failure)?.unwrap_or_default())
}

/// Certificate files are read again for each attempt (agent-tunnel 13).
fn read_tls(dir: &StateDir) -> Result<AgentTls, String> {
    let files = AgentFiles::load(dir).map_err(|error| error.to_string())?;
    let certs = |pem: &str| -> Result<Vec<Vec<u8>>, String> {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .map(|der| {
                der.map(|der| der.to_vec())
                    .map_err(|error| error.to_string())
            })
            .collect()
    };
    let key = PrivateKeyDer::from_pem_slice(files.key_pem.as_bytes())
        .map_err(|error| error.to_string())?;
    Ok(AgentTls {
        cert_chain: certs(&files.cert_pem)?,
        key: Zeroizing::new(key.secret_der().to_vec()),
        gateway_roots: certs(&files.ca_pem)?,
        gateway_pin: Some(files.server_spki_sha256),
    })
}

/// Keeps what `agent status` answers up to date.
async fn report(
    mut driver: watch::Receiver<adit_io_tokio::agent::Status>,
    sessions: Arc<std::sync::atomic::AtomicUsize>,
    routes: Arc<RouteSet>,
    publish: watch::Sender<AgentStatus>,
) {
    let subnets = routes.subnets.iter().map(ToString::to_string);
    let domains = routes.domains.iter().map(|route| route.pattern.to_string());
    let routes: Vec<String> = subnets.chain(domains).collect();
    let mut tick = tokio::time::interval(STATUS_TICK);
    loop {
        let now = driver.borrow_and_update().clone();
        let since = now
            .since
            .and_then(|since| since.duration_since(UNIX_EPOCH).ok());
        publish.send_replace(AgentStatus {
            connected: now.connected.is_some(),
            gateway: now.connected,
            since_unix_s: since.map(|since| since.as_secs()),
            sessions: sessions.load(Ordering::Relaxed),
            routes: routes.clone(),
            last_error: now.last_error,
        });
        tokio::select! {
            changed = driver.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
        }
    }
}

fn failure(error: impl std::error::Error + Send + Sync + 'static) -> CommandFailure {
    CommandFailure::new(Code::Failure, error)
}

/// Time for the farewell to leave.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// How often a stopping agent looks whether sessions are left.
const TICK: Duration = Duration::from_millis(100);
/// How often the number of sessions in the status is refreshed.
const STATUS_TICK: Duration = Duration::from_secs(1);
