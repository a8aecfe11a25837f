//! One function per verb, and the way from the command line to it.

mod agent;
mod agents;
mod ca;
mod config;
mod demo;
mod gateway;
mod health;
mod pages;
mod probe;
mod route;
mod sessions;
mod starter;
mod token;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::{
    admin::{self, Answer, Request, VersionInfo},
    args::{
        AgentVerb, AgentsVerb, Cli, ConfigVerb, GatewayVerb, Json, RouteVerb, SessionsVerb,
        TokenVerb, Verb,
    },
    config::{
        AgentConfig, ConfigError, GatewayConfig, Loaded, LogConfig, Role, Surroundings,
        admin_socket, agent_socket, config_file,
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
            Verb::Demo(args) => demo::demo(self, args),
            Verb::Gateway(GatewayVerb::Init(args)) => gateway::init(self, args),
            Verb::Gateway(GatewayVerb::Run(_)) => gateway::run(self),
            Verb::Gateway(GatewayVerb::Reload(json)) => gateway::reload(self, *json),
            Verb::Gateway(GatewayVerb::Status(json)) => gateway::status(self, *json),
            Verb::Agent(AgentVerb::Up(args)) => agent::up(self, args),
            Verb::Agent(AgentVerb::Run(_)) => agent::run(self),
            Verb::Agent(AgentVerb::Status(json)) => agent::status(self, *json),
            Verb::Agent(AgentVerb::Renew(json)) => agent::renew(self, *json),
            Verb::Agent(AgentVerb::Reload(json)) => agent::reload(self, *json),
            Verb::Agent(AgentVerb::Probe(json)) => probe::probe(self, *json),
            Verb::Token(TokenVerb::Create(args)) => token::create(self, args),
            Verb::Token(TokenVerb::List(json)) => token::list(self, *json),
            Verb::Token(TokenVerb::Revoke(args)) => token::revoke(self, args),
            Verb::Agents(AgentsVerb::List(json)) => agents::list(self, *json),
            Verb::Agents(AgentsVerb::Show(args)) => agents::show(self, args),
            Verb::Agents(AgentsVerb::Delete(args)) => agents::delete(self, args),
            Verb::Agents(AgentsVerb::Drain(args)) => agents::drain(self, args),
            Verb::Sessions(SessionsVerb::List(json)) => sessions::list(self, *json),
            Verb::Sessions(SessionsVerb::Show(args)) => sessions::show(self, args),
            Verb::Sessions(SessionsVerb::Kill(args)) => sessions::kill(self, args),
            Verb::Route(RouteVerb::Explain(args)) => route::explain(self, args),
            Verb::Config(ConfigVerb::Show(args)) => config::show(self, args),
            Verb::Config(ConfigVerb::Check(args)) => config::check(self, args),
            Verb::Ca(verb) => ca::ca(self, verb),
            Verb::Health(args) => health::health(self, args),
            Verb::Completion(args) => pages::completion(self, args),
            Verb::Man(args) => pages::man(self, args),
            Verb::Version(json) => {
                let own = VersionInfo::own();
                self.print(json.json, &own, |out| writeln!(out, "adit {}", own.version))
            }
        }
    }

    /// The configuration of a gateway that is to run.
    pub(crate) fn gateway_config(&self) -> Result<Loaded<GatewayConfig>, ConfigError> {
        GatewayConfig::load_to_run(
            self.file(Role::Gateway),
            &self.cli.overrides(),
            &self.around,
        )
    }

    /// The gateway's configuration, which may lack what a gateway cannot run without.
    pub(crate) fn gateway_draft(&self) -> Result<Loaded<GatewayConfig>, ConfigError> {
        GatewayConfig::load(
            self.file(Role::Gateway),
            &self.cli.overrides(),
            &self.around,
        )
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

    /// Asks the running gateway.
    pub(crate) fn ask_gateway(&self, request: &Request) -> Result<Answer, CommandFailure> {
        self.ask(admin_socket(&self.gateway_state_dir()?), request)
    }

    /// Where the gateway keeps its state, whether or not it could run with its configuration.
    pub(crate) fn gateway_state_dir(&self) -> Result<PathBuf, ConfigError> {
        let file = self.file(Role::Gateway);
        GatewayConfig::state_dir(file, &self.cli.overrides(), &self.around)
    }

    /// Asks the running agent.
    pub(crate) fn ask_agent(&self, request: &Request) -> Result<Answer, CommandFailure> {
        let config = self.agent_config()?.config;
        self.ask(agent_socket(&config.state_dir), request)
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

/// The runtime of a gateway: one thread; more are the driver's to start.
fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
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
