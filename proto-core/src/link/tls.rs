//! TLS of both roles: verifiers, pins, and who the peer is.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    time_provider::TimeProvider,
    version::TLS13,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::{
    env::{Env, WallClock},
    id::AgentId,
    identity::AgentIdentity,
    wire::AGENT_TUNNEL_ALPN,
};

/// Certificates and keys of a gateway.
pub struct GatewayTls {
    /// The server certificate first, then what leads to its root; DER.
    pub cert_chain: Vec<Vec<u8>>,
    /// Its private key; PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
    /// Roots that agents' certificates must lead to; DER.
    pub agent_roots: Vec<Vec<u8>>,
    /// Asked after the chain has been verified.
    pub admission: Arc<dyn Admission>,
}

/// Certificates and keys of an agent.
pub struct AgentTls {
    /// The client certificate first; DER.
    pub cert_chain: Vec<Vec<u8>>,
    /// Its private key; PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
    /// Roots that the gateway's certificate must lead to; DER.
    pub gateway_roots: Vec<Vec<u8>>,
    /// SHA-256 of the gateway's DER SubjectPublicKeyInfo, checked after the chain and the name (agent-tunnel 2.2).
    pub gateway_pin: Option<[u8; 32]>,
}

/// Decides whether an agent whose certificate is good may connect: the operator may have deleted it.
pub trait Admission: Send + Sync {
    /// Called in the TLS handshake, so it may neither block nor take long.
    fn admit(&self, identity: &AgentIdentity) -> bool;

    /// The same of an agent that is connected, where a no is what the operator wants: nothing to log or to count.
    fn admits_still(&self, identity: &AgentIdentity) -> bool {
        self.admit(identity)
    }
}

/// Certificates that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate, key or root is unusable, or they do not belong together.
    #[error("unusable certificate or key: {0}")]
    Unusable(String),
}

impl fmt::Debug for GatewayTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayTls(..)")
    }
}

impl fmt::Debug for AgentTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentTls(..)")
    }
}

pub(crate) fn server_config(tls: &GatewayTls, env: &Env) -> Result<ServerConfig, TlsError> {
    let chain = WebPkiClientVerifier::builder_with_provider(
        roots(&tls.agent_roots)?,
        Arc::clone(&env.crypto),
    )
    .build()
    .map_err(unusable)?;
    let verifier = AgentVerifier {
        chain,
        admission: Arc::clone(&tls.admission),
    };
    let mut config = ServerConfig::builder_with_details(Arc::clone(&env.crypto), clock(env))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain_of(&tls.cert_chain), key_of(&tls.key))
        .map_err(unusable)?;
    config.alpn_protocols = vec![AGENT_TUNNEL_ALPN.to_vec()];
    // No resumption: every connection proves its certificate again, so a revoked one cannot come back by ticket.
    config.send_tls13_tickets = 0;
    Ok(config)
}

pub(crate) fn client_config(tls: &AgentTls, env: &Env) -> Result<ClientConfig, TlsError> {
    let chain = WebPkiServerVerifier::builder_with_provider(
        roots(&tls.gateway_roots)?,
        Arc::clone(&env.crypto),
    )
    .build()
    .map_err(unusable)?;
    let verifier = GatewayVerifier {
        chain,
        pin: tls.gateway_pin,
    };
    let mut config = ClientConfig::builder_with_details(Arc::clone(&env.crypto), clock(env))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain_of(&tls.cert_chain), key_of(&tls.key))
        .map_err(unusable)?;
    config.alpn_protocols = vec![AGENT_TUNNEL_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Reads who an agent is from its certificate in DER (agent-tunnel 2.1); none where it is no certificate or names no
/// agent. Nothing is verified here: whoever calls it has verified the chain, or does not trust the answer.
#[must_use]
pub fn identity_of(der: &[u8]) -> Option<AgentIdentity> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let names = cert.subject_alternative_name().ok()??;
    let uuid = names.value.general_names.iter().find_map(|name| {
        let GeneralName::URI(uri) = name else {
            return None;
        };
        uri.strip_prefix("urn:uuid:")
    })?;
    let id = AgentId(uuid.parse().ok()?);
    let cn = cert
        .subject()
        .iter_common_name()
        .next()
        .and_then(|cn| cn.as_str().ok())
        .filter(|cn| !cn.is_empty());
    Some(AgentIdentity {
        id,
        name: cn.map_or_else(|| format!("agent-{id}"), printable).into(),
        fingerprint: Sha256::digest(der).into(),
        spki_sha256: Sha256::digest(cert.tbs_certificate.subject_pki.raw).into(),
    })
}

fn printable(name: &str) -> String {
    name.replace(char::is_control, "\u{fffd}")
}

/// WebPKI's verdict on the chain, then ours: the certificate must name an agent that may connect.
#[derive(Debug)]
struct AgentVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    admission: Arc<dyn Admission>,
}

impl fmt::Debug for dyn Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

impl ClientCertVerifier for AgentVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        let refused =
            rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let identity = identity_of(end_entity).ok_or_else(|| refused.clone())?;
        if self.admission.admit(&identity) {
            Ok(verified)
        } else {
            Err(refused)
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// WebPKI's verdict on chain and name, then the pin (agent-tunnel 2.2).
#[derive(Debug)]
struct GatewayVerifier {
    chain: Arc<WebPkiServerVerifier>,
    pin: Option<[u8; 32]>,
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let Some(pin) = self.pin else {
            return Ok(verified);
        };
        let (_, cert) = X509Certificate::from_der(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let spki: [u8; 32] = Sha256::digest(cert.tbs_certificate.subject_pki.raw).into();
        match bool::from(spki.ct_eq(&pin)) {
            true => Ok(verified),
            false => Err(rustls::Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Dates of certificates are judged by the injected wall clock.
struct Clock(Arc<dyn WallClock>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(
            std::time::Duration::from_millis(self.0.unix_ms()),
        ))
    }
}

pub(super) fn clock(env: &Env) -> Arc<dyn TimeProvider> {
    Arc::new(Clock(Arc::clone(&env.wall_clock)))
}

pub(super) fn roots(ders: &[Vec<u8>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for der in ders {
        store
            .add(CertificateDer::from(der.as_slice()))
            .map_err(unusable)?;
    }
    Ok(Arc::new(store))
}

pub(super) fn chain_of(ders: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    ders.iter().cloned().map(CertificateDer::from).collect()
}

pub(super) fn key_of(der: &[u8]) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec()))
}

pub(super) fn unusable(error: impl fmt::Display) -> TlsError {
    TlsError::Unusable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_on_one_line() {
        assert_eq!(
            printable("a\nb\u{1b}[2J\u{85}c"),
            "a\u{fffd}b\u{fffd}[2J\u{fffd}c"
        );
        assert_eq!(printable("Bürö 1"), "Bürö 1");
    }
}
