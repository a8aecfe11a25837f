//! Verbs of a gateway and of those who run one.

use std::net::SocketAddr;

use clap::{Args, Subcommand};

use super::{AgentsVerb, CaVerb, EXITS, Json, PeersVerb, RouteVerb, SessionsVerb, TokenVerb, one};
use crate::config::Override;

/// What a build without a gateway lacks.
#[derive(Debug, Subcommand)]
pub enum OfGateway {
    /// Run gateway, agent and a small web server on this machine, and print curl lines to try
    ///
    /// Everything listens on loopback and keeps its state in a folder of its own below the temporary directory. The
    /// agent enrols through the real interface. Ctrl-C ends it all and removes the folder.
    #[command(after_help = help!("  adit demo\n  adit demo --socks5 127.0.0.1:1080"))]
    Demo(DemoArgs),
    /// Prepare or run a gateway
    #[command(subcommand, after_help = EXITS)]
    Gateway(GatewayVerb),
    /// Make, list or revoke enrolment strings for agents
    #[command(subcommand, after_help = EXITS)]
    Token(TokenVerb),
    /// Look at the agents of the running gateway, drain or delete them
    #[command(subcommand, after_help = EXITS)]
    Agents(AgentsVerb),
    /// Look at the sessions of the running gateway, or end them
    #[command(subcommand, after_help = EXITS)]
    Sessions(SessionsVerb),
    /// Ask the running gateway about routes
    #[command(subcommand, after_help = EXITS)]
    Route(RouteVerb),
    /// Show, export or change the CA of a gateway
    #[command(subcommand, after_help = EXITS)]
    Ca(CaVerb),
    /// Look at the peers of the running gateway, or make keys and certificates for a cluster of gateways
    #[command(subcommand, after_help = EXITS)]
    Peers(PeersVerb),
}

impl OfGateway {
    /// The settings that flags of these verbs give.
    pub(super) fn overrides(&self) -> Vec<Override> {
        match self {
            Self::Gateway(GatewayVerb::Run(run)) => {
                let flags = [
                    ("tunnel.listen", "--tunnel-listen", &run.tunnel_listen),
                    (
                        "tunnel.public_endpoint",
                        "--public-endpoint",
                        &run.public_endpoint,
                    ),
                    ("enroll.listen", "--enroll-listen", &run.enroll_listen),
                    ("threads", "--threads", &run.threads),
                    ("driver", "--driver", &run.driver),
                    ("journal.file", "--journal", &run.journal),
                ];
                let given = flags.into_iter();
                given
                    .filter_map(|(key, flag, value)| one(key, flag, value.clone()))
                    .collect()
            }
            Self::Gateway(GatewayVerb::Init(init)) if !init.names.is_empty() => vec![Override {
                key: "tunnel.names",
                flag: "--name",
                values: init.names.clone(),
            }],
            Self::Demo(_)
            | Self::Gateway(_)
            | Self::Token(_)
            | Self::Agents(_)
            | Self::Sessions(_)
            | Self::Route(_)
            | Self::Ca(_)
            | Self::Peers(_) => Vec::new(),
        }
    }
}

/// `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Address of the demo's SOCKS5 listener; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub socks5: SocketAddr,
}

/// `gateway`.
#[derive(Debug, Subcommand)]
pub enum GatewayVerb {
    /// Make the CA, the keys and the store in the state directory; keeps what is there
    ///
    /// Also writes a configuration file to begin with, where there is none. Prints the pin: SHA-256 of the public key
    /// by which agents know this gateway.
    #[command(after_help = help!(
        "  adit gateway init --name gw.example.com\n  adit gateway init --name gw.example.com --name 203.0.113.7"
    ))]
    Init(GatewayInit),
    /// Run the gateway in the foreground until SIGINT or SIGTERM; the first one lets sessions end, the second does not
    ///
    /// Agents connect by QUIC to the tunnel's UDP port and enrol by HTTPS at the enrolment port. Users come in by the
    /// ingress listeners of the configuration: its `forward`, `socks5` and `http_connect` sections.
    #[command(after_help = help!(
        "  adit gateway run\n  adit gateway run --config ./gateway.toml --tunnel-listen '[::]:4433' -v"
    ))]
    Run(GatewayRun),
    /// Have the running gateway read its configuration again, as SIGHUP does
    ///
    /// Limits, grace, `direct`, the provisioner's key and revocation list, users and targets of ingresses, the operator's
    /// certificate and the log level change at once; sessions go on. Other keys that differ are named: they need a
    /// restart. A file with a mistake changes nothing, and the mistake is told.
    #[command(after_help = help!("  adit gateway reload\n  adit gateway reload --json"))]
    Reload(Json),
    /// Ask the running gateway how many agents and sessions it has, and how much of each bound is used
    ///
    /// Connections and handshakes of agents, sessions being opened, users by WebSocket, connections of the enrolment
    /// listener, and used tokens that are remembered. `/metrics` tells more, over time.
    #[command(after_help = help!("  adit gateway status\n  adit gateway status --json"))]
    Status(Json),
}

/// `gateway init`.
#[derive(Debug, Args)]
pub struct GatewayInit {
    /// DNS name or address under which agents reach this gateway; repeatable, the first one goes into enrolment
    /// strings [default: `tunnel.names` of the configuration]
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `gateway run`.
#[derive(Debug, Args)]
pub struct GatewayRun {
    /// UDP address for agents [default: port 4433 of every address, IPv6 and IPv4]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub tunnel_listen: Option<String>,
    /// What agents are told to connect to [default: the first name with the tunnel's port]
    #[arg(long, value_name = "HOST:PORT")]
    pub public_endpoint: Option<String>,
    /// TCP address for enrolment [default: 0.0.0.0:7171]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub enroll_listen: Option<String>,
    /// Threads of the runtime; the driver mio has one [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<String>,
    /// What carries the tunnel [default: tokio]
    #[arg(long, value_name = "tokio|mio")]
    pub driver: Option<String>,
    /// File that takes down what happens, for `adit replay` [default: none]
    #[arg(long, value_name = "FILE")]
    pub journal: Option<String>,
}
