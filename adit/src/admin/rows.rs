//! What a gateway tells of agents, sessions, tokens and routes over its socket: plain rows, the JSON of the verbs.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use adit_io_common::{gateway, glance::Glance};
use adit_proto_core::{gateway::info, id::ConnId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    control::AgentEntry,
    pki::hex,
    store::{AgentRecord, TokenRecord, TokenState},
};

/// One connection of an agent, or an agent that has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// `online`, `suspect` or `superseded`, or `offline` without a connection.
    pub status: String,
    /// The agent gets no new sessions by routing.
    pub drained: bool,
    /// Sessions open and being opened.
    pub sessions: usize,
    /// Time since the connection was registered, in milliseconds.
    pub connected_ms: Option<u64>,
    /// Time since its last control message, in milliseconds.
    pub silent_ms: Option<u64>,
    /// Epoch of its route set.
    pub epoch: u64,
    /// Address ranges that it advertises.
    pub subnets: Vec<String>,
    /// Names that it advertises.
    pub domains: Vec<String>,
    /// Its present address; said where one agent is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Smoothed round-trip time in microseconds; said where one agent is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
}

/// What is known of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDetails {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Host name that it sent when it enrolled.
    pub hostname: Option<String>,
    /// It gets no new sessions by routing.
    pub drained: bool,
    /// When it enrolled last, in Unix seconds.
    pub enrolled_unix_s: u64,
    /// When its last certificate ends, in Unix seconds.
    pub certificate_ends_unix_s: i64,
    /// SHA-256 of that certificate, in hex.
    pub fingerprint: String,
    /// SHA-256 of the public key that its id belongs to, in hex.
    pub key_sha256: String,
    /// The same of a renewed certificate with which it has not connected yet.
    pub renewed_key_sha256: Option<String>,
    /// Its connections, as in the list; none while it is offline.
    pub connections: Vec<AgentRow>,
    /// Sessions that it carries, oldest first.
    pub sessions: Vec<SessionRow>,
}

/// An agent was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedAgent {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Connections that were closed.
    pub closed: usize,
}

/// An agent was drained, or takes new sessions again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainedAgent {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Sessions that it carries, which go on.
    pub sessions: usize,
}

/// One enrolment string, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Its id.
    pub jti: Uuid,
    /// Name that the agent gets.
    pub name: String,
    /// `issued`, `used` or `revoked`.
    pub state: String,
    /// The agent that enrolled with it.
    pub used_by: Option<Uuid>,
    /// When it expires, in Unix seconds.
    pub expires_unix_s: u64,
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
    /// Bytes from the user so far; none for a direct one.
    pub sent: Option<u64>,
    /// Bytes to the user so far; none for a direct one.
    pub received: Option<u64>,
}

/// How a target would be routed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationView {
    /// The target as it was understood.
    pub target: String,
    /// Candidates in the order of the attempts.
    pub candidates: Vec<CandidateRow>,
    /// Agents with a route for the target that would not be tried at the moment.
    pub passed_over: Vec<PassedOverRow>,
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

/// One agent that is passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOverRow {
    /// Its id.
    pub agent: Uuid,
    /// Its name.
    pub name: String,
    /// The route that matched.
    pub route: String,
    /// `drained` or `suspect`.
    pub why: String,
}

impl AgentRow {
    /// The rows of one agent: one for each connection, or the one that says that there is none.
    #[must_use]
    pub fn of(entry: AgentEntry) -> Vec<Self> {
        if entry.connections.is_empty() {
            return vec![Self::offline(entry.record, entry.drained)];
        }
        entry.connections.into_iter().map(Into::into).collect()
    }

    fn offline(record: AgentRecord, drained: bool) -> Self {
        Self {
            id: record.id.0,
            name: record.name,
            status: "offline".to_owned(),
            drained,
            sessions: 0,
            connected_ms: None,
            silent_ms: None,
            epoch: 0,
            subnets: Vec::new(),
            domains: Vec::new(),
            remote: None,
            rtt_us: None,
        }
    }
}

impl AgentDetails {
    /// Joins what is known of an agent, its connections as they are now, and the sessions that it carries.
    #[must_use]
    pub fn new(
        entry: AgentEntry,
        glances: &BTreeMap<ConnId, Glance>,
        sessions: Vec<SessionRow>,
    ) -> Self {
        let record = entry.record;
        let connection = |info: info::AgentInfo| {
            let glance = glances.get(&info.conn);
            AgentRow {
                remote: glance.map(|g| canonical(g.remote).to_string()),
                rtt_us: glance.map(|g| u64::try_from(g.rtt.as_micros()).unwrap_or(u64::MAX)),
                ..info.into()
            }
        };
        Self {
            id: record.id.0,
            name: record.name,
            hostname: record.hostname,
            drained: entry.drained,
            enrolled_unix_s: record.enrolled_at,
            certificate_ends_unix_s: record.not_after,
            fingerprint: hex(&record.fingerprint),
            key_sha256: hex(&record.spki_sha256),
            renewed_key_sha256: record.renewed_spki_sha256.map(|key| hex(&key)),
            connections: entry.connections.into_iter().map(connection).collect(),
            sessions,
        }
    }
}

impl From<TokenRecord> for TokenRow {
    fn from(token: TokenRecord) -> Self {
        let (state, used_by) = match token.state {
            TokenState::Issued => ("issued", None),
            TokenState::Used { by } => ("used", Some(by.0)),
            TokenState::Revoked => ("revoked", None),
        };
        Self {
            jti: token.jti,
            name: token.name,
            state: state.to_owned(),
            used_by,
            expires_unix_s: token.expires_at,
        }
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
            drained: agent.drained,
            sessions: agent.sessions,
            connected_ms: Some(millis(agent.connected)),
            silent_ms: Some(millis(agent.silent)),
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
            remote: None,
            rtt_us: None,
        }
    }
}

impl From<gateway::SessionRow> for SessionRow {
    fn from(row: gateway::SessionRow) -> Self {
        Self {
            id: row.info.id.0,
            user: row.user.map(|user| user.to_string()),
            ingress: row.ingress.map(Into::into),
            target: row.info.target.to_string(),
            agent: row.info.agent.map(|a| a.0),
            age_ms: millis(row.info.age),
            sent: row.moved.map(|(sent, _)| sent),
            received: row.moved.map(|(_, received)| received),
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
        let passed_over = |p: info::PassedOver| PassedOverRow {
            agent: p.agent.0,
            name: p.name.into(),
            route: p.route,
            why: match p.why {
                info::WhyPassedOver::Drained => "drained",
                info::WhyPassedOver::Suspect => "suspect",
            }
            .to_owned(),
        };
        let fallback = match explanation.fallback {
            info::Fallback::Refuse => "refuse",
            info::Fallback::Direct => "direct",
        };
        Self {
            target,
            candidates: explanation.candidates.into_iter().map(row).collect(),
            passed_over: explanation
                .passed_over
                .into_iter()
                .map(passed_over)
                .collect(),
            fallback: fallback.to_owned(),
        }
    }
}

/// An IPv4 address that an IPv6 socket took, as IPv4.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
