//! What stands in the store, and how.

use adit_proto_core::id::AgentId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// An enrolled agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecord {
    /// Its id.
    pub id: AgentId,
    /// Its name.
    pub name: String,
    /// Hash of the key that the id belongs to.
    pub spki_sha256: [u8; 32],
    /// Hash of the key of a renewed certificate with which it has not connected yet.
    pub renewed_spki_sha256: Option<[u8; 32]>,
    /// SHA-256 of its last certificate.
    pub fingerprint: [u8; 32],
    /// Host name that it sent at enrolment.
    pub hostname: Option<String>,
    /// Unix time of its last enrolment, in seconds.
    pub enrolled_at: u64,
    /// Unix time of the end of its last certificate, in seconds.
    pub not_after: i64,
    /// Hash of the key of the authority that signed the last certificate with which it has connected or enrolled; none
    /// where that was not written down.
    pub issuer_sha256: Option<[u8; 32]>,
    /// The same of its last certificate, where that is another authority and it has not connected with it yet.
    pub renewed_issuer_sha256: Option<[u8; 32]>,
    /// It has connected since its last enrolment, so it has the answer to that. True where that was not written down.
    pub has_connected: bool,
}

/// A token that was issued here, or used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its id.
    pub jti: Uuid,
    /// Name that the agent gets.
    pub name: String,
    /// Unix time of its end, in seconds.
    pub expires_at: u64,
    /// What has become of it.
    pub state: TokenState,
}

/// What has become of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It can be used.
    Issued,
    /// It was used.
    Used {
        /// The agent that enrolled with it.
        by: AgentId,
    },
    /// It was taken back.
    Revoked,
}

/// A record as bytes: one byte of version, then postcard.
pub(super) trait Stored: Sized {
    /// The layout on disk, apart from the public type so that either can change alone.
    type Layout: Serialize + DeserializeOwned;
    /// Version of the layout.
    const VERSION: u8;
    /// What makes a record of version 1, 2 and so on one of this version: fields have only been added behind.
    const TAILS: &'static [&'static [u8]];
    fn to_layout(&self) -> Self::Layout;
    fn from_layout(key: Uuid, layout: Self::Layout) -> Self;

    fn encode(&self) -> Option<Vec<u8>> {
        postcard::to_extend(&self.to_layout(), vec![Self::VERSION]).ok()
    }

    fn decode(key: Uuid, bytes: &[u8]) -> Option<Self> {
        let (version, body) = bytes.split_first()?;
        let layout = if *version == Self::VERSION {
            postcard::from_bytes(body)
        } else {
            let tail = Self::TAILS.get(usize::from(version.checked_sub(1)?))?;
            postcard::from_bytes(&[body, tail].concat())
        };
        Some(Self::from_layout(key, layout.ok()?))
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct AgentLayout {
    name: String,
    spki_sha256: [u8; 32],
    renewed_spki_sha256: Option<[u8; 32]>,
    fingerprint: [u8; 32],
    hostname: Option<String>,
    enrolled_at: u64,
    not_after: i64,
    issuer_sha256: Option<[u8; 32]>,
    renewed_issuer_sha256: Option<[u8; 32]>,
    has_connected: bool,
}

impl Stored for AgentRecord {
    type Layout = AgentLayout;
    const VERSION: u8 = 4;
    /// No issuer; none of a renewed certificate; connected.
    const TAILS: &'static [&'static [u8]] = &[&[0, 0, 1], &[0, 1], &[1]];

    fn to_layout(&self) -> AgentLayout {
        AgentLayout {
            name: self.name.clone(),
            spki_sha256: self.spki_sha256,
            renewed_spki_sha256: self.renewed_spki_sha256,
            fingerprint: self.fingerprint,
            hostname: self.hostname.clone(),
            enrolled_at: self.enrolled_at,
            not_after: self.not_after,
            issuer_sha256: self.issuer_sha256,
            renewed_issuer_sha256: self.renewed_issuer_sha256,
            has_connected: self.has_connected,
        }
    }

    fn from_layout(key: Uuid, layout: AgentLayout) -> Self {
        Self {
            id: AgentId(key),
            name: layout.name,
            spki_sha256: layout.spki_sha256,
            renewed_spki_sha256: layout.renewed_spki_sha256,
            fingerprint: layout.fingerprint,
            hostname: layout.hostname,
            enrolled_at: layout.enrolled_at,
            not_after: layout.not_after,
            issuer_sha256: layout.issuer_sha256,
            renewed_issuer_sha256: layout.renewed_issuer_sha256,
            has_connected: layout.has_connected,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct TokenLayout {
    name: String,
    expires_at: u64,
    state: StateLayout,
}

#[derive(Serialize, Deserialize)]
enum StateLayout {
    Issued,
    Used([u8; 16]),
    Revoked,
}

impl Stored for TokenRecord {
    type Layout = TokenLayout;
    const VERSION: u8 = 1;
    const TAILS: &'static [&'static [u8]] = &[];

    fn to_layout(&self) -> TokenLayout {
        TokenLayout {
            name: self.name.clone(),
            expires_at: self.expires_at,
            state: match self.state {
                TokenState::Issued => StateLayout::Issued,
                TokenState::Used { by } => StateLayout::Used(by.0.into_bytes()),
                TokenState::Revoked => StateLayout::Revoked,
            },
        }
    }

    fn from_layout(key: Uuid, layout: TokenLayout) -> Self {
        Self {
            jti: key,
            name: layout.name,
            expires_at: layout.expires_at,
            state: match layout.state {
                StateLayout::Issued => TokenState::Issued,
                StateLayout::Used(by) => TokenState::Used {
                    by: AgentId(Uuid::from_bytes(by)),
                },
                StateLayout::Revoked => TokenState::Revoked,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_former_version_lacks_what_came_later() {
        let mut record = AgentRecord {
            id: AgentId(Uuid::from_u128(5)),
            name: "site-a".to_owned(),
            spki_sha256: [1; 32],
            renewed_spki_sha256: Some([2; 32]),
            fingerprint: [3; 32],
            hostname: None,
            enrolled_at: 7,
            not_after: 8,
            issuer_sha256: Some([4; 32]),
            renewed_issuer_sha256: Some([5; 32]),
            has_connected: false,
        };
        let read = |bytes: &[u8]| AgentRecord::decode(record.id.0, bytes);
        let bytes = record.encode().unwrap();
        assert_eq!(read(&bytes).unwrap(), record);
        // Each ended before the field that came next: 33 bytes of an issuer, one of a yes or no.
        let former = |version: u8, lacking: usize| {
            let mut former = bytes[..bytes.len() - lacking].to_vec();
            former[0] = version;
            read(&former)
        };
        for version in [0, 5] {
            assert_eq!(former(version, 0), None);
        }
        let (first, second, third) = (former(1, 67), former(2, 34), former(3, 1));
        record.has_connected = true;
        assert_eq!(third.unwrap(), record);
        record.renewed_issuer_sha256 = None;
        assert_eq!(second.unwrap(), record);
        record.issuer_sha256 = None;
        assert_eq!(first.unwrap(), record);
    }
}
