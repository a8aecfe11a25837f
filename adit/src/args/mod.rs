//! The command line: text to raw values. What they mean is decided elsewhere.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[cfg(feature = "gateway")]
pub use self::{
    ca::{CaRetire, CaVerb},
    gateway::{DemoArgs, GatewayInit, GatewayRun, GatewayVerb, OfGateway},
    operate::{
        AgentsDelete, AgentsDrain, AgentsShow, AgentsVerb, OneAgent, OneSession, RouteExplain,
        RouteVerb, SessionsKill, SessionsShow, SessionsVerb, TokenCreate, TokenRevoke, TokenVerb,
    },
    peers::{PeersGenkey, PeersInit, PeersIssue, PeersVerb},
};
use crate::config::{LogFormat, Override, Role};

pub use self::tools::{HealthArgs, ManArgs, ShellArg};

/// Examples and exit codes below the options of a verb.
macro_rules! help {
    ($examples:literal) => {
        concat!("Examples:\n", $examples, "\n\n", exits!())
    };
}
macro_rules! exits {
    () => {
        "Exit codes: 0 ok, 1 failure, 2 usage, 3 configuration, 4 not authorised, 5 unreachable or timed out"
    };
}

#[cfg(feature = "gateway")]
mod ca;
#[cfg(feature = "gateway")]
mod gateway;
#[cfg(feature = "gateway")]
mod operate;
#[cfg(feature = "gateway")]
mod peers;
mod tools;

/// Reach programs in private networks through one gateway: no VPN, no inbound port.
///
/// A gateway runs on a public host; agents in private networks connect out to it; users come in at the gateway
/// through port forwards, SOCKS5, HTTP CONNECT or WebSocket.
#[cfg_attr(
    feature = "gateway",
    doc = "Start with `adit demo`, which shows all of it on this machine."
)]
#[cfg_attr(
    not(feature = "gateway"),
    doc = "This build is an agent without a gateway's verbs."
)]
#[derive(Debug, Parser)]
#[command(name = "adit", version, propagate_version = true, after_help = EXITS, max_term_width = 110)]
pub struct Cli {
    /// Configuration file [default: /etc/adit/{gateway,agent}.toml as root, else $XDG_CONFIG_HOME/adit/...;
    /// environment: ADIT_CONFIG]
    #[arg(
        long,
        global = true,
        help_heading = "Options of every verb",
        value_name = "FILE"
    )]
    pub config: Option<PathBuf>,
    /// Directory for keys, store and sockets [default: /var/lib/adit as root, else $XDG_STATE_HOME/adit;
    /// environment: ADIT_STATE_DIR]
    #[arg(
        long,
        global = true,
        help_heading = "Options of every verb",
        value_name = "DIR"
    )]
    pub state_dir: Option<PathBuf>,
    /// Log more; twice for everything
    #[arg(short, long, global = true, help_heading = "Options of every verb", action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log less; twice for errors only
    #[arg(short, long, global = true, help_heading = "Options of every verb", action = clap::ArgAction::Count, conflicts_with = "verbose")]
    pub quiet: u8,
    /// Shape of log lines on stderr [default: auto, which is text on a terminal and JSON otherwise]
    #[arg(
        long,
        global = true,
        help_heading = "Options of every verb",
        value_enum,
        value_name = "FORMAT"
    )]
    pub log_format: Option<LogFormat>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Verbs of a gateway.
    #[cfg(feature = "gateway")]
    #[command(flatten)]
    OfGateway(OfGateway),
    /// Enrol, run or look at an agent
    #[command(subcommand, after_help = EXITS)]
    Agent(AgentVerb),
    /// Show or check a configuration
    #[command(subcommand, after_help = EXITS)]
    Config(ConfigVerb),
    /// Ask the running gateway or agent whether it serves: exit 0 yes, 1 no, 5 nobody answers
    ///
    /// A gateway serves once its listeners are open, until it stops; an agent while it is connected to a gateway. Without
    /// `--role` whichever of the two runs with this state directory is asked.
    #[command(after_help = help!("  adit health\n  adit health --role agent --json"))]
    Health(HealthArgs),
    /// Do again what the state machines of a gateway or an agent did, from the journal of its process
    ///
    /// A process writes a journal where `journal.file` or `--journal` names one. Nothing is sent and nothing is opened: the
    /// events are printed as they were, and whether they are the same. Exit code 1: they are not, or the journal was
    /// damaged.
    #[command(after_help = help!("  adit replay /var/lib/adit/journal\n  adit replay --json ./journal | jq .machines"))]
    Replay(ReplayArgs),
    /// Print the completions for a shell
    #[command(after_help = help!("  adit completion bash > /etc/bash_completion.d/adit\n  adit completion fish | source"))]
    Completion(ShellArg),
    /// Print the manual page, or write one for every verb
    #[command(after_help = help!("  adit man | man -l -\n  adit man --dir /usr/local/share/man/man1"))]
    Man(ManArgs),
    /// Tell which version this is
    #[command(after_help = help!("  adit version --json"))]
    Version(Json),
}

