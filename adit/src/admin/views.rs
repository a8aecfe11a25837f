//! How a gateway's rows come about.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use adit_io_common::{gateway, glance::Glance};
use adit_proto_core::{gateway::info, id::ConnId};

use super::rows::{
    AgentDetails, AgentRow, CandidateRow, ExplanationView, PassedOverRow, PeerCandidateRow,
    SessionRow, TokenRow,
};
use crate::{
    control::AgentEntry,
    pki::hex,
    store::{AgentRecord, TokenRecord, TokenState},
};

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
            peer: row.info.peer.map(|node| node.0),
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
        let peer = |p: info::PeerCandidate| PeerCandidateRow {
            node: p.node.0,
            route: p.route,
            sessions: p.sessions,
            after: p.after,
            // Whoever knows the peers fills it in.
            forward: String::new(),
        };
        let fallback = match explanation.fallback {
            info::Fallback::Refuse => "refuse",
            info::Fallback::Direct => "direct",
        };
        Self {
            target,
            candidates: explanation.candidates.into_iter().map(row).collect(),
            peers: explanation.peers.into_iter().map(peer).collect(),
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
