use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

use super::*;
use crate::{
    env::{EndpointSecrets, Seed, WallClock},
    link::provider::default_provider,
    peer::{
        PEER_SERVER_NAME,
        directory::Directory,
        identity::{NodeRecord, PinSet},
    },
};

/// 2030-01-01, in the middle of every certificate's life.
const UNIX_S: u64 = 1_893_456_000;

struct Wall;

impl WallClock for Wall {
    fn unix_ms(&self) -> u64 {
        UNIX_S * 1_000
    }
}

fn env() -> Env {
    Env {
        seed: Seed::new([1; 32]),
        wall_clock: Arc::new(Wall),
        crypto: Arc::new(default_provider()),
        secrets: EndpointSecrets::new([2; 32], [3; 32]),
    }
}

/// A CA that signs certificates of nodes.
struct Ca {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

struct Node {
    cert: Vec<u8>,
    key: Vec<u8>,
    leaf: Leaf,
}

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let issuer = Issuer::new(params, key);
        Self { der, issuer }
    }

    fn node(&self, serial: u64, dns: &str, spiffe_id: Option<&str>) -> Node {
        let key = KeyPair::generate().unwrap();
        let mut params = params("node");
        params.serial_number = Some(SerialNumber::from(serial));
        params
            .subject_alt_names
            .push(SanType::DnsName(dns.try_into().unwrap()));
        let uri = spiffe_id.map(|id| SanType::URI(id.try_into().unwrap()));
        params.subject_alt_names.extend(uri);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let cert = cert.der().to_vec();
        Node {
            leaf: Leaf::from_der(&cert).unwrap(),
            cert,
            key: key.serialize_der(),
        }
    }

    fn revoking(&self, serial: u64) -> Vec<u8> {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2029, 6, 1),
            next_update: date_time_ymd(2031, 6, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2029, 6, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.not_before = date_time_ymd(2029, 1, 1);
    params.not_after = date_time_ymd(2032, 1, 1);
    params
}

fn record(node: u64, leaf: &Leaf) -> NodeRecord {
    NodeRecord {
        node: NodeId(node),
        spki_pins: PinSet::new([leaf.spki]).unwrap(),
        spiffe_id: leaf.spiffe_id.clone(),
        address: String::new(),
    }
}

fn tls(ca: &Ca, own: &Node, store: Directory) -> PeerTls {
    PeerTls {
        local: NodeId(1),
        cert_chain: vec![own.cert.clone()],
        key: own.key.clone().into(),
        roots: vec![ca.der.clone()],
        crls: Vec::new(),
        identities: Arc::new(store),
        bootstrap_until: 0,
    }
}

/// What both directions say of a certificate; they must agree.
fn verdict(tls: &PeerTls, shown: &[u8]) -> Result<(), rustls::Error> {
    let provider = Arc::new(default_provider());
    let now = UnixTime::since_unix_epoch(Duration::from_secs(UNIX_S));
    let shown = CertificateDer::from(shown);
    let as_client = PeerVerifier {
        chain: client_chain(tls, &provider).unwrap(),
        pins: Pins::of(tls).unwrap(),
    };
    let as_server = PeerVerifier {
        chain: server_chain(tls, &provider).unwrap(),
        pins: Pins::of(tls).unwrap(),
    };
    let name = ServerName::try_from(PEER_SERVER_NAME).unwrap();
    let client = as_client.verify_client_cert(&shown, &[], now).map(|_| ());
    let server = as_server.verify_server_cert(&shown, &[], &name, &[], now);
    assert_eq!(
        format!("{client:?}"),
        format!("{:?}", server.map(|_| ())),
        "the directions differ"
    );
    client
}

fn refused_as(tls: &PeerTls, shown: &[u8]) -> IdentityError {
    match verdict(tls, shown) {
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            other.0.downcast_ref::<Refused>().unwrap().0
        }
        other => panic!("not refused by its pins: {other:?}"),
    }
}

#[test]
fn a_refusal_reads_as_it_does_everywhere_else() {
    let other = OtherError(Arc::new(Refused(IdentityError::Unknown)));
    let error = rustls::Error::InvalidCertificate(CertificateError::Other(other));
    assert_eq!(
        crate::link::lost::words(error.to_string().as_bytes()),
        "the node is not known"
    );
}

#[test]
fn both_configurations_are_built_from_one_value() {
    let ca = Ca::new("CA");
    let own = ca.node(1, PEER_SERVER_NAME, None);
    let tls = tls(&ca, &own, Directory::default());
    let server = server_config(&tls, &env()).unwrap();
    let client = client_config(&tls, &env()).unwrap();
    assert_eq!(server.alpn_protocols, [b"nodedb-raft/1".to_vec()]);
    assert_eq!(client.alpn_protocols, [b"nodedb-raft/1".to_vec()]);
    assert_eq!(
        (server.send_tls13_tickets, server.max_early_data_size),
        (0, 0)
    );
    assert!(!client.enable_early_data);
}

