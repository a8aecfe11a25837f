//! Certificates of the suite: one authority, a gateway on loopback, and agents by number.

use std::{net::Ipv4Addr, sync::LazyLock};

use adit_proto_core::{
    link::tls::{AgentTls, GatewayTls},
    output::Renewed,
};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, date_time_ymd,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::hooks::Admitted;

/// The authority of all scenarios.
pub(crate) static PKI: LazyLock<Pki> = LazyLock::new(Pki::new);

/// A certificate and its key, DER.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

pub(crate) struct Pki {
    ca: Certificate,
    issuer: Issuer<'static, KeyPair>,
    gateway: Pair,
}

impl Pki {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params("conformance CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let san = SanType::IpAddress(Ipv4Addr::LOCALHOST.into());
        let gateway = issue(&issuer, "gateway", san, ExtendedKeyUsagePurpose::ServerAuth);
        Self {
            ca,
            issuer,
            gateway,
        }
    }

    pub(crate) fn gateway_tls(&self) -> GatewayTls {
        GatewayTls {
            cert_chain: vec![self.gateway.cert.clone(), self.ca.der().to_vec()],
            key: self.gateway.key.clone().into(),
            agent_roots: vec![self.ca.der().to_vec()],
            admission: std::sync::Arc::new(Admitted),
        }
    }

    pub(crate) fn agent(&self, id: Uuid, name: &str) -> Pair {
        issue(
            &self.issuer,
            name,
            agent_san(id),
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    pub(crate) fn agent_tls(&self, pair: &Pair) -> AgentTls {
        AgentTls {
            cert_chain: vec![pair.cert.clone()],
            key: pair.key.clone().into(),
            gateway_roots: vec![self.ca.der().to_vec()],
            gateway_pin: None,
        }
    }

    /// Signs an agent's request; gives the certificate, and the hash of the key in it.
    pub(crate) fn renew(
        &self,
        id: Uuid,
        name: &str,
        csr_pem: &str,
    ) -> Result<(Renewed, [u8; 32]), String> {
        let mut csr =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| e.to_string())?;
        csr.params = leaf(name, agent_san(id), ExtendedKeyUsagePurpose::ClientAuth);
        let spki = Sha256::digest(csr.public_key.subject_public_key_info()).into();
        let cert = csr.signed_by(&self.issuer).map_err(|e| e.to_string())?;
        let renewed = Renewed {
            client_cert_pem: cert.pem(),
            gateway_ca_pem: self.ca.pem(),
        };
        Ok((renewed, spki))
    }
}

fn agent_san(id: Uuid) -> SanType {
    SanType::URI(format!("urn:uuid:{id}").try_into().unwrap())
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

fn leaf(name: &str, san: SanType, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = params(name);
    params.subject_alt_names = vec![san];
    params.extended_key_usages = vec![usage];
    params
}

fn issue(
    issuer: &Issuer<'static, KeyPair>,
    name: &str,
    san: SanType,
    usage: ExtendedKeyUsagePurpose,
) -> Pair {
    let key = KeyPair::generate().unwrap();
    let cert = leaf(name, san, usage).signed_by(&key, issuer).unwrap();
    Pair {
        cert: cert.der().to_vec(),
        key: key.serialize_der(),
    }
}
