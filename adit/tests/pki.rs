//! Certificates of the embedded authority, judged by the path validation that peers use.
#![cfg(feature = "gateway")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::sync::Arc;

use adit::{
    pki::{
        ca::Ca,
        csr::CheckedCsr,
        names::ServerNames,
        server::{ServerCert, ServerRole},
    },
    state::StateDir,
};
use adit_proto_core::id::AgentId;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    crypto::aws_lc_rs, server::WebPkiClientVerifier, version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use uuid::Uuid;

#[test]
fn gateway_and_agent_accept_each_other_under_every_name() {
    let gateway = Gateway::new();
    for name in ["gw.example", "alt.example", "192.0.2.1", "::1"] {
        shake_hands(&gateway, &gateway, name).unwrap();
    }
    shake_hands(&gateway, &gateway, "other.example").unwrap_err();
}

#[test]
fn agents_of_another_authority_are_refused() {
    let (one, two) = (Gateway::new(), Gateway::new());
    shake_hands(&one, &two, "gw.example").unwrap_err();
}

struct Gateway {
    _root: tempfile::TempDir,
    ca: Ca,
    server: ServerCert,
    agent: (CertificateDer<'static>, KeyPair),
}

impl Gateway {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("state")).unwrap();
        let now = UnixTime::now();
        let ca = Ca::open(&dir, now).unwrap();
        let names = ServerNames::parse(["gw.example", "alt.example", "192.0.2.1", "::1"]).unwrap();
        let server = ServerCert::open(&dir, &ca, ServerRole::Tunnel, &names, now).unwrap();
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key);
        let csr = CheckedCsr::from_pem(&csr.unwrap().pem().unwrap()).unwrap();
        let id = AgentId(Uuid::new_v4());
        let issued = ca.sign_agent(now, &csr, id, "a", None).unwrap();
        let cert = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
        Self {
            _root: root,
            ca,
            server,
            agent: (cert, key),
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.cert_pem().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        Arc::new(roots)
    }
}

/// Joins a gateway and an agent that another gateway may have enrolled; both verify.
fn shake_hands(gateway: &Gateway, enrolled_at: &Gateway, name: &str) -> Result<(), rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(gateway.roots(), Arc::clone(&provider));
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(gateway.server.chain().to_vec(), gateway.server.key())?;
    let (cert, key) = &enrolled_at.agent;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(gateway.roots())
        .with_client_auth_cert(
            vec![cert.clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}
