//! Configuration: text from flags, environment and a TOML file becomes checked values, or every problem at once.

mod agent;
mod driver;
mod entrance;
mod file;
mod gateway;
mod ingress;
mod limits;
mod metrics;
mod parse;
mod paths;
mod provisioner;
mod reader;
mod taken;
mod users;
mod websocket;

use std::fmt;

pub use agent::{AgentConfig, HeartbeatConfig, advertised};
pub use driver::Driver;
pub use entrance::Entrance;
pub use gateway::{EnrollConfig, EnrollTls, GatewayConfig, TunnelConfig};
pub use ingress::{ForwardConfig, ProxyConfig};
pub use limits::LimitsConfig;
pub use metrics::MetricsConfig;
pub use parse::duration;
pub use paths::{ENROLLMENT_STRING, Role, Surroundings, admin_socket, agent_socket, config_file};
pub use provisioner::ProvisionerConfig;
pub use reader::{Override, Setting, Source};
pub use users::{Account, Users, UsersError};
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

/// Reads the `[log]` section, the same for both roles.
fn log(r: &mut reader::Reader<'_>) -> Option<LogConfig> {
    let level = r.scalar("log.level", file::Kind::Text, "info", |text| {
        crate::log::check_level(text)?;
        Ok(text.to_owned())
    });
    let format = r.scalar("log.format", file::Kind::Text, "auto", |text| {
        clap::ValueEnum::from_str(text, false)
            .map_err(|_| "write `text`, `json` or `auto`".to_owned())
    });
    Some(LogConfig {
        level: level?.value,
        format: format?.value,
    })
}
