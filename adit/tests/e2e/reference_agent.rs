//! A reference agent, written after the specification, at an adit gateway.

use std::{
    fs,
    io::Write,
    net::{TcpStream, UdpSocket},
    sync::atomic::Ordering,
};

use crate::harness::{
    SOON, beside_others, block_on,
    reference::{HEARTBEAT, HEARTBEAT_ACK, ROUTE_ADVERTISE, dial, frame, framed},
    reference_agent::ReferenceAgent,
    site::{Agent, PROXIES, Site, forward},
    targets::{GREETING, Refusing, Target, drain, echo, expect, greeter, ping, reset},
    until,
    users::{connect, http_connect, socks},
};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

#[test]
fn it_is_listed_and_its_heartbeats_are_acknowledged() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let agent = site.enrol("reference", &gateway, "");
    let mut reference = ReferenceAgent::connect(&agent, &gateway);
    let listed = &gateway.agents()[0];
    assert_eq!(listed["id"], agent.id());
    assert_eq!(listed["epoch"], 1);
    assert_eq!(listed["subnets"], json!(["127.0.0.1/32"]));
    assert_eq!(listed["domains"], json!(["localhost"]));
    block_on(async {
        let (send, recv) = &mut reference.control;
        for _ in 0..3 {
            send.write_all(&framed(HEARTBEAT)).await.unwrap();
            assert_eq!(frame(recv).await, HEARTBEAT_ACK);
        }
        // The same epoch again only shows that it lives; a message of another version is ignored.
        send.write_all(&framed(ROUTE_ADVERTISE)).await.unwrap();
        let mut version_9 = HEARTBEAT.to_vec();
        version_9[2] = 9;
        send.write_all(&framed(&version_9)).await.unwrap();
        // Bytes behind a message are a later version's.
        send.write_all(&framed(&[HEARTBEAT, b"more"].concat()))
            .await
            .unwrap();
        assert_eq!(frame(recv).await, HEARTBEAT_ACK);
    });
    assert_eq!(gateway.agents()[0]["status"], "online");
    drop(reference);
    gateway.process().logged("agent disconnected");
    assert_eq!(gateway.agents().len(), 0);
}

#[test]
fn it_serves_every_way_in() {
    let _machine = beside_others();
    let (site, target, refusing) = (Site::new(), echo(), Refusing::new());
    let gateway = site.gateway("gw", &format!("{PROXIES}{}", forward("echo", target)));
    let agent = site.enrol("reference", &gateway, "");
    let mut reference = ReferenceAgent::connect(&agent, &gateway);
    ping(&connect(gateway.ingress("echo")), b"by forward");
    let request = block_on(reference.requests.recv()).unwrap();
    assert_eq!(request[23..], *target.to_string().as_bytes());
    assert_ne!(request[3..19], [0; 16], "a session id");
    let proxy = gateway.ingress("socks5");
    ping(&socks(proxy, &target.to_string()).unwrap(), b"by address");
    let name = format!("localhost:{}", target.port());
    ping(&socks(proxy, &name).unwrap(), b"by name");
    let refused = socks(proxy, &refusing.addr().to_string()).unwrap_err();
    assert!(
        matches!(refused, tokio_socks::Error::ConnectionRefused),
        "{refused}"
    );
    let refusing = refusing.addr().to_string();
    let (status, _) = http_connect(gateway.ingress("connect"), &refusing, "");
    assert_eq!(status, 502);
    let told = gateway.process().logged("no session");
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("connect: refused"), "{reason}");
}

#[test]
fn beyond_its_hundred_streams_sessions_wait_until_others_end() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let gateway = site.gateway("gw", &forward("target", target.addr));
    let agent = site.enrol("reference", &gateway, "");
    let reference = ReferenceAgent::connect(&agent, &gateway);
    let ingress = gateway.ingress("target");
    let session = || (connect(ingress), target.accept());
    let mut sessions: Vec<(TcpStream, TcpStream)> = (0..100).map(|_| session()).collect();
    let exchange = |(user, target): &(TcpStream, TcpStream)| {
        pass(user, target);
        pass(target, user);
    };
    sessions.iter().for_each(exchange);
    let mut waiting = connect(ingress);
    waiting.write_all(b"one more").unwrap();
    until("it is being opened", SOON, || {
        (gateway.agents()[0]["sessions"] == 101).then_some(())
    });
    sessions.iter().for_each(exchange);
    assert_eq!(reference.asked.load(Ordering::Relaxed), 100);
    assert_eq!(gateway.sessions().len(), 100);
    // Its QUIC stack gives back streams by the eighth of its limit.
    sessions.truncate(100 - 100 / 8 - 1);
    let accepted = target.accept();
    expect(&accepted, b"one more");
    pass(&accepted, &waiting);
    drop((sessions, waiting, accepted));
    gateway.sessions_are(0);
    exchange(&session());
}

#[test]
fn streams_are_not_lost_to_sessions_that_end_in_any_way() {
    let _machine = beside_others();
    let (site, target, refusing) = (Site::new(), greeter(), Refusing::new());
    let rest = forward("greeter", target) + &forward("refusing", refusing.addr());
    let gateway = site.gateway("gw", &rest);
    let agent = site.enrol("reference", &gateway, "");
    let _reference = ReferenceAgent::connect(&agent, &gateway);
    for round in 0..150 {
        let user = connect(gateway.ingress("greeter"));
        expect(&user, GREETING);
        if round % 2 == 0 {
            reset(user);
        }
        let user = connect(gateway.ingress("refusing"));
        assert!(drain(&user).1.is_err());
    }
    gateway.sessions_are(0);
}

fn pass(mut from: &TcpStream, to: &TcpStream) {
    from.write_all(b"a few bytes").unwrap();
    expect(to, b"a few bytes");
}

