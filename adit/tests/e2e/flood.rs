//! Handshakes by the thousand that nobody means to end.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::{
    ClientConfig, Connection, DatagramEvent, Endpoint, EndpointConfig,
    crypto::rustls::QuicClientConfig,
};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs::{default_provider, kx_group::X25519},
    version::TLS13,
};
use serde_json::Value;

use crate::harness::{
    SOON, alone,
    console::{METRICS, metrics},
    site::{Agent, Gateway, Site, forward},
    targets::{echo, ping},
    until,
    users::connect,
};

#[test]
fn ten_thousand_half_open_handshakes_keep_nobody_out() {
    let _machine = alone();
    let (site, target) = (Site::new(), echo());
    let rest = forward("echo", target) + METRICS;
    let gateway = site.gateway("gw", &rest);
    let _serving = site.serving("site-a", &gateway, "127.0.0.1/32");
    let mut late = site.enrol("site-b", &gateway, "127.0.0.1/32");
    let user = connect(gateway.ingress("echo"));
    ping(&user, b"before");
    let before = (gateway.process().memory(), begun(&gateway));
    // From the very address that honest agents have, by somebody who takes no answer.
    let mut flooder = Flooder::at("127.0.0.1:0", gateway.address("tunnel"));
    for number in 0..COUNT {
        if number == COUNT / 2 {
            counted(&gateway, before.1, COUNT / 3);
            late.spawn();
        }
        flooder.begin();
        if number % 2 == 0 {
            flooder.garbage(number);
        }
        if number % 100 == 0 {
            ping(&user, b"undisturbed");
        }
    }
    let took = took_to_connect(&late);
    eprintln!("an honest agent was connected {took:?} after its start");
    assert!(took < Duration::from_secs(1), "{took:?}");
    counted(&gateway, before.1, COUNT * 9 / 10);
    let grown = gateway.process().memory().saturating_sub(before.0);
    eprintln!("the gateway grew by {} KiB", grown >> 10);
    assert!(grown < MEMORY, "{grown} bytes");
    let now = metrics(&gateway);
    assert!(now.value("adit_handshakes_retried_total") > u64::from(COUNT / 2));
    let stray = now.value("adit_datagrams_dropped_total{cause=\"stray\"}");
    assert!(stray > u64::from(COUNT / 3), "{stray}");
    ping(&connect(gateway.ingress("echo")), b"afterwards");
}

#[test]
fn a_source_that_proves_its_address_and_stalls_has_its_share_and_no_more() {
    let _machine = alone();
    let (site, target) = (Site::new(), echo());
    let rest = forward("echo", target) + METRICS;
    let gateway = site.gateway("gw", &rest);
    let mut agent = site.enrol("site-a", &gateway, "127.0.0.1/32");
    let mut flooder = Flooder::at("127.0.0.2:0", gateway.address("tunnel"));
    let refused = "adit_handshakes_refused_total{cause=\"handshakes_per_source\"}";
    for _ in 0..300 {
        flooder.begin();
        flooder.prove();
    }
    // Answers that come all at once may be more than its socket holds.
    until("its share is used up", SOON, || {
        flooder.begin();
        flooder.prove();
        (metrics(&gateway).value(refused) > 0).then_some(())
    });
    agent.spawn();
    let took = took_to_connect(&agent);
    assert!(took < Duration::from_secs(1), "{took:?}");
    gateway.routes_to(&agent.id(), 1);
    ping(&connect(gateway.ingress("echo")), b"served");
}

/// Somebody with one UDP socket who begins handshakes and ends none.
struct Flooder {
    socket: UdpSocket,
    gateway: SocketAddr,
    endpoint: Endpoint,
    config: ClientConfig,
    begun: Vec<Connection>,
}

impl Flooder {
    fn at(addr: &str, gateway: SocketAddr) -> Self {
        let mut provider = default_provider();
        // One datagram for a first flight.
        provider.kx_groups = vec![X25519];
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"gw-agent-tunnel/1".to_vec()];
        let socket = UdpSocket::bind(addr).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            gateway,
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None),
            config: ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())),
            begun: Vec::new(),
        }
    }

    /// Sends a good first flight.
    fn begin(&mut self) {
        let config = self.config.clone();
        let begun = self
            .endpoint
            .connect(Instant::now(), config, self.gateway, "localhost");
        let (_, mut connection) = begun.unwrap();
        send(&self.socket, self.gateway, &mut connection);
        self.begun.push(connection);
    }

    /// Sends what looks like a first flight and cannot be decrypted.
    fn garbage(&self, number: u32) {
        let mut datagram = vec![0x5a; 1_200];
        datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        datagram[6..14].copy_from_slice(&[number.to_be_bytes(), number.to_le_bytes()].concat());
        // No source connection id, no token, and the rest is the packet.
        datagram[14..18].copy_from_slice(&[0, 0, 0x44, 0x9e]);
        self.socket.send_to(&datagram, self.gateway).unwrap();
    }

    /// Answers what has come so far: a Retry by the same flight with its token. Everything else is left unanswered.
    fn prove(&mut self) {
        let mut datagram = vec![0; 2_048];
        let mut reply = Vec::new();
        while let Ok((len, from)) = self.socket.recv_from(&mut datagram) {
            let is_retry = datagram[0] & 0xf0 == 0xf0;
            if !is_retry {
                continue;
            }
            let data = datagram[..len].into();
            let event = self
                .endpoint
                .handle(Instant::now(), from, None, None, data, &mut reply);
            if let Some(DatagramEvent::ConnectionEvent(handle, event)) = event {
                let connection = &mut self.begun[handle.0];
                connection.handle_event(event);
                send(&self.socket, self.gateway, connection);
            }
        }
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, connection: &mut Connection) {
    let mut datagram = Vec::new();
    while let Some(transmit) = connection.poll_transmit(Instant::now(), 1, &mut datagram) {
        socket.send_to(&datagram[..transmit.size], to).unwrap();
        datagram.clear();
    }
}

/// Handshakes that the gateway has seen begin, in any way.
fn begun(gateway: &Gateway) -> u64 {
    let now = metrics(gateway);
    now.value("adit_handshakes_begun_total") + now.value("adit_handshakes_retried_total")
}

fn counted(gateway: &Gateway, before: u64, least: u32) {
    until("handshakes are counted", SOON, || {
        (begun(gateway) >= before + u64::from(least)).then_some(())
    });
}

/// By the agent's own log: what starting the process takes is not the gateway's.
fn took_to_connect(agent: &Agent) -> Duration {
    let at =
        |line: Value| -> jiff::Timestamp { line["timestamp"].as_str().unwrap().parse().unwrap() };
    let up = at(agent.process().logged("connected to the gateway"));
    let began = at(agent.process().logged("agent running"));
    up.duration_since(began).unsigned_abs()
}

const COUNT: u32 = 10_000;
const MEMORY: u64 = 48 << 20;
