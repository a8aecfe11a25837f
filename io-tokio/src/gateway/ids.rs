//! Ids of sessions.

use adit_proto_core::{env::Seed, id::SessionId};
use rand_chacha::{ChaCha12Rng, rand_core::Rng};
use uuid::Builder;

/// Draws ids for sessions that come without one.
#[derive(Debug)]
pub(super) struct Ids(ChaCha12Rng);

impl Ids {
    pub(super) fn new(seed: &Seed) -> Self {
        Self(seed.derive("session-id"))
    }

    pub(super) fn draw(&mut self) -> SessionId {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        SessionId(Builder::from_random_bytes(bytes).into_uuid())
    }
}
