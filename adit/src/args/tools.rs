//! Verbs for scripts and packagers.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::Json;
use crate::config::Role;

/// `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Which of the two to ask [default: the gateway where one runs, else the agent]
    #[arg(long, value_enum)]
    pub role: Option<Role>,
    /// Shape of the answer.
    #[command(flatten)]
    pub json: Json,
}

/// `completion`.
#[derive(Debug, Args)]
pub struct ShellArg {
    /// The shell
    pub shell: Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for every verb into this directory, which must exist
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