/// Shape of the answer.
#[derive(Clone, Copy, Debug, Args)]
pub struct Json {
    /// Answer in JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The journal
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `agent run`.
#[derive(Debug, Args)]
pub struct AgentRun {
    /// What carries the tunnel [default: tokio]
    #[arg(long, value_name = "tokio|mio")]
    pub driver: Option<String>,
    /// File that takes down what happens, for `adit replay` [default: none]
    #[arg(long, value_name = "FILE")]
    pub journal: Option<String>,
}

/// `agent`.
#[derive(Debug, Subcommand)]
pub enum AgentVerb {
    /// Enrol with a gateway by its enrolment string, and remember what to advertise; does not start the agent
    ///
    /// What is advertised is also all that the agent lets users reach; `advertise` in agent.toml stands above it. An
    /// agent that is enrolled already keeps its id and its key, and must be stopped first. Also writes a configuration file
    /// to begin with, where there is none. A string that is refused
    /// was used, has expired or is another gateway's.
    #[command(after_help = help!(
        "  adit agent up --enrollment-string - --advertise 10.0.0.0/8,'*.corp.local' < string.txt\n  \
           ADIT_ENROLLMENT_STRING_FILE=string.txt adit agent up --advertise-subnets 10.0.0.0/8"
    ))]
    Up(AgentUp),
    /// Run the agent in the foreground until SIGINT or SIGTERM; the first one lets sessions end, the second does not
    ///
    /// The agent connects out to the gateway's UDP port, reconnects by itself, and needs no inbound port.
    #[command(after_help = help!("  adit agent run\n  adit agent run --driver mio --config ./agent.toml --log-format json"))]
    Run(AgentRun),
    /// Ask the running agent whether it is connected, what it advertises, and how its certificate fares
    #[command(after_help = help!("  adit agent status\n  adit agent status --json"))]
    Status(Json),
    /// Have the running agent renew its certificate now, which it does by itself when a third of its time is left
    ///
    /// Sessions go on. Where the agent is not connected, the renewal waits for the next connection. Exit code 0 says that
    /// it begins, not that it is done: the agent's log and `adit agent status` tell.
    #[command(after_help = help!("  adit agent renew\n  adit agent renew --json"))]
    Renew(Json),
    /// Have the running agent read its configuration again, as SIGHUP does
    ///
    /// What it advertises and what it forbids is exchanged on the living connection; sessions go on. A file with a mistake
    /// changes nothing, and the mistake is told.
    #[command(after_help = help!("  adit agent reload"))]
    Reload(Json),
    /// Check from this machine whether the agent can reach its gateway, and tell what to do where it cannot
    ///
    /// Looks at the enrolment, the dates of its certificate against this machine's clock, the gateway's name, UDP to it, and
    /// its certificate. The agent may be running or not; nothing is changed. Exit code 1: something here is wrong; 5: the
    /// gateway is not reached.
    #[command(after_help = help!("  adit agent probe\n  adit agent probe --json"))]
    Probe(Json),
}

