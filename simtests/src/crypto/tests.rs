use std::{sync::Arc, time::Duration};

use adit_proto_core::{
    identity::AgentIdentity,
    link::tls::{Admission, AgentTls, GatewayTls},
};
use p256::ecdsa;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, NamedGroup, RootCertStore, ServerConfig,
    ServerConnection, SideData,
    client::{Resumption, WebPkiServerVerifier},
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::WebPkiClientVerifier,
    time_provider::TimeProvider,
    version::TLS13,
};
use uuid::Uuid;

use super::{signing::sign_p256, *};
use crate::pki::{Pki, WALL_START_MS};

const SUITES: [Suite; 3] = [Suite::Plain, Suite::Ecdsa, Suite::Hybrid];

#[derive(Debug)]
struct Start;

impl TimeProvider for Start {
    fn current_time(&self) -> Option<UnixTime> {
        let now = Duration::from_millis(WALL_START_MS);
        Some(UnixTime::since_unix_epoch(now))
    }
}

struct Everyone;

impl Admission for Everyone {
    fn admit(&self, _identity: &AgentIdentity) -> bool {
        true
    }
}

fn roots(ders: &[Vec<u8>]) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    for der in ders {
        store.add(der.clone().into()).unwrap();
    }
    Arc::new(store)
}

fn key(der: &[u8]) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(der.to_vec()).into()
}

fn server(tls: &GatewayTls, crypto: Arc<CryptoProvider>) -> ServerConnection {
    let roots = roots(&tls.agent_roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&crypto));
    let chain = tls.cert_chain.iter().cloned().map(Into::into).collect();
    let mut config = ServerConfig::builder_with_details(crypto, Arc::new(Start))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key(&tls.key))
        .unwrap();
    config.send_tls13_tickets = 0;
    ServerConnection::new(Arc::new(config)).unwrap()
}

fn client(tls: &AgentTls, crypto: Arc<CryptoProvider>) -> Result<ClientConnection, rustls::Error> {
    let roots = roots(&tls.gateway_roots);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&crypto));
    let chain = tls.cert_chain.iter().cloned().map(Into::into).collect();
    let mut config = ClientConfig::builder_with_details(crypto, Arc::new(Start))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_webpki_verifier(verifier.build().unwrap())
        .with_client_auth_cert(chain, key(&tls.key))
        .unwrap();
    config.resumption = Resumption::disabled();
    ClientConnection::new(Arc::new(config), ServerName::try_from("gw.test").unwrap())
}

/// What passed in a handshake: flights in turn, the client's first.
struct Handshake {
    flights: Vec<Vec<u8>>,
    group: NamedGroup,
}

fn pass<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Vec<u8> {
    let mut flight = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut flight).unwrap();
    }
    let mut rest = flight.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().unwrap();
    }
    flight
}

fn handshake(pki: &mut Pki, client_suite: Suite, server_suite: Suite) -> Handshake {
    let gateway = pki.gateway("gw.test", &[]);
    let agent = pki.agent(Uuid::from_u128(7), "branch");
    let gateway_tls = pki.gateway_tls(&gateway, Arc::new(Everyone));
    let agent_tls = pki.agent_tls(&agent, None);
    let mut server = server(&gateway_tls, provider(server_suite));
    let mut client = client(&agent_tls, provider(client_suite)).unwrap();
    let mut flights = Vec::new();
    while client.wants_write() || server.wants_write() {
        flights.push(pass(&mut client, &mut server));
        flights.push(pass(&mut server, &mut client));
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.peer_certificates().unwrap()[0][..], gateway.cert);
    assert_eq!(server.peer_certificates().unwrap()[0][..], agent.cert);
    let group = server.negotiated_key_exchange_group().unwrap().name();
    Handshake { flights, group }
}

fn seeded_handshake(suite: Suite, key: [u8; 32]) -> Handshake {
    seed_thread(key);
    handshake(&mut Pki::new(suite, [1; 32]), suite, suite)
}

#[test]
fn one_seed_gives_the_same_bytes_twice() {
    for suite in SUITES {
        let first = seeded_handshake(suite, [1; 32]);
        assert_eq!(first.flights, seeded_handshake(suite, [1; 32]).flights);
        let other = seeded_handshake(suite, [2; 32]);
        for (one, other) in first.flights.iter().zip(&other.flights) {
            assert!(one.is_empty() || one != other);
        }
    }
}

