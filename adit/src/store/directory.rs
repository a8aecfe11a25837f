//! Which agents may connect, readable without waiting.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
};

use adit_proto_core::{id::AgentId, identity::AgentIdentity};

use super::AgentRecord;

/// The enrolled agents, their keys, and which of them are drained: a snapshot that follows each change on disk.
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
        let known = snapshot.get(&agent.id).ok_or(AdmitError::UnknownAgent)?;
        if known.current == agent.spki_sha256 || known.renewed == Some(agent.spki_sha256) {
            Ok(())
        } else {
            Err(AdmitError::OtherKey)
        }
    }

    /// Whether the agent shows the key of an enrolment or a renewal that has not been confirmed yet, or the first
    /// certificate of another authority.
    #[must_use]
    pub fn awaits_confirmation(&self, agent: &AgentIdentity) -> bool {
        self.read().get(&agent.id).is_some_and(|known| {
            (known.current == agent.spki_sha256 && !known.has_connected)
                || known.renewed == Some(agent.spki_sha256)
                || known.unshown == Some(agent.fingerprint)
        })
    }

    /// Whether an agent has connected since its last enrolment, as far as that is on disk.
    #[must_use]
    pub fn has_connected(&self, id: AgentId) -> bool {
        self.read()
            .get(&id)
            .is_some_and(|known| known.has_connected)
    }

    /// Gives the agents that get no new sessions by routing, by id.
    #[must_use]
    pub fn drained(&self) -> Vec<AgentId> {
        let snapshot = self.read();
        let drained = snapshot.iter().filter(|(_, known)| known.drained);
        drained.map(|(id, _)| *id).collect()
    }

    /// Whether an agent gets no new sessions by routing.
    #[must_use]
    pub fn is_drained(&self, id: AgentId) -> bool {
        self.read().get(&id).is_some_and(|known| known.drained)
    }

    /// Number of enrolled agents.
    #[must_use]
    pub fn count(&self) -> usize {
        self.read().len()
    }

    /// Whether an agent with this id is enrolled.
    #[must_use]
    pub fn knows(&self, id: AgentId) -> bool {
        self.read().contains_key(&id)
    }

    /// Whether an id belongs to a key other than this one.
    #[must_use]
    pub fn belongs_to_other(&self, id: AgentId, spki_sha256: [u8; 32]) -> bool {
        self.read()
            .get(&id)
            .is_some_and(|known| known.current != spki_sha256 && known.renewed != Some(spki_sha256))
    }

    /// Begins with what is on disk.
    pub(super) fn swap(&self, snapshot: Snapshot) {
        *self.write() = Arc::new(snapshot);
    }

    /// Follows a change on disk: what is known of one agent from now on; none where there is none.
    pub(super) fn set(&self, id: AgentId, known: Option<Known>) {
        let mut slot = self.write();
        let snapshot = Arc::make_mut(&mut slot);
        match known {
            Some(known) => snapshot.insert(id, known),
            None => snapshot.remove(&id),
        };
    }

    fn write(&self) -> RwLockWriteGuard<'_, Arc<Snapshot>> {
        let slot = self.snapshot.write();
        slot.unwrap_or_else(PoisonError::into_inner)
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

impl AdmitError {
    /// Sums the error up in one word, for counters.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::UnknownAgent => "unknown_agent",
            Self::OtherKey => "other_key",
        }
    }
}

pub(super) type Snapshot = BTreeMap<AgentId, Known>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) current: [u8; 32],
    pub(super) renewed: Option<[u8; 32]>,
    /// Fingerprint of a certificate of another authority with which it has not connected yet.
    pub(super) unshown: Option<[u8; 32]>,
    pub(super) has_connected: bool,
    pub(super) drained: bool,
}

impl Known {
    pub(super) fn new(agent: &AgentRecord, drained: bool) -> Self {
        Self {
            current: agent.spki_sha256,
            renewed: agent.renewed_spki_sha256,
            unshown: agent.renewed_issuer_sha256.map(|_| agent.fingerprint),
            has_connected: agent.has_connected,
            drained,
        }
    }
}
