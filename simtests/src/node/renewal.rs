//! What agents and gateways write to each other about certificates: the core takes it for opaque text.

use std::fmt::Write as _;

use adit_proto_core::{agent::renewal::Validity, id::AgentId, output::Renewed};

use crate::pki::Pair;

/// Certificates of an agent that are renewed in a run.
#[derive(Clone, Debug)]
pub struct RenewalPlan {
    /// The agent's name in its certificates.
    pub name: String,
    /// What its machine is told of the first certificate; the later ones outlast every run.
    pub validity: Validity,
}

/// The life of a renewed certificate.
pub(super) const LONG: Validity = Validity {
    not_before: 0,
    not_after: i64::MAX,
};

/// A request for the n-th certificate of an agent.
pub(super) fn request_text(id: AgentId, nth: u64) -> String {
    format!("request {} {nth}", id.0)
}

/// Reads a request back.
pub(super) fn request_of(text: &str) -> Option<(AgentId, u64)> {
    let (id, nth) = text.strip_prefix("request ")?.split_once(' ')?;
    Some((AgentId(id.parse().ok()?), nth.parse().ok()?))
}

/// What a gateway answers.
pub(super) fn renewed(pair: &Pair) -> Renewed {
    Renewed {
        client_cert_pem: hex(&pair.cert),
        gateway_ca_pem: String::new(),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// Reads a key back.
pub(super) fn key_of(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (nth, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * nth..2 * nth + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn texts_go_both_ways() {
        let id = AgentId(Uuid::from_u128(7));
        assert_eq!(request_of(&request_text(id, 12)), Some((id, 12)));
        for other in ["", "request x 1", "request", "please"] {
            assert_eq!(request_of(other), None);
        }
        let key = [0xa7; 32];
        assert_eq!(key_of(&hex(&key)), Some(key));
        assert_eq!(key_of("a7"), None);
        assert_eq!(key_of(&"zz".repeat(32)), None);
    }
}
