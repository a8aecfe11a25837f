//! The CA of gateways among themselves. It is apart from the agents' CA: whoever has a certificate of one is nobody to
//! the other (design 8.14).

use std::{fmt, path::PathBuf};

use adit_proto_core::peer::{NodeId, PEER_SERVER_NAME};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{
    pki::{
        PkiError,
        ca::{base_params, new_key},
        first_certificate, parse, spki_sha256,
    },
    state::StateDir,
};

/// The authority; key and certificate are files of one directory.
pub struct PeerCa {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A node's certificate, just made.
#[derive(Clone, Debug)]
pub struct IssuedNode {
    /// SHA-256 of its key, by which peers know the node.
    pub pin: [u8; 32],
    /// Unix time of its end, in seconds.
    pub not_after: i64,
    /// The key was there, and so the pin is the former one.
    pub kept_key: bool,
}

impl PeerCa {
    /// Makes the authority. Tells whether it was made; one that is there stays.
    ///
    /// # Errors
    /// [`PkiError`]
    pub fn init(dir: &StateDir, now: UnixTime) -> Result<bool, PkiError> {
        if dir.read(CA_CERT_FILE)?.is_some() {
            Self::open(dir)?;
            return Ok(false);
        }
        // A key without its certificate is what a crash leaves.
        let key = match dir.read_secret_text(CA_KEY_FILE)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|_| bad(dir, CA_KEY_FILE))?,
            None => new_key(dir, CA_KEY_FILE)?,
        };
        let mut params = base_params(now, CA_DAYS)?;
        params.distinguished_name.push(DnType::CommonName, CA_NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        dir.write(CA_CERT_FILE, params.self_signed(&key)?.pem().as_bytes())?;
        Ok(true)
    }

    /// Reads the authority.
    ///
    /// # Errors
    /// [`PkiError::NoPeerAuthority`] where there is none, and [`PkiError::BadFile`].
    pub fn open(dir: &StateDir) -> Result<Self, PkiError> {
        let cert_pem = dir.read_text(CA_CERT_FILE)?;
        let key = dir.read_secret_text(CA_KEY_FILE)?;
        let (Some(cert_pem), Some(key)) = (cert_pem, key) else {
            return Err(PkiError::NoPeerAuthority(dir.path().to_owned()));
        };
        let key = KeyPair::from_pem(&key).map_err(|_| bad(dir, CA_KEY_FILE))?;
        let der = first_certificate(&cert_pem).map_err(|_| bad(dir, CA_CERT_FILE))?;
        let parsed = parse(&der).map_err(|_| bad(dir, CA_CERT_FILE))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(PkiError::BadFile {
                path: dir.file(CA_CERT_FILE),
                what: "does not belong to the authority's key",
            });
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { cert_pem, issuer })
    }

    /// Writes a node's certificate, its key and this authority's certificate into a directory. A key that is there is
    /// kept, so that the node's pin is; a certificate that is there gives way to the next one where `renews` says so.
    ///
    /// # Errors
    /// [`PkiError::Issued`] where something would be replaced that is not to be, and the others of [`PkiError`].
    pub fn issue(
        &self,
        out: &StateDir,
        now: UnixTime,
        node: NodeId,
        spiffe_id: Option<&str>,
        renews: bool,
    ) -> Result<IssuedNode, PkiError> {
        if let Some(path) = self.replaced(out)?
            && !renews
        {
            return Err(PkiError::Issued(path));
        }
        let kept = out.read_secret_text(NODE_KEY_FILE)?;
        let kept_key = kept.is_some();
        let key = match kept {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|_| bad(out, NODE_KEY_FILE))?,
            None => new_key(out, NODE_KEY_FILE)?,
        };
        let params = node_params(now, node, spiffe_id)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        out.write(NODE_CERT_FILE, certificate.pem().as_bytes())?;
        out.write(CA_CERT_FILE, self.cert_pem.as_bytes())?;
        let der: &CertificateDer<'static> = certificate.der();
        Ok(IssuedNode {
            pin: spki_sha256(&key.subject_public_key_info()),
            not_after: parse(der)?.validity().not_after.timestamp(),
            kept_key,
        })
    }

    /// The file in a directory that a node's certificate would replace: that of a node, or of another authority.
    fn replaced(&self, out: &StateDir) -> Result<Option<PathBuf>, PkiError> {
        if out.read(NODE_CERT_FILE)?.is_some() {
            return Ok(Some(out.file(NODE_CERT_FILE)));
        }
        let other = out.read(CA_CERT_FILE)?;
        let other = other.filter(|known| *known != self.cert_pem.as_bytes());
        Ok(other.map(|_| out.file(CA_CERT_FILE)))
    }
}

impl fmt::Debug for PeerCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerCa(..)")
    }
}

/// Both sides show the same certificate, whoever dials (peer-rpc 1.1).
fn node_params(
    now: UnixTime,
    node: NodeId,
    spiffe_id: Option<&str>,
) -> Result<CertificateParams, PkiError> {
    let mut params = base_params(now, NODE_DAYS)?;
    let name = format!("adit node {}", node.0);
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = vec![SanType::DnsName(PEER_SERVER_NAME.try_into()?)];
    if let Some(id) = spiffe_id {
        params.subject_alt_names.push(SanType::URI(id.try_into()?));
    }
    Ok(params)
}

