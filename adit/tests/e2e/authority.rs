//! Certificates of a gateway are exchanged while it runs, and its CA too; no agent is locked out, nothing is cut.

use std::{fs, net::SocketAddr, sync::Arc};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use crate::harness::{
    RUNTIME, SOON, beside_others, block_on,
    reference::{ROUTE_ADVERTISE, dial, frame, framed},
    site::{Agent, Gateway, Ports, Site, forward, free_port, free_udp_port},
    targets::{echo, ping},
    until,
    users::connect,
};

const EXCHANGED: &str = "certificate of the gateway exchanged; its key stays";

#[test]
fn a_certificate_that_is_made_again_is_shown_to_those_who_come_and_to_nobody_else() {
    let _machine = beside_others();
    let mut bed = Bed::new();
    let other = bed.site.enrol("reference", &bed.gateway, "");
    let (_endpoint, before) = bed.as_reference(&other);
    let tunnel = leaf(&before);
    let https = https_leaf(bed.gateway.address("enroll"));
    let token = bed.gateway.token("later");
    let user = connect(bed.gateway.ingress("echo"));
    ping(&user, b"before");
    // As when they come near their end: a reload looks at them, as the timer does.
    for file in ["server-cert.pem", "https-cert.pem"] {
        fs::remove_file(bed.gateway.state.join(file)).unwrap();
    }
    assert_eq!(bed.gateway.ask(&["gateway", "reload"]).code, 0);
    bed.gateway.process().logged_nth(EXCHANGED, 2);
    let (_endpoint, after) = bed.as_reference(&other);
    assert_ne!(leaf(&after), tunnel, "another certificate");
    assert_eq!(spki(&leaf(&after)), spki(&tunnel), "of the same key");
    let renewed = https_leaf(bed.gateway.address("enroll"));
    assert_ne!(renewed, https);
    assert_eq!(spki(&renewed), spki(&https));
    assert!(before.close_reason().is_none(), "who was there stays");
    ping(&user, b"after");
    // A string from before, and an agent that comes back.
    let late = bed.site.agent("late");
    assert_eq!(late.up(&token, "", &[]).code, 0);
    bed.agent.process_mut().kill();
    bed.agent.serve(&bed.gateway);
    ping(&connect(bed.gateway.ingress("echo")), b"again");
}

#[test]
fn another_ca_takes_over_and_agents_move_one_by_one() {
    let _machine = beside_others();
    let mut bed = Bed::new();
    let first = bed.export();
    assert_eq!(first.len(), 1);
    let token = bed.gateway.token("from-before");
    let user = connect(bed.gateway.ingress("echo"));
    ping(&user, b"before");
    let (_old_endpoint, old) = bed.as_reference(&bed.agent);
    let pin = spki(&leaf(&old));
    bed.gateway
        .ask(&["ca", "retire"])
        .fails(1, &["nothing to retire"]);
    let view = bed.gateway.ask(&["ca", "rotate", "--json"]).json();
    assert_eq!(
        (&view["agents"], &view["agents_on_former"]),
        (&1.into(), &1.into())
    );
    bed.gateway
        .ask(&["ca", "rotate"])
        .fails(1, &["retire it first"]);
    let both = bed.export();
    assert_eq!((both.len(), &both[1]), (2, &first[0]));
    ping(&user, b"after");

    // Who knows only the former CA, as any agent from before, ours and the reference's.
    let (_endpoint, back) = bed.as_reference(&bed.agent);
    assert_eq!(spki(&leaf(&back)), pin, "the key and the pin stay");
    drop((old, back));
    bed.agent.process_mut().kill();
    bed.agent.serve(&bed.gateway);
    // Who enrols now, with a string from before, knows only the one that signs now.
    let mut young = bed.site.agent("young");
    assert_eq!(young.up(&token, "127.0.0.1/32", &[]).code, 0);
    assert_eq!(young.pair("")["gateway_ca"], both[0]);
    let (_endpoint, reference) = bed.as_reference(&young);
    assert_eq!(spki(&leaf(&reference)), pin);
    drop(reference);
    young.serve(&bed.gateway);
    bed.gateway
        .ask(&["ca", "retire"])
        .fails(1, &["1 enrolled agents", "--force"]);

    // Who renews has moved.
    assert_eq!(bed.agent.pair("")["gateway_ca"], first[0]);
    assert_eq!(bed.agent.ask(&["agent", "renew"]).code, 0);
    bed.agent.process().logged("renewed certificate in use");
    assert_eq!(bed.agent.pair("")["gateway_ca"], both[0]);
    until("nobody needs the former CA", SOON, || {
        (bed.show()["agents_on_former"] == 0).then_some(())
    });
    assert_eq!(bed.gateway.ask(&["ca", "retire"]).code, 0);
    assert_eq!(bed.export(), both[..1]);
    assert_eq!(bed.show()["former_until_unix_s"], Value::Null);
    for agent in [&mut bed.agent, &mut young] {
        agent.process_mut().kill();
        agent.serve(&bed.gateway);
    }
    bed.restart();
    for agent in [&bed.agent, &young] {
        bed.gateway
            .process()
            .logged_that("back", |line| line["agent"] == agent.id(), 1);
    }
    ping(&connect(bed.gateway.ingress("echo")), b"with the other CA");
}

