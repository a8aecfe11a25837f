//! An imitation of a reference gateway, written after the specification, in front of an adit agent.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::harness::{
    beside_others, block_on,
    reference::{ACCEPTED, GatewayFiles, Streams, frame, framed, listen, rest},
    site::{Agent, Site},
    targets::{Refusing, Target, echo, expect, reset},
};

/// A gateway as section 18 describes it, and the agent that is connected to it.
pub(crate) struct ReferenceGateway {
    endpoint: quinn::Endpoint,
    ca: CertifiedIssuer<'static, KeyPair>,
    pub(crate) connection: quinn::Connection,
    pub(crate) control: Streams,
    pub(crate) agent: Agent,
    _site: Site,
}

impl ReferenceGateway {
    /// Starts both, and takes the agent's first advertisement.
    pub(crate) fn start(advertise: &str, heartbeat: &str) -> (Self, Vec<u8>) {
        Self::start_with(advertise, heartbeat, 300)
    }

    /// The same, where the agent's certificate of a year has so many days left.
    fn start_with(advertise: &str, heartbeat: &str, days: u64) -> (Self, Vec<u8>) {
        let site = Site::new();
        let mut agent = site.agent("adit-agent");
        let (files, ca) = certificates(&agent, days);
        let _in_runtime = crate::harness::RUNTIME.enter();
        let endpoint = listen(&files);
        let addr = endpoint.local_addr().unwrap();
        enrolled(&agent, &files, addr);
        let config = site.path("agent.toml");
        let text = format!("[advertise]\n{advertise}\n[heartbeat]\n{heartbeat}\n");
        fs::write(&config, text).unwrap();
        agent.spawn_with(&config);
        let (connection, control, first) = block_on(async {
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let mut control = connection.accept_bi().await.unwrap();
            let first = frame(&mut control.1).await;
            (connection, control, first)
        });
        let gateway = Self {
            endpoint,
            ca,
            connection,
            control,
            agent,
            _site: site,
        };
        (gateway, first)
    }

    /// Opens a stream and asks for a session.
    pub(crate) async fn ask(&self, version: u8, target: &str) -> Streams {
        let (mut send, recv) = self.connection.open_bi().await.unwrap();
        let mut request = vec![1, 0, version];
        request.extend([7; 16]);
        request.extend(u32::try_from(target.len()).unwrap().to_be_bytes());
        request.extend(target.as_bytes());
        send.write_all(&framed(&request)).await.unwrap();
        (send, recv)
    }

    /// Reads control messages up to a request for a certificate, and gives that.
    async fn renewal_request(&mut self) -> String {
        loop {
            let message = frame(&mut self.control.1).await;
            // agent-tunnel 6.4
            if message[0] == 4 {
                let length = u32::from_be_bytes(message[3..7].try_into().unwrap());
                assert_eq!(length as usize, message.len() - 7);
                return String::from_utf8(message[7..].to_vec()).unwrap();
            }
        }
    }

    /// Certifies the request's key for the agent, as the reference does.
    fn certify(&self, csr_pem: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        let uri = format!("urn:uuid:{AGENT_ID}").try_into().unwrap();
        request.params.subject_alt_names = vec![SanType::URI(uri)];
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.signed_by(&self.ca).unwrap().pem()
    }

    /// Answers a request with a certificate, and gives that (agent-tunnel 6.5).
    fn grant(&mut self, csr_pem: &str) -> String {
        let issued = self.certify(csr_pem);
        let mut answer = vec![5, 0, 1, 0];
        for text in [&issued, &self.ca.pem()] {
            answer.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            answer.extend(text.as_bytes());
        }
        block_on(self.control.0.write_all(&framed(&answer))).unwrap();
        issued
    }

    /// Takes the next connection, and gives the certificate that it shows.
    pub(crate) fn next(&mut self) -> CertificateDer<'static> {
        self.connection = block_on(async { self.endpoint.accept().await.unwrap().await.unwrap() });
        let shown = self.connection.peer_identity().unwrap();
        let shown: Box<Vec<CertificateDer<'static>>> = shown.downcast().unwrap();
        shown[0].clone()
    }

    /// Waits for the agent's close, which is the one of a renewal (agent-tunnel 12 and 13).
    fn closed_for_renewal(&self) {
        let closed = block_on(self.connection.closed());
        let quinn::ConnectionError::ApplicationClosed(close) = closed else {
            panic!("{closed}");
        };
        assert_eq!(
            (close.error_code, &close.reason[..]),
            (0u32.into(), &b"cert-renewed"[..])
        );
    }

    /// Asks for a session that is refused, and gives the reason.
    fn refused(&self, version: u8, target: &str) -> String {
        block_on(async {
            let (_send, mut recv) = self.ask(version, target).await;
            let answer = frame(&mut recv).await;
            // agent-tunnel 7.2 and 7.3: error, version 1, a string, and the end.
            assert_eq!(answer[..3], [1, 0, 1]);
            let length = u32::from_be_bytes(answer[3..7].try_into().unwrap());
            assert_eq!(length as usize, answer.len() - 7);
            assert!(rest(&mut recv).await.is_empty());
            String::from_utf8(answer[7..].to_vec()).unwrap()
        })
    }
}

