//! Certificates and keys of a cluster.

use std::{collections::BTreeMap, sync::Arc};

use adit_proto_core::{
    link::peer_tls::{PeerSecurity, PeerTls},
    peer::{
        NodeId,
        directory::Directory,
        identity::{Leaf, NodeRecord, PinSet},
        key::{ClusterSecret, KeyId, KeyRing},
        receive::JoinCheck,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pki::Pair;

/// A CA, and the certificates of nodes 1 to 4, which the topology knows.
pub(crate) struct Cluster {
    pub(crate) ca: Vec<u8>,
    pub(crate) crls: Vec<Vec<u8>>,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pairs: BTreeMap<u64, Pair>,
    pub(crate) topology: Directory,
}

pub(crate) struct NoJoins;

impl JoinCheck for NoJoins {
    fn allows(&self, _from: NodeId, _payload: &[u8], _leaf: &Leaf) -> bool {
        false
    }
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params("cluster CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = params.self_signed(&key).unwrap().der().to_vec();
        let mut cluster = Self {
            ca,
            crls: Vec::new(),
            issuer: Issuer::new(params, key),
            pairs: BTreeMap::new(),
            topology: Directory::default(),
        };
        for id in 1..=4 {
            let pair = cluster.issue();
            cluster.topology.set(record(id, &pair)).unwrap();
            cluster.pairs.insert(id, pair);
        }
        cluster
    }

    /// A certificate that nobody knows yet.
    pub(crate) fn issue(&self) -> Pair {
        self.issue_for(&KeyPair::generate().unwrap())
    }

    /// The same, for a key of whatever kind.
    pub(crate) fn issue_for(&self, key: &KeyPair) -> Pair {
        let mut params = params("node");
        params.subject_alt_names = vec![SanType::DnsName("nodedb".try_into().unwrap())];
        let cert = params.signed_by(key, &self.issuer).unwrap();
        let leaf = Leaf::from_der(cert.der()).unwrap();
        Pair {
            cert: cert.der().to_vec(),
            key: key.serialize_der(),
            spki_sha256: leaf.spki.0,
        }
    }

    /// A list of this CA's that revokes a certificate of it.
    pub(crate) fn revoking(&self, pair: &Pair) -> Vec<u8> {
        let (_, cert) = X509Certificate::from_der(&pair.cert).unwrap();
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2029, 6, 1),
            next_update: date_time_ymd(2031, 6, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from_slice(cert.raw_serial()),
                revocation_time: date_time_ymd(2029, 6, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    pub(crate) fn security(&self, id: u64, pair: &Pair, topology: &Directory) -> PeerSecurity {
        PeerSecurity::Mutual(Arc::new(PeerTls {
            local: NodeId(id),
            cert_chain: vec![pair.cert.clone()],
            key: pair.key.clone().into(),
            roots: vec![self.ca.clone()],
            crls: self.crls.clone(),
            identities: Arc::new(topology.clone()),
            bootstrap_until: 0,
        }))
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

pub(crate) fn ring(secret: u8) -> KeyRing {
    KeyRing::new(KeyId(1), ClusterSecret::new([secret; 32]).unwrap())
}

fn params(cn: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, cn);
    params.not_before = date_time_ymd(2029, 1, 1);
    params.not_after = date_time_ymd(2032, 1, 1);
    params
}
