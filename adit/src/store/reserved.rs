//! Tokens that are taken for an enrolment under way.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

/// The tokens taken: the store's thread takes them, whoever has one gives it back.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserved(Arc<Mutex<BTreeSet<Uuid>>>);

/// A token that is taken for one enrolment; dropping it gives it back, however busy the store is.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    jti: Uuid,
    reserved: Reserved,
}

impl Reserved {
    /// Takes a token that is not taken.
    pub(super) fn take(&self, jti: Uuid) -> Option<Reservation> {
        let is_free = self.lock().insert(jti);
        is_free.then(|| Reservation {
            jti,
            reserved: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// The token's id.
    #[must_use]
    pub fn jti(&self) -> Uuid {
        self.jti
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.reserved.lock().remove(&self.jti);
    }
}
