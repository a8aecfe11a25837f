//! Configuration: text from flags, environment and a TOML file becomes checked values, or every problem at once.

mod agent;
mod common;
mod driver;
#[cfg(feature = "gateway")]
mod entrance;
mod file;
#[cfg(feature = "gateway")]
mod gateway;
#[cfg(feature = "gateway")]
mod ingress;
mod journal;
#[cfg(feature = "gateway")]
mod limits;
#[cfg(feature = "gateway")]
mod metrics;
#[cfg_attr(
    not(feature = "gateway"),
    allow(dead_code, reason = "some of it is for a gateway's configuration")
)]
mod parse;
mod paths;
#[cfg(feature = "gateway")]
pub(crate) mod peers;
#[cfg(feature = "gateway")]
mod provisioner;
#[cfg_attr(
    not(feature = "gateway"),
    allow(dead_code, reason = "some of it is for a gateway's configuration")
)]
mod reader;
#[cfg(feature = "gateway")]
mod taken;
#[cfg(feature = "gateway")]
mod users;
#[cfg(feature = "gateway")]
mod websocket;

use std::fmt;

pub use agent::{AgentConfig, HeartbeatConfig, advertised};
pub use driver::Driver;
#[cfg(feature = "gateway")]
pub use entrance::Entrance;
#[cfg(feature = "gateway")]
pub use gateway::{EnrollConfig, EnrollTls, GatewayConfig, TunnelConfig};
#[cfg(feature = "gateway")]
pub use ingress::{ForwardConfig, ProxyConfig};
pub use journal::JournalConfig;
#[cfg(feature = "gateway")]
pub use limits::LimitsConfig;
#[cfg(feature = "gateway")]
pub use metrics::MetricsConfig;
pub use parse::duration;
#[cfg(feature = "gateway")]
pub use paths::admin_socket;
pub use paths::{ENROLLMENT_STRING, Role, Surroundings, agent_socket, config_file};
#[cfg(feature = "gateway")]
pub use peers::{
    ForwardLink, PeerConfig, PeerCredentials, PeerSecurity, PeersChange, PeersConfig,
    ReplicaConfig, SealLink,
};
#[cfg(feature = "gateway")]
pub use provisioner::ProvisionerConfig;
pub use reader::{Override, Setting, Source};
#[cfg(feature = "gateway")]
pub use users::{Account, Users, UsersError};
#[cfg(feature = "gateway")]
pub use websocket::WebSocketConfig;

/// How and what to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or a filter such as `info,adit=debug`.
    pub level: String,
    /// Shape of the lines.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
    /// Text on a terminal, JSON otherwise.
    Auto,
}

/// A checked configuration and where each of its values comes from.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: T,
    /// Every value in force, in the order of the documentation; secrets are not among them.
    pub settings: Vec<Setting>,
}

/// One thing that is wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the bad value stands.
    pub source: Source,
    /// What is wrong and what to write.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.message)
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order of the file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
