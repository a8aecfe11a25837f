//! Certificates of a test: a CA, gateways with a DNS name, agents with a UUID.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use adit_proto_core::{
    env::WallClock,
    identity::AgentIdentity,
    link::tls::{Admission, AgentTls, GatewayTls},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use sha2::{Digest, Sha256};

/// The gateway's name in its certificate.
pub(crate) const GATEWAY_NAME: &str = "gw.example.test";
/// The agent's id and name in its certificate.
pub(crate) const AGENT_UUID: &str = "7c4f5b1e-9d3e-4a52-8e0f-0a6b1d2c3e4f";
pub(crate) const AGENT_NAME: &str = "branch-1";
/// 2030-01-01: in the middle of every certificate's life.
const WALL_MS: u64 = 1_893_456_000_000;

const YEAR_MS: u64 = 365 * 86_400_000;

/// A wall clock that a test sets.
#[derive(Debug)]
pub(crate) struct Wall(AtomicU64);

impl Wall {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(WALL_MS)))
    }

    /// Moves it; the virtual monotonic time does not.
    pub(crate) fn set_year(&self, year: u64) {
        self.0
            .store(WALL_MS + year * YEAR_MS - 2030 * YEAR_MS, Relaxed);
    }

    pub(crate) fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Relaxed);
    }
}

impl WallClock for Wall {
    fn unix_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Lets every agent in, or none.
pub(crate) struct Admit(pub(crate) bool);

impl Admission for Admit {
    fn admit(&self, _identity: &AgentIdentity) -> bool {
        self.0
    }
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) spki_sha256: [u8; 32],
}

/// A CA with a gateway's and an agent's certificate.
pub(crate) struct Pki {
    pub(crate) ca: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) server: Pair,
    pub(crate) agent: Pair,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params("test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = params.self_signed(&key).unwrap().der().to_vec();
        let issuer = Issuer::new(params, key);
        let server = issue(
            &issuer,
            GATEWAY_NAME,
            vec![SanType::DnsName(GATEWAY_NAME.try_into().unwrap())],
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        let agent = issue(
            &issuer,
            AGENT_NAME,
            uri(&format!("urn:uuid:{AGENT_UUID}")),
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        Self {
            ca,
            issuer,
            server,
            agent,
        }
    }

    /// An agent's certificate with another URI SAN, or without one.
    pub(crate) fn agent_named(&self, san: Option<&str>) -> Pair {
        let names = san.map_or_else(Vec::new, uri);
        issue(
            &self.issuer,
            AGENT_NAME,
            names,
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    pub(crate) fn gateway_tls(&self, admit: bool) -> GatewayTls {
        GatewayTls {
            cert_chain: vec![self.server.cert.clone(), self.ca.clone()],
            key: self.server.key.clone().into(),
            agent_roots: vec![self.ca.clone()],
            admission: Arc::new(Admit(admit)),
        }
    }

    pub(crate) fn agent_tls(&self) -> AgentTls {
        self.agent_tls_with(&self.agent)
    }

    pub(crate) fn agent_tls_with(&self, pair: &Pair) -> AgentTls {
        AgentTls {
            cert_chain: vec![pair.cert.clone()],
            key: pair.key.clone().into(),
            gateway_roots: vec![self.ca.clone()],
            gateway_pin: None,
        }
    }
}

fn params(cn: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, cn);
    params.not_before = date_time_ymd(2029, 1, 1);
    params.not_after = date_time_ymd(2032, 1, 1);
    params
}

fn uri(text: &str) -> Vec<SanType> {
    vec![SanType::URI(text.try_into().unwrap())]
}

fn issue(
    issuer: &Issuer<'static, KeyPair>,
    cn: &str,
    names: Vec<SanType>,
    usage: ExtendedKeyUsagePurpose,
) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = params(cn);
    params.subject_alt_names = names;
    params.extended_key_usages = vec![usage];
    let cert = params.signed_by(&key, issuer).unwrap();
    Pair {
        cert: cert.der().to_vec(),
        key: key.serialize_der(),
        spki_sha256: Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key)).into(),
    }
}
