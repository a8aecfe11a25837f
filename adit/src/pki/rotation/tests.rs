use std::{fs, sync::Arc, time::Duration};

use rcgen::KeyPair;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
    server::WebPkiClientVerifier,
};
use rustls_pki_types::UnixTime;
use uuid::Uuid;

use super::*;
use crate::pki::{
    ca::Ca,
    csr::CheckedCsr,
    names::ServerNames,
    server::{ServerCert, ServerRole},
};

#[test]
fn agents_of_both_authorities_verify_the_gateway_and_are_verified_until_the_former_one_is_retired()
{
    let bed = Bed::new();
    let first = bed.open();
    let old = agent(&first);
    let pin = bed.server(&first).spki_sha256();
    let second = first.rotate(&bed.dir, NOW, 77).unwrap();
    let young = agent(&second);
    let server = bed.server(&second);
    assert_eq!(server.spki_sha256(), pin, "the key stays");
    // Each agent knows one root only: that of the authority that certified it.
    for root in [&first, &second] {
        assert!(verifies(root.cert_pem(), &server), "by its only root");
    }
    for certificate in [&old, &young] {
        assert!(admits(&second, certificate));
    }
    assert!(!admits(&first, &young));
    assert_eq!(second.former().unwrap().last_not_after(), 77);

    let third = second.retire(&bed.dir, NOW).unwrap();
    let server = bed.server(&third);
    assert!(admits(&third, &young) && !admits(&third, &old));
    assert!(verifies(second.cert_pem(), &server) && !verifies(first.cert_pem(), &server));
    assert_eq!(server.spki_sha256(), pin);
    assert_eq!(third.cert_pem(), second.cert_pem());
    assert!(third.former().is_none());
}

#[test]
fn clocks_a_day_ahead_and_a_day_behind_lock_nobody_out() {
    let day = 86_400;
    let (ahead, behind) = (after(day), after(-day));
    let bed = Bed::new();
    let ca = Ca::open(&bed.dir, ahead).unwrap();
    let names = ServerNames::parse(["gw.example"]).unwrap();
    let server = ServerCert::open(&bed.dir, &ca, ServerRole::Tunnel, &names, ahead).unwrap();
    let agent = agent_at(&ca, ahead);
    let rotated = ca.rotate(&bed.dir, ahead, 0).unwrap();
    let second = ServerCert::open(&bed.dir, &rotated, ServerRole::Tunnel, &names, ahead).unwrap();
    for now in [behind, NOW, ahead] {
        assert!(verifies_at(ca.cert_pem(), &server, now));
        assert!(verifies_at(ca.cert_pem(), &second, now));
        assert!(admits_at(&rotated, &agent, now));
    }
    // The clock steps back: what it has made stays good, and is not made again.
    let kept = ServerCert::open(&bed.dir, &rotated, ServerRole::Tunnel, &names, behind).unwrap();
    assert_eq!(kept.chain(), second.chain());
}

#[test]
fn a_rotation_comes_after_the_retirement_of_the_one_before() {
    let bed = Bed::new();
    let first = bed.open();
    assert!(matches!(
        first.retire(&bed.dir, NOW),
        Err(PkiError::NoFormer)
    ));
    let second = first.rotate(&bed.dir, NOW, 0).unwrap();
    assert!(matches!(
        second.rotate(&bed.dir, NOW, 0),
        Err(PkiError::FormerStays)
    ));
    let third = second.retire(&bed.dir, NOW).unwrap();
    let fourth = third.rotate(&bed.dir, NOW, 0).unwrap();
    assert_ne!(fourth.cert_pem(), third.cert_pem());
}