#[test]
fn members_pass_and_strangers_of_the_same_ca_do_not() {
    let ca = Ca::new("CA");
    let own = ca.node(1, PEER_SERVER_NAME, None);
    let member = ca.node(2, PEER_SERVER_NAME, Some("spiffe://c/2"));
    let stranger = ca.node(3, PEER_SERVER_NAME, None);
    let mut store = Directory::default();
    let empty = tls(&ca, &own, store.clone());
    assert_eq!(verdict(&empty, &stranger.cert), Ok(()), "no topology yet");
    store.set(record(2, &member.leaf)).unwrap();
    let with = tls(&ca, &own, store.clone());
    assert_eq!(verdict(&with, &member.cert), Ok(()));
    assert_eq!(refused_as(&with, &stranger.cert), IdentityError::Unknown);
    let last_taken_out = tls(&ca, &own, Directory::complete());
    assert_eq!(
        refused_as(&last_taken_out, &stranger.cert),
        IdentityError::Unknown
    );
    store.authorise(stranger.leaf.spki, UNIX_S * 1_000);
    let expired = tls(&ca, &own, store.clone());
    assert_eq!(refused_as(&expired, &stranger.cert), IdentityError::Unknown);
    store.authorise(stranger.leaf.spki, UNIX_S * 1_000 + 1);
    assert_eq!(verdict(&tls(&ca, &own, store), &stranger.cert), Ok(()));
}

#[test]
fn a_members_name_with_another_key_is_refused() {
    let ca = Ca::new("CA");
    let own = ca.node(1, PEER_SERVER_NAME, None);
    let member = ca.node(2, PEER_SERVER_NAME, Some("spiffe://c/2"));
    let thief = ca.node(3, PEER_SERVER_NAME, Some("spiffe://c/2"));
    let mut store = Directory::default();
    store.set(record(2, &member.leaf)).unwrap();
    let with = tls(&ca, &own, store);
    assert_eq!(refused_as(&with, &thief.cert), IdentityError::WrongKey);
}

#[test]
fn a_pin_never_replaces_the_chain() {
    let (ca, other) = (Ca::new("CA"), Ca::new("other CA"));
    let own = ca.node(1, PEER_SERVER_NAME, None);
    let foreign = other.node(2, PEER_SERVER_NAME, None);
    let mut store = Directory::default();
    store.set(record(2, &foreign.leaf)).unwrap();
    let mut with = tls(&ca, &own, store);
    assert!(matches!(
        verdict(&with, &foreign.cert),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer
        ))
    ));
    with.roots.push(other.der);
    assert_eq!(verdict(&with, &foreign.cert), Ok(()), "overlap of two CAs");
}

#[test]
fn a_server_must_have_the_clusters_name() {
    let ca = Ca::new("CA");
    let own = ca.node(1, PEER_SERVER_NAME, None);
    let named = ca.node(2, "elsewhere", None);
    let tls = tls(&ca, &own, Directory::default());
    let provider = Arc::new(default_provider());
    let verifier = PeerVerifier {
        chain: server_chain(&tls, &provider).unwrap(),
        pins: Pins::of(&tls).unwrap(),
    };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(UNIX_S));
    let name = ServerName::try_from(PEER_SERVER_NAME).unwrap();
    let shown = CertificateDer::from(named.cert);
    assert!(
        verifier
            .verify_server_cert(&shown, &[], &name, &[], now)
            .is_err()
    );
}

#[test]
fn revocation_holds_in_both_directions_and_only_for_its_issuer() {
    let (ca, other) = (Ca::new("CA"), Ca::new("other CA"));
    let own = ca.node(1, PEER_SERVER_NAME, None);
    let (good, bad) = (
        ca.node(2, PEER_SERVER_NAME, None),
        ca.node(3, PEER_SERVER_NAME, None),
    );
    let elsewhere = other.node(3, PEER_SERVER_NAME, None);
    let mut tls = tls(&ca, &own, Directory::default());
    tls.roots.push(other.der);
    tls.crls.push(ca.revoking(3));
    assert!(matches!(
        verdict(&tls, &bad.cert),
        Err(rustls::Error::InvalidCertificate(CertificateError::Revoked))
    ));
    assert_eq!(verdict(&tls, &good.cert), Ok(()));
    assert_eq!(verdict(&tls, &elsewhere.cert), Ok(()));
}

#[test]
fn a_node_without_a_certificate_of_its_own_has_no_configuration() {
    let ca = Ca::new("CA");
    let own = ca.node(1, PEER_SERVER_NAME, None);
    let mut tls = tls(&ca, &own, Directory::default());
    tls.cert_chain.clear();
    assert!(server_config(&tls, &env()).is_err() && client_config(&tls, &env()).is_err());
}
