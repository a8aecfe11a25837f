//! The gateway's own certificates: the tunnel's and the HTTPS listener's.

use std::fmt;

use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use zeroize::Zeroizing;

use super::{
    PkiError,
    ca::{Ca, new_key},
    first_certificate,
    names::ServerNames,
    parse, spki_sha256,
};
use crate::state::StateDir;

/// Which certificate of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerRole {
    /// The QUIC endpoint that agents connect to.
    Tunnel,
    /// The HTTPS listener that agents enrol at.
    Https,
}

/// A server's certificate chain and its key. The key is made once and kept for ever, as peers pin it (design 3.7).
pub struct ServerCert {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    spki_sha256: [u8; 32],
    not_after: i64,
}

impl ServerCert {
    /// Reads key and certificate; makes the key at first use, and a certificate when there is none for these names
    /// from this authority with 30 days left.
    ///
    /// # Errors
    /// [`PkiError::BadFile`] when the key is damaged: replacing it would lock out everyone who pinned it.
    pub fn open(
        dir: &StateDir,
        ca: &Ca,
        role: ServerRole,
        names: &ServerNames,
        now: UnixTime,
    ) -> Result<Self, PkiError> {
        let (cert_file, key_file) = match role {
            ServerRole::Tunnel => ("server-cert.pem", "server-key.pem"),
            ServerRole::Https => ("https-cert.pem", "https-key.pem"),
        };
        let key = match dir.read_secret_text(key_file)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|_| PkiError::BadFile {
                path: dir.file(key_file),
                what: "holds no usable private key",
            })?,
            None => new_key(dir, key_file)?,
        };
        let spki_sha256 = spki_sha256(&key.subject_public_key_info());
        let kept = dir
            .read(cert_file)?
            .and_then(|pem| CertificateDer::from_pem_slice(&pem).ok())
            .filter(|der| is_fit(der, ca, names, spki_sha256, now));
        let leaf = match kept {
            Some(leaf) => leaf,
            None => {
                let issued = ca.sign_server(now, &key, names)?;
                dir.write(cert_file, issued.cert_pem.as_bytes())?;
                first_certificate(&issued.cert_pem)?
            }
        };
        let not_after = parse(&leaf)?.validity().not_after.timestamp();
        let pem = Zeroizing::new(key.serialize_pem());
        Ok(Self {
            chain: vec![leaf, ca.link().clone()],
            key: PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| PkiError::BadFile {
                path: dir.file(key_file),
                what: "holds no usable private key",
            })?,
            spki_sha256,
            not_after,
        })
    }

    /// Gives the chain as it is sent: this certificate, then what leads from it to an agent's root (agent-tunnel 3).
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Gives a copy of the private key.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// Gives the pin: SHA-256 of the DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.spki_sha256
    }

    /// Gives the Unix time of the certificate's end, in seconds.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Gives the Unix time in seconds at which [`ServerCert::open`] makes the next certificate.
    #[must_use]
    pub fn reissue_at(&self) -> i64 {
        self.not_after - REISSUE_BEFORE_S
    }
}

impl Clone for ServerCert {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            spki_sha256: self.spki_sha256,
            not_after: self.not_after,
        }
    }
}

impl fmt::Debug for ServerCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCert")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn is_fit(
    der: &CertificateDer<'_>,
    ca: &Ca,
    names: &ServerNames,
    key_sha256: [u8; 32],
    now: UnixTime,
) -> bool {
    let Ok(cert) = parse(der) else { return false };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    spki_sha256(cert.public_key().raw) == key_sha256
        && cert.validity().not_before.timestamp() <= now
        && cert
            .validity()
            .not_after
            .timestamp()
            .saturating_sub(REISSUE_BEFORE_S)
            > now
        && names.are_of(&cert)
        && ca.has_signed(&cert)
}

