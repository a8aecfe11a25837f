//! Certificates that a seed replays: an authority with its gateways and agents.

use std::{fmt, net::IpAddr, sync::Arc};

use adit_proto_core::{
    env::Seed,
    link::tls::{Admission, AgentTls, GatewayTls},
    peer::PEER_SERVER_NAME,
};
use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey},
    encoding::{AsDer, Pkcs8V1Der},
    signature::{Ed25519KeyPair, KeyPair},
};
use p256::ecdsa;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
    date_time_ymd,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::crypto::{Suite, signing::sign_p256};

/// Unix time at which every run starts: 2030-01-01, in the middle of every certificate's life.
pub const WALL_START_MS: u64 = 1_893_456_000_000;

/// A certificate and its key.
#[derive(Clone)]
pub struct Pair {
    /// The certificate; DER.
    pub cert: Vec<u8>,
    /// The private key; PKCS#8 DER.
    pub key: Vec<u8>,
    /// SHA-256 of the DER SubjectPublicKeyInfo: what an agent pins.
    pub spki_sha256: [u8; 32],
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").finish_non_exhaustive()
    }
}

/// A certificate authority. All keys and serial numbers follow from its key and the order of issue; every certificate
/// is valid from 2029-01-01 to 2032-01-01 and looks as those of adit's own authority do.
pub struct Pki {
    source: Source,
    ca: Vec<u8>,
    issuer: Issuer<'static, Key>,
}

impl Pki {
    /// Makes an authority whose keys sign as `suite` says.
    #[must_use]
    #[expect(clippy::expect_used, reason = "names and key are those written here")]
    pub fn new(suite: Suite, key: [u8; 32]) -> Self {
        Self::create(suite, key).expect("an authority of fixed form can be made from any key")
    }

    fn create(suite: Suite, key: [u8; 32]) -> Result<Self, Error> {
        let mut source = Source {
            suite,
            seed: Seed::new(key),
            issued: 0,
        };
        let (key, mut params) = source.next("adit agent CA")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = params.self_signed(&key)?.der().to_vec();
        Ok(Self {
            source,
            ca,
            issuer: Issuer::new(params, key),
        })
    }

