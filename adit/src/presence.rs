//! When agents that are not connected were here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use adit_proto_core::id::AgentId;

use crate::store::AgentDirectory;

/// Remembers when each agent's last connection ended, since the gateway's start; cheap to clone.
#[derive(Clone, Debug)]
pub struct Presence {
    directory: AgentDirectory,
    left: Arc<Mutex<BTreeMap<AgentId, u64>>>,
}

impl Presence {
    /// Makes one that forgets agents which the directory does not know any more.
    #[must_use]
    pub fn new(directory: AgentDirectory) -> Self {
        Self {
            directory,
            left: Arc::default(),
        }
    }

    /// Notes that a connection of an agent ended, in Unix milliseconds.
    pub fn note(&self, id: AgentId, now_ms: u64) {
        let mut left = self.lock();
        left.insert(id, now_ms);
        if left.len() > 2 * self.directory.count() + SPARE {
            left.retain(|id, _| self.directory.knows(*id));
        }
    }

    /// When an agent's last connection ended, in Unix milliseconds; none where that was before the start.
    #[must_use]
    pub fn left(&self, id: AgentId) -> Option<u64> {
        self.lock().get(&id).copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentId, u64>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Agents that are not enrolled any more and may still be remembered.
const SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_last_end_counts_and_deleted_agents_are_forgotten() {
        let presence = Presence::new(AgentDirectory::default());
        let id = |n: usize| AgentId(Uuid::from_u128(n as u128));
        presence.note(id(0), 5);
        presence.note(id(0), 7);
        assert_eq!(presence.left(id(0)), Some(7));
        assert_eq!(presence.left(id(1)), None);
        for n in 0..1_000 {
            presence.note(id(n), 1);
        }
        assert!(presence.lock().len() <= SPARE);
    }
}
