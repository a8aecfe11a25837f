//! A cluster of nodes with certificates, and TLS connections between them.

use std::{sync::Arc, time::Instant};

use adit_proto_core::{
    env::{EndpointSecrets, Env, Seed, WallClock},
    link::{
        peer_tls::{PeerTls, client_config, server_config},
        provider::default_provider,
    },
    peer::{
        NodeId, PEER_SERVER_NAME,
        bound::{ConnectionSecret, EXPORTER_LABEL},
        capabilities::Capabilities,
        directory::Directory,
        envelope::{Sealed, Unverified},
        epoch::{EpochHook, EpochMark},
        hello::VersionRange,
        identity::{Leaf, NodeRecord, PinSet, SpkiPin},
        key::{ClusterSecret, KeyId, KeyRing},
        ledger::{Outbound, Windows},
        negotiate::{Acceptor, Dialler},
        receive::{Callee, JoinCheck, Refused, Request},
        response::{Answer, Asked, Caller, ResponseError},
        verdict::Judge,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use rustls::{ClientConnection, ConnectionCommon, ServerConnection, SideData};

/// 2030-01-01: in the middle of every certificate's life.
const WALL_MS: u64 = 1_893_456_000_000;
/// What both ends speak.
const VERSIONS: VersionRange = VersionRange { min: 1, max: 2 };

/// Some moment: only distances from it count.
#[expect(clippy::disallowed_methods, reason = "the base of virtual time")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

struct Wall;

impl WallClock for Wall {
    fn unix_ms(&self) -> u64 {
        WALL_MS
    }
}

struct NoJoins;

impl JoinCheck for NoJoins {
    fn allows(&self, _from: NodeId, _payload: &[u8], _leaf: &Leaf) -> bool {
        false
    }
}

/// A CA, and the nodes that the topology knows: 1, 2 and 4.
pub(crate) struct Cluster {
    ca: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    members: Vec<(u64, Vec<u8>, Vec<u8>)>,
    topology: Directory,
}

/// One node, as it is after a start.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) keys: KeyRing,
    pub(crate) outbound: Outbound,
    pub(crate) windows: Windows,
    epochs: EpochMark,
    topology: Directory,
    spki: SpkiPin,
    tls: PeerTls,
}

/// Both ends of one connection.
pub(crate) struct Ends {
    pub(crate) agreed: Capabilities,
    pub(crate) caller: Caller,
    pub(crate) callee: Callee,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params("cluster CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key).unwrap().der().to_vec();
        let mut cluster = Self {
            ca,
            issuer: Issuer::new(params, key),
            members: Vec::new(),
            topology: Directory::default(),
        };
        for id in [1, 2, 4] {
            let (cert, key) = cluster.issue();
            let leaf = Leaf::from_der(&cert).unwrap();
            let record = NodeRecord {
                node: NodeId(id),
                spki_pins: PinSet::new([leaf.spki]).unwrap(),
                spiffe_id: None,
                address: String::new(),
            };
            cluster.topology.set(record).unwrap();
            cluster.members.push((id, cert, key));
        }
        cluster
    }

    /// A member after a start: it remembers nothing.
    pub(crate) fn node(&self, id: u64) -> Node {
        let mut members = self.members.iter();
        let (_, cert, key) = members.find(|member| member.0 == id).unwrap();
        self.with(id, cert.clone(), key.clone())
    }

    /// Somebody whom the CA gave a certificate and the topology does not know.
    pub(crate) fn stranger(&self, id: u64) -> Node {
        let (cert, key) = self.issue();
        self.with(id, cert, key)
    }

    fn with(&self, id: u64, cert: Vec<u8>, key: Vec<u8>) -> Node {
        let topology = self.topology.clone();
        Node {
            id: NodeId(id),
            keys: KeyRing::new(KeyId(1), ClusterSecret::new([3; 32]).unwrap()),
            outbound: Outbound::new(0),
            windows: Windows::default(),
            epochs: EpochMark::new(0),
            spki: Leaf::from_der(&cert).unwrap().spki,
            tls: PeerTls {
                local: NodeId(id),
                cert_chain: vec![cert],
                key: key.into(),
                roots: vec![self.ca.clone()],
                crls: Vec::new(),
                identities: Arc::new(topology.clone()),
                bootstrap_until: 0,
            },
            topology,
        }
    }

    /// Joins two nodes by TLS and has them agree on a version, or gives TLS's error.
    pub(crate) fn connect(
        &self,
        client: &Node,
        server: &Node,
        offered: Capabilities,
    ) -> Result<Ends, rustls::Error> {
        let name = PEER_SERVER_NAME.try_into().unwrap();
        let config = Arc::new(client_config(&client.tls, &env()).unwrap());
        let mut c = ClientConnection::new(config, name).unwrap();
        let config = Arc::new(server_config(&server.tls, &env()).unwrap());
        let mut s = ServerConnection::new(config).unwrap();
        while c.is_handshaking() || s.is_handshaking() {
            carry(&mut *c, &mut *s)?;
            carry(&mut *s, &mut *c)?;
        }
        let secret =
            |exported: Result<[u8; 32], rustls::Error>| ConnectionSecret::new(exported.unwrap());
        let leaf = |certs: Option<&[rustls::pki_types::CertificateDer<'_>]>| {
            certs
                .and_then(|certs| certs.first())
                .map(|cert| cert.to_vec())
        };
        let agreed = negotiate(offered);
        let of_client = leaf(s.peer_certificates());
        let of_server = leaf(c.peer_certificates());
        let exported = c.export_keying_material([0; 32], EXPORTER_LABEL, None);
        let called = Some(NodeId(2)).filter(|id| *id == server.id);
        let caller = Caller::new(agreed, secret(exported), of_server.as_deref(), called);
        let judge = judge(client.id, client.spki, &client.topology);
        caller.check_dialled(&judge).unwrap();
        let exported = s.export_keying_material([0; 32], EXPORTER_LABEL, None);
        Ok(Ends {
            agreed,
            caller,
            callee: Callee::new(agreed, secret(exported), of_client.as_deref()),
        })
    }

    fn issue(&self) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = params("node");
        let name = SanType::DnsName(PEER_SERVER_NAME.try_into().unwrap());
        params.subject_alt_names = vec![name];
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.der().to_vec(), key.serialize_der())
    }
}

