//! Why a target could not be reached.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{agent::policy::PolicyError, limits::DIAL_TIMEOUT, target::Target};

/// Why a target was not reached. The text travels in the `ConnectResponse` as the reason (agent-tunnel 7.3); the
/// [`kind`](Self::kind) is for programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The policy allows none of its addresses.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The name has no usable answer.
    #[error("cannot resolve {name}: {cause}")]
    Resolve {
        /// The name.
        name: Box<str>,
        /// What the resolver said.
        cause: ResolveError,
    },
    /// Every allowed address failed; each is here with its reason, in the order of the attempts.
    #[error("cannot connect to {target}: {}", list(.failures))]
    Connect {
        /// The target.
        target: Target,
        /// Address and reason.
        failures: Vec<(SocketAddr, ConnectErrorKind)>,
    },
    /// The deadline for everything together passed.
    #[error("timed out after {}s {stage} {target}", DIAL_TIMEOUT.as_secs())]
    TimedOut {
        /// The target.
        target: Target,
        /// What was under way.
        stage: DialStage,
    },
    /// Nobody waits for the result any more.
    #[error("the session was given up")]
    Cancelled,
}

impl DialError {
    /// Sums the error up in one word, for reply codes of ingress protocols and for counters.
    #[must_use]
    pub fn kind(&self) -> DialErrorKind {
        match self {
            Self::Policy(_) => DialErrorKind::NotAllowed,
            Self::Resolve { .. } => DialErrorKind::NotResolved,
            Self::TimedOut { .. } => DialErrorKind::TimedOut,
            Self::Cancelled => DialErrorKind::Cancelled,
            Self::Connect { failures, .. } => {
                let kinds = failures.iter().map(|&(_, kind)| summary(kind));
                kinds.min().unwrap_or(DialErrorKind::Other)
            }
        }
    }
}

/// What a [`DialError`] comes to. Where addresses failed for several reasons, the one that stands first here counts:
/// it says most about the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DialErrorKind {
    /// Refused by the policy.
    NotAllowed,
    /// The name could not be resolved.
    NotResolved,
    /// A host answered and nothing listens at the port.
    ConnectionRefused,
    /// A host broke the connection off while it was made.
    ConnectionReset,
    /// No answer in time.
    TimedOut,
    /// No way to the host.
    Unreachable,
    /// A fault of the machine that dials, or one without a name of its own.
    Other,
    /// Given up by the one who asked.
    Cancelled,
}

/// What was under way when the time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialStage {
    /// Asking for the addresses of the name.
    Resolving,
    /// Connecting to at least one address.
    Connecting,
}

impl std::fmt::Display for DialStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolving => "resolving",
            Self::Connecting => "connecting to",
        })
    }
}

/// What a resolver says instead of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is no such name.
    #[error("no such name")]
    NotFound,
    /// The name exists and has no address. An empty answer counts as this.
    #[error("the name has no address")]
    NoAddress,
    /// The resolver could not answer for the moment.
    #[error("the name server does not answer")]
    Unavailable,
    /// Too many other names were being looked up for too long.
    #[error("the resolver is busy with other names; try again")]
    Busy,
    /// Anything else, with the system's error number where there is one.
    #[error("resolver error{}", number(*.0))]
    Other(Option<i32>),
}

/// Why one TCP connection was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// No route to the host or its network.
    #[error("unreachable")]
    Unreachable,
    /// Broken off by the other end.
    #[error("connection reset")]
    Reset,
    /// Anything else, with the system's error number where there is one.
    #[error("system error{}", number(*.0))]
    Other(Option<i32>),
}

fn summary(kind: ConnectErrorKind) -> DialErrorKind {
    match kind {
        ConnectErrorKind::Refused => DialErrorKind::ConnectionRefused,
        ConnectErrorKind::Reset => DialErrorKind::ConnectionReset,
        ConnectErrorKind::TimedOut => DialErrorKind::TimedOut,
        ConnectErrorKind::Unreachable => DialErrorKind::Unreachable,
        ConnectErrorKind::Other(_) => DialErrorKind::Other,
    }
}

fn list(failures: &[(SocketAddr, ConnectErrorKind)]) -> String {
    let one = |(addr, kind): &(SocketAddr, ConnectErrorKind)| format!("{addr}: {kind}");
    failures.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn number(code: Option<i32>) -> String {
    code.map(|code| format!(" {code}")).unwrap_or_default()
}
