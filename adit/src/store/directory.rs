//! Which agents may connect, readable without waiting.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use adit_proto_core::{id::AgentId, identity::AgentIdentity};

/// The enrolled agents and their keys: a snapshot that the store's thread swaps after each change on disk.
#[derive(Clone, Debug, Default)]
pub struct AgentDirectory {
    snapshot: Arc<RwLock<Arc<Snapshot>>>,
}

impl AgentDirectory {
    /// Whether an agent whose certificate is good may connect: its id and its key must be enrolled (design 3.8).
    ///
    /// # Errors
    /// [`AdmitError`].
    pub fn admit(&self, agent: &AgentIdentity) -> Result<(), AdmitError> {
        let snapshot = self.read();
        let keys = snapshot.get(&agent.id).ok_or(AdmitError::UnknownAgent)?;
        if keys.current == agent.spki_sha256 || keys.renewed == Some(agent.spki_sha256) {
            Ok(())
        } else {
            Err(AdmitError::OtherKey)
        }
    }

    /// Whether the agent shows the key of a renewal that has not been confirmed yet.
    #[must_use]
    pub fn awaits_confirmation(&self, agent: &AgentIdentity) -> bool {
        self.read()
            .get(&agent.id)
            .is_some_and(|keys| keys.renewed == Some(agent.spki_sha256))
    }

    /// Whether an id belongs to a key other than this one.
    #[must_use]
    pub fn belongs_to_other(&self, id: AgentId, spki_sha256: [u8; 32]) -> bool {
        self.read()
            .get(&id)
            .is_some_and(|keys| keys.current != spki_sha256 && keys.renewed != Some(spki_sha256))
    }

    pub(super) fn swap(&self, snapshot: Snapshot) {
        let mut slot = self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *slot = Arc::new(snapshot);
    }

    fn read(&self) -> Arc<Snapshot> {
        let slot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&slot)
    }
}

/// Why an agent with a good certificate is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// Never enrolled here, or deleted.
    #[error("no agent with this id is enrolled")]
    UnknownAgent,
    /// The id belongs to another key.
    #[error("the agent's id belongs to another key")]
    OtherKey,
}

pub(super) type Snapshot = BTreeMap<AgentId, Keys>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    pub(super) current: [u8; 32],
    pub(super) renewed: Option<[u8; 32]>,
}
