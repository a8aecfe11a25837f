//! What an agent keeps of its enrolment (agent-tunnel 14.5).

use std::fmt;

use adit_proto_core::id::AgentId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    pair::{KeyPairFile, PairName},
    pending::{self, PENDING_FILE, Pending},
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
    /// [`FilesError::NotEnrolled`] when there is none, [`FilesError::Unanswered`] when only the question for one is there,
    /// [`FilesError::Damaged`] naming the file that does not fit.
    pub fn load(dir: &StateDir) -> Result<Self, FilesError> {
        let Some(json) = dir.read_text(JSON_FILE)? else {
            return Err(match Pending::load(dir)? {
                Some(Pending::Asked { .. }) => FilesError::Unanswered,
                Some(Pending::Answered(_)) | None => FilesError::NotEnrolled,
            });
        };
        let record: Record =
            serde_json::from_str(&json).map_err(|_| FilesError::Damaged(JSON_FILE))?;
        let pair = KeyPairFile::load(dir, PairName::Current)?
            .ok_or_else(|| FilesError::Damaged(PairName::Current.file()))?;
        Self::of(record, pair).ok_or(FilesError::Damaged(JSON_FILE))
    }

    /// Ends an enrolment whose answer had come before a crash. Called before anything else looks at the files.
    ///
    /// # Errors
    /// What is wrong with the disk; the next call goes on.
    pub fn finish_enrolment(dir: &StateDir) -> Result<(), FilesError> {
        match Pending::load(dir)? {
            Some(Pending::Answered(files)) => {
                files.finish(dir)?;
                tracing::info!(agent = %files.id, "an enrolment that was cut short is finished");
                Ok(())
            }
            // For `agent up` to ask once more.
            Some(Pending::Asked { .. }) | None => Ok(()),
        }
    }

    /// Reads the enrolment that [`finish_enrolment`](Self::finish_enrolment) would leave, and tells whether there is
    /// something to finish. For those who may only look: what they wrote could belong to another user.
    ///
    /// # Errors
    /// As [`AgentFiles::load`].
    pub fn foresee(dir: &StateDir) -> Result<(Self, bool), FilesError> {
        match Pending::load(dir)? {
            Some(Pending::Answered(files)) => Ok((files, true)),
            Some(Pending::Asked { .. }) | None => Ok((Self::load(dir)?, false)),
        }
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
        let names = [
            PairName::Current.file(),
            JSON_FILE,
            PENDING_FILE,
            ROUTES_FILE,
        ];
        dir.prove_room(&names)?;
        // What a failure would have to put back.
        names.iter().try_for_each(|name| dir.read(name).map(drop))
    }

    /// Puts the enrolment in the place of a former one. One file with all of it makes the change; from then on it is
    /// finished by whoever comes next ([`AgentFiles::finish_enrolment`]), whatever fails or dies here.
    ///
    /// # Errors
    /// What is wrong with the disk.
    pub(super) fn save(&self, dir: &StateDir) -> Result<(), FilesError> {
        pending::save_answered(dir, self)?;
        self.finish(dir)
    }

    /// Writes the files of an enrolment from the one that holds all of it, which goes last.
    fn finish(&self, dir: &StateDir) -> Result<(), FilesError> {
        Self::steps()
            .into_iter()
            .try_for_each(|step| step(self, dir))
    }

    /// Each may be done again.
    fn steps() -> [Step; 5] {
        [
            |files, dir| files.pair.save(dir, PairName::Current),
            |files, dir| {
                let json = serde_json::to_vec_pretty(&files.record());
                let json = json.map_err(|_| FilesError::Damaged(JSON_FILE))?;
                Ok(dir.write_secret(JSON_FILE, &json)?)
            },
            // Pairs of the former enrolment.
            |_, dir| Ok(dir.remove(PairName::Next.file())?),
            |_, dir| Ok(dir.remove(PairName::Previous.file())?),
            |_, dir| Ok(dir.remove(PENDING_FILE)?),
        ]
    }

    pub(super) fn of(record: Record, pair: KeyPairFile) -> Option<Self> {
        Some(Self {
            id: AgentId(record.agent_id),
            name: record.name,
            quic_endpoints: record.quic_endpoints,
            server_spki_sha256: parse_hex_32(&record.server_spki_sha256)?,
            renews_with_new_key: record.renewal >= 1,
            gateway_url: record.gateway_url,
            pair,
        })
    }

    pub(super) fn record(&self) -> Record {
        Record {
            agent_id: self.id.0,
            name: self.name.clone(),
            quic_endpoints: self.quic_endpoints.clone(),
            server_spki_sha256: hex(&self.server_spki_sha256),
            renewal: u32::from(self.renews_with_new_key),
            gateway_url: self.gateway_url.clone(),
        }
    }

    /// Gives id and keys of a former enrolment, so that the next one is the same agent. The key that the gateway was last
    /// asked for comes first, where its answer may be lost; then the renewed key, and the one before the current one last:
    /// which of them the gateway knows is found out by showing them. A gateway that was restored from a backup knows an
    /// old one.
    pub(super) fn former_identity(dir: &StateDir) -> Result<Option<Identity>, FilesError> {
        let asked = match Pending::load(dir)? {
            Some(Pending::Asked { id, key_pem }) => Some((id, key_pem)),
            Some(Pending::Answered(_)) | None => None,
        };
        let Ok(files) = Self::load(dir) else {
            return Ok(asked.map(|(id, key)| (id, vec![key])));
        };
        let kept = |name| KeyPairFile::load(dir, name).ok().flatten();
        let pairs = [
            kept(PairName::Next),
            Some(files.pair),
            kept(PairName::Previous),
        ];
        let asked = asked.filter(|(id, _)| *id == files.id);
        let mut keys: Vec<_> = asked.map(|(_, key)| key).into_iter().collect();
        for pair in pairs.into_iter().flatten() {
            // A renewal may keep the key.
            if !keys.contains(&pair.key_pem) {
                keys.push(pair.key_pem);
            }
        }
        Ok(Some((files.id, keys)))
    }
}

