//! The embedded certificate authority and the gateway's own certificates (agent-tunnel 3, design 3.7).

#[cfg(feature = "gateway")]
pub mod ca;
#[cfg_attr(
    not(feature = "gateway"),
    allow(dead_code, reason = "some of it is for a gateway's CA")
)]
pub mod csr;
#[cfg_attr(
    not(feature = "gateway"),
    allow(dead_code, reason = "some of it is for a gateway's CA")
)]
pub mod names;
#[cfg_attr(
    not(feature = "gateway"),
    allow(dead_code, reason = "one kind of pin is for a gateway's targets")
)]
pub(crate) mod pinned;
#[cfg(feature = "gateway")]
pub mod rotation;
#[cfg(feature = "gateway")]
pub mod server;

use std::path::PathBuf;

use aws_lc_rs::{digest, rand};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use zeroize::Zeroizing;

use crate::state::{StateDir, StateError};

/// Hashes a DER SubjectPublicKeyInfo, the form in which keys are pinned (agent-tunnel 2.2).
#[must_use]
pub fn spki_sha256(spki_der: &[u8]) -> [u8; 32] {
    sha256(spki_der)
}

/// Hashes the public key of a certificate given in DER.
///
/// # Errors
/// [`PkiError::BadCertificate`] when it cannot be parsed.
pub fn certificate_spki_sha256(certificate_der: &[u8]) -> Result<[u8; 32], PkiError> {
    Ok(spki_sha256(parse(certificate_der)?.public_key().raw))
}

/// Writes bytes as lowercase hex, the form of pins and fingerprints.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// Reads 64 hex digits of either case.
#[must_use]
pub fn parse_hex_32(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(bytes)
}

/// The two keys of a gateway's QUIC endpoint that must outlive a restart (design 8.5).
pub struct EndpointKeys {
    /// Key of stateless resets.
    pub reset_key: Zeroizing<[u8; 32]>,
    /// Key of address-validation tokens.
    pub address_token_key: Zeroizing<[u8; 32]>,
}

impl EndpointKeys {
    /// Reads the keys, drawing and keeping them at first use.
    ///
    /// # Errors
    /// As [`StateDir::secret_32`].
    pub fn open(dir: &StateDir) -> Result<Self, StateError> {
        Ok(Self {
            reset_key: dir.secret_32(RESET_KEY, fill_random)?,
            address_token_key: dir.secret_32(ADDRESS_TOKEN_KEY, fill_random)?,
        })
    }
}

impl std::fmt::Debug for EndpointKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndpointKeys(..)")
    }
}

/// Why a key or certificate of ours could not be made, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file of the authority is damaged or does not belong to its neighbour.
    #[error("{} {what}; restore it from a backup", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, as the end of a sentence that begins with the file.
        what: &'static str,
    },
    /// No authority has been made in this folder.
    #[error("there is no CA in {}; make one with `adit gateway init`", .0.display())]
    NoAuthority(PathBuf),
    /// No authority of peers has been made in this folder.
    #[error("there is no CA of peers in {}; make one with `adit peers init`", .0.display())]
    NoPeerAuthority(PathBuf),
    /// A node's directory holds what would be replaced.
    #[error("{} is there already, and is left as it is; `--force` replaces it, and keeps the node's key", .0.display())]
    Issued(PathBuf),
    /// The authority of an earlier rotation is still trusted.
    #[error(
        "the CA of the last rotation is still trusted; retire it first with `adit ca retire`, or wait until its last \
         certificate has ended"
    )]
    FormerStays,
    /// There is no former authority to retire.
    #[error("no former CA is trusted; there is nothing to retire")]
    NoFormer,
    /// A certificate could not be parsed.
    #[error("the certificate cannot be parsed")]
    BadCertificate,
    /// Neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    BadName(String),
    /// The gateway has no name that agents could verify.
    #[error("the gateway needs at least one name or address")]
    NoName,
    /// An agent's name cannot be a subject.
    #[error("an agent's name is 1 to 255 printable ASCII characters")]
    BadAgentName,
    /// The host name that an agent sent is none.
    #[error("the agent's host name is not a DNS name")]
    BadHostname,
    /// The certificate signing request was refused.
    #[error(transparent)]
    Csr(#[from] csr::CsrError),
    /// The library that writes certificates failed.
    #[error("cannot make a key or certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// Whether an agent's name is 1 to 255 bytes of printable ASCII (agent-tunnel 14.3).
#[must_use]
pub fn is_agent_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.bytes().all(|b| (0x20..=0x7e).contains(&b))
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

pub(crate) fn fill_random(out: &mut [u8]) -> Result<(), StateError> {
    rand::fill(out).map_err(|_| StateError::NoRandomness)
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(PkiError::BadCertificate),
    }
}

pub(crate) fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| PkiError::BadCertificate)
}

const RESET_KEY: &str = "reset.key";
const ADDRESS_TOKEN_KEY: &str = "address-token.key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        let bytes: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 8).unwrap());
        assert_eq!(parse_hex_32(&hex(&bytes)), Some(bytes));
        assert_eq!(parse_hex_32(&hex(&bytes).to_uppercase()), Some(bytes));
        assert_eq!(parse_hex_32(&"g".repeat(64)), None);
        assert_eq!(parse_hex_32(&"+1".repeat(32)), None);
        assert_eq!(parse_hex_32(""), None);
    }

    #[test]
    fn agent_names_are_printable_ascii() {
        for good in ["a", "Site A (2)", &"x".repeat(255)] {
            assert!(is_agent_name(good), "{good}");
        }
        for bad in ["", "\t", "é", "a\n", "\u{7f}", &"x".repeat(256)] {
            assert!(!is_agent_name(bad), "{bad}");
        }
    }

    #[test]
    fn endpoint_keys_survive_a_restart_and_differ() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        let first = EndpointKeys::open(&dir).unwrap();
        let again = EndpointKeys::open(&dir).unwrap();
        assert_eq!(first.reset_key, again.reset_key);
        assert_eq!(first.address_token_key, again.address_token_key);
        assert_ne!(first.reset_key, first.address_token_key);
        assert_eq!(format!("{first:?}"), "EndpointKeys(..)");
    }
}