impl Node {
    pub(crate) fn receive(
        &mut self,
        callee: &mut Callee,
        envelope: Unverified,
    ) -> Result<Request, Refused> {
        let judge = judge(self.id, self.spki, &self.topology);
        let state = (&mut self.windows, &mut self.epochs as &mut dyn EpochHook);
        callee.receive(envelope, &self.keys, &judge, &NoJoins, state)
    }

    pub(crate) fn accept(
        &mut self,
        caller: &mut Caller,
        envelope: Unverified,
        asked: &Asked,
    ) -> Result<Answer, ResponseError> {
        let judge = judge(self.id, self.spki, &self.topology);
        let state = (&mut self.windows, &mut self.epochs as &mut dyn EpochHook);
        caller.receive(Some(envelope), asked, &self.keys, &judge, state)
    }
}

fn judge(local: NodeId, own_spki: SpkiPin, store: &Directory) -> Judge<'_> {
    Judge {
        local,
        own_spki,
        store,
        bootstrap_until: 0,
        unix_ms: WALL_MS,
    }
}

/// The bytes of an envelope, read in one piece.
pub(crate) fn parse(sealed: &Sealed, agreed: Capabilities) -> Unverified {
    Unverified::parse(agreed.layout(), sealed.to_bytes()).unwrap()
}

fn negotiate(offered: Capabilities) -> Capabilities {
    let (mut dialler, hello) = Dialler::new(start(), VERSIONS, offered);
    let mut acceptor = Acceptor::new(start(), VERSIONS, Capabilities::ALL);
    let (ack, theirs) = acceptor.handle_bytes(&hello).unwrap().unwrap();
    let ours = dialler.handle_bytes(&ack).unwrap().unwrap();
    assert_eq!((ours, ours.version), (theirs, 2));
    ours.capabilities
}

fn carry<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), rustls::Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

fn env() -> Env {
    Env {
        seed: Seed::new([1; 32]),
        wall_clock: Arc::new(Wall),
        crypto: Arc::new(default_provider()),
        secrets: EndpointSecrets::new([2; 32], [3; 32]),
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2029, 1, 1);
    params.not_after = date_time_ymd(2032, 1, 1);
    params
}
