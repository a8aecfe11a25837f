//! The public key of an external console that signs tokens (agent-tunnel 14.4).

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
        OID_SIG_ED25519, Oid,
    },
    pem::Pem,
    prelude::FromDer,
    public_key::RSAPublicKey,
    x509::SubjectPublicKeyInfo,
};

/// A public key and the algorithms whose signatures it checks. A key never checks those of another family, nor an
/// elliptic curve those of another curve.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    pub(super) decoding: DecodingKey,
    pub(super) algorithms: &'static [Algorithm],
}

impl VerifyingKey {
    pub(super) fn new(decoding: DecodingKey, algorithms: &'static [Algorithm]) -> Self {
        Self {
            decoding,
            algorithms,
        }
    }
}

/// The public key of the provisioner: whoever holds its private half enrols agents and calls the API.
#[derive(Clone)]
pub struct ProvisionerKey(pub(super) VerifyingKey);

impl ProvisionerKey {
    /// Reads a PEM file: `PUBLIC KEY` (SubjectPublicKeyInfo), `RSA PUBLIC KEY` or `CERTIFICATE`, of which only the key
    /// counts. The first such block is taken; RSA of 2048 to 8192 bits, P-256, P-384 and Ed25519 are known.
    ///
    /// # Errors
    /// [`ProvisionerKeyError`], naming the file.
    pub fn read(path: &Path) -> Result<Self, ProvisionerKeyError> {
        let failed = |cause| ProvisionerKeyError {
            path: path.to_owned(),
            cause,
        };
        let text = crate::regular::read(path).map_err(|e| failed(Cause::Io(e)))?;
        Self::from_pem(&text).map_err(failed)
    }

    fn from_pem(text: &[u8]) -> Result<Self, Cause> {
        for block in Pem::iter_from_buffer(text) {
            let block = block.map_err(|_| Cause::NoKey)?;
            let der = block.contents.as_slice();
            match block.label.as_str() {
                "PUBLIC KEY" => {
                    let (_, spki) =
                        SubjectPublicKeyInfo::from_der(der).map_err(|_| Cause::Damaged)?;
                    return of_spki(&spki);
                }
                "RSA PUBLIC KEY" => return rsa(der),
                "CERTIFICATE" => {
                    let certificate = block.parse_x509().map_err(|_| Cause::Damaged)?;
                    return of_spki(certificate.public_key());
                }
                label if label.ends_with("PRIVATE KEY") => return Err(Cause::Private),
                _ => {}
            }
        }
        Err(Cause::NoKey)
    }
}

impl fmt::Debug for ProvisionerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvisionerKey({:?})", self.0.algorithms)
    }
}

/// A provisioner's public key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the provisioner's public key {} {cause}", path.display())]
pub struct ProvisionerKeyError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error("holds no PEM block `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`")]
    NoKey,
    #[error("is a private key, which belongs to the console alone; export its public key")]
    Private,
    #[error("is damaged")]
    Damaged,
    #[error("has {0} bits; RSA keys must have 2048 to 8192")]
    RsaLen(usize),
    #[error("is of a kind that is not known; use RSA, P-256, P-384 or Ed25519")]
    Unknown,
}

fn of_spki(spki: &SubjectPublicKeyInfo<'_>) -> Result<ProvisionerKey, Cause> {
    let key: &[u8] = &spki.subject_public_key.data;
    let is = |oid: &Oid<'_>| spki.algorithm.algorithm == *oid;
    if is(&OID_PKCS1_RSAENCRYPTION) {
        return rsa(key);
    }
    if is(&OID_SIG_ED25519) {
        check(&ED25519, key)?;
        return Ok(made(DecodingKey::from_ed_der(key), &[Algorithm::EdDSA]));
    }
    if !is(&OID_KEY_TYPE_EC_PUBLIC_KEY) {
        return Err(Cause::Unknown);
    }
    let curve = spki.algorithm.parameters.as_ref();
    let curve = curve
        .and_then(|any| any.as_oid().ok())
        .ok_or(Cause::Damaged)?;
    if curve == OID_EC_P256 {
        check(&ECDSA_P256_SHA256_FIXED, key)?;
        Ok(made(DecodingKey::from_ec_der(key), &[Algorithm::ES256]))
    } else if curve == OID_NIST_EC_P384 {
        check(&ECDSA_P384_SHA384_FIXED, key)?;
        Ok(made(DecodingKey::from_ec_der(key), &[Algorithm::ES384]))
    } else {
        Err(Cause::Unknown)
    }
}

