//! A reference agent, written after the specification, at an adit gateway.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::json;
use tokio::{io::AsyncWriteExt, sync::mpsc};

use crate::harness::{
    RUNTIME, SOON, beside_others, block_on,
    reference::{
        ACCEPTED, HEARTBEAT, HEARTBEAT_ACK, ROUTE_ADVERTISE, Streams, dial, frame, framed,
    },
    site::{Agent, Gateway, PROXIES, Site, forward},
    targets::{GREETING, Refusing, Target, drain, echo, expect, greeter, ping, reset},
    until,
    users::{connect, http_connect, socks},
};

/// An agent as section 18 describes it: it advertises once, sends no acknowledgement and no count, dials what it is
/// asked for, and ends its half only when both have ended (section 11.2).
struct ReferenceAgent {
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    control: Streams,
    /// Sessions asked for so far.
    asked: Arc<AtomicUsize>,
    /// What was asked for, for each session.
    requests: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl ReferenceAgent {
    fn connect(agent: &Agent, gateway: &Gateway) -> Self {
        let before = gateway.process().count("routes accepted");
        let reference = block_on(Self::start(agent, gateway.address("tunnel")));
        gateway.routes_to(&agent.id(), before + 1);
        reference
    }

    async fn start(agent: &Agent, gateway: SocketAddr) -> Self {
        let (endpoint, connection) = dial(&agent.state, gateway).await;
        let mut control = connection.open_bi().await.unwrap();
        control.0.write_all(&framed(ROUTE_ADVERTISE)).await.unwrap();
        let asked = Arc::<AtomicUsize>::default();
        let (tell, requests) = mpsc::unbounded_channel();
        let (accepting, count) = (connection.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok(streams) = accepting.accept_bi().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(streams, tell.clone()));
            }
        });
        Self {
            endpoint,
            connection,
            control,
            asked,
            requests,
        }
    }
}

impl Drop for ReferenceAgent {
    fn drop(&mut self) {
        self.connection.close(0u32.into(), b"shutting down");
        let idle = self.endpoint.wait_idle();
        let _told = RUNTIME.block_on(async { tokio::time::timeout(SOON, idle).await });
    }
}

async fn serve((mut send, mut recv): Streams, tell: mpsc::UnboundedSender<Vec<u8>>) {
    let request = frame(&mut recv).await;
    // agent-tunnel 7.1: TCP, version 1, 16 bytes of session id, a string.
    assert_eq!(request[..3], [1, 0, 1]);
    let (length, target) = request[19..].split_at(4);
    assert_eq!(
        u32::from_be_bytes(length.try_into().unwrap()) as usize,
        target.len()
    );
    let target = String::from_utf8(target.to_vec()).unwrap();
    // A test that does not look has dropped the other end.
    let _unseen = tell.send(request);
    let Ok(mut tcp) = tokio::net::TcpStream::connect(&target).await else {
        let reason = b"connect: refused";
        let mut refusal = b"\x01\x00\x01\x00\x00\x00\x10".to_vec();
        refusal.extend(reason);
        send.write_all(&framed(&refusal)).await.unwrap();
        send.finish().unwrap();
        return;
    };
    send.write_all(&framed(ACCEPTED)).await.unwrap();
    let (mut from, mut to) = tcp.split();
    // Neither end is passed on before both have come: a flaw that a gateway has to live with.
    let up = tokio::io::copy(&mut recv, &mut to);
    let down = tokio::io::copy(&mut from, &mut send);
    let (_up, _down) = tokio::join!(up, down);
    let _gone = to.shutdown().await;
    let _gone = send.finish();
}

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