#[test]
fn routes_and_heartbeats_come_in_its_format() {
    let _machine = beside_others();
    let (mut gateway, first) = ReferenceGateway::start(
        "subnets = [\"10.0.0.0/8\"]\ndomains = [\"a.b\"]",
        "interval = \"1s\"\nroutes_interval = \"2s\"",
    );
    // agent-tunnel 6.1, but for the epoch, which is 1 or more
    let epoch = u64::from_be_bytes(first[3..11].try_into().unwrap());
    assert!(epoch >= 1);
    assert_eq!(first[..3], [1, 0, 1]);
    let expected = b"\x00\x00\x00\x01\x0a\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x03a.b\x00";
    assert_eq!(first[11..], *expected);
    block_on(async {
        let (send, recv) = &mut gateway.control;
        let (mut beats, mut adverts) = (0, 0);
        while beats < 2 || adverts < 1 {
            let message = frame(recv).await;
            match message[0] {
                1 => {
                    adverts += 1;
                    assert_eq!(message, first, "the same epoch, the same routes");
                }
                2 => {
                    beats += 1;
                    assert_eq!(message.len(), 15);
                    // An acknowledgement echoes the time; a late or unknown one is no harm either.
                    let mut ack = vec![3, 0, 1];
                    ack.extend(&message[3..11]);
                    send.write_all(&framed(&ack)).await.unwrap();
                }
                tag => panic!("message {tag}"),
            }
        }
    });
    assert_eq!(gateway.agent.status()["connected"], true);
}

#[test]
fn sessions_are_carried_with_half_close_both_ways() {
    let _machine = beside_others();
    let target = Target::listen();
    let (gateway, _) = ReferenceGateway::start(LOOPBACK, "");
    let (mut send, mut recv) = block_on(gateway.ask(1, &target.addr.to_string()));
    let tcp = target.accept();
    block_on(async {
        assert_eq!(frame(&mut recv).await, ACCEPTED);
        send.write_all(b"question").await.unwrap();
        send.finish().unwrap();
    });
    expect(&tcp, b"question");
    assert!(crate::harness::targets::drain(&tcp).1.is_ok(), "an end");
    std::io::Write::write_all(&mut &tcp, b"answer").unwrap();
    drop(tcp);
    assert_eq!(block_on(rest(&mut recv)), b"answer");
    let line = gateway.agent.process().logged("session ended");
    assert_eq!(line["reason"], "clean");

    // And the target first.
    let (mut send, mut recv) = block_on(gateway.ask(1, &target.addr.to_string()));
    let tcp = target.accept();
    std::io::Write::write_all(&mut &tcp, b"greeting").unwrap();
    tcp.shutdown(std::net::Shutdown::Write).unwrap();
    block_on(async {
        assert_eq!(frame(&mut recv).await, ACCEPTED);
        assert_eq!(rest(&mut recv).await, b"greeting");
        send.write_all(b"late words").await.unwrap();
        send.finish().unwrap();
    });
    expect(&tcp, b"late words");
}

#[test]
fn resets_are_passed_on_as_resets() {
    let _machine = beside_others();
    let target = Target::listen();
    let (gateway, _) = ReferenceGateway::start(LOOPBACK, "");
    let (_send, mut recv) = block_on(gateway.ask(1, &target.addr.to_string()));
    let tcp = target.accept();
    assert_eq!(block_on(frame(&mut recv)), ACCEPTED);
    reset(tcp);
    let end = block_on(recv.read_to_end(1));
    assert!(
        matches!(
            end,
            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_)))
        ),
        "{end:?}"
    );

    let (mut send, mut recv) = block_on(gateway.ask(1, &target.addr.to_string()));
    let tcp = target.accept();
    assert_eq!(block_on(frame(&mut recv)), ACCEPTED);
    send.reset(0u32.into()).unwrap();
    let end = crate::harness::targets::drain(&tcp).1.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn refusals_name_their_reason_and_harm_no_other_session() {
    let _machine = beside_others();
    let (target, refusing) = (echo(), Refusing::new());
    let (gateway, _) = ReferenceGateway::start(LOOPBACK, "");
    let (mut send, mut recv) = block_on(gateway.ask(1, &target.to_string()));
    assert_eq!(block_on(frame(&mut recv)), ACCEPTED);
    let reason = gateway.refused(1, &refusing.addr().to_string());
    assert!(reason.contains("refused"), "{reason}");
    let reason = gateway.refused(1, "10.9.9.9:1");
    assert!(reason.contains("10.9.9.9"), "{reason}");
    let reason = gateway.refused(9, &target.to_string());
    assert!(reason.contains("version"), "{reason}");
    for nonsense in ["", "no-port", "host:0x50", "host:99999"] {
        assert!(!gateway.refused(1, nonsense).is_empty());
    }
    block_on(async {
        send.write_all(b"still there").await.unwrap();
        let mut got = [0; 11];
        recv.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"still there");
    });
}

