//! What goes over an administration socket: one line of JSON there, one line of JSON back.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::rows::{
    AgentDetails, AgentRow, DeletedAgent, DrainedAgent, ExplanationView, PeersView, SessionRow,
    TokenRow, UsageRow,
};

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
    /// Which agents are enrolled, and how are their connections?
    AgentsList {},
    /// What is known of an agent?
    AgentsShow {
        /// Its id or its name.
        agent: String,
    },
    /// Delete an agent and close its connections.
    AgentsDelete {
        /// Its id or its name.
        agent: String,
    },
    /// Keep new sessions away from an agent, or end that.
    AgentsDrain {
        /// Its id or its name.
        agent: String,
        /// False ends it.
        drained: bool,
    },
    /// Which sessions are open?
    SessionsList {},
    /// What is known of a session?
    SessionsShow {
        /// Its id.
        id: Uuid,
    },
    /// End a session.
    SessionsKill {
        /// Its id.
        id: Uuid,
    },
    /// Which peers are configured, and how are they?
    PeersList {},
    /// How would a target be routed?
    RouteExplain {
        /// `HOST:PORT`.
        target: String,
        /// The agent that must carry it.
        agent: Option<Uuid>,
    },
    /// Make an enrolment string.
    TokenCreate(TokenRequest),
    /// Read your configuration again. Gateways and agents answer.
    Reload {},
    /// Renew your certificate now. Agents answer.
    AgentRenew {},
    /// Which enrolment strings are known, and what has become of them?
    TokenList {},
    /// Revoke an enrolment string.
    TokenRevoke {
        /// Its id.
        jti: Uuid,
    },
    /// Which program are you? Gateways and agents answer.
    Version {},
    /// Do you serve? Gateways and agents answer.
    Health {},
    /// Which CA signs, and is a former one trusted?
    CaShow {},
    /// Let another CA sign.
    CaRotate {},
    /// Trust the former CA no more.
    CaRetire {
        /// Also where agents would have to enrol again.
        force: bool,
    },
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
    Agent(Box<AgentStatus>),
    /// To [`Request::AgentsList`].
    Agents(Vec<AgentRow>),
    /// To [`Request::AgentsShow`].
    AgentDetails(AgentDetails),
    /// To [`Request::AgentsDelete`].
    Deleted(DeletedAgent),
    /// To [`Request::AgentsDrain`].
    Drained(DrainedAgent),
    /// To [`Request::SessionsList`].
    Sessions(Vec<SessionRow>),
    /// To [`Request::SessionsShow`], and to [`Request::SessionsKill`] as it was before.
    Session(SessionRow),
    /// To [`Request::PeersList`].
    Peers(PeersView),
    /// To [`Request::RouteExplain`].
    Explanation(ExplanationView),
    /// To [`Request::TokenCreate`].
    Token(TokenCreated),
    /// To [`Request::AgentRenew`].
    Done {},
    /// To [`Request::Reload`].
    Reloaded(Reloaded),
    /// To [`Request::TokenList`].
    Tokens(Vec<TokenRow>),
    /// To [`Request::TokenRevoke`].
    Revoked(TokenRow),
    /// To [`Request::Version`].
    Version(VersionInfo),
    /// To [`Request::Health`].
    Health(HealthView),
    /// To [`Request::CaShow`], and to [`Request::CaRotate`] and [`Request::CaRetire`] as it is then.
    Ca(CaView),
}

/// What a reload has left to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys whose change takes effect with a restart.
    pub needs_restart: Vec<String>,
}

/// Whether a process does what it is there for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// It serves.
    pub healthy: bool,
    /// `gateway` or `agent`.
    pub role: String,
    /// How it stands, for people.
    pub detail: String,
}

/// The CAs of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaView {
    /// SHA-256 of the public key of the one that signs, in hex.
    pub key_sha256: String,
    /// When the last certificate of the former one ends, in Unix seconds; none where none is trusted.
    pub former_until_unix_s: Option<i64>,
    /// Enrolled agents.
    pub agents: usize,
    /// Those of them that may still need the former one.
    pub agents_on_former: usize,
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
    /// Nothing has this id or name.
    NotFound,
    /// Several agents have this name; the message lists their ids.
    Ambiguous,
    /// It was tried and failed.
    Failed,
}

/// A gateway at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Connected agents that take new sessions.
    pub agents_online: usize,
    /// Connected agents, all of them.
    pub agents: usize,
    /// Open sessions.
    pub sessions: usize,
    /// How much of each bound is used.
    pub usage: Vec<UsageRow>,
}

/// An agent at a glance.
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
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The gateway's addresses in the order in which they are tried, each `host:port`.
    pub gateways: Vec<String>,
    /// When its certificate ends, in Unix seconds; none where that cannot be read.
    pub certificate_ends_unix_s: Option<i64>,
    /// The latest renewal since the start.
    pub renewal: RenewalView,
}

/// How a renewal of an agent's certificate fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalView {
    /// `none`, `under_way`, `done` or `failed`.
    pub state: String,
    /// When it ended, in Unix seconds.
    pub at_unix_s: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it is tried again as things are, in Unix seconds: soon, or when the certificate is due for renewal.
    pub next_unix_s: Option<i64>,
}

/// An enrolment string. `Debug` leaves the secret out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The string to paste.
    pub token: String,
    /// Its id, to revoke it by.
    pub jti: Uuid,
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
            .field("jti", &self.jti)
            .field("name", &self.name)
            .field("expires_unix_s", &self.expires_unix_s)
            .finish_non_exhaustive()
    }
}
