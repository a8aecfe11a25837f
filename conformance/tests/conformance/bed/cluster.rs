//! A cluster of peers on loopback, each with either driver and an application that answers.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use adit_io_common::{
    clock::system_env,
    gateway::GatewayHandle,
    peers::{CatalogueConfig, PeersConfig, PeersHandle, Request, Requests},
};
use adit_proto_core::{
    endpoint::EndpointLimits,
    env::EndpointSecrets,
    link::peer_tls::{PeerSecurity, PeerTls},
    peer::{
        NodeId,
        breaker::BreakerSettings,
        config::PeerConfig,
        directory::Directory,
        epoch::EpochMark,
        identity::{Leaf, NodeRecord, PinSet},
        key::{ClusterSecret, KeyId, KeyRing},
        ledger::PeerLedger,
        node::CallError,
        receive::JoinCheck,
        rpc_type::RpcType,
    },
    target::Target,
};
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};

use super::{
    pki::Pair,
    wait::{RUNTIME, SOON, block_on, within},
};
use crate::driver::{Driver, Pairing, peers::PeersNode};

/// One pairing's run of a scenario, and what was seen.
pub(crate) struct Cluster {
    pub(crate) pairing: Pairing,
    pub(crate) seen: String,
    ca: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    pairs: BTreeMap<u64, Pair>,
    pub(crate) topology: Directory,
}

/// What a member does with a request.
pub(crate) type App = Box<dyn FnMut(Request) + Send>;

/// How a member is set up.
pub(crate) struct Setup {
    pub(crate) id: u64,
    pub(crate) pair: Pair,
    pub(crate) ring: KeyRing,
    pub(crate) boot: u64,
    pub(crate) listen: SocketAddr,
    pub(crate) topology: Directory,
    pub(crate) change: fn(&mut PeerConfig),
    pub(crate) breaker: BreakerSettings,
    /// For whom the catalogue is kept.
    pub(crate) gateway: Option<GatewayHandle>,
    /// None takes no request.
    pub(crate) app: Option<App>,
}

/// A running node.
pub(crate) struct Member {
    node: Box<dyn PeersNode>,
    /// What nobody takes.
    pub(crate) untaken: Option<Requests>,
    pub(crate) handle: PeersHandle,
    pub(crate) addr: SocketAddr,
}

pub(crate) struct NoJoins;

impl JoinCheck for NoJoins {
    fn allows(&self, _from: NodeId, _payload: &[u8], _leaf: &Leaf) -> bool {
        false
    }
}

impl Cluster {
    /// Nodes 1 to 3 are known to each other.
    pub(crate) fn new(pairing: Pairing) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params("cluster CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = params.self_signed(&key).unwrap().der().to_vec();
        let mut cluster = Self {
            pairing,
            seen: String::new(),
            ca,
            issuer: Issuer::new(params, key),
            pairs: BTreeMap::new(),
            topology: Directory::default(),
        };
        for id in 1..=3 {
            let pair = cluster.issue();
            cluster.topology.set(record(id, &pair)).unwrap();
            cluster.pairs.insert(id, pair);
        }
        cluster
    }

    pub(crate) fn note(&mut self, line: &str) {
        writeln!(self.seen, "{line}").unwrap();
    }

