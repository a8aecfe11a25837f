//! What is taken from a certificate signing request: its public key, and nothing else (agent-tunnel 3).

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{
    certification_request::X509CertificationRequest, prelude::FromDer, public_key::PublicKey,
};

use super::spki_sha256;

/// A public key whose owner has proved that it holds the private one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedCsr {
    key: SubjectPublicKeyInfo,
    spki_sha256: [u8; 32],
}

impl CheckedCsr {
    /// Checks a request's own signature and the kind of its key.
    ///
    /// Subject, names and extensions are not looked at, so unknown ones do no harm.
    ///
    /// # Errors
    /// [`CsrError`], saying which check failed.
    pub fn from_pem(pem: &str) -> Result<Self, CsrError> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| CsrError::Unreadable)?;
        let ([], request) =
            X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Unreadable)?
        else {
            return Err(CsrError::Unreadable);
        };
        let spki = &request.certification_request_info.subject_pki;
        match spki.parsed().map_err(|_| CsrError::Unreadable)? {
            PublicKey::RSA(rsa) if rsa.key_size() < RSA_BITS_MIN => {
                return Err(CsrError::UnsupportedKey);
            }
            PublicKey::EC(point) if !EC_BITS.contains(&point.key_size()) => {
                return Err(CsrError::UnsupportedKey);
            }
            // Ed25519 has no variant of its own; the issuing library refuses all that is not listed.
            PublicKey::RSA(_) | PublicKey::EC(_) | PublicKey::Unknown(_) => {}
            PublicKey::DSA(_) | PublicKey::GostR3410(_) | PublicKey::GostR3410_2012(_) => {
                return Err(CsrError::UnsupportedKey);
            }
        }
        let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| CsrError::UnsupportedKey)?;
        request
            .verify_signature()
            .map_err(|_| CsrError::BadSignature)?;
        Ok(Self {
            key,
            spki_sha256: spki_sha256(spki.raw),
        })
    }

    /// Gives the hash of the DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.spki_sha256
    }

    pub(super) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

/// Why a certificate signing request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// Not a PEM `CERTIFICATE REQUEST` with a PKCS#10 request inside.
    #[error("the certificate signing request cannot be read")]
    Unreadable,
    /// A key of another kind or of too few bits.
    #[error(
        "the key of the certificate signing request must be P-256, P-384, Ed25519 or RSA of 2048 bits or more"
    )]
    UnsupportedKey,
    /// The request is not signed with its own key.
    #[error("the signature of the certificate signing request is wrong")]
    BadSignature,
}

const RSA_BITS_MIN: usize = 2048;
const EC_BITS: [usize; 2] = [256, 384];

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use rcgen::{
        CertificateParams, CustomExtension, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
        PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
        PublicKeyData, RsaKeySize,
    };
    use rustls_pki_types::CertificateSigningRequestDer;

    use super::*;

    #[test]
    fn listed_kinds_of_key_pass() {
        let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let keys = [
            &PKCS_ECDSA_P256_SHA256,
            &PKCS_ECDSA_P384_SHA384,
            &PKCS_ED25519,
        ]
        .map(|kind| KeyPair::generate_for(kind).unwrap());
        for key in keys.iter().chain([&rsa]) {
            let csr = CheckedCsr::from_pem(&request(key)).unwrap();
            assert_eq!(
                csr.spki_sha256(),
                spki_sha256(&key.subject_public_key_info())
            );
        }
    }

    #[test]
    fn other_kinds_of_key_are_refused() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
        assert_eq!(
            CheckedCsr::from_pem(&request(&key)),
            Err(CsrError::UnsupportedKey)
        );
    }

    #[test]
    fn altered_request_has_a_bad_signature() {
        let pem = request(&KeyPair::generate().unwrap());
        let mut der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .unwrap()
            .to_vec();
        let at = der.windows(4).position(|w| w == b"name").unwrap();
        der[at] = b'N';
        let altered = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            BASE64_STANDARD.encode(der)
        );
        assert_eq!(CheckedCsr::from_pem(&altered), Err(CsrError::BadSignature));
    }

    #[test]
    fn noise_is_unreadable() {
        for noise in [
            "",
            "x",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        ] {
            assert_eq!(CheckedCsr::from_pem(noise), Err(CsrError::Unreadable));
        }
    }

    #[test]
    fn unknown_extension_and_crlf_do_no_harm() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        CheckedCsr::from_pem(&pem.replace("\r\n", "\n").replace('\n', "\r\n")).unwrap();
    }

    fn request(key: &KeyPair) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "name");
        params.serialize_request(key).unwrap().pem().unwrap()
    }
}
