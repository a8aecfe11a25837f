//! An imitation of a reference node, quinn and bytes by hand, at the other end of a gateway's peer port, in both roles.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore, crypto::aws_lc_rs::default_provider, server::WebPkiClientVerifier,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::time::timeout;

use crate::harness::{RUNTIME, beside_others, block_on, cluster::Cluster};

/// peer-rpc 3.2, with no capability.
const HELLO: &[u8] = b"\0\0\0\x05\x92\x92\x01\x02\x00";
const ACK: &[u8] = b"\0\0\0\x03\x92\x02\x00";
/// That of a node that knows refusals, and plain envelopes as the reference.
const ACK_REFUSALS: &[u8] = b"\0\0\0\x03\x92\x02\x02";
/// As the golden vectors have it: node 2, at 42.
const PING: &[u8] = b"\x02\0\0\0\0\0\0\0\x2a\0\0\0\0\0\0\0";
const PONG: &[u8] = b"\x01\0\0\0\0\0\0\0\x2a\0\0\0\0\0\0\0";

#[test]
fn a_reference_node_is_answered_and_an_imposter_is_not() {
    let _held = beside_others();
    for driver in ["tokio", "mio"] {
        let mut cluster = Cluster::new(&[driver, driver]);
        cluster.gateways[0].start();
        let node = Node::of(&cluster);
        block_on(async {
            let connection = node.dial().await;
            for number in 1..=3 {
                let pong = node.ask(&connection, 2, number).await;
                assert_eq!(node.open(&pong, 1), [&[10][..], PONG].concat());
            }
            // What was there before is not taken again, and ends its stream alone.
            assert_eq!(node.ask(&connection, 2, 3).await, b"");
            assert!(connection.close_reason().is_none());
            // It names another node than its certificate's.
            assert_eq!(node.ask(&connection, 1, 9).await, b"");
            let Err(ConnectionError::ApplicationClosed(close)) = connection.accept_uni().await
            else {
                panic!("not closed");
            };
            assert_eq!(close.error_code.into_inner(), 2);
            assert_eq!(&close.reason[..], b"peer identity mismatch");
            let again = node.dial().await;
            let pong = node.ask(&again, 2, 10).await;
            assert_eq!(node.open(&pong, 1), [&[10][..], PONG].concat());
        });
    }
}