#[test]
fn who_has_not_shown_a_renewed_certificate_still_needs_the_former_ca() {
    let _machine = beside_others();
    let bed = Bed::new();
    // A key that stays, as of every agent of the reference.
    let other = bed.site.enrol("reference", &bed.gateway, "");
    let (_endpoint, connection) = bed.as_reference(&other);
    assert_eq!(bed.gateway.ask(&["ca", "rotate"]).code, 0);
    let on_former = || bed.show()["agents_on_former"].clone();
    assert_eq!(on_former(), 2);
    let (certificate, root) = block_on(renew(&connection, &other.pair("")));
    assert_eq!(on_former(), 2, "the answer may have been lost");
    bed.gateway
        .ask(&["ca", "retire"])
        .fails(1, &["2 enrolled agents", "--force"]);
    let mut pair = other.pair("");
    pair["certificate"] = certificate.into();
    pair["gateway_ca"] = root.into();
    fs::write(other.state.join("agent-pair.json"), pair.to_string()).unwrap();
    let (_endpoint, _connection) = bed.as_reference(&other);
    until("one agent less needs it", SOON, || {
        (on_former() == 1).then_some(())
    });
}

#[test]
fn a_gateway_that_dies_right_after_the_rotation_takes_everybody_back() {
    let _machine = beside_others();
    let mut bed = Bed::new();
    let (site, gateway) = (&bed.site, &bed.gateway);
    let young = {
        assert_eq!(gateway.ask(&["ca", "rotate"]).code, 0);
        site.enrol("young", gateway, "127.0.0.1/32")
    };
    bed.restart();
    bed.gateway.routes_to(&bed.agent.id(), 1);
    ping(&connect(bed.gateway.ingress("echo")), b"back");
    let (_endpoint, _young) = bed.as_reference(&young);
    assert_eq!(bed.show()["agents_on_former"], 1);
    assert_eq!(bed.export().len(), 2);
    // Exported from the files alone, too.
    bed.gateway.process_mut().kill();
    assert_eq!(bed.export().len(), 2);
    bed.gateway
        .ask(&["ca", "show"])
        .fails(5, &["nothing is running"]);
}

