//! What an agent keeps of its enrolment (agent-tunnel 14.5).

use std::fmt;

use adit_proto_core::id::AgentId;
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    pki::{certificate_spki_sha256, first_certificate, hex, parse_hex_32, spki_sha256},
    state::{StateDir, StateError},
};

/// An agent's enrolment, as `agent run` needs it.
pub struct AgentFiles {
    /// The agent's id.
    pub id: AgentId,
    /// Its name.
    pub name: String,
    /// Where to connect, each `host:port`.
    pub quic_endpoints: Vec<String>,
    /// Pin of the gateway's tunnel key.
    pub server_spki_sha256: [u8; 32],
    /// Whether the gateway takes a renewal with another key, make-before-break (design 8.6).
    pub renews_with_new_key: bool,
    /// The URL that it was enrolled at.
    pub gateway_url: String,
    /// The private key.
    pub key_pem: Zeroizing<String>,
    /// The certificate chain.
    pub cert_pem: String,
    /// The only root that the agent trusts.
    pub ca_pem: String,
}

impl AgentFiles {
    /// Reads an enrolment and checks that its parts belong together.
    ///
    /// # Errors
    /// [`FilesError::NotEnrolled`] when there is none, [`FilesError::Damaged`] naming the file that does not fit.
    pub fn load(dir: &StateDir) -> Result<Self, FilesError> {
        let json = dir.read_text(JSON_FILE)?.ok_or(FilesError::NotEnrolled)?;
        let record: Record =
            serde_json::from_str(&json).map_err(|_| FilesError::Damaged(JSON_FILE))?;
        let pin = parse_hex_32(&record.server_spki_sha256).ok_or(FilesError::Damaged(JSON_FILE))?;
        let key_pem = dir
            .read_secret_text(KEY_FILE)?
            .ok_or(FilesError::Damaged(KEY_FILE))?;
        let cert_pem = dir
            .read_text(CERT_FILE)?
            .ok_or(FilesError::Damaged(CERT_FILE))?;
        let ca_pem = dir
            .read_text(CA_FILE)?
            .ok_or(FilesError::Damaged(CA_FILE))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|_| FilesError::Damaged(KEY_FILE))?;
        let cert_key = first_certificate(&cert_pem)
            .and_then(|der| certificate_spki_sha256(&der))
            .map_err(|_| FilesError::Damaged(CERT_FILE))?;
        if cert_key != spki_sha256(&key.subject_public_key_info()) {
            return Err(FilesError::Damaged(CERT_FILE));
        }
        Ok(Self {
            id: AgentId(record.agent_id),
            name: record.name,
            quic_endpoints: record.quic_endpoints,
            server_spki_sha256: pin,
            renews_with_new_key: record.renewal >= 1,
            gateway_url: record.gateway_url,
            key_pem,
            cert_pem,
            ca_pem,
        })
    }

    /// Writes the enrolment over a former one. On failure the former files are put back.
    ///
    /// # Errors
    /// [`StateError::Write`] of the write that failed.
    pub(super) fn save(&self, dir: &StateDir) -> Result<(), FilesError> {
        let record = Record {
            agent_id: self.id.0,
            name: self.name.clone(),
            quic_endpoints: self.quic_endpoints.clone(),
            server_spki_sha256: hex(&self.server_spki_sha256),
            renewal: u32::from(self.renews_with_new_key),
            gateway_url: self.gateway_url.clone(),
        };
        let json =
            serde_json::to_vec_pretty(&record).map_err(|_| FilesError::Damaged(JSON_FILE))?;
        // The record comes last: without it the rest is no enrolment.
        let wanted = [
            (KEY_FILE, self.key_pem.as_bytes()),
            (CERT_FILE, self.cert_pem.as_bytes()),
            (CA_FILE, self.ca_pem.as_bytes()),
            (JSON_FILE, json.as_slice()),
        ];
        Ok(replace_all(dir, &wanted, |name, bytes| {
            dir.write_secret(name, bytes)
        })?)
    }

    /// Gives id and key of a former enrolment, so that the next one is the same agent.
    pub(super) fn former_identity(dir: &StateDir) -> Option<(AgentId, Zeroizing<String>)> {
        let files = Self::load(dir).ok()?;
        Some((files.id, files.key_pem))
    }
}