#[test]
fn a_crash_at_any_step_leaves_the_former_or_the_whole_exchange() {
    let bed = Bed::new();
    let first = bed.open();
    let before = bed.files();
    let last = crate::pki::ca::agents_not_after(NOW);
    let second = first.rotate(&bed.dir, NOW, last).unwrap();
    let after = bed.files();
    let name = |file: &str| file.to_owned();
    let content = |all: &[(String, Vec<u8>)], file: &str| {
        let found = all.iter().find(|(known, _)| known == file);
        found.map(|(_, bytes)| bytes.clone())
    };
    let text = |file: &str| String::from_utf8(content(&after, file).unwrap()).unwrap();
    let mut exchange = Exchange {
        key: text(KEY_FILE),
        certificate: text(CERT_FILE),
        former: serde_json::from_str(&text(FORMER_FILE)).unwrap(),
    };
    // The former one has signed since it was written.
    exchange.former.last_not_after = 5;
    let exchange = serde_json::to_vec(&exchange).unwrap();
    // The writes in their order; the crash comes before the n-th.
    let writes = [FORMER_FILE, KEY_FILE, CERT_FILE].map(name);
    for done in 0..=writes.len() {
        bed.restore(&before);
        bed.dir.write_secret(EXCHANGE_FILE, &exchange).unwrap();
        for file in &writes[..done] {
            let bytes = content(&after, file).unwrap();
            bed.dir.write_secret(file, &bytes).unwrap();
        }
        let shown = certificates(&bed.dir).unwrap();
        assert_eq!(shown, [second.cert_pem(), first.cert_pem()], "{done}");
        let opened = bed.open();
        assert_eq!(opened.cert_pem(), second.cert_pem(), "{done} writes");
        assert_eq!(opened.former().unwrap().last_not_after(), last);
        assert_eq!(bed.files(), after);
    }
    // Before the first write nothing has happened.
    bed.restore(&before);
    assert_eq!(bed.open().cert_pem(), first.cert_pem());
}

#[test]
fn what_is_trusted_is_shown_and_a_damaged_file_is_named() {
    let bed = Bed::new();
    assert!(matches!(
        certificates(&bed.dir),
        Err(PkiError::NoAuthority(_))
    ));
    let first = bed.open();
    assert_eq!(certificates(&bed.dir).unwrap(), [first.cert_pem()]);
    let second = first.rotate(&bed.dir, NOW, 0).unwrap();
    let both = certificates(&bed.dir).unwrap();
    assert_eq!(both, [second.cert_pem(), first.cert_pem()]);
    for file in [FORMER_FILE, EXCHANGE_FILE] {
        bed.dir.write_secret(file, b"torn").unwrap();
        let error = Ca::open(&bed.dir, NOW).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
        assert!(certificates(&bed.dir).is_err());
    }
}

const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_790_000_000));

struct Bed {
    _root: tempfile::TempDir,
    dir: StateDir,
}

impl Bed {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        Self { _root: root, dir }
    }

    fn open(&self) -> Ca {
        Ca::open(&self.dir, NOW).unwrap()
    }

    fn server(&self, ca: &Ca) -> ServerCert {
        let names = ServerNames::parse(["gw.example"]).unwrap();
        ServerCert::open(&self.dir, ca, ServerRole::Tunnel, &names, NOW).unwrap()
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut all: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect();
        all.sort();
        all
    }

    fn restore(&self, files: &[(String, Vec<u8>)]) {
        for (name, _) in self.files() {
            self.dir.remove(&name).unwrap();
        }
        for (name, bytes) in files {
            self.dir.write_secret(name, bytes).unwrap();
        }
    }
}

fn after(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(
        NOW.as_secs().saturating_add_signed(seconds),
    ))
}

fn agent(ca: &Ca) -> CertificateDer<'static> {
    agent_at(ca, NOW)
}

fn agent_at(ca: &Ca, now: UnixTime) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default();
    let csr = csr.serialize_request(&key).unwrap().pem().unwrap();
    let csr = CheckedCsr::from_pem(&csr).unwrap();
    let id = adit_proto_core::id::AgentId(Uuid::from_u128(1));
    let issued = ca.sign_agent(now, &csr, id, "a", None).unwrap();
    first_certificate(&issued.cert_pem).unwrap()
}

/// What an agent does that knows one root.
fn verifies(root_pem: &str, server: &ServerCert) -> bool {
    verifies_at(root_pem, server, NOW)
}

fn verifies_at(root_pem: &str, server: &ServerCert, now: UnixTime) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(first_certificate(root_pem).unwrap()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let (leaf, rest) = server.chain().split_first().unwrap();
    let name = "gw.example".try_into().unwrap();
    let verified = verifier
        .build()
        .unwrap()
        .verify_server_cert(leaf, rest, &name, &[], now);
    verified.is_ok()
}

/// What the gateway does with an agent's certificate.
fn admits(ca: &Ca, agent: &CertificateDer<'_>) -> bool {
    admits_at(ca, agent, NOW)
}

fn admits_at(ca: &Ca, agent: &CertificateDer<'_>, now: UnixTime) -> bool {
    let mut roots = RootCertStore::empty();
    for root in ca.roots() {
        roots.add(root.clone()).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier.build().unwrap();
    verifier.verify_client_cert(agent, &[], now).is_ok()
}
