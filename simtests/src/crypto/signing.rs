//! Signatures for which nothing is drawn.

use std::sync::Arc;

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey},
    encoding::{AsBigEndian, EcPrivateKeyBin},
};
use p256::ecdsa::{self, DerSignature, signature::Signer as _};
use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    crypto::{KeyProvider, aws_lc_rs::sign::any_eddsa_type},
    pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, alg_id},
    sign::{Signer, SigningKey, public_key_to_spki},
};

/// Loads P-256 keys, to sign by RFC 6979, and Ed25519 keys, to sign by aws-lc, which draws nothing for them.
#[derive(Debug)]
pub(super) struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(
        &self,
        key_der: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, Error> {
        let PrivateKeyDer::Pkcs8(der) = key_der else {
            return Err(Error::General("a private key is not in PKCS#8".into()));
        };
        match p256_key(der.secret_pkcs8_der()) {
            Some(key) => Ok(Arc::new(P256(key))),
            None => any_eddsa_type(&der),
        }
    }
}

/// Reads a P-256 key by aws-lc, which checks it much faster than p256 would.
fn p256_key(pkcs8: &[u8]) -> Option<ecdsa::SigningKey> {
    let key = PrivateKey::from_private_key_der(&ECDH_P256, pkcs8).ok()?;
    let scalar: EcPrivateKeyBin<'_> = key.as_be_bytes().ok()?;
    ecdsa::SigningKey::from_slice(scalar.as_ref()).ok()
}

/// Signs by ECDSA with SHA-256 and a nonce by RFC 6979; the signature is in DER.
pub(crate) fn sign_p256(
    key: &ecdsa::SigningKey,
    message: &[u8],
) -> Result<Vec<u8>, ecdsa::signature::Error> {
    let signature: DerSignature = key.try_sign(message)?;
    Ok(signature.as_bytes().to_vec())
}

#[derive(Clone, Debug)]
struct P256(ecdsa::SigningKey);

impl SigningKey for P256 {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        if offered.contains(&self.scheme()) {
            Some(Box::new(self.clone()))
        } else {
            None
        }
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        let point = self.0.verifying_key().to_encoded_point(false);
        Some(public_key_to_spki(&alg_id::ECDSA_P256, point))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for P256 {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        sign_p256(&self.0, message).map_err(|_| Error::General("signing failed".into()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