fn bad(dir: &StateDir, name: &str) -> PkiError {
    PkiError::BadFile {
        path: dir.file(name),
        what: "cannot be used",
    }
}

/// Certificate of the authority.
pub const CA_CERT_FILE: &str = "peer-ca-cert.pem";
/// Certificate of a node.
pub const NODE_CERT_FILE: &str = "node-cert.pem";
/// Key of a node.
pub const NODE_KEY_FILE: &str = "node-key.pem";
const CA_KEY_FILE: &str = "peer-ca-key.pem";
const CA_NAME: &str = "adit peer CA";
const CA_DAYS: u64 = 3650;
/// Nothing renews it by itself, and `adit peers issue` makes the next one with the same key.
const NODE_DAYS: u64 = 825;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use adit_proto_core::peer::identity::Leaf;

    use super::*;
    use crate::peers::node::{NodeFileError, NodeFiles};

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_790_000_000));
    const ID: &str = "spiffe://cluster/node/2";

    fn scratch() -> (tempfile::TempDir, StateDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = |name| StateDir::open(root.path().join(name)).unwrap();
        let (ca, out) = (dir("ca"), dir("out"));
        (root, ca, out)
    }

    #[test]
    fn a_node_gets_what_it_needs_and_keeps_its_pin() {
        let (_root, dir, out) = scratch();
        assert!(PeerCa::open(&dir).is_err());
        assert!(PeerCa::init(&dir, NOW).unwrap());
        assert!(!PeerCa::init(&dir, NOW).unwrap());
        let ca = PeerCa::open(&dir).unwrap();
        let first = ca.issue(&out, NOW, NodeId(2), Some(ID), false).unwrap();
        let again = ca.issue(&out, NOW, NodeId(2), Some(ID), true).unwrap();
        assert!(!first.kept_key && again.kept_key);
        assert_eq!(first.pin, again.pin);
        let file = |name| out.file(name);
        let read = NodeFiles::read(
            &file(NODE_CERT_FILE),
            &file(NODE_KEY_FILE),
            &file(CA_CERT_FILE),
        );
        let read = read.unwrap();
        let expected = Leaf {
            spki: adit_proto_core::peer::identity::SpkiPin(first.pin),
            spiffe_id: Some(ID.to_owned()),
        };
        assert_eq!(read.leaf(), &expected);
        assert_eq!((read.chain().len(), read.roots().len()), (1, 1));
        assert_eq!(read.not_after(), again.not_after);
        let cert = parse(&read.chain()[0]).unwrap();
        let root = parse(&read.roots()[0]).unwrap();
        assert!(cert.verify_signature(Some(root.public_key())).is_ok());
        let usage = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && usage.server_auth);
    }

    #[test]
    fn what_is_there_is_replaced_only_where_that_is_asked_for() {
        let (root, dir, out) = scratch();
        PeerCa::init(&dir, NOW).unwrap();
        let ca = PeerCa::open(&dir).unwrap();
        ca.issue(&out, NOW, NodeId(2), None, false).unwrap();
        let files = || [NODE_CERT_FILE, NODE_KEY_FILE, CA_CERT_FILE].map(|f| out.read(f).unwrap());
        let before = files();
        let refused = ca.issue(&out, NOW, NodeId(3), None, false).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("out/node-cert.pem") && text.contains("--force"),
            "{text}"
        );
        assert_eq!(files(), before);

        // The directory of a node of another cluster.
        let other = StateDir::open(root.path().join("other")).unwrap();
        PeerCa::init(&other, NOW).unwrap();
        let other = PeerCa::open(&other).unwrap();
        out.remove(NODE_CERT_FILE).unwrap();
        let before = files();
        let refused = other.issue(&out, NOW, NodeId(2), None, false).unwrap_err();
        assert!(refused.to_string().contains("out/peer-ca-cert.pem"));
        assert_eq!(files(), before);
        // A crash may leave the key alone, and the CA's certificate beside a former one.
        assert!(
            ca.issue(&out, NOW, NodeId(2), None, false)
                .unwrap()
                .kept_key
        );
    }

    #[test]
    fn files_of_others_are_refused() {
        let (_root, dir, out) = scratch();
        PeerCa::init(&dir, NOW).unwrap();
        PeerCa::open(&dir)
            .unwrap()
            .issue(&out, NOW, NodeId(2), None, false)
            .unwrap();
        let (cert, key) = (out.file(NODE_CERT_FILE), out.file(NODE_KEY_FILE));
        let ca = out.file(CA_CERT_FILE);
        let refused = NodeFiles::read(&cert, &dir.file(CA_KEY_FILE), &ca);
        assert!(matches!(refused, Err(NodeFileError::Key(_))));
        let refused = NodeFiles::read(&ca, &key, &ca);
        assert!(matches!(refused, Err(NodeFileError::Name(_))));
        let refused = NodeFiles::read(&key, &key, &ca);
        assert!(matches!(refused, Err(NodeFileError::Pem { .. })));
    }
}