#[test]
fn a_ca_that_is_retired_by_force_shuts_its_agents_out() {
    let _machine = beside_others();
    let mut bed = Bed::new();
    assert_eq!(bed.gateway.ask(&["ca", "rotate"]).code, 0);
    let ran = bed.gateway.ask(&["ca", "retire", "--force"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    bed.agent.process_mut().terminate();
    bed.agent.spawn();
    bed.agent
        .process()
        .logged("waiting before the next attempt to connect");
    bed.gateway
        .process()
        .logged("handshake failed; is the agent enrolled with this gateway?");
    assert_eq!(bed.gateway.process().count("agent connected"), 1);
    // Enrolling again is the way back.
    bed.agent.process_mut().kill();
    let token = bed.gateway.token("site-a");
    assert_eq!(bed.agent.up(&token, "127.0.0.1/32", &[]).code, 0);
    bed.agent.serve(&bed.gateway);
    ping(&connect(bed.gateway.ingress("echo")), b"back");
}

struct Bed {
    site: Site,
    gateway: Gateway,
    agent: Agent,
}

impl Bed {
    fn new() -> Self {
        let (site, target) = (Site::new(), echo());
        let ports = Ports {
            tunnel: free_udp_port(),
            enroll: free_port(),
        };
        let rest = forward("echo", target);
        let mut gateway = site.gateway_with("gw", "", ports, &rest);
        gateway.start();
        let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
        Self {
            site,
            gateway,
            agent,
        }
    }

    fn restart(&mut self) {
        self.gateway.process_mut().kill();
        self.gateway.start();
    }

    fn show(&self) -> Value {
        self.gateway.ask(&["ca", "show", "--json"]).json()
    }

    /// The certificates of `ca export`, each in PEM.
    fn export(&self) -> Vec<String> {
        let ran = self.gateway.ask(&["ca", "export"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let end = "-----END CERTIFICATE-----\n";
        let text = ran.out.replace("\r\n", "\n");
        let all: Vec<String> = text.split_inclusive(end).map(str::to_owned).collect();
        for pem in &all {
            CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        }
        all
    }

    /// Connects as another implementation of the agent would that has the same enrolment.
    fn as_reference(&self, agent: &Agent) -> (quinn::Endpoint, quinn::Connection) {
        let addr = self.gateway.address("tunnel");
        block_on(dial(&agent.state, addr))
    }
}

/// Asks for another certificate of the same key (agent-tunnel 6.4); gives it and the root.
async fn renew(connection: &quinn::Connection, pair: &Value) -> (String, String) {
    let key = rcgen::KeyPair::from_pem(pair["key"].as_str().unwrap()).unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key);
    let request = [&b"\x04\x00\x01"[..], &string(&csr.unwrap().pem().unwrap())].concat();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&framed(ROUTE_ADVERTISE)).await.unwrap();
    send.write_all(&framed(&request)).await.unwrap();
    let answer = frame(&mut recv).await;
    let (head, texts) = answer.split_at(4);
    assert_eq!(head, b"\x05\x00\x01\x00");
    let (length, texts) = texts.split_at(4);
    let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
    let (certificate, root) = texts.split_at(length);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(certificate), text(&root[4..]))
}

/// agent-tunnel 5: a length and that many bytes.
fn string(text: &str) -> Vec<u8> {
    framed(text.as_bytes())
}

/// The certificate that the gateway showed on a connection.
fn leaf(connection: &quinn::Connection) -> CertificateDer<'static> {
    let shown = connection.peer_identity().unwrap();
    let chain = shown.downcast::<Vec<CertificateDer<'static>>>().unwrap();
    chain[0].clone()
}

fn spki(der: &CertificateDer<'_>) -> [u8; 32] {
    adit::pki::certificate_spki_sha256(der).unwrap()
}

/// The certificate that the enrolment listener shows.
pub(crate) fn https_leaf(addr: SocketAddr) -> CertificateDer<'static> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let _in_runtime = RUNTIME.enter();
    block_on(async move {
        let tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let tls = connector.connect(name, tcp).await.unwrap();
        tls.get_ref().1.peer_certificates().unwrap()[0].clone()
    })
}

/// Looks at certificates, and trusts them all.
#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
