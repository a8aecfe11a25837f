//! Connection ids drawn from the seed.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};
use rand_chacha::{ChaCha12Rng, rand_core::Rng};

/// Length of the ids that this side issues, in bytes: random, so that nothing can be read from them (RFC 9000 5.1).
pub(crate) const CID_LEN: usize = 8;

/// Generates random connection ids from a seeded stream, so that a run can be repeated (style 6.1).
#[derive(Clone, Debug)]
pub(crate) struct SeededCids {
    rng: ChaCha12Rng,
}

impl SeededCids {
    pub(crate) fn new(rng: ChaCha12Rng) -> Self {
        Self { rng }
    }
}

impl ConnectionIdGenerator for SeededCids {
    fn generate_cid(&mut self) -> ConnectionId {
        random_cid(&mut self.rng, CID_LEN)
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Draws an id of `len` bytes, 20 at most.
pub(crate) fn random_cid(rng: &mut ChaCha12Rng, len: usize) -> ConnectionId {
    let mut bytes = [0; 20];
    rng.fill_bytes(&mut bytes[..len]);
    ConnectionId::new(&bytes[..len])
}