#[test]
fn all_suites_but_ecdsa_keep_the_length_of_every_flight() {
    let lens = |suite, key| {
        let flights = seeded_handshake(suite, key).flights;
        flights.iter().map(Vec::len).collect::<Vec<_>>()
    };
    for suite in [Suite::Plain, Suite::Hybrid] {
        assert_eq!(lens(suite, [1; 32]), lens(suite, [2; 32]));
    }
    let ecdsa = (0..16).map(|n| lens(Suite::Ecdsa, [n; 32]));
    assert!(ecdsa.collect::<std::collections::BTreeSet<_>>().len() > 1);
}

#[test]
fn a_hybrid_hello_fills_more_than_one_datagram() {
    let plain = seeded_handshake(Suite::Plain, [1; 32]);
    assert_eq!(plain.group, NamedGroup::X25519);
    assert!(plain.flights[0].len() < 500);
    let hybrid = seeded_handshake(Suite::Hybrid, [1; 32]);
    assert_eq!(hybrid.group, NamedGroup::X25519MLKEM768);
    assert!(hybrid.flights[0].len() > 1_200);
}

#[test]
fn peers_of_different_suites_agree_on_x25519_without_a_retry() {
    for [one, other] in [[Suite::Hybrid, Suite::Plain], [Suite::Ecdsa, Suite::Hybrid]] {
        seed_thread([1; 32]);
        let joined = handshake(&mut Pki::new(other, [1; 32]), one, other);
        assert_eq!(joined.group, NamedGroup::X25519);
        // The server's only flight, and the client's answer to it.
        let sent = joined.flights.iter().filter(|flight| !flight.is_empty());
        assert_eq!(sent.count(), 3);
    }
}

#[test]
fn a_stream_belongs_to_its_thread() {
    let draw = || {
        let mut drawn = [0; 48];
        let random = provider(Suite::Plain).secure_random;
        random.fill(&mut drawn).map(|()| drawn).ok()
    };
    seed_thread([1; 32]);
    let first = draw().unwrap();
    let elsewhere = std::thread::spawn(move || {
        let unseeded = draw();
        seed_thread([1; 32]);
        (unseeded, draw())
    });
    assert_eq!(elsewhere.join().unwrap(), (None, Some(first)));
    assert_ne!(draw(), Some(first));
    seed_thread([1; 32]);
    assert_eq!(draw(), Some(first));
}

#[test]
fn a_thread_without_a_stream_connects_to_nobody() {
    let mut pki = Pki::new(Suite::Plain, [1; 32]);
    let agent = pki.agent(Uuid::from_u128(7), "branch");
    let refused = client(&pki.agent_tls(&agent, None), provider(Suite::Plain));
    assert_eq!(
        refused.map(|_| ()),
        Err(rustls::Error::FailedToGetRandomBytes)
    );
}

#[test]
fn shares_of_a_wrong_length_or_of_small_order_are_refused() {
    seed_thread([1; 32]);
    for (suite, client_len, server_len) in [(Suite::Plain, 32, 32), (Suite::Hybrid, 1216, 1120)] {
        let group = provider(suite).kx_groups[0];
        let offered = group.start().unwrap();
        assert_eq!(offered.pub_key().len(), client_len);
        let answer = group.start_and_complete(offered.pub_key()).unwrap();
        assert_eq!(answer.pub_key.len(), server_len);
        let agreed = offered.complete(&answer.pub_key).unwrap();
        assert_eq!(agreed.secret_bytes(), answer.secret.secret_bytes());
        for len in [0, 31, client_len - 1, client_len, client_len + 1] {
            assert!(group.start_and_complete(&vec![0; len]).is_err(), "{len}");
        }
        for len in [0, 31, server_len - 1, server_len, server_len + 1] {
            assert!(group.start().unwrap().complete(&vec![0; len]).is_err());
        }
    }
}

#[test]
fn a_share_in_another_encoding_is_refused() {
    seed_thread([1; 32]);
    let group = provider(Suite::Plain).kx_groups[0];
    let share = group.start().unwrap().pub_key().to_vec();
    assert!(group.start_and_complete(&share).is_ok());
    // A SubjectPublicKeyInfo (RFC 8410 4).
    let der = [bytes("302a300506032b656e032100"), share].concat();
    assert!(group.start_and_complete(&der).is_err());
}

#[test]
fn p256_signs_as_rfc_6979_says() {
    // RFC 6979 A.2.5, SHA-256, "sample".
    let key = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
    let r = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716";
    let s = "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
    let key = ecdsa::SigningKey::from_slice(&bytes(key)).unwrap();
    let signature = sign_p256(&key, b"sample").unwrap();
    let der = [bytes("3046022100"), bytes(r), bytes("022100"), bytes(s)];
    assert_eq!(signature, der.concat());
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
