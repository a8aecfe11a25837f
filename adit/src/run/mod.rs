//! One function per verb, and the way from the command line to it.

mod agent;
#[cfg(feature = "gateway")]
mod agents;
#[cfg(feature = "gateway")]
mod ca;
mod config;
#[cfg(feature = "gateway")]
mod demo;
#[cfg(feature = "gateway")]
mod gateway;
mod health;
#[cfg(feature = "gateway")]
mod of_gateway;
mod pages;
#[cfg(feature = "gateway")]
mod peers;
mod probe;
mod replay;
#[cfg(feature = "gateway")]
mod route;
#[cfg(feature = "gateway")]
mod sessions;
mod starter;
#[cfg(feature = "gateway")]
mod token;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use serde::Serialize;

use crate::{
    admin::{self, Answer, Request, VersionInfo},
    args::{AgentVerb, Cli, ConfigVerb, Json, Verb},
    config::{
        AgentConfig, ConfigError, Loaded, LogConfig, Role, Surroundings, agent_socket, config_file,
    },
    exit::{Code, CommandFailure},
    output,
};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    // clap ends the process by itself: with 0 after help, with 2 after nonsense.
    let cli = Cli::parse();
    let ctx = Context {
        around: Surroundings::of_process(),
        cli: &cli,
    };
    match ctx.dispatch() {
        Ok(()) => Code::Ok.into(),
        Err(failure) => {
            // Nobody is left to tell where stderr is closed.
            let _told = writeln!(
                anstream::stderr(),
                "adit: {}",
                output::printable_lines(&failure.to_string())
            );
            failure.code().into()
        }
    }
}

/// What every verb is given.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) cli: &'a Cli,
    pub(crate) around: Surroundings,
}

impl Context<'_> {
    fn dispatch(&self) -> Result<(), CommandFailure> {
        match &self.cli.verb {
            #[cfg(feature = "gateway")]
            Verb::OfGateway(verb) => of_gateway::dispatch(self, verb),
            Verb::Agent(AgentVerb::Up(args)) => agent::up(self, args),
            Verb::Agent(AgentVerb::Run(_)) => agent::run(self),
            Verb::Agent(AgentVerb::Status(json)) => agent::status(self, *json),
            Verb::Agent(AgentVerb::Renew(json)) => agent::renew(self, *json),
            Verb::Agent(AgentVerb::Reload(json)) => agent::reload(self, *json),
            Verb::Agent(AgentVerb::Probe(json)) => probe::probe(self, *json),
            Verb::Config(ConfigVerb::Show(args)) => config::show(self, args),
            Verb::Config(ConfigVerb::Check(args)) => config::check(self, args),
            Verb::Health(args) => health::health(self, args),
            Verb::Replay(args) => replay::run(self, args),
            Verb::Completion(args) => pages::completion(self, args),
            Verb::Man(args) => pages::man(self, args),
            Verb::Version(json) => {
                let own = VersionInfo::own();
                self.print(json.json, &own, |out| writeln!(out, "adit {}", own.version))
            }
        }
    }

    /// The agent's configuration.
    pub(crate) fn agent_config(&self) -> Result<Loaded<AgentConfig>, ConfigError> {
        AgentConfig::load(self.file(Role::Agent), &self.cli.overrides(), &self.around)
    }

    /// Starts logging as the configuration and the flags say.
    pub(crate) fn start_log(&self, config: &LogConfig) -> Result<(), CommandFailure> {
        crate::log::init(config, self.cli.verbosity())
            .map_err(|m| CommandFailure::message(Code::Config, m))
    }

    /// Writes an answer to stdout: as JSON, or as `text` writes it.
    pub(crate) fn print(
        &self,
        json: bool,
        value: &impl Serialize,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CommandFailure> {
        let mut out = io::BufWriter::new(anstream::stdout().lock());
        let written = match json {
            true => output::json(&mut out, value),
            false => text(&mut out),
        };
        Ok(output::quiet(written.and_then(|()| out.flush()))?)
    }

    /// Asks the running agent.
    pub(crate) fn ask_agent(&self, request: &Request) -> Result<Answer, CommandFailure> {
        let file = self.file(Role::Agent);
        let dir = AgentConfig::state_dir(file, &self.cli.overrides(), &self.around)?;
        self.ask(agent_socket(&dir), request)
    }

    fn ask(&self, socket: PathBuf, request: &Request) -> Result<Answer, CommandFailure> {
        Ok(admin::call(&socket, request)?)
    }

    pub(crate) fn file(&self, role: Role) -> Option<(PathBuf, bool)> {
        config_file(role, self.cli.config.as_deref(), &self.around)
    }
}

/// Tells what a reload has left to do.
fn print_reloaded(ctx: &Context<'_>, json: Json, answer: Answer) -> Result<(), CommandFailure> {
    let Answer::Reloaded(reloaded) = answer else {
        return Err(odd_answer());
    };
    ctx.print(json.json, &reloaded, |out| {
        writeln!(out, "reloaded")?;
        for key in &reloaded.needs_restart {
            writeln!(out, "needs a restart: {}", output::printable(key))?;
        }
        Ok(())
    })
}

/// The other side answered a question that was not asked.
fn odd_answer() -> CommandFailure {
    CommandFailure::message(
        Code::Failure,
        "the answer does not fit the question; is the running version another one?",
    )
}

/// Raises the limit of open descriptors as far as the system lets it (design 8.21), and tells the limit in force.
pub(crate) fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}
