//! Verbs around the peers of a gateway.

use std::path::PathBuf;

use adit_proto_core::target::Target;
use clap::{Args, Subcommand};

use super::Json;

/// `peers`.
#[derive(Debug, Subcommand)]
pub enum PeersVerb {
    /// List the peers of the running gateway: connection, round trip, what each holds, when its certificate ends, and why one was refused
    #[command(after_help = help!("  adit peers list\n  adit peers list --json"))]
    List(Json),
    /// Draw a key that all gateways of a cluster share: 32 random bytes as 64 hex digits
    ///
    /// Draw it once, and copy it to each gateway. `peers.cluster_key_file` names the file there; the key may come from
    /// ADIT_PEERS_CLUSTER_KEY or the systemd credential adit-cluster-key instead. Replica links (`forward = "replica"`) have
    /// a second one, in `peers.replica_key_file`. Whoever has a key can be taken for a gateway: let nobody else read it.
    #[command(after_help = help!("  adit peers genkey --out cluster.key\n  adit peers genkey --out replica.key"))]
    Genkey(PeersGenkey),
    /// Make a CA for the gateways of a cluster in a directory; keeps what is there
    ///
    /// It is apart from the agents' CA. Only `adit peers issue` needs the directory. Keep it where no gateway runs: whoever
    /// has it can make certificates of this cluster.
    #[command(after_help = help!("  adit peers init ./peer-ca"))]
    Init(PeersInit),
    /// Make a gateway's certificate and key, and print its entry for the configuration of the other gateways
    ///
    /// Writes node-cert.pem, node-key.pem and peer-ca-cert.pem, to which `peers.cert`, `peers.key` and `peers.ca` of that
    /// gateway point, and prints the `[[peers.peer]]` entry by which the others know it. The certificate lasts 825 days. The
    /// next one is made by the same command with --force: the key stays, and with it the `spki` in the others' entries.
    #[command(after_help = help!("  adit peers issue --ca ./peer-ca --node 2 --address gw2.example.com:4434 --out ./gw2\n  adit peers issue --ca ./peer-ca --node 2 --address gw2.example.com:4434 --out ./gw2 --force"))]
    Issue(PeersIssue),
}

/// `peers genkey`.
#[derive(Debug, Args)]
pub struct PeersGenkey {
    /// File that is written in place of stdout, for its owner alone; one that is there is left alone
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `peers init`.
#[derive(Debug, Args)]
pub struct PeersInit {
    /// Directory of the CA; made where it is not there
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `peers issue`.
#[derive(Debug, Args)]
pub struct PeersIssue {
    /// Directory of the CA that `adit peers init` made
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// Number of the gateway in its cluster, `peers.node` in its configuration; up to 255 for replica links
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub node: u64,
    /// Where the others reach its `peers.listen`, by UDP
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Target,
    /// SPIFFE id in its certificate, as spiffe://cluster.example/gateway/2; the others demand it, too [default: none]
    #[arg(long, value_name = "URI")]
    pub spiffe: Option<String>,
    /// Directory for the three files, one for each gateway; made where it is not there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Put the next certificate in the place of one that is there; its key stays
    #[arg(long)]
    pub force: bool,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}