/// An agent's id, and its keys in the order in which a gateway is shown them.
type Identity = (AgentId, Vec<Zeroizing<String>>);
type Step = fn(&AgentFiles, &StateDir) -> Result<(), FilesError>;

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
    /// One was begun, and the gateway's answer is not here.
    #[error(
        "the enrolment was begun and the gateway's answer did not come; run adit agent up once more, with the same \
         enrolment string"
    )]
    Unanswered,
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

/// What `agent.json` holds.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
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
    fn a_crash_at_any_step_leaves_the_former_enrolment_or_the_whole_of_the_other() {
        for died_at in 0..=AgentFiles::steps().len() {
            let (_root, dir) = scratch();
            let (former, other) = (files("a"), files("b"));
            former.save(&dir).unwrap();
            for renewed in [PairName::Next, PairName::Previous] {
                former.pair.save(&dir, renewed).unwrap();
            }
            pending::save_answered(&dir, &other).unwrap();
            for step in &AgentFiles::steps()[..died_at] {
                step(&other, &dir).unwrap();
            }
            let (foreseen, is_cut_short) = AgentFiles::foresee(&dir).unwrap();
            assert_eq!(foreseen.name, "b");
            assert_eq!(is_cut_short, died_at < AgentFiles::steps().len());
            AgentFiles::finish_enrolment(&dir).unwrap();
            let found = AgentFiles::load(&dir).unwrap();
            assert_eq!(found.name, "b", "died at {died_at}");
            assert_eq!(found.pair.cert_pem, other.pair.cert_pem);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
            // A renewal since then is not undone.
            former.pair.save(&dir, PairName::Current).unwrap();
            AgentFiles::finish_enrolment(&dir).unwrap();
            let found = AgentFiles::load(&dir).unwrap();
            assert_eq!(found.pair.cert_pem, former.pair.cert_pem);
        }
    }

    #[test]
    fn what_was_asked_for_is_asked_for_again() {
        let (_root, dir) = scratch();
        let identity = || AgentFiles::former_identity(&dir).unwrap();
        assert!(identity().is_none());
        let key = |n: u128| Pending::Asked {
            id: AgentId(Uuid::from_u128(n)),
            key_pem: Zeroizing::new(n.to_string()),
        };
        key(1).save(&dir).unwrap();
        AgentFiles::finish_enrolment(&dir).unwrap();
        let unanswered = AgentFiles::foresee(&dir).unwrap_err();
        assert!(unanswered.to_string().contains("same enrolment string"));
        let (id, keys) = identity().unwrap();
        assert_eq!((id.0.as_u128(), keys[0].as_str()), (1, "1"));
        // Torn by the disk: as if it had not been.
        fs::write(dir.file(PENDING_FILE), b"{").unwrap();
        assert!(identity().is_none());
        let former = files("a");
        former.save(&dir).unwrap();
        key(1).save(&dir).unwrap();
        let (_, keys) = identity().unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0].as_str(), "1", "before the key in use");
        // Of another agent, whose files these are not.
        key(2).save(&dir).unwrap();
        let (id, keys) = identity().unwrap();
        assert_eq!((id, keys), (former.id, vec![former.pair.key_pem]));
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
        assert!(AgentFiles::former_identity(&dir).unwrap().is_none());
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
