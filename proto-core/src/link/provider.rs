//! The one provider of cryptography.

use rustls::{
    CipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
};

/// Gives aws-lc-rs with AES-128-GCM first: with AES instructions it is the cheapest by far, and QUIC's first packets
/// need it anyway. X25519MLKEM768 stays the preferred key exchange.
///
/// The provider draws from the operating system; a simulation hands in another one.
#[must_use]
pub fn default_provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}
