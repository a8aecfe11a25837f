//! What goes over an administration socket: one line of JSON there, one line of JSON back.

use std::{fmt, net::SocketAddr, time::Duration};

use adit_proto_core::gateway::info;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest question that is taken, in bytes, the newline included.
pub const LINE_LEN_MAX: usize = 1 << 20;
/// Time for a whole exchange.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How are you? Gateways and agents answer.
    Status {},
    /// Which agents are connected?
    AgentsList {},
    /// Which sessions are open?
    SessionsList {},
    /// How would a target be routed?
    RouteExplain {
        /// `HOST:PORT`.
        target: String,
        /// The agent that must carry it.
        agent: Option<Uuid>,
    },
    /// Make an enrolment string.
    TokenCreate(TokenRequest),
    /// Which program are you? Gateways and agents answer.
    Version {},
}

/// What an enrolment string is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Name of the agent that will enrol.
    pub name: String,
    /// Time until it expires, in seconds.
    pub lifetime_s: u64,
    /// Base URL of the gateway as the agent will reach it; none: the configured one.
    pub url: Option<String>,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The answer to the question.
    Ok(Answer),
    /// Why there is none.
    Error(AdminError),
}

/// An answer, one kind per question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Of a gateway to [`Request::Status`].
    Gateway(GatewayStatus),
    /// Of an agent to [`Request::Status`].
    Agent(AgentStatus),
    /// To [`Request::AgentsList`].
    Agents(Vec<AgentRow>),
    /// To [`Request::SessionsList`].
    Sessions(Vec<SessionRow>),
    /// To [`Request::RouteExplain`].
    Explanation(ExplanationView),
    /// To [`Request::TokenCreate`].
    Token(TokenCreated),
    /// To [`Request::Version`].
    Version(VersionInfo),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    /// For programs.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}

/// The kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The question makes no sense.
    BadRequest,
    /// The caller is another user.
    NotAuthorised,
    /// The gateway is stopping.
    Stopping,
    /// It was tried and failed.
    Failed,
}

/// A gateway at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Connections of agents that take new sessions.
    pub agents_online: usize,
    /// Connections of agents, all of them.
    pub agents: usize,
    /// Open sessions.
    pub sessions: usize,
}

/// An agent at a glance; published by the agent through a watch channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Is there a connection to the gateway?
    pub connected: bool,
    /// Address of that gateway, or of the one that is being tried.
    pub gateway: Option<SocketAddr>,
    /// When that state began, in Unix seconds.
    pub since_unix_s: Option<u64>,
    /// Open sessions.
    pub sessions: usize,
    /// What is advertised, as text.
    pub routes: Vec<String>,
    /// Why the last connection or attempt ended.
    pub last_error: Option<String>,
}

/// One connection of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// `online`, `suspect` or `superseded`.
    pub status: String,
    /// Sessions open and being opened.
    pub sessions: usize,
    /// Time since the connection was registered, in milliseconds.
    pub connected_ms: u64,
    /// Time since its last control message, in milliseconds.
    pub silent_ms: u64,
    /// Epoch of its route set.
    pub epoch: u64,
    /// Address ranges that it advertises.
    pub subnets: Vec<String>,
    /// Names that it advertises.
    pub domains: Vec<String>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Its id.
    pub id: Uuid,
    /// Address of the user.
    pub user: Option<String>,
    /// Name of the ingress that took it.
    pub ingress: Option<String>,
    /// Where it goes.
    pub target: String,
    /// The agent that carries it; none for a direct one.
    pub agent: Option<Uuid>,
    /// Time since it was opened, in milliseconds.
    pub age_ms: u64,
}

/// How a target would be routed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationView {
    /// The target as it was understood.
    pub target: String,
    /// Candidates in the order of the attempts.
    pub candidates: Vec<CandidateRow>,
    /// `refuse` or `direct`: what happens where no agent matches.
    pub fallback: String,
}

/// One candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateRow {
    /// Its id.
    pub agent: Uuid,
    /// Its name.
    pub name: String,
    /// The route that matched.
    pub route: String,
    /// Rung of specificity, 0 the most specific.
    pub rung: usize,
    /// Sessions open and being opened through it.
    pub sessions: usize,
}

/// An enrolment string. `Debug` leaves the secret out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The string to paste.
    pub token: String,
    /// Name of the agent that will enrol.
    pub name: String,
    /// Base URL in it.
    pub url: String,
    /// When it expires, in Unix seconds.
    pub expires_unix_s: u64,
}

/// Which program answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// Version of adit.
    pub version: String,
    /// Lowest and highest version of the agent tunnel that it speaks.
    pub tunnel: (u16, u16),
}

impl VersionInfo {
    /// Of this program.
    #[must_use]
    pub fn own() -> Self {
        use adit_proto_core::limits::{VERSION_MAX, VERSION_MIN};
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tunnel: (VERSION_MIN, VERSION_MAX),
        }
    }
}

impl AdminError {
    /// Joins a kind and a text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCreated")
            .field("name", &self.name)
            .field("expires_unix_s", &self.expires_unix_s)
            .finish_non_exhaustive()
    }
}

impl From<info::AgentInfo> for AgentRow {
    fn from(agent: info::AgentInfo) -> Self {
        let status = match agent.status {
            info::AgentStatus::Online => "online",
            info::AgentStatus::Suspect => "suspect",
            info::AgentStatus::Superseded => "superseded",
        };
        Self {
            id: agent.identity.id.0,
            name: agent.identity.name.into(),
            status: status.to_owned(),
            sessions: agent.sessions,
            connected_ms: millis(agent.connected),
            silent_ms: millis(agent.silent),
            epoch: agent.epoch,
            subnets: agent
                .routes
                .subnets
                .iter()
                .map(ToString::to_string)
                .collect(),
            domains: agent
                .routes
                .domains
                .iter()
                .map(|d| d.pattern.to_string())
                .collect(),
        }
    }
}

impl From<adit_io_tokio::SessionRow> for SessionRow {
    fn from(row: adit_io_tokio::SessionRow) -> Self {
        Self {
            id: row.info.id.0,
            user: row.user.map(|user| user.to_string()),
            ingress: row.ingress.map(Into::into),
            target: row.info.target.to_string(),
            agent: row.info.agent.map(|a| a.0),
            age_ms: millis(row.info.age),
        }
    }
}

impl ExplanationView {
    /// Puts a target and its explanation into text.
    #[must_use]
    pub fn new(target: String, explanation: info::Explanation) -> Self {
        let row = |c: info::Candidate| CandidateRow {
            agent: c.agent.0,
            name: c.name.into(),
            route: c.route,
            rung: c.rung,
            sessions: c.sessions,
        };
        let fallback = match explanation.fallback {
            info::Fallback::Refuse => "refuse",
            info::Fallback::Direct => "direct",
        };
        Self {
            target,
            candidates: explanation.candidates.into_iter().map(row).collect(),
            fallback: fallback.to_owned(),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