impl fmt::Debug for AgentFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentFiles")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("quic_endpoints", &self.quic_endpoints)
            .finish_non_exhaustive()
    }
}

/// Why an enrolment cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is none.
    #[error("this agent is not enrolled; run: adit agent up with an enrolment string")]
    NotEnrolled,
    /// A file is absent, unreadable, or does not belong to the others.
    #[error("the enrolment is damaged at {0}; enrol again")]
    Damaged(&'static str),
}

fn replace_all(
    dir: &StateDir,
    wanted: &[(&'static str, &[u8])],
    write: impl Fn(&str, &[u8]) -> Result<(), StateError>,
) -> Result<(), StateError> {
    let mut former = Vec::with_capacity(wanted.len());
    for (name, _) in wanted {
        former.push((*name, dir.read(name)?.map(Zeroizing::new)));
    }
    for (name, bytes) in wanted {
        if let Err(e) = write(name, bytes) {
            restore(dir, &former);
            return Err(e);
        }
    }
    Ok(())
}

fn restore(dir: &StateDir, former: &[(&'static str, Option<Zeroizing<Vec<u8>>>)]) {
    for (name, content) in former {
        let restored = match content {
            Some(bytes) => dir.write_secret(name, bytes),
            None => dir.remove(name),
        };
        if let Err(error) = restored {
            tracing::warn!(%error, "cannot put a former file back");
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    agent_id: Uuid,
    name: String,
    quic_endpoints: Vec<String>,
    server_spki_sha256: String,
    #[serde(default)]
    renewal: u32,
    gateway_url: String,
}

const KEY_FILE: &str = "agent-key.pem";
const CERT_FILE: &str = "agent-cert.pem";
const CA_FILE: &str = "gateway-ca.pem";
const JSON_FILE: &str = "agent.json";

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::CertificateParams;

    use super::*;

    #[test]
    fn failed_save_puts_the_former_files_back() {
        let (_root, dir) = scratch();
        dir.write(KEY_FILE, b"former key").unwrap();
        dir.write(JSON_FILE, b"former record").unwrap();
        let wanted: [(_, &[u8]); 3] = [(KEY_FILE, b"k"), (CERT_FILE, b"c"), (JSON_FILE, b"r")];
        let outcome = replace_all(&dir, &wanted, |name, bytes| {
            if name == JSON_FILE {
                return Err(StateError::NoRandomness);
            }
            dir.write_secret(name, bytes)
        });
        assert!(outcome.is_err());
        assert_eq!(dir.read(KEY_FILE).unwrap().unwrap(), b"former key");
        assert_eq!(dir.read(JSON_FILE).unwrap().unwrap(), b"former record");
        assert!(dir.read(CERT_FILE).unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let (_root, dir) = scratch();
        files("a").save(&dir).unwrap();
        AgentFiles::load(&dir).unwrap();
        let other = files("b");
        dir.write(CERT_FILE, other.cert_pem.as_bytes()).unwrap();
        assert!(matches!(
            AgentFiles::load(&dir),
            Err(FilesError::Damaged(CERT_FILE))
        ));
        assert!(AgentFiles::former_identity(&dir).is_none());
        dir.write(JSON_FILE, b"{").unwrap();
        assert!(matches!(
            AgentFiles::load(&dir),
            Err(FilesError::Damaged(JSON_FILE))
        ));
    }

    #[test]
    fn debug_shows_no_key() {
        let files = files("a");
        let text = format!("{files:?}");
        assert!(!text.contains("PRIVATE") && !text.contains(files.key_pem.as_str()));
    }

    fn files(name: &str) -> AgentFiles {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::default().self_signed(&key).unwrap();
        AgentFiles {
            id: AgentId(Uuid::from_u128(1)),
            name: name.to_owned(),
            quic_endpoints: vec!["gw:4433".to_owned()],
            server_spki_sha256: [1; 32],
            renews_with_new_key: true,
            gateway_url: "https://gw".to_owned(),
            key_pem: Zeroizing::new(key.serialize_pem()),
            cert_pem: cert.pem(),
            ca_pem: cert.pem(),
        }
    }

    fn scratch() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        (root, dir)
    }
}
