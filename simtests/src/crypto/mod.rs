//! Cryptography that a seed replays: rustls' providers with one stream of randomness per thread.
//!
//! Ciphers, hashes and verification are those of production. What draws is replaced: randomness, key exchange, and
//! signatures by P-256.

mod exchange;
mod random;
pub(crate) mod signing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use adit_proto_core::link::provider::default_provider;
use rustls::crypto::CryptoProvider;

pub use random::seed_thread;

/// Which key exchange and signatures a run uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// X25519 and Ed25519: every flight has the same length in every run.
    Plain,
    /// X25519 and P-256 signatures by RFC 6979, whose length follows the transcript.
    Ecdsa,
    /// Shares as long as those of X25519MLKEM768, so that a client's first flight takes two datagrams; Ed25519.
    Hybrid,
}

/// Gives a provider that draws only from the calling thread's stream, see [`seed_thread`].
///
/// A thread without a stream makes no connection: its handshakes fail for want of randomness. How a key signs follows
/// from the key, so any provider serves the certificates of any suite; and a server that has no hybrid exchange takes
/// the X25519 share that a hybrid client offers beside it.
#[must_use]
pub fn provider(suite: Suite) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: match suite {
            Suite::Plain | Suite::Ecdsa => vec![&exchange::X25519],
            Suite::Hybrid => vec![&exchange::Hybrid, &exchange::X25519],
        },
        secure_random: &random::ThreadStream,
        key_provider: &signing::Keys,
        ..default_provider()
    })
}