    /// Issues a gateway's certificate for its DNS name and its addresses.
    ///
    /// # Panics
    /// Where the name is not ASCII.
    pub fn gateway(&mut self, name: &str, ips: &[IpAddr]) -> Pair {
        let ips = ips.iter().copied().map(SanType::IpAddress);
        let dns = name.try_into().map(SanType::DnsName);
        let names = dns.map(|dns| std::iter::once(dns).chain(ips).collect());
        self.issue(name, names, &[ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// Issues a node's certificate (peer-rpc 1.2): of a server and of a client, for the name that every node has.
    pub fn peer(&mut self, name: &str) -> Pair {
        let names = PEER_SERVER_NAME.try_into().map(SanType::DnsName);
        let usages = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue(name, names.map(|name| vec![name]), &usages)
    }

    /// The authority's own certificate; DER.
    #[must_use]
    pub fn ca(&self) -> &[u8] {
        &self.ca
    }

    /// Issues an agent's certificate for its id (agent-tunnel 2.1). A second one for the same agent has another key.
    pub fn agent(&mut self, id: Uuid, name: &str) -> Pair {
        let uri = format!("urn:uuid:{id}");
        let names = uri.try_into().map(|uri| vec![SanType::URI(uri)]);
        self.issue(name, names, &[ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// Issues the certificate of an agent's renewed key. The same number gives the same key and certificate, whoever asks:
    /// the gateway takes the one from it, and the agent the other.
    ///
    /// # Panics
    /// Where the name is not ASCII.
    #[must_use]
    #[expect(clippy::expect_used, reason = "only a name that is not ASCII fails")]
    pub fn renewed(&self, id: Uuid, name: &str, nth: u64) -> Pair {
        let made = self.source.at(&format!("{id} {nth}"), name);
        let uri = format!("urn:uuid:{id}");
        let names = uri.try_into().map(|uri| vec![SanType::URI(uri)]);
        made.and_then(|made| self.certify(made, names, &[ExtendedKeyUsagePurpose::ClientAuth]))
            .expect("names are ASCII, and a certificate of fixed form can be made for any key")
    }

    #[expect(clippy::expect_used, reason = "only a name that is not ASCII fails")]
    fn issue(
        &mut self,
        common_name: &str,
        names: Result<Vec<SanType>, Error>,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Pair {
        self.try_issue(common_name, names, usages)
            .expect("names are ASCII, and a certificate of fixed form can be made for any key")
    }

    fn try_issue(
        &mut self,
        common_name: &str,
        names: Result<Vec<SanType>, Error>,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Result<Pair, Error> {
        let made = self.source.next(common_name)?;
        self.certify(made, names, usages)
    }

    fn certify(
        &self,
        (key, mut params): (Key, CertificateParams),
        names: Result<Vec<SanType>, Error>,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Result<Pair, Error> {
        params.subject_alt_names = names?;
        params.extended_key_usages = usages.to_vec();
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            cert: cert.der().to_vec(),
            key: key.to_pkcs8()?,
            spki_sha256: Sha256::digest(key.subject_public_key_info()).into(),
        })
    }

    /// Gives what a gateway with this certificate needs; it trusts the agents of this authority.
    #[must_use]
    pub fn gateway_tls(&self, pair: &Pair, admission: Arc<dyn Admission>) -> GatewayTls {
        GatewayTls {
            cert_chain: vec![pair.cert.clone(), self.ca.clone()],
            key: pair.key.clone().into(),
            agent_roots: vec![self.ca.clone()],
            admission,
        }
    }

    /// Gives what an agent with this certificate needs; it trusts the gateways of this authority, or the pinned one.
    #[must_use]
    pub fn agent_tls(&self, pair: &Pair, pin: Option<[u8; 32]>) -> AgentTls {
        AgentTls {
            cert_chain: vec![pair.cert.clone()],
            key: pair.key.clone().into(),
            gateway_roots: vec![self.ca.clone()],
            gateway_pin: pin,
        }
    }
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki").finish_non_exhaustive()
    }
}

/// Where keys and serial numbers come from.
struct Source {
    suite: Suite,
    seed: Seed,
    issued: u64,
}

impl Source {
    /// Gives the next key, and what all certificates have in common.
    fn next(&mut self, common_name: &str) -> Result<(Key, CertificateParams), Error> {
        self.issued += 1;
        self.at(&self.issued.to_string(), common_name)
    }

    fn at(&self, label: &str, common_name: &str) -> Result<(Key, CertificateParams), Error> {
        let drawn = |what| self.seed.derive_bytes(&format!("{what} {label}"));
        let mut serial = drawn("serial");
        // A serial number is positive; a set second bit keeps its length at 16 bytes.
        serial[0] = serial[0] & 0x7f | 0x40;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&serial[..16]));
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.not_before = date_time_ymd(2029, 1, 1);
        params.not_after = date_time_ymd(2032, 1, 1);
        params.use_authority_key_identifier_extension = true;
        Ok((Key::new(self.suite, drawn("key"))?, params))
    }
}

enum Key {
    Ed25519(Ed25519KeyPair),
    P256 {
        key: ecdsa::SigningKey,
        /// The public key: an uncompressed point.
        point: Vec<u8>,
    },
}

impl Key {
    fn new(suite: Suite, mut drawn: [u8; 32]) -> Result<Self, Error> {
        match suite {
            Suite::Plain | Suite::Hybrid => {
                let key = Ed25519KeyPair::from_seed_unchecked(&drawn).map_err(unusable)?;
                Ok(Self::Ed25519(key))
            }
            Suite::Ecdsa => {
                // Neither zero nor as large as the group's order, which is above 2^255.
                drawn[0] &= 0x7f;
                drawn[31] |= 1;
                let key = ecdsa::SigningKey::from_slice(&drawn).map_err(unusable)?;
                let point = key.verifying_key().to_encoded_point(false);
                Ok(Self::P256 {
                    key,
                    point: point.as_bytes().to_vec(),
                })
            }
        }
    }

    fn to_pkcs8(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Ed25519(key) => Ok(key.to_pkcs8v1().map_err(unusable)?.as_ref().to_vec()),
            Self::P256 { key, .. } => {
                let key = PrivateKey::from_private_key(&ECDH_P256, &key.to_bytes());
                let der: Pkcs8V1Der<'_> = key.map_err(unusable)?.as_der().map_err(unusable)?;
                Ok(der.as_ref().to_vec())
            }
        }
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => key.public_key().as_ref(),
            Self::P256 { point, .. } => point,
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Self::Ed25519(_) => &rcgen::PKCS_ED25519,
            Self::P256 { .. } => &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Ed25519(key) => Ok(key.try_sign(message).map_err(unusable)?.as_ref().to_vec()),
            Self::P256 { key, .. } => sign_p256(key, message).map_err(unusable),
        }
    }
}

/// The authority's word for a key that is not its own making.
fn unusable<E>(_error: E) -> Error {
    Error::RemoteKeyError
}

#[cfg(test)]
mod tests {
    use adit_proto_core::{
        endpoint::{Endpoint, EndpointLimits},
        env::{EndpointSecrets, Env, WallClock},
        identity::AgentIdentity,
    };
    use rustls::{
        client::verify_server_name,
        pki_types::{CertificateDer, ServerName},
        server::ParsedCertificate,
    };

    use super::*;
    use crate::crypto::provider;

    struct Everyone;

    impl Admission for Everyone {
        fn admit(&self, _identity: &AgentIdentity) -> bool {
            true
        }
    }

    struct Start;

    impl WallClock for Start {
        fn unix_ms(&self) -> u64 {
            WALL_START_MS
        }
    }

    const SUITES: [Suite; 3] = [Suite::Plain, Suite::Ecdsa, Suite::Hybrid];

    fn pairs(suite: Suite, key: [u8; 32]) -> [Vec<u8>; 5] {
        let mut pki = Pki::new(suite, key);
        let gateway = pki.gateway("gw.test", &["192.0.2.1".parse().unwrap()]);
        let agent = pki.agent(Uuid::from_u128(7), "branch");
        [pki.ca, gateway.cert, gateway.key, agent.cert, agent.key]
    }

    #[test]
    fn one_key_makes_one_authority() {
        for suite in SUITES {
            let first = pairs(suite, [1; 32]);
            assert_eq!(first, pairs(suite, [1; 32]));
            for (one, other) in first.iter().zip(pairs(suite, [2; 32])) {
                assert_ne!(*one, other);
            }
        }
    }

    #[test]
    fn a_renewed_agent_has_another_key() {
        let mut pki = Pki::new(Suite::Plain, [1; 32]);
        let first = pki.agent(Uuid::from_u128(7), "branch");
        let second = pki.agent(Uuid::from_u128(7), "branch");
        assert_ne!(first.spki_sha256, second.spki_sha256);
    }

    #[test]
    fn agent_and_gateway_find_the_same_renewed_pair() {
        for suite in SUITES {
            let (one, other) = (Pki::new(suite, [1; 32]), Pki::new(suite, [1; 32]));
            let pair = |pki: &Pki, nth| pki.renewed(Uuid::from_u128(7), "branch", nth);
            assert_eq!(pair(&one, 3).cert, pair(&other, 3).cert);
            assert_eq!(pair(&one, 3).key, pair(&other, 3).key);
            assert_ne!(pair(&one, 3).spki_sha256, pair(&one, 4).spki_sha256);
        }
    }

    #[test]
    fn a_gateway_is_known_by_its_name_and_its_addresses() {
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        let pair = Pki::new(Suite::Plain, [1; 32]).gateway("gw.test", &addresses);
        let der = CertificateDer::from(pair.cert);
        let cert = ParsedCertificate::try_from(&der).unwrap();
        let bears = |name| verify_server_name(&cert, &ServerName::try_from(name).unwrap()).is_ok();
        assert_eq!(
            ["gw.test", "192.0.2.1", "2001:db8::1"].map(bears),
            [true; 3]
        );
        assert_eq!(["other.test", "192.0.2.2"].map(bears), [false; 2]);
    }

    #[test]
    fn the_core_takes_the_certificates_and_only_with_their_keys() {
        for suite in SUITES {
            let env = Env {
                seed: Seed::new([3; 32]),
                wall_clock: Arc::new(Start),
                crypto: provider(suite),
                secrets: EndpointSecrets::new([4; 32], [5; 32]),
            };
            let mut pki = Pki::new(suite, [1; 32]);
            let mut pair = pki.gateway("gw.test", &[]);
            let endpoint = |pki: &Pki, pair: &Pair| {
                let tls = pki.gateway_tls(pair, Arc::new(Everyone));
                Endpoint::gateway(&tls, EndpointLimits::default(), &env).map(|_| ())
            };
            assert_eq!(endpoint(&pki, &pair), Ok(()));
            pair.key = pki.gateway("gw.test", &[]).key;
            assert!(endpoint(&pki, &pair).is_err());
        }
    }
}
