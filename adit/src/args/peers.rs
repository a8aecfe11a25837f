//! Verbs around the peers of a gateway.

use std::path::PathBuf;

use adit_proto_core::target::Target;
use clap::{Args, Subcommand};

use super::Json;

/// `peers`.
#[derive(Debug, Subcommand)]
pub enum PeersVerb {
    /// List the peers of the running gateway: connection, round trip, what each holds, and why one was refused
    #[command(after_help = help!("  adit peers list\n  adit peers list --json"))]
    List(Json),
    /// Draw a key for a cluster: 32 random bytes as text, on stdout or in a file of mode 0600
    ///
    /// All gateways of a cluster have the same one, in `peers.cluster_key_file`, ADIT_PEERS_CLUSTER_KEY, or the systemd
    /// credential adit-cluster-key. A file that is there is left alone.
    #[command(after_help = help!("  adit peers genkey --out /etc/adit/cluster.key\n  adit peers genkey | ssh gw2 'umask 77; cat > cluster.key'"))]
    Genkey(PeersGenkey),
    /// Make a CA for the peers of a cluster in a directory; keeps what is there
    ///
    /// It is apart from the agents' CA. Only `adit peers issue` needs the directory: no gateway has to hold it.
    #[command(after_help = help!("  adit peers init ./peer-ca"))]
    Init(PeersInit),
    /// Make a node's certificate and key, and print what the other gateways write into their configuration
    ///
    /// Writes node-cert.pem, node-key.pem and peer-ca-cert.pem into the directory of the node. A key that is there is kept,
    /// so that the pin stays.
    #[command(after_help = help!("  adit peers issue --ca ./peer-ca --node 2 --address gw2.example.com:4434 --out ./gw2"))]
    Issue(PeersIssue),
}

/// `peers genkey`.
#[derive(Debug, Args)]
pub struct PeersGenkey {
    /// File that is written in place of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `peers init`.
#[derive(Debug, Args)]
pub struct PeersInit {
    /// Directory of the CA
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `peers issue`.
#[derive(Debug, Args)]
pub struct PeersIssue {
    /// Directory of the CA
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// Number of the node among its peers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub node: u64,
    /// Where the others reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Target,
    /// SPIFFE id in its certificate [default: none]
    #[arg(long, value_name = "URI")]
    pub spiffe: Option<String>,
    /// Directory that is written to
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}