#[test]
fn more_sessions_than_a_hundred_are_granted() {
    let _machine = beside_others();
    let target = echo();
    let (gateway, _) = ReferenceGateway::start(LOOPBACK, "");
    block_on(async {
        let mut sessions = Vec::new();
        for _ in 0..300 {
            let (send, mut recv) = gateway.ask(1, &target.to_string()).await;
            assert_eq!(frame(&mut recv).await, ACCEPTED);
            sessions.push((send, recv));
        }
        for (send, recv) in &mut sessions {
            send.write_all(b"all at once").await.unwrap();
            let mut got = [0; 11];
            recv.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"all at once");
        }
    });
    assert_eq!(gateway.agent.process().count("session refused"), 0);
}

#[test]
fn a_stopped_agent_says_goodbye() {
    let _machine = beside_others();
    let (mut gateway, _) = ReferenceGateway::start(LOOPBACK, "");
    assert!(gateway.agent.process_mut().terminate().success());
    let closed = block_on(gateway.connection.closed());
    let quinn::ConnectionError::ApplicationClosed(close) = closed else {
        panic!("{closed}");
    };
    // agent-tunnel 13
    assert_eq!(close.error_code, 0u32.into());
    assert_eq!(&close.reason[..], b"shutting down");
}

#[test]
fn a_renewal_keeps_the_key_and_waits_until_nothing_is_carried() {
    let _machine = beside_others();
    let target = echo();
    let (mut gateway, _) = ReferenceGateway::start(LOOPBACK, "");
    let before = gateway.agent.pair("");
    let (mut send, mut recv) = block_on(gateway.ask(1, &target.to_string()));
    assert_eq!(block_on(frame(&mut recv)), ACCEPTED);
    assert_eq!(gateway.agent.ask(&["agent", "renew"]).code, 0);
    let csr = block_on(gateway.renewal_request());
    let issued = gateway.grant(&csr);
    gateway
        .agent
        .process()
        .logged("certificate renewed; the next connection proves it");
    // The session goes on over the old connection, for as long as it likes.
    block_on(async {
        send.write_all(b"still there").await.unwrap();
        let mut got = [0; 11];
        recv.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"still there");
        send.finish().unwrap();
        assert!(rest(&mut recv).await.is_empty());
    });
    gateway.closed_for_renewal();
    let issued_der = CertificateDer::from_pem_slice(issued.as_bytes()).unwrap();
    assert_eq!(gateway.next(), issued_der);
    gateway.agent.process().logged("renewed certificate in use");
    let after = gateway.agent.pair("");
    assert_eq!(after["key"], before["key"]);
    assert_eq!(after["certificate"], serde_json::json!(issued));
}

#[test]
fn a_certificate_that_ends_in_ten_days_is_renewed_without_being_told() {
    let _machine = beside_others();
    let target = echo();
    let (mut gateway, _) = ReferenceGateway::start_with(LOOPBACK, "", 10);
    let before = gateway.agent.pair("");
    let csr = block_on(gateway.renewal_request());
    let issued = gateway.grant(&csr);
    // The old connection first, as its late end would wipe the record of a newer one (agent-tunnel 9).
    gateway.closed_for_renewal();
    let issued_der = CertificateDer::from_pem_slice(issued.as_bytes()).unwrap();
    assert_eq!(gateway.next(), issued_der);
    let (_send, mut recv) = block_on(gateway.ask(1, &target.to_string()));
    assert_eq!(block_on(frame(&mut recv)), ACCEPTED);
    gateway.agent.process().logged("renewed certificate in use");
    let after = gateway.agent.pair("");
    assert_eq!(after["key"], before["key"]);
}

