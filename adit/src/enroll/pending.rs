//! An enrolment under way: what a crash or a lost answer must not take away.

use std::borrow::Cow;

use adit_proto_core::id::AgentId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    files::{AgentFiles, FilesError, Record},
    pair::KeyPairFile,
};
use crate::state::{StateDir, StateError};

/// How far an enrolment has come, in a file of its own.
pub(super) enum Pending {
    /// The gateway may have been asked for this agent with this key. Where its answer was lost, the same string is taken
    /// again from the same agent with the same key only.
    Asked {
        /// Which agent.
        id: AgentId,
        /// Its key.
        key_pem: Zeroizing<String>,
    },
    /// The answer is here, and the files of the enrolment may not all be: they are written from it once more.
    Answered(AgentFiles),
}

impl Pending {
    /// Reads what is under way, if anything. What cannot be read is as nothing: it ends like a lost answer.
    pub(super) fn load(dir: &StateDir) -> Result<Option<Self>, StateError> {
        let Some(bytes) = dir.read_secret(PENDING_FILE)? else {
            return Ok(None);
        };
        let pending = serde_json::from_slice(&bytes).ok().and_then(Self::of);
        if pending.is_none() {
            tracing::warn!(file = PENDING_FILE, "a damaged file is left alone");
        }
        Ok(pending)
    }

    /// Writes it down, durably when this returns.
    pub(super) fn save(&self, dir: &StateDir) -> Result<(), FilesError> {
        match self {
            Self::Answered(files) => save_answered(dir, files),
            Self::Asked { id, key_pem } => write(
                dir,
                &Stored {
                    agent_id: id.0,
                    key: Cow::from(key_pem.as_str()),
                    enrolment: None,
                },
            ),
        }
    }

    fn of(stored: Stored<'_>) -> Option<Self> {
        let id = AgentId(stored.agent_id);
        let key_pem = Zeroizing::new(stored.key.into_owned());
        let Some(enrolment) = stored.enrolment else {
            return Some(Self::Asked { id, key_pem });
        };
        let pair = KeyPairFile {
            key_pem,
            cert_pem: enrolment.certificate.into_owned(),
            ca_pem: enrolment.gateway_ca.into_owned(),
        };
        pair.check().ok()?;
        let files = AgentFiles::of(enrolment.record, pair)?;
        (files.id == id).then_some(Self::Answered(files))
    }
}

/// Writes down all of an enrolment, durably when this returns.
pub(super) fn save_answered(dir: &StateDir, files: &AgentFiles) -> Result<(), FilesError> {
    let enrolment = Enrolment {
        record: files.record(),
        certificate: Cow::from(&files.pair.cert_pem),
        gateway_ca: Cow::from(&files.pair.ca_pem),
    };
    let stored = Stored {
        agent_id: files.id.0,
        key: Cow::from(files.pair.key_pem.as_str()),
        enrolment: Some(enrolment),
    };
    write(dir, &stored)
}

fn write(dir: &StateDir, stored: &Stored<'_>) -> Result<(), FilesError> {
    let json = serde_json::to_vec_pretty(stored).map(Zeroizing::new);
    let json = json.map_err(|_| FilesError::Damaged(PENDING_FILE))?;
    Ok(dir.write_secret(PENDING_FILE, &json)?)
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    agent_id: Uuid,
    key: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enrolment: Option<Enrolment<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Enrolment<'a> {
    record: Record,
    certificate: Cow<'a, str>,
    gateway_ca: Cow<'a, str>,
}

pub(super) const PENDING_FILE: &str = "agent-enrolling.json";
