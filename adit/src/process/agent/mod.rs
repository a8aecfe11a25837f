//! An agent process: its enrolment, its routes, the driver, and what its operator asks of it. A plain loop over what has
//! happened, whichever driver carries the traffic.

mod driver;
mod events;
#[cfg(feature = "agent-tokio")]
mod on_tokio;
mod reload;
mod routes;
mod status;
mod wait;

use std::{
    mem,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use adit_io_common::{
    agent::{AdvertiserConfig, AgentConfig as DriverConfig, StartError},
    clock::system_env,
};
use adit_proto_core::{
    env::Env,
    journal::Journal,
    route::{DomainRoute, RouteSet},
    target::Target,
};

use self::{
    driver::{AgentDriver, Told},
    events::{EVENTS_MAX, Event, offer},
    reload::{advertised, detected, remark},
    status::{Board, Identity, Watched},
    wait::wait,
};
use super::{journal::ProcessJournal, reading::Reading};
use crate::{
    admin::{AdminListener, AdminServer, AgentBackend, AgentOrder},
    config::{AgentConfig, ConfigError, Driver, agent_socket},
    enroll::{files::AgentFiles, renewal::AgentPairs},
    exit::{Code, CommandFailure},
    state::StateDir,
};

pub use self::events::Signals;

/// A running agent.
pub struct AgentProcess {
    driver: AgentDriver,
    /// Behind the driver: fields are dropped in their order, whichever way the process ends.
    journal: ProcessJournal,
    has_ended: bool,
    config: AgentConfig,
    dir: StateDir,
    watched: Arc<Watched>,
    board: Arc<Board>,
    /// A domain that was detected.
    detected: Option<DomainRoute>,
    reading: Reading,
    events: Receiver<Event>,
    /// The way in for more of them.
    teller: SyncSender<Event>,
    socket: AdminServer,
}

/// Reads the configuration again.
pub type ConfigSource = Arc<dyn Fn() -> Result<AgentConfig, ConfigError> + Send + Sync>;

impl std::fmt::Debug for AgentProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentProcess").finish_non_exhaustive()
    }
}

