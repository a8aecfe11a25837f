//! What a gateway tells of agents, sessions, tokens and routes over its socket: plain rows, the JSON of the verbs.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
    /// The agent that carries it; none for a direct one, and for one that a peer carries.
    pub agent: Option<Uuid>,
    /// The peer that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<u64>,
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
    /// Peers that would be tried, each behind the candidates that come before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerCandidateRow>,
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

/// One peer that would be asked to carry a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCandidateRow {
    /// Its node id.
    pub node: u64,
    /// The route that matched.
    pub route: String,
    /// Sessions open and being opened through it.
    pub sessions: usize,
    /// How many of the candidates are tried before it.
    pub after: usize,
    /// What the session would go on: `quic` or `replica`.
    #[serde(default)]
    pub forward: String,
}

/// The peers of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersView {
    /// When the certificate ends that the gateway shows them, in Unix seconds; none without peers, and where nobody proves
    /// anything.
    pub own_certificate_ends_unix_s: Option<i64>,
    /// By their ids.
    pub peers: Vec<PeerRow>,
}

/// A peer of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// Its node id.
    pub id: u64,
    /// Where it is dialled.
    pub address: String,
    /// There is a connection.
    pub connected: bool,
    /// `dialled` or `accepted`; none without a connection.
    pub direction: Option<String>,
    /// The cluster wire version that was agreed on.
    pub version: Option<u16>,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: Option<u64>,
    /// Agents that it holds.
    pub agents: usize,
    /// Routes that it holds.
    pub routes: usize,
    /// What sessions go to it on: `quic` or `replica`.
    #[serde(default)]
    pub forward: String,
    /// `closed`, `open` or `half-open`.
    pub breaker: String,
    /// When the certificate ends that it has shown, in Unix seconds; none without a connection that was dialled.
    #[serde(default)]
    pub certificate_ends_unix_s: Option<i64>,
    /// Why the last attempt to connect, or the last call, came to nothing; none once one has succeeded.
    pub last_refusal: Option<String>,
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

/// How much of a bound is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// What is bounded, in small letters with underscores; of an ingress with a colon and its name.
    pub what: String,
    /// How much of it there is.
    pub used: u64,
    /// How much there may be.
    pub limit: u64,
}
