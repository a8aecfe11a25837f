//! What an agent keeps of its enrolment (agent-tunnel 14.5).

use std::fmt;

use adit_proto_core::id::AgentId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    pair::{KeyPairFile, PairName},
    routes::ROUTES_FILE,
};
use crate::{
    pki::{hex, parse_hex_32},
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
    /// Key, certificate and root in use.
    pub pair: KeyPairFile,
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
        let pair = KeyPairFile::load(dir, PairName::Current)?
            .ok_or_else(|| FilesError::Damaged(PairName::Current.file()))?;
        Ok(Self {
            id: AgentId(record.agent_id),
            name: record.name,
            quic_endpoints: record.quic_endpoints,
            server_spki_sha256: pin,
            renews_with_new_key: record.renewal >= 1,
            gateway_url: record.gateway_url,
            pair,
        })
    }

    /// Puts a whole pair in the place of a damaged or lost one: the renewed pair where there is one, else the former one. A
    /// running agent never leaves a current pair torn; a disk may.
    ///
    /// # Errors
    /// What is wrong with the disk. Where no pair is whole nothing is changed.
    pub fn replace_damaged_pair(dir: &StateDir) -> Result<(), FilesError> {
        let current = PairName::Current;
        match KeyPairFile::load(dir, current) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) | Err(FilesError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
        for name in [PairName::Next, PairName::Previous] {
            if let Ok(Some(_)) = KeyPairFile::load(dir, name) {
                dir.rename(name.file(), current.file())?;
                tracing::warn!(
                    damaged = current.file(),
                    replaced_by = name.file(),
                    "a damaged key pair was replaced by another one"
                );
                break;
            }
        }
        Ok(())
    }

    /// Proves that an enrolment could be kept, so that no token is spent on one that could not.
    ///
    /// # Errors
    /// [`StateError::Write`] or [`StateError::Read`], naming the file.
    pub(super) fn prove_room(dir: &StateDir) -> Result<(), StateError> {
        let names = [PairName::Current.file(), JSON_FILE, ROUTES_FILE];
        dir.prove_room(&names)?;
        // What a failure would have to put back.
        names.iter().try_for_each(|name| dir.read(name).map(drop))
    }

    /// Writes the enrolment over a former one. On failure the former files are put back. Renewed pairs of the former one
    /// go last: one that is left over is refused by the gateway and removed then.
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
        let pair = self.pair.to_json()?;
        let wanted = [
            (PairName::Current.file(), pair.as_slice()),
            (JSON_FILE, json.as_slice()),
        ];
        replace_all(dir, &wanted, |name, bytes| dir.write_secret(name, bytes))?;
        for former in [PairName::Next, PairName::Previous] {
            dir.remove(former.file())?;
        }
        Ok(())
    }

    /// Gives id and keys of a former enrolment, so that the next one is the same agent. The renewed key comes first, the
    /// one before the current one last: which of them the gateway knows is found out by showing them. A gateway that was
    /// restored from a backup knows an old one.
    pub(super) fn former_identity(dir: &StateDir) -> Option<(AgentId, Vec<Zeroizing<String>>)> {
        let files = Self::load(dir).ok()?;
        let kept = |name| KeyPairFile::load(dir, name).ok().flatten();
        let pairs = [
            kept(PairName::Next),
            Some(files.pair),
            kept(PairName::Previous),
        ];
        let mut keys: Vec<_> = pairs.into_iter().flatten().map(|p| p.key_pem).collect();
        // A renewal may keep the key.
        keys.dedup();
        Some((files.id, keys))
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
    /// A key or a request could not be made.
    #[error("cannot make a key or a certificate signing request: {0}")]
    Key(rcgen::Error),
    /// A certificate came that nobody asked for.
    #[error("no renewal was asked for")]
    NotRequested,
    /// The gateway issued something of no use.
    #[error("the gateway's certificate does not fit the request, or cannot be read")]
    BadRenewal,
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

const JSON_FILE: &str = "agent.json";

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn failed_save_puts_the_former_files_back() {
        let (_root, dir) = scratch();
        let (pair, other) = (PairName::Current.file(), "other");
        dir.write(pair, b"former pair").unwrap();
        dir.write(JSON_FILE, b"former record").unwrap();
        let wanted: [(_, &[u8]); 3] = [(pair, b"p"), (other, b"o"), (JSON_FILE, b"r")];
        let outcome = replace_all(&dir, &wanted, |name, bytes| {
            if name == JSON_FILE {
                return Err(StateError::NoRandomness);
            }
            dir.write_secret(name, bytes)
        });
        assert!(outcome.is_err());
        assert_eq!(dir.read(pair).unwrap().unwrap(), b"former pair");
        assert_eq!(dir.read(JSON_FILE).unwrap().unwrap(), b"former record");
        assert!(dir.read(other).unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_damaged_enrolment_is_told_of_by_its_file() {
        let (_root, dir) = scratch();
        assert!(matches!(
            AgentFiles::load(&dir),
            Err(FilesError::NotEnrolled)
        ));
        files("a").save(&dir).unwrap();
        AgentFiles::load(&dir).unwrap();
        let damaged = |dir| match AgentFiles::load(dir) {
            Err(FilesError::Damaged(file)) => file,
            other => panic!("{other:?}"),
        };
        dir.remove(PairName::Current.file()).unwrap();
        assert_eq!(damaged(&dir), PairName::Current.file());
        assert!(AgentFiles::former_identity(&dir).is_none());
        dir.write(JSON_FILE, b"{").unwrap();
        assert_eq!(damaged(&dir), JSON_FILE);
    }

    #[test]
    fn a_damaged_pair_is_replaced_by_one_that_is_whole() {
        let (_root, dir) = scratch();
        let (current, next, previous) = (
            PairName::Current.file(),
            PairName::Next.file(),
            PairName::Previous.file(),
        );
        let replace = || AgentFiles::replace_damaged_pair(&dir).unwrap();
        files("a").save(&dir).unwrap();
        let good = dir.read(current).unwrap().unwrap();
        replace();
        assert_eq!(dir.read(current).unwrap().unwrap(), good);
        let torn = &good[..good.len() / 2];
        for (kept, other) in [(next, previous), (previous, next)] {
            dir.write_secret(current, torn).unwrap();
            dir.write_secret(other, torn).unwrap();
            dir.write_secret(kept, &good).unwrap();
            replace();
            assert_eq!(dir.read(current).unwrap().unwrap(), good, "{kept}");
            dir.remove(current).unwrap();
            dir.write_secret(kept, &good).unwrap();
            replace();
            assert_eq!(dir.read(current).unwrap().unwrap(), good, "{kept}");
        }
        dir.write_secret(current, torn).unwrap();
        replace();
        assert_eq!(
            dir.read(current).unwrap().unwrap(),
            torn,
            "nothing is better"
        );
    }

    #[test]
    fn a_new_enrolment_leaves_no_renewed_pair_of_the_former_one() {
        let (_root, dir) = scratch();
        files("a").save(&dir).unwrap();
        dir.write(PairName::Next.file(), b"x").unwrap();
        dir.write(PairName::Previous.file(), b"y").unwrap();
        files("b").save(&dir).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn debug_shows_no_key() {
        let files = files("a");
        let text = format!("{files:?}");
        assert!(!text.contains("PRIVATE") && !text.contains(files.pair.key_pem.as_str()));
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
            pair: KeyPairFile {
                key_pem: Zeroizing::new(key.serialize_pem()),
                cert_pem: cert.pem(),
                ca_pem: cert.pem(),
            },
        }
    }

    fn scratch() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        (root, dir)
    }
}