impl AgentProcess {
    /// Starts an agent that is enrolled.
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
        let own = Identity {
            id: files.id.0,
            name: files.name.clone(),
            gateways: gateways.iter().map(ToString::to_string).collect(),
            dir: dir.clone(),
        };
        let routes = Arc::new(advertised(config, &dir).map_err(failure)?);
        remark(config, &routes);
        let socket = AdminListener::bind(&agent_socket(&config.state_dir)).map_err(failure)?;
        let (teller, events) = sync_channel(EVENTS_MAX);
        let watched = Arc::<Watched>::default();
        let told = Told {
            watched: Arc::clone(&watched),
            events: teller.clone(),
        };
        // The key of resets need not survive: a restarted agent has another port.
        let env = system_env(None)?;
        let asked = config.journal.as_ref();
        let (mut written, journal) = ProcessJournal::begin(asked, "agent", config.driver, &env);
        let driver_config = driver_config(config, gateways, &dir, &routes, journal);
        let driver = drive(config.driver, driver_config, env, told)?;
        tracing::info!(agent = %files.id, name = %files.name, routes = routes.len(), "agent running");
        let board = Arc::new(Board::new(
            own,
            Arc::clone(&watched),
            driver.handle().sessions(),
            routes::shown(&routes),
        ));
        let socket = socket.answer(backend(Arc::clone(&board), teller.clone()))?;
        written.start()?;
        Ok(Self {
            driver,
            journal: written,
            has_ended: false,
            config: config.clone(),
            dir,
            watched,
            board,
            detected: detected(&routes),
            reading: Reading::default(),
            events,
            teller,
            socket,
        })
    }

    /// Waits until there is a connection to a gateway, for so long at most; tells whether there is one.
    #[must_use]
    pub fn connects(&self, patience: Duration) -> bool {
        self.watched.connects(patience)
    }

    /// Runs until a signal asks for the end. The first one withdraws the routes, so that new sessions go elsewhere, and
    /// lets those that are open end for the grace period; a second one ends at once. SIGHUP has the configuration read
    /// again, and so has a connection that comes after one was lost.
    ///
    /// # Errors
    /// When what carries the traffic has failed.
    pub fn run(mut self, signals: Signals, source: &ConfigSource) -> Result<(), CommandFailure> {
        signals.forward(self.teller.clone())?;
        let (mut was_up, mut was_lost) = (false, false);
        while let Ok(event) = self.events.recv() {
            match event {
                Event::Stop => break,
                // Told in the log.
                Event::Hangup => drop(self.reload(source)),
                Event::Status => {}
                Event::Order(order) => self.take(order, source),
                Event::Ended => {
                    self.has_ended = true;
                    let why = format!("the agent failed: {}", self.driver.why());
                    return Err(CommandFailure::message(Code::Failure, why));
                }
            }
            let is_up = self.watched.is_connected();
            was_lost |= was_up && !is_up;
            was_up = is_up;
            // Only now has the network that it comes over told what it has to tell.
            if is_up && mem::take(&mut was_lost) {
                self.refresh(source);
            }
        }
        self.wind_down();
        self.stop();
        Ok(())
    }

    /// Lets the sessions end that are open, and what they have sent reach the gateway, for the grace period.
    fn wind_down(&mut self) {
        let (began, grace) = (Instant::now(), self.config.grace);
        tracing::info!(
            grace_s = grace.as_secs(),
            "stopping: routes withdrawn; a second signal ends at once"
        );
        self.driver.handle().withdraw();
        let mut is_leaving = false;
        loop {
            if !is_leaving && self.board.sessions() == 0 {
                if !self.watched.is_connected() {
                    return;
                }
                // What they have sent may still be under way.
                self.driver.handle().farewell();
                is_leaving = true;
            }
            let left = grace.saturating_sub(began.elapsed());
            if left.is_zero() {
                tracing::warn!("grace period over; cutting the sessions left");
                return;
            }
            match self.next(if is_leaving { left } else { left.min(TICK) }) {
                Some(Event::Stop) => {
                    tracing::warn!("second signal; cutting the sessions left");
                    return;
                }
                Some(Event::Ended) => return,
                Some(Event::Hangup | Event::Status | Event::Order(_)) | None => {}
            }
        }
    }

    /// Does what the operator asks for over the socket.
    fn take(&mut self, order: AgentOrder, source: &ConfigSource) {
        // Whoever asked may have gone; what was asked for is done.
        match order {
            AgentOrder::Reload(reply) => drop(reply.send(self.reload(source))),
            AgentOrder::Renew(reply) => {
                let begun = wait(self.driver.handle().renew(), RENEW_PATIENCE);
                let _gone = reply.send(matches!(begun, Some(Ok(true))));
            }
        }
    }

    /// The next event, if one comes within `patience`.
    fn next(&mut self, patience: Duration) -> Option<Event> {
        let event = self.events.recv_timeout(patience).ok();
        self.has_ended |= matches!(event, Some(Event::Ended));
        event
    }

    /// Ends now: the gateway is told, sessions are cut.
    pub fn stop(self) {
        drop(self.socket);
        let began = Instant::now();
        self.driver.handle().stop();
        let mut is_over = self.has_ended;
        while !is_over {
            let left = CLOSE_PATIENCE.saturating_sub(began.elapsed());
            is_over = matches!(self.events.recv_timeout(left), Ok(Event::Ended) | Err(_));
        }
        drop(self.driver);
        drop(self.journal);
        tracing::info!("agent stopped");
    }
}

/// What the driver is started with.
fn driver_config(
    config: &AgentConfig,
    gateways: Vec<Target>,
    dir: &StateDir,
    routes: &Arc<RouteSet>,
    journal: Option<Journal>,
) -> DriverConfig {
    DriverConfig {
        gateways,
        pairs: Arc::new(AgentPairs::new(dir.clone())),
        routes: Arc::clone(routes),
        restrictions: config.restrictions.clone(),
        intervals: AdvertiserConfig {
            advertise_interval: config.heartbeat.routes_interval,
            heartbeat_interval: config.heartbeat.interval,
        },
        unread: u64::from(config.unread.get()) << 20,
        journal,
    }
}

/// Starts the driver.
fn drive(
    driver: Driver,
    config: DriverConfig,
    env: Env,
    told: Told,
) -> Result<AgentDriver, CommandFailure> {
    AgentDriver::start(driver, config, env, told).map_err(|error| match error {
        StartError::Unusable(text) => CommandFailure::message(Code::Failure, text),
        error @ (StartError::Io(_) | StartError::Gateways(_)) => failure(error),
    })
}

/// What the socket answers from.
fn backend(board: Arc<Board>, teller: SyncSender<Event>) -> AgentBackend {
    AgentBackend {
        status: Box::new(move || board.view()),
        order: Box::new(move |order| offer(&teller, Event::Order(order))),
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

fn failure(error: impl std::error::Error + Send + Sync + 'static) -> CommandFailure {
    CommandFailure::new(Code::Failure, error)
}

/// Time for the farewell to leave.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Time for the driver to say whether a renewal begins, which it does at once.
const RENEW_PATIENCE: Duration = Duration::from_secs(5);
/// How often a stopping agent looks whether sessions are left.
const TICK: Duration = Duration::from_millis(100);
