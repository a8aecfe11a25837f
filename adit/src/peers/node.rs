//! A node's certificate, its key and the peers' CA, as their files have them.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use adit_proto_core::peer::{
    PEER_SERVER_NAME,
    identity::{Leaf, SpkiPin, not_after},
};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

use crate::{
    pki::{parse, spki_sha256},
    regular::{self, PemError},
};

/// What a node shows, and whom it believes.
pub struct NodeFiles {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Vec<CertificateDer<'static>>,
    leaf: Leaf,
    not_after: i64,
}

/// Files that are of no use to a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeFileError {
    /// A file cannot be read, or holds nothing of its kind.
    #[error("cannot use {}: {cause}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: PemError,
    },
    /// The certificate does not parse.
    #[error("{} holds no usable certificate", .0.display())]
    Certificate(PathBuf),
    /// The certificate is not valid for the name that every node has.
    #[error("{} is not valid for the name `{PEER_SERVER_NAME}`; make one with `adit peers issue`", .0.display())]
    Name(PathBuf),
    /// The key is another certificate's.
    #[error("{} does not belong to the certificate", .0.display())]
    Key(PathBuf),
}

impl NodeFiles {
    /// Reads PEM files: the certificate with what leads to its root, the key, and the CA or several.
    ///
    /// # Errors
    /// [`NodeFileError`], naming the file.
    pub fn read(cert: &Path, key: &Path, ca: &Path) -> Result<Self, NodeFileError> {
        let of = |path: &Path| {
            let path = path.to_owned();
            move |cause| NodeFileError::Pem { path, cause }
        };
        let chain: Vec<CertificateDer<'static>> = regular::pem(cert).map_err(of(cert))?;
        let own: PrivateKeyDer<'static> = regular::first_pem(key).map_err(of(key))?;
        let roots = regular::pem(ca).map_err(of(ca))?;
        let bad = || NodeFileError::Certificate(cert.to_owned());
        let first = chain.first().ok_or_else(bad)?;
        let leaf = Leaf::from_der(first).map_err(|_| bad())?;
        let mut ends = Vec::new();
        for der in &chain {
            ends.push(not_after(der).map_err(|_| bad())?);
        }
        if !has_name(first) {
            return Err(NodeFileError::Name(cert.to_owned()));
        }
        let other = || NodeFileError::Key(key.to_owned());
        let pair = KeyPair::try_from(&own).map_err(|_| other())?;
        if SpkiPin(spki_sha256(&pair.subject_public_key_info())) != leaf.spki {
            return Err(other());
        }
        Ok(Self {
            not_after: ends.into_iter().min().ok_or_else(bad)?,
            chain,
            key: own,
            roots,
            leaf,
        })
    }

    /// The chain, the leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// A copy of the key.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// The CAs of all nodes.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// When the first of the chain ends, in seconds of Unix time: no peer takes it from then on.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// What peers know this node by.
    #[must_use]
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }
}

impl Clone for NodeFiles {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            roots: self.roots.clone(),
            leaf: self.leaf.clone(),
            not_after: self.not_after,
        }
    }
}

impl PartialEq for NodeFiles {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
            && self.roots == other.roots
            && self.key.secret_der() == other.key.secret_der()
    }
}

impl Eq for NodeFiles {}

impl fmt::Debug for NodeFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeFiles")
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}

fn has_name(der: &[u8]) -> bool {
    let Ok(certificate) = parse(der) else {
        return false;
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    let is_it =
        |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(n) if *n == PEER_SERVER_NAME);
    names.value.general_names.iter().any(is_it)
}