#[test]
fn its_certificate_is_renewed_for_the_key_it_has_and_for_another() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    let agent = site.enrol("reference", &gateway, "");
    let former = agent.pair("");
    for (name, key) in [
        ("same", own_key(&agent)),
        ("other", KeyPair::generate().unwrap()),
    ] {
        let mut reference = ReferenceAgent::connect(&agent, &gateway);
        let answer = block_on(renew(&mut reference, &request_for(&key)));
        assert_eq!(answer[..4], [5, 0, 1, 0]);
        let (certificate, rest) = string(&answer[4..]);
        let (root, rest) = string(rest);
        assert!(rest.is_empty());
        assert_eq!(root, former["gateway_ca"].as_str().unwrap());
        assert_ne!(certificate, former["certificate"].as_str().unwrap());
        // agent-tunnel 12: it writes them down, closes, and comes back at once.
        let renewed = agent.copy(&site.path(name));
        let pair = json!({
            "key": key.serialize_pem(),
            "certificate": certificate,
            "gateway_ca": root,
        });
        fs::write(renewed.state.join("agent-pair.json"), pair.to_string()).unwrap();
        reference.connection.close(0u32.into(), b"cert-renewed");
        let next = ReferenceAgent::connect(&renewed, &gateway);
        ping(&connect(gateway.ingress("echo")), b"with the new one");
        let rows = gateway.agents();
        assert!(rows.iter().all(|row| row["id"] == agent.id()), "{rows:?}");
        drop(next);
        until("it is gone", SOON, || {
            gateway.agents().is_empty().then_some(())
        });
    }
    // The other key has taken the place of the first one.
    let (_endpoint, connection) = block_on(dial(&agent.state, gateway.address("tunnel")));
    block_on(connection.closed());
    gateway.process().logged("agent refused");
}

#[test]
fn a_renewal_that_cannot_be_granted_is_answered_and_harms_nothing() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    let agent = site.enrol("reference", &gateway, "");
    let mut reference = ReferenceAgent::connect(&agent, &gateway);
    for csr in ["no request at all", &request_for(&own_key(&agent))] {
        let answer = block_on(renew(&mut reference, csr));
        // agent-tunnel 6.5: an error, and why; the second one comes too soon behind the first.
        assert_eq!(answer[..4], [5, 0, 1, 1]);
        let (reason, rest) = string(&answer[4..]);
        assert!(!reason.is_empty() && rest.is_empty());
    }
    block_on(async {
        let (send, recv) = &mut reference.control;
        send.write_all(&framed(HEARTBEAT)).await.unwrap();
        assert_eq!(frame(recv).await, HEARTBEAT_ACK);
    });
    ping(&connect(gateway.ingress("echo")), b"as before");
}

#[test]
fn it_is_cut_and_stays_out_once_it_is_deleted() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    let agent = site.enrol("reference", &gateway, "");
    let reference = ReferenceAgent::connect(&agent, &gateway);
    let user = connect(gateway.ingress("echo"));
    ping(&user, b"before");
    let ran = gateway.ask(&["agents", "delete", "reference"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let closed = block_on(reference.connection.closed());
    let quinn::ConnectionError::ApplicationClosed(close) = closed else {
        panic!("{closed}");
    };
    assert_eq!(close.error_code, 6u32.into());
    let end = drain(&user).1.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    // It comes back after each refusal, as it knows no codes (agent-tunnel 13), and gets no further.
    for n in 1..=3 {
        let (_endpoint, connection) = block_on(dial(&agent.state, gateway.address("tunnel")));
        block_on(connection.closed());
        gateway.process().logged_nth("agent refused", n);
    }
    assert_eq!(gateway.enrolled().len(), 0);
    assert_eq!(gateway.process().count("agent connected"), 1);
}

/// Asks for a certificate (agent-tunnel 6.4), and gives the payload of the answer.
async fn renew(reference: &mut ReferenceAgent, csr_pem: &str) -> Vec<u8> {
    let mut request = vec![4, 0, 1];
    request.extend(u32::try_from(csr_pem.len()).unwrap().to_be_bytes());
    request.extend(csr_pem.as_bytes());
    let (send, recv) = &mut reference.control;
    send.write_all(&framed(&request)).await.unwrap();
    frame(recv).await
}

/// A signing request as the reference makes it (agent-tunnel 3).
fn request_for(key: &KeyPair) -> String {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "reference");
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn own_key(agent: &Agent) -> KeyPair {
    KeyPair::from_pem(agent.pair("")["key"].as_str().unwrap()).unwrap()
}

/// Takes a string of the protocol off its front (agent-tunnel 5).
fn string(bytes: &[u8]) -> (&str, &[u8]) {
    let (length, rest) = bytes.split_at(4);
    let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
    let (text, rest) = rest.split_at(length);
    (std::str::from_utf8(text).unwrap(), rest)
}

#[test]
fn its_probe_is_answered() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(SOON)).unwrap();
    udp.connect(gateway.address("tunnel")).unwrap();
    // agent-tunnel 16.2
    let mut probe = vec![0; 1_200];
    probe[..14].copy_from_slice(b"\xc0\x1a\x2a\x3a\x4a\x08\x01\x02\x03\x04\x05\x06\x07\x08");
    udp.send(&probe).unwrap();
    let mut answer = [0; 1_500];
    let length = udp.recv(&mut answer).unwrap();
    assert!(answer[0] & 0x80 != 0, "a long header");
    assert_eq!(answer[1..5], [0; 4], "version negotiation");
    assert_eq!(answer[5..7], [0, 8], "to nobody, from the id of the probe");
    let versions: Vec<_> = answer[15..length].chunks(4).collect();
    assert!(versions.contains(&&[0, 0, 0, 1][..]), "{versions:?}");
}