#[test]
fn a_reference_node_is_spoken_to_in_its_bytes() {
    let _held = beside_others();
    for driver in ["tokio", "mio"] {
        let mut cluster = Cluster::new(&[driver, driver]);
        let node = Node::of(&cluster);
        let _in_runtime = RUNTIME.enter();
        let endpoint = node.listen(cluster.ports[1]);
        cluster.gateways[0].start();
        block_on(async {
            let connection = soon(endpoint.accept()).await.unwrap().await.unwrap();
            let (mut send, mut recv) = soon(connection.accept_bi()).await.unwrap();
            let mut hello = [0; 9];
            recv.read_exact(&mut hello).await.unwrap();
            // What adit offers beyond that is in the last byte. The answer takes as little of it as will do: to a node that
            // agrees on nothing adit says nothing.
            assert_eq!(hello[..8], HELLO[..8]);
            send.write_all(ACK_REFUSALS).await.unwrap();
            drop((send, recv));
            let (mut send, mut recv) = soon(connection.accept_bi()).await.unwrap();
            let request = soon(recv.read_to_end(1 << 20)).await.unwrap();
            // The catalogue, in the reference's envelope.
            assert_eq!(node.open(&request, 1)[0], 251);
            send.finish().unwrap();
            assert!(connection.close_reason().is_none());
        });
        endpoint.close(0_u32.into(), b"");
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.unwrap()
}

/// Node 2, and gateway 1's address.
struct Node {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    secret: hmac::Key,
    gateway: SocketAddr,
}

impl Node {
    fn of(cluster: &Cluster) -> Self {
        let file = |name: &str| fs::read(cluster.path(&format!("node-2/{name}"))).unwrap();
        let certificates = |pem: &[u8]| -> Vec<CertificateDer<'static>> {
            let certificates = CertificateDer::pem_slice_iter(pem);
            certificates.map(Result::unwrap).collect()
        };
        let mut roots = RootCertStore::empty();
        for ca in certificates(&file("peer-ca-cert.pem")) {
            roots.add(ca).unwrap();
        }
        let digits = fs::read_to_string(cluster.path("cluster.key")).unwrap();
        let digits = digits.trim_end().as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        let secret: Vec<u8> = digits.map(byte).collect();
        Self {
            chain: certificates(&file("node-cert.pem")),
            key: PrivateKeyDer::from_pem_slice(&file("node-key.pem")).unwrap(),
            roots: Arc::new(roots),
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            gateway: ([127, 0, 0, 1], cluster.ports[0]).into(),
        }
    }

    /// Connects, and has the version handshake behind it; its half of the first stream ends after the answer.
    async fn dial(&self) -> Connection {
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(config, self.gateway, "nodedb");
        let connection = soon(connecting.unwrap()).await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(HELLO).await.unwrap();
        let mut ack = [0; ACK.len()];
        soon(recv.read_exact(&mut ack)).await.unwrap();
        assert_eq!(ack, ACK);
        connection
    }

    fn listen(&self, port: u16) -> Endpoint {
        let provider = Arc::new(default_provider());
        let roots = Arc::clone(&self.roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let quic = QuicServerConfig::try_from(tls).unwrap();
        let config = ServerConfig::with_crypto(Arc::new(quic));
        Endpoint::server(config, ([127, 0, 0, 1], port).into()).unwrap()
    }

    /// Pings as a node, with a number, and gives all that comes back.
    async fn ask(&self, connection: &Connection, from: u64, number: u64) -> Vec<u8> {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let request = self.envelope(from, number, 9, PING);
        send.write_all(&request).await.unwrap();
        send.finish().unwrap();
        soon(recv.read_to_end(1 << 20)).await.unwrap_or_default()
    }

    /// peer-rpc 4.1 around 5.1.
    fn envelope(&self, from: u64, number: u64, kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap();
        let mut frame = vec![3, kind];
        frame.extend(len.to_le_bytes());
        frame.extend(crc32c(payload).to_le_bytes());
        frame.extend([0; 8]);
        frame.extend(payload);
        let mut envelope = vec![1];
        envelope.extend(from.to_le_bytes());
        envelope.extend(number.to_le_bytes());
        envelope.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
        envelope.extend(frame);
        let tag = hmac::sign(&self.secret, &envelope);
        envelope.extend(tag.as_ref());
        envelope
    }

    /// The kind and the payload of a plain envelope of a node, all of which is judged.
    fn open(&self, envelope: &[u8], from: u64) -> Vec<u8> {
        assert!(envelope.len() >= 71, "{} bytes", envelope.len());
        let (covered, tag) = envelope.split_at(envelope.len() - 32);
        hmac::verify(&self.secret, covered, tag).unwrap();
        assert_eq!((covered[0], &covered[1..9]), (1, &from.to_le_bytes()[..]));
        let (inner_len, frame) = (covered[17..21].try_into().unwrap(), &covered[21..]);
        assert_eq!(u32::from_le_bytes(inner_len) as usize, frame.len());
        let (head, payload) = frame.split_at(18);
        let len: [u8; 4] = head[2..6].try_into().unwrap();
        assert_eq!(
            (head[0], u32::from_le_bytes(len) as usize),
            (3, payload.len())
        );
        assert_eq!(head[6..10], crc32c(payload).to_le_bytes());
        [&[head[1]], payload].concat()
    }
}

/// Castagnoli's polynomial, reflected, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc));
    !bytes.iter().fold(!0, byte)
}

const ALPN: &[u8] = b"nodedb-raft/1";