    /// A certificate that nobody knows.
    pub(crate) fn issue(&self) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = params("node");
        params.subject_alt_names = vec![SanType::DnsName("nodedb".try_into().unwrap())];
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            cert: cert.der().to_vec(),
            key: key.serialize_der(),
        }
    }

    pub(crate) fn security(&self, id: u64, pair: &Pair, topology: &Directory) -> PeerSecurity {
        PeerSecurity::Mutual(Arc::new(PeerTls {
            local: NodeId(id),
            cert_chain: vec![pair.cert.clone()],
            key: pair.key.clone().into(),
            roots: vec![self.ca.clone()],
            crls: Vec::new(),
            identities: Arc::new(topology.clone()),
            bootstrap_until: 0,
        }))
    }

    /// What makes a proper member that answers with what it was asked.
    pub(crate) fn setup(&self, id: u64) -> Setup {
        Setup {
            id,
            pair: self.pairs[&id].clone(),
            ring: ring(3),
            boot: 1,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            topology: self.topology.clone(),
            change: |_| {},
            breaker: BreakerSettings::default(),
            gateway: None,
            app: Some(Box::new(echo)),
        }
    }

    /// Node 1 has the pairing's first driver, every other one the second.
    pub(crate) fn start(&self, setup: Setup) -> Member {
        let driver: &dyn Driver = match setup.id {
            1 => self.pairing.gateway,
            _ => self.pairing.agent,
        };
        let ledger = PeerLedger::new(setup.boot, setup.ring, Box::new(EpochMark::new(0)));
        let mut config = PeerConfig::new(Arc::new(ledger), Arc::new(NoJoins));
        (setup.change)(&mut config);
        let config = PeersConfig {
            listen: setup.listen,
            security: self.security(setup.id, &setup.pair, &setup.topology),
            config,
            limits: EndpointLimits::default(),
            breaker: setup.breaker,
            peers: Vec::new(),
            catalogue: setup.gateway.map(|gateway| CatalogueConfig {
                local: NodeId(setup.id),
                epoch: setup.boot,
                lost_epoch: Box::new(|known, done| done(Ok(known + 1))),
                gateway,
            }),
            links: None,
        };
        // A process that begins again has the keys of the former one.
        let key = u8::try_from(setup.id).unwrap();
        let secrets = EndpointSecrets::new([key; 32], [!key; 32]);
        let env = system_env(Some(secrets)).unwrap();
        let (node, requests) = driver.start_peers(config, env).unwrap();
        let untaken = match setup.app {
            Some(app) => {
                RUNTIME.spawn(serve(requests, app));
                None
            }
            None => Some(requests),
        };
        Member {
            handle: node.handle(),
            addr: node.local_addr(),
            node,
            untaken,
        }
    }

    /// Nodes 1 and 2, proper and known to each other.
    pub(crate) fn two(&self) -> (Member, Member) {
        let one = self.start(self.setup(1));
        let two = self.start(self.setup(2));
        one.know(&[(2, &two)]);
        two.know(&[(1, &one)]);
        (one, two)
    }
}

impl Member {
    /// Knows these and no other.
    pub(crate) fn know(&self, peers: &[(u64, &Self)]) {
        let peers = peers.iter();
        let peers: Vec<_> = peers.map(|(id, member)| (*id, member.addr)).collect();
        self.know_at(&peers);
    }

    pub(crate) fn know_at(&self, peers: &[(u64, SocketAddr)]) {
        let peers = peers.iter();
        let peers = peers.map(|(id, addr)| (NodeId(*id), Target::from(*addr)));
        block_on(self.handle.set_peers(peers.collect())).unwrap();
    }

    /// Asks what may be asked twice.
    pub(crate) fn ask(&self, node: u64, body: &[u8]) -> Result<Bytes, CallError> {
        self.ask_for(node, RpcType::ReadIndex, Bytes::copy_from_slice(body))
    }

    pub(crate) fn ask_for(
        &self,
        node: u64,
        kind: RpcType,
        body: Bytes,
    ) -> Result<Bytes, CallError> {
        // Longer than three attempts take.
        let limit = Duration::from_secs(60);
        let call = self.handle.call(NodeId(node), kind, body);
        within(limit, call).expect("a call ends")
    }

    pub(crate) fn stop(self, grace: Duration) -> bool {
        self.node.stop(grace, SOON)
    }

    /// Drops it.
    pub(crate) fn forget(self) {
        self.node.forget();
    }

    /// Ends without a word; gives the address, which is free.
    pub(crate) fn kill(self) -> SocketAddr {
        self.node.quit();
        self.addr
    }
}

async fn serve(mut requests: Requests, mut app: App) {
    while let Some(request) = requests.next().await {
        app(request);
    }
}

pub(crate) fn record(id: u64, pair: &Pair) -> NodeRecord {
    let leaf = Leaf::from_der(&pair.cert).unwrap();
    NodeRecord {
        node: NodeId(id),
        spki_pins: PinSet::new([leaf.spki]).unwrap(),
        spiffe_id: None,
        address: String::new(),
    }
}

/// Answers with what was asked.
pub(crate) fn echo(request: Request) {
    request.responder.answer(request.payload);
}

/// Keeps requests unanswered, as many as there are.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<Request>>>);

impl Kept {
    pub(crate) fn keep(&self, request: Request) {
        self.0.lock().unwrap().push(request);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub(crate) fn ring(secret: u8) -> KeyRing {
    KeyRing::new(KeyId(1), self::secret(secret))
}

pub(crate) fn secret(byte: u8) -> ClusterSecret {
    ClusterSecret::new([byte; 32]).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}
