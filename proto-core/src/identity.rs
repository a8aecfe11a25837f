//! Who an agent is, as its certificate proves it.

use crate::id::AgentId;
use serde::{Deserialize, Serialize};

/// What the gateway knows of an agent from the first certificate of its chain (agent-tunnel 2.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentIdentity {
    /// From the first URI SAN that begins with `urn:uuid:`.
    pub id: AgentId,
    /// Subject CN, or `agent-<uuid>` where there is none. Control characters are replaced, as it is for logs and lists.
    pub name: Box<str>,
    /// SHA-256 of the certificate's DER.
    pub fingerprint: [u8; 32],
    /// SHA-256 of the DER SubjectPublicKeyInfo: an agent id belongs to the key that enrolled it (design 3.8).
    pub spki_sha256: [u8; 32],
}
