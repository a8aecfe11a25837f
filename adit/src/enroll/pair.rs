//! An agent's key pair on disk: key, certificate and root in one file, so that they change together.

use std::fmt;

use adit_io_common::agent::Validity;
use adit_proto_core::link::tls::AgentTls;
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::files::FilesError;
use crate::{
    pki::{PkiError, certificate_spki_sha256, first_certificate, parse, spki_sha256},
    state::StateDir,
};

/// A private key with its certificate and the gateway's root, each in PEM.
pub struct KeyPairFile {
    /// The private key.
    pub key_pem: Zeroizing<String>,
    /// The certificate chain.
    pub cert_pem: String,
    /// The only root that the agent trusts.
    pub ca_pem: String,
}

/// Which pair of an agent (design 8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairName {
    /// The one in use.
    Current,
    /// A renewed one that has to prove itself.
    Next,
    /// The one before the current one.
    Previous,
}

impl PairName {
    /// Name of its file in the state folder.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Current => "agent-pair.json",
            Self::Next => "agent-pair-next.json",
            Self::Previous => "agent-pair-previous.json",
        }
    }
}

impl KeyPairFile {
    /// Reads a pair and checks that its parts belong together; `None` when there is none.
    ///
    /// # Errors
    /// [`FilesError::Damaged`] naming the file.
    pub fn load(dir: &StateDir, name: PairName) -> Result<Option<Self>, FilesError> {
        let damaged = || FilesError::Damaged(name.file());
        let Some(bytes) = dir.read_secret(name.file())? else {
            return Ok(None);
        };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let pair = Self {
            key_pem: Zeroizing::new(stored.key),
            cert_pem: stored.certificate,
            ca_pem: stored.gateway_ca,
        };
        pair.check().map_err(|_| damaged())?;
        Ok(Some(pair))
    }

    /// Writes the pair, durably when this returns.
    ///
    /// # Errors
    /// What is wrong with the disk; a pair of that name that was there stays.
    pub fn save(&self, dir: &StateDir, name: PairName) -> Result<(), FilesError> {
        Ok(dir.write_secret(name.file(), &self.to_json()?)?)
    }

    pub(super) fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, FilesError> {
        let borrowed = Borrowed {
            key: &self.key_pem,
            certificate: &self.cert_pem,
            gateway_ca: &self.ca_pem,
        };
        let json = serde_json::to_vec_pretty(&borrowed);
        let json = json.map_err(|_| FilesError::Damaged(PairName::Current.file()))?;
        Ok(Zeroizing::new(json))
    }

    /// Tells whether certificate and key belong together, and the root can be read.
    ///
    /// # Errors
    /// [`PkiError::BadCertificate`], [`PkiError::Generate`].
    pub fn check(&self) -> Result<(), PkiError> {
        let key = KeyPair::from_pem(&self.key_pem)?;
        let certified = certificate_spki_sha256(&first_certificate(&self.cert_pem)?)?;
        parse(&first_certificate(&self.ca_pem)?)?;
        if certified != spki_sha256(&key.subject_public_key_info()) {
            return Err(PkiError::BadCertificate);
        }
        Ok(())
    }

    /// The certificate's life.
    ///
    /// # Errors
    /// [`PkiError::BadCertificate`].
    pub fn validity(&self) -> Result<Validity, PkiError> {
        let der = first_certificate(&self.cert_pem)?;
        let certificate = parse(&der)?;
        let validity = certificate.validity();
        Ok(Validity {
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// The pair as the driver takes it, with the pin of the gateway's key.
    ///
    /// # Errors
    /// A text that says what cannot be read.
    pub fn tls(&self, pin: [u8; 32]) -> Result<AgentTls, String> {
        let certs = |pem: &str| -> Result<Vec<Vec<u8>>, String> {
            CertificateDer::pem_slice_iter(pem.as_bytes())
                .map(|der| der.map(|der| der.to_vec()).map_err(|e| e.to_string()))
                .collect()
        };
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes());
        let key = key.map_err(|error| error.to_string())?;
        Ok(AgentTls {
            cert_chain: certs(&self.cert_pem)?,
            key: Zeroizing::new(key.secret_der().to_vec()),
            gateway_roots: certs(&self.ca_pem)?,
            gateway_pin: Some(pin),
        })
    }
}

impl fmt::Debug for KeyPairFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPairFile(..)")
    }
}

#[derive(Deserialize)]
struct Stored {
    key: String,
    certificate: String,
    gateway_ca: String,
}

#[derive(Serialize)]
struct Borrowed<'a> {
    key: &'a str,
    certificate: &'a str,
    gateway_ca: &'a str,
}