#[test]
fn an_agent_that_is_not_let_in_tries_on_without_a_storm() {
    let _machine = beside_others();
    let target = Target::listen();
    let (mut gateway, _) = ReferenceGateway::start(LOOPBACK, "");
    let (_send, mut recv) = block_on(gateway.ask(1, &target.addr.to_string()));
    assert_eq!(block_on(frame(&mut recv)), ACCEPTED);
    let tcp = target.accept();
    // agent-tunnel 2.1 and 17: an agent that was deleted is dropped, without a code of its own.
    let drop_it = |gateway: &ReferenceGateway| gateway.connection.close(0u32.into(), b"");
    drop_it(&gateway);
    let end = crate::harness::targets::drain(&tcp).1.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    let dropped = Instant::now();
    let mut tries = 0;
    while dropped.elapsed() < Duration::from_secs(3) {
        gateway.next();
        drop_it(&gateway);
        tries += 1;
    }
    eprintln!("{tries} attempts in {:?}", dropped.elapsed());
    assert!(tries <= 6, "{tries}");
    gateway.next();
    let (_send, mut recv) = block_on(gateway.ask(1, &target.addr.to_string()));
    assert_eq!(block_on(frame(&mut recv)), ACCEPTED);
}

#[test]
fn a_renewal_that_is_refused_changes_nothing() {
    let _machine = beside_others();
    let (mut gateway, _) = ReferenceGateway::start(LOOPBACK, "");
    let before = gateway.agent.pair("");
    assert_eq!(gateway.agent.ask(&["agent", "renew"]).code, 0);
    block_on(async {
        gateway.renewal_request().await;
        // agent-tunnel 6.5, with an answer to a question that was not asked before it.
        let (send, _) = &mut gateway.control;
        send.write_all(&framed(&[3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]))
            .await
            .unwrap();
        send.write_all(&framed(b"\x05\x00\x01\x01\x00\x00\x00\x02no"))
            .await
            .unwrap();
    });
    let line = gateway
        .agent
        .process()
        .logged("the gateway does not renew the certificate; trying again later");
    assert_eq!(line["reason"], "\"no\"");
    assert_eq!(gateway.agent.pair(""), before);
    assert_eq!(gateway.agent.status()["connected"], true);
}

/// What the reference signs: section 3.
fn certificates(agent: &Agent, days: u64) -> (GatewayFiles, CertifiedIssuer<'static, KeyPair>) {
    let name = |params: &mut CertificateParams, cn: &str| {
        params.distinguished_name.push(DnType::CommonName, cn);
    };
    let mut ca = CertificateParams::new(vec![]).unwrap();
    name(&mut ca, "Agent Tunnel CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();

    let key = KeyPair::generate().unwrap();
    let mut server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    name(&mut server, "localhost");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = server.signed_by(&key, &ca).unwrap();

    let agent_key = KeyPair::generate().unwrap();
    let mut client = CertificateParams::new(vec![]).unwrap();
    name(&mut client, "site-a");
    let uri = format!("urn:uuid:{AGENT_ID}").try_into().unwrap();
    client.subject_alt_names = vec![SanType::URI(uri)];
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let end = SystemTime::now() + DAY * u32::try_from(days).unwrap();
    (client.not_before, client.not_after) = ((end - DAY * 365).into(), end.into());
    let client = client.signed_by(&agent_key, &ca).unwrap();

    fs::create_dir(&agent.state).unwrap();
    fs::set_permissions(&agent.state, PermissionsExt::from_mode(0o700)).unwrap();
    let pair = json!({
        "key": agent_key.serialize_pem(),
        "certificate": client.pem(),
        "gateway_ca": ca.pem(),
    });
    let path = agent.state.join("agent-pair.json");
    fs::write(&path, pair.to_string()).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let files = GatewayFiles {
        ca_pem: ca.pem(),
        cert_pem: server.pem(),
        key_pem: key.serialize_pem(),
    };
    (files, ca)
}

/// The record that `agent up` writes at a reference gateway: without the mark of ours.
fn enrolled(agent: &Agent, files: &GatewayFiles, addr: SocketAddr) {
    let key = KeyPair::from_pem(&files.key_pem).unwrap();
    let pin: String = Sha256::digest(key.subject_public_key_info())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let record = json!({
        "agent_id": AGENT_ID,
        "name": "site-a",
        "quic_endpoints": [format!("localhost:{}", addr.port())],
        "server_spki_sha256": pin,
        "gateway_url": "https://localhost:7171",
    });
    fs::write(agent.state.join("agent.json"), record.to_string()).unwrap();
}

const AGENT_ID: &str = "7c4f5b1e-9d3e-4a52-8e0f-0a6b1d2c3e4f";
pub(crate) const LOOPBACK: &str = "subnets = [\"127.0.0.1/32\"]";
const DAY: Duration = Duration::from_secs(24 * 3_600);
