//! Places of handshakes in progress, each given back when its handshake is dropped, however that comes about.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use adit_proto_core::replica::{NoPlace, Place, Slots};

/// The places, shared by the handshakes that hold one.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Mutex<Slots>>);

/// One place.
#[derive(Debug)]
pub(super) struct Held {
    places: Places,
    place: Option<Place>,
}

impl Places {
    pub(super) fn new(slots: Slots) -> Self {
        Self(Arc::new(Mutex::new(slots)))
    }

    pub(super) fn take(&self, ip: IpAddr) -> Result<Held, NoPlace> {
        let place = self.lock().take(ip)?;
        Ok(Held {
            places: self.clone(),
            place: Some(place),
        })
    }

    pub(super) fn taken(&self) -> usize {
        self.lock().taken()
    }

    /// Nothing panics between the halves of a change.
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.places.lock().release(place);
        }
    }
}