const REISSUE_BEFORE_S: i64 = 30 * 86_400;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use x509_parser::extensions::GeneralName;

    use super::*;

    #[test]
    fn certificate_is_kept_until_thirty_days_before_its_end() {
        let fixture = Fixture::new();
        let first = fixture.open(&["gw.example"], 0);
        let before = u64::try_from(first.reissue_at()).unwrap() - START - 1;
        assert_eq!(fixture.open(&["gw.example"], before).chain, first.chain);
        let next = fixture.open(&["gw.example"], before + 1);
        assert_ne!(next.chain, first.chain);
        assert_eq!(next.spki_sha256(), first.spki_sha256());
        assert_eq!(next.key, first.key);
    }

    #[test]
    fn changed_names_make_another_certificate_for_the_same_key() {
        let fixture = Fixture::new();
        let first = fixture.open(&["gw.example"], 0);
        let next = fixture.open(&["gw.example", "alt.example", "192.0.2.1", "::1"], 0);
        assert_eq!(next.spki_sha256(), first.spki_sha256());
        let cert = parse(&next.chain()[0]).unwrap();
        assert_eq!(
            cert.subject_alternative_name()
                .unwrap()
                .unwrap()
                .value
                .general_names,
            [
                GeneralName::DNSName("gw.example"),
                GeneralName::DNSName("alt.example"),
                GeneralName::IPAddress(&[192, 0, 2, 1]),
                GeneralName::IPAddress(&std::net::Ipv6Addr::LOCALHOST.octets()),
            ]
        );
        let usage = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth);
        let same = fixture.open(&["::1", "alt.example", "192.0.2.1", "gw.example"], 0);
        assert_eq!(same.chain, next.chain);
    }

    #[test]
    fn torn_certificate_is_replaced_but_a_torn_key_is_an_error() {
        let fixture = Fixture::new();
        let first = fixture.open(&["gw.example"], 0);
        fixture.dir.write("server-cert.pem", b"torn").unwrap();
        let next = fixture.open(&["gw.example"], 0);
        assert_eq!(next.spki_sha256(), first.spki_sha256());
        fixture.dir.write_secret("server-key.pem", b"torn").unwrap();
        let error = fixture
            .try_open(ServerRole::Tunnel, &["gw.example"], 0)
            .unwrap_err();
        assert!(error.to_string().contains("server-key.pem"), "{error}");
    }

    #[test]
    fn tunnel_and_https_have_keys_of_their_own() {
        let fixture = Fixture::new();
        let https = fixture.try_open(ServerRole::Https, &["gw"], 0).unwrap();
        assert_ne!(https.spki_sha256(), fixture.open(&["gw"], 0).spki_sha256());
    }

    #[test]
    fn pin_equals_the_hash_of_the_parsed_certificate() {
        let fixture = Fixture::new();
        let cert = fixture.open(&["gw.example"], 0);
        assert_eq!(
            super::super::certificate_spki_sha256(&cert.chain()[0]).unwrap(),
            cert.spki_sha256()
        );
        assert_eq!(cert.chain().len(), 2);
    }

    const START: u64 = 1_790_000_000;

    struct Fixture {
        _root: tempfile::TempDir,
        dir: StateDir,
        ca: Ca,
    }

    impl Fixture {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let dir = StateDir::open(root.path().join("s")).unwrap();
            let ca = Ca::open(&dir, at(0)).unwrap();
            Self {
                _root: root,
                dir,
                ca,
            }
        }

        fn open(&self, names: &[&str], after: u64) -> ServerCert {
            self.try_open(ServerRole::Tunnel, names, after).unwrap()
        }

        fn try_open(
            &self,
            role: ServerRole,
            names: &[&str],
            after: u64,
        ) -> Result<ServerCert, PkiError> {
            let names = ServerNames::parse(names).unwrap();
            ServerCert::open(&self.dir, &self.ca, role, &names, at(after))
        }
    }

    fn at(after: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(START + after))
    }
}