fn rsa(der: &[u8]) -> Result<ProvisionerKey, Cause> {
    let (_, parts) = RSAPublicKey::from_der(der).map_err(|_| Cause::Damaged)?;
    let significant = parts.modulus.iter().skip_while(|byte| **byte == 0);
    let bits = match significant.clone().next() {
        Some(first) => significant.count() * 8 - first.leading_zeros() as usize,
        None => 0,
    };
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err(Cause::RsaLen(bits));
    }
    check(&RSA_PKCS1_2048_8192_SHA256, der)?;
    Ok(made(
        DecodingKey::from_rsa_der(der),
        &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512],
    ))
}

/// A key that no signature could ever be checked with is to be told of at start, not at the first token.
fn check(algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> Result<(), Cause> {
    ParsedPublicKey::new(algorithm, key)
        .map(drop)
        .map_err(|_| Cause::Damaged)
}

fn made(decoding: DecodingKey, algorithms: &'static [Algorithm]) -> ProvisionerKey {
    ProvisionerKey(VerifyingKey::new(decoding, algorithms))
}

const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn each_known_kind_has_its_own_algorithms() {
        use Algorithm as A;
        let of = |alg| KeyPair::generate_for(alg).unwrap();
        let rsa_all = vec![A::RS256, A::RS384, A::RS512];
        for (key, algorithms) in [
            (of(&rcgen::PKCS_RSA_SHA256), rsa_all),
            (of(&rcgen::PKCS_ECDSA_P256_SHA256), vec![A::ES256]),
            (of(&rcgen::PKCS_ECDSA_P384_SHA384), vec![A::ES384]),
            (of(&rcgen::PKCS_ED25519), vec![A::EdDSA]),
        ] {
            let known = |text: &str| {
                let read = ProvisionerKey::from_pem(text.as_bytes()).unwrap();
                assert_eq!(read.0.algorithms, algorithms);
            };
            known(&key.public_key_pem());
            known(&format!("a comment\r\n{}", key.public_key_pem()));
            let certificate = CertificateParams::default().self_signed(&key).unwrap();
            known(&certificate.pem());
        }
    }

    #[test]
    fn what_is_no_usable_public_key_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.pem");
        let private = KeyPair::generate().unwrap().serialize_pem();
        let off_curve = KeyPair::generate().unwrap();
        let mut der = pem(&off_curve.public_key_pem());
        let last = der.len() - 1;
        der[last] ^= 1;
        let der = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, der);
        let off_curve = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
        for (text, says) in [
            ("", "holds no PEM block"),
            ("noise", "holds no PEM block"),
            ("-----BEGIN PUBLIC KEY-----\n?\n", "holds no PEM block"),
            (
                "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
                "is damaged",
            ),
            (private.as_str(), "is a private key"),
            (off_curve.as_str(), "is damaged"),
            (RSA_1024, "has 1024 bits"),
            (P521, "of a kind that is not known"),
            (SECP256K1, "of a kind that is not known"),
            (X25519, "of a kind that is not known"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = ProvisionerKey::read(&path).unwrap_err().to_string();
            let named = error.contains("console.pem");
            assert!(named && error.contains(says), "{text}: {error}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = ProvisionerKey::read(&path).unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }

    fn pem(text: &str) -> Vec<u8> {
        let mut blocks = Pem::iter_from_buffer(text.as_bytes());
        blocks.next().unwrap().unwrap().contents
    }

    const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDCRgsRr47MHTCKwLEPAgXBzX5N
0TiE2VdvZmAmhU4hjL6XwjUfIR13wqqVaLBkCw7tGw256dcS5c5ZLVmIO4LRpMI6
tPSAnueY2U+68HKreSVOjm1yJkeRlNRLGk9p66hxKGUdSfVS5fRapZCmhyv9fveG
8fs2bxb66WjkBgTkUwIDAQAB
-----END PUBLIC KEY-----
";
    const P521: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBtD7ajYzGh6MfcKSmrvSS2IaGp7X6
2wywvt3pcAPspLKagd8yq1n1cXPkTP1XTUrPrODlDO+x8HNFkLhbHvAvYj4ARlUU
O416L8tyyOmhda/Ntj7mypV6mc7PMDsRfU8bQh4mEZ0xV9bA3r3mji4RQvXX0nk3
OSPbqW7y16NEC9SaP80=
-----END PUBLIC KEY-----
";
    const SECP256K1: &str = "-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAExgdxhPpJmCZcsUnvcKKWy1e3T6L4p+VK
J/59S9vmHWAJWwaqZU7SoNVTEf0PYZ+Q2SB0l64d8W1XjTKpAyZu5A==
-----END PUBLIC KEY-----
";
    const X25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAlj+y0CH3qj9QJukyvNsaLwwmE+dWRAsFpe9OFCos+FM=
-----END PUBLIC KEY-----
";
}
