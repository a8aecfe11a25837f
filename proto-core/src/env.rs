//! What comes from outside: everything that would make two runs differ is handed in here.

use std::{fmt, sync::Arc};

use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use rustls::crypto::CryptoProvider;
use zeroize::Zeroizing;

/// The outside world of an endpoint (style 3).
///
/// Monotonic time is not here: it is the `now` argument of every call.
#[derive(Clone)]
pub struct Env {
    /// Source of all randomness of the core that is not cryptographic key material.
    pub seed: Seed,
    /// Unix time: certificates, tokens, heartbeats.
    pub wall_clock: Arc<dyn WallClock>,
    /// Randomness, key exchange, signatures and ciphers of TLS.
    pub crypto: Arc<CryptoProvider>,
    /// Keys that must survive a restart.
    pub secrets: EndpointSecrets,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}

/// Tells Unix time.
pub trait WallClock: Send + Sync {
    /// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
    fn unix_ms(&self) -> u64;
}

/// Thirty-two bytes from which every consumer draws its own stream.
#[derive(Clone)]
pub struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    /// Wraps 32 bytes: from the operating system in production, from the run's seed in tests.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Gives the stream of one consumer. A consumer takes a label of its own and never draws from a neighbour's
    /// stream, so that adding one changes no recorded trace.
    #[must_use]
    pub fn derive(&self, label: &str) -> ChaCha12Rng {
        ChaCha12Rng::from_seed(self.derive_bytes(label))
    }

    /// Gives 32 bytes for a consumer that seeds a generator of its own.
    #[must_use]
    pub fn derive_bytes(&self, label: &str) -> [u8; 32] {
        *blake3::Hasher::new_keyed(&self.0)
            .update(label.as_bytes())
            .finalize()
            .as_bytes()
    }

    /// Gives the seed of a part that has consumers of its own.
    #[must_use]
    pub fn child(&self, label: &str) -> Self {
        Self::new(self.derive_bytes(label))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// Keys of an endpoint that must be the same after a restart (design 8.5).
#[derive(Clone)]
pub struct EndpointSecrets {
    pub(crate) reset_key: Zeroizing<[u8; 32]>,
    pub(crate) token_key: Zeroizing<[u8; 32]>,
}

impl EndpointSecrets {
    /// Takes the key of stateless resets and the key of address-validation tokens (RFC 9000 10.3 and 8.1).
    #[must_use]
    pub fn new(reset_key: [u8; 32], token_key: [u8; 32]) -> Self {
        Self {
            reset_key: Zeroizing::new(reset_key),
            token_key: Zeroizing::new(token_key),
        }
    }
}

impl fmt::Debug for EndpointSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointSecrets(..)")
    }
}
