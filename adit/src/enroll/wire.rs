//! The bodies of the enrolment call (agent-tunnel 14.1 and 14.2). Unknown fields are ignored.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Serialize, Deserialize)]
pub(super) struct EnrolBody {
    pub(super) agent_id: Uuid,
    pub(super) csr_pem: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) agent_hostname: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct EnrolAnswer {
    pub(super) agent_id: Uuid,
    pub(super) client_cert_pem: String,
    pub(super) gateway_ca_cert_pem: String,
    pub(super) quic_endpoint: String,
    pub(super) server_spki_sha256: String,
    /// What only adit says; absent at a reference gateway (design 8.6).
    #[serde(default)]
    pub(super) adit: Option<Extras>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Extras {
    /// 1: the gateway takes a renewal with another key and a second connection beside the first.
    #[serde(default)]
    pub(super) renewal: u32,
}

/// The body of every refusal (RFC 9457). Of a stranger's, only the detail counts.
#[derive(Serialize, Deserialize)]
pub(crate) struct Problem {
    /// A name for programs.
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) status: u16,
    /// A sentence for people: what to do.
    pub(crate) detail: String,
}
