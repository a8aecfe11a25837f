//! Verbs around a gateway's CA.

use clap::{Args, Subcommand};

use super::Json;

/// `ca`.
#[derive(Debug, Subcommand)]
pub enum CaVerb {
    /// Print the certificates of the CAs that the gateway trusts, in PEM: the one that signs, then a former one
    ///
    /// Reads the state directory; the gateway may be running or not.
    #[command(after_help = help!("  adit ca export > adit-ca.pem\n  adit ca export --json"))]
    Export(Json),
    /// Tell which CA signs, whether a former one is trusted, and how many agents still need it
    #[command(after_help = help!("  adit ca show\n  adit ca show --json"))]
    Show(Json),
    /// Make another CA, which signs from now on
    ///
    /// The former one stays trusted until `adit ca retire`, or until its last certificate has ended. Agents learn of the
    /// new one when they renew; none has to be touched. The gateway's keys, and so the pins, stay.
    #[command(after_help = help!("  adit ca rotate"))]
    Rotate(Json),
    /// Trust the former CA no more
    ///
    /// Refused while agents may still have a certificate of it: they would have to enrol again.
    #[command(after_help = help!("  adit ca retire\n  adit ca retire --force"))]
    Retire(CaRetire),
}

/// `ca retire`.
#[derive(Debug, Args)]
pub struct CaRetire {
    /// Also where agents still have a certificate of it; they have to enrol again
    #[arg(long)]
    pub force: bool,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}