/// `agent up`.
#[derive(Debug, Args)]
pub struct AgentUp {
    /// The string from `adit token create`, or `-` to read it as one line from stdin
    ///
    /// Other users of this machine can read command lines: prefer `-`, ADIT_ENROLLMENT_STRING (the string) or
    /// ADIT_ENROLLMENT_STRING_FILE (a file with the string).
    #[arg(long, value_name = "STRING|-", alias = "enrolment-string")]
    pub enrollment_string: Option<EnrollmentArg>,
    /// Address ranges and domains that users may reach through this agent; comma-separated, repeatable
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub advertise: Vec<String>,
    /// Address ranges as 10.0.0.0/8 or 10.0.0.5; comma-separated, repeatable
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        visible_alias = "advertise-routes"
    )]
    pub advertise_subnets: Vec<String>,
    /// Domains as db.corp.local or *.corp.local (all names below it); comma-separated, repeatable
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub advertise_domains: Vec<String>,
    /// Base URL of the gateway in place of the one in the string
    #[arg(long, value_name = "URL")]
    pub gateway: Option<String>,
    /// Enrol over http://, where anybody on the way can read the string
    #[arg(long)]
    pub allow_http: bool,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// An enrolment string from the command line, or the wish to read it from stdin. `Debug` hides it.
#[derive(Clone)]
pub enum EnrollmentArg {
    /// `-`.
    Stdin,
    /// The string itself.
    Literal(secrecy::SecretString),
}

impl std::fmt::Debug for EnrollmentArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stdin => "Stdin",
            Self::Literal(_) => "Literal(hidden)",
        })
    }
}

impl From<&str> for EnrollmentArg {
    fn from(text: &str) -> Self {
        match text {
            "-" => Self::Stdin,
            _ => Self::Literal(text.into()),
        }
    }
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Show every value in force and where it comes from: flag, environment, line of a file, or default
    #[command(after_help = help!("  adit config show\n  adit config show --role agent --json"))]
    Show(ConfigArgs),
    /// Print `ok`, or every problem at once and exit with 3
    #[command(after_help = help!("  adit config check\n  adit config check --config ./gateway.toml"))]
    Check(ConfigArgs),
}

/// `config show`, `config check`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Which configuration
    #[arg(long, value_enum, default_value_t)]
    pub role: Role,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

impl Cli {
    /// `-v` up, `-q` down.
    #[must_use]
    pub fn verbosity(&self) -> i8 {
        let up = i8::try_from(self.verbose).unwrap_or(i8::MAX);
        let down = i8::try_from(self.quiet).unwrap_or(i8::MAX);
        up.saturating_sub(down)
    }

    /// The settings that flags give.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        let mut list = Vec::new();
        let path = self.state_dir.as_ref();
        let path = path.map(|p| p.to_string_lossy().into_owned());
        list.extend(one("state_dir", "--state-dir", path));
        let format = self
            .log_format
            .and_then(|f| clap::ValueEnum::to_possible_value(&f));
        let format = format.map(|f| f.get_name().to_owned());
        list.extend(one("log.format", "--log-format", format));
        match &self.verb {
            #[cfg(feature = "gateway")]
            Verb::OfGateway(verb) => list.extend(verb.overrides()),
            Verb::Agent(AgentVerb::Run(run)) => {
                list.extend(one("driver", "--driver", run.driver.clone()));
                list.extend(one("journal.file", "--journal", run.journal.clone()));
            }
            Verb::Agent(_)
            | Verb::Config(_)
            | Verb::Health(_)
            | Verb::Replay(_)
            | Verb::Completion(_)
            | Verb::Man(_)
            | Verb::Version(_) => {}
        }
        list
    }
}

/// What a flag sets, if it was given.
fn one(key: &'static str, flag: &'static str, value: Option<String>) -> Option<Override> {
    let values = vec![value?];
    Some(Override { key, flag, values })
}

const EXITS: &str = exits!();
