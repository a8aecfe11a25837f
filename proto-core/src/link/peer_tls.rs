//! TLS of the peer RPC: both sides show certificates, and both look them up in the topology (peer-rpc 1.4).

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use zeroize::Zeroizing;

use super::{
    insecure_tls::{self, Insecure},
    tls::{TlsError, chain_of, clock, key_of, roots, unusable},
};
use crate::{
    env::{Env, WallClock},
    peer::{
        FORWARD_ALPN, NodeId, PEER_RPC_ALPN,
        config::{PeerConfig, PeerNode},
        identity::{IdentityStore, Leaf, NoIdentities, SpkiPin},
        verdict::{IdentityError, Judge},
    },
};

/// Certificates and keys of a node, and what it knows of the others. One value serves both roles.
pub struct PeerTls {
    /// This node.
    pub local: NodeId,
    /// Its certificate, valid for [`PEER_SERVER_NAME`](crate::peer::PEER_SERVER_NAME), and what leads to its root; DER.
    pub cert_chain: Vec<Vec<u8>>,
    /// Its private key; PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
    /// The cluster's CA, and while it is exchanged the other one; DER. Each is an acceptable issuer.
    pub roots: Vec<Vec<u8>>,
    /// Revocation lists; DER. They hold on both sides, for the issuers that they are of.
    pub crls: Vec<Vec<u8>>,
    /// The topology, asked in every handshake.
    pub identities: Arc<dyn IdentityStore>,
    /// Until when certificates that nobody claims are let in, in milliseconds of Unix time; 0 is never.
    pub bootstrap_until: u64,
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerTls(..)")
    }
}

/// How nodes prove who they are. There is no default: it is chosen.
#[derive(Clone, Debug)]
pub enum PeerSecurity {
    /// Both sides show certificates.
    Mutual(Arc<PeerTls>),
    /// Nobody proves anything, and the key of the tags is known to everybody (peer-rpc 1.2).
    Insecure(Arc<Insecure>),
}

impl PeerSecurity {
    /// TLS of the side that accepts, for both protocols of the endpoint.
    pub(super) fn server(&self, env: &Env) -> Result<ServerConfig, TlsError> {
        let mut config = match self {
            Self::Mutual(tls) => server_config(tls, env)?,
            Self::Insecure(insecure) => insecure_tls::server_config(insecure, env)?,
        };
        config.alpn_protocols = vec![PEER_RPC_ALPN.to_vec(), FORWARD_ALPN.to_vec()];
        Ok(config)
    }

    /// TLS of the side that dials for one protocol.
    pub(super) fn client(&self, alpn: &[u8], env: &Env) -> Result<ClientConfig, TlsError> {
        let mut config = match self {
            Self::Mutual(tls) => client_config(tls, env)?,
            Self::Insecure(_) => insecure_tls::client_config(env)?,
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }

    /// What certificates of connections that exist are held against.
    pub(crate) fn vetting(&self, env: &Env) -> Result<Vetting, TlsError> {
        Ok(Vetting(match self {
            Self::Mutual(tls) => {
                let chain = client_chain(tls, &env.crypto)?;
                Some((chain, Arc::clone(&env.wall_clock)))
            }
            Self::Insecure(_) => None,
        }))
    }

    /// What connections judge by.
    pub(crate) fn node(&self, config: PeerConfig, env: &Env) -> Result<PeerNode, TlsError> {
        let (insecure, keys) = (matches!(self, Self::Insecure(_)), config.ledger.keys());
        if insecure != keys.is_insecure() {
            return Err(TlsError::Unusable(MIXED.to_owned()));
        }
        let (local, own_spki, identities, bootstrap_until) = match self {
            Self::Mutual(tls) => {
                let pins = Pins::of(tls)?;
                (
                    tls.local,
                    pins.own_spki,
                    pins.identities,
                    tls.bootstrap_until,
                )
            }
            Self::Insecure(insecure) => {
                let identities: Arc<dyn IdentityStore> = Arc::new(NoIdentities);
                (insecure.local(), SpkiPin([0; 32]), identities, 0)
            }
        };
        Ok(PeerNode {
            local,
            own_spki,
            identities,
            bootstrap_until,
            wall_clock: Arc::clone(&env.wall_clock),
            config,
        })
    }
}

/// Chain, dates and revocation of certificates, outside of a handshake. A node has one certificate for both roles, so that
/// one verdict is enough.
#[derive(Clone)]
pub(crate) struct Vetting(Option<(Arc<dyn ClientCertVerifier>, Arc<dyn WallClock>)>);

impl Vetting {
    /// `chain` begins with the node's own certificate; DER.
    pub(crate) fn accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((verifier, clock)) = &self.0 else {
            return true;
        };
        let now = UnixTime::since_unix_epoch(Duration::from_millis(clock.unix_ms()));
        let Some((leaf, rest)) = chain.split_first() else {
            return false;
        };
        verifier.verify_client_cert(leaf, rest, now).is_ok()
    }
}

impl fmt::Debug for Vetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vetting(..)")
    }
}

const MIXED: &str =
    "the key that everybody knows belongs to the insecure mode, and no other key does";

/// The configuration of the side that accepts connections. It demands a certificate, and gives no tickets.
///
/// # Errors
/// [`TlsError::Unusable`]
pub fn server_config(tls: &PeerTls, env: &Env) -> Result<ServerConfig, TlsError> {
    let provider = Arc::clone(&env.crypto);
    let chain = client_chain(tls, &provider)?;
    let verifier = PeerVerifier {
        chain,
        pins: Pins::of(tls)?,
    };
    let mut config = ServerConfig::builder_with_details(provider, clock(env))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain_of(&tls.cert_chain), key_of(&tls.key))
        .map_err(unusable)?;
    config.alpn_protocols = vec![PEER_RPC_ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The configuration of the side that dials; the name to ask for is [`PEER_SERVER_NAME`](crate::peer::PEER_SERVER_NAME).
///
/// # Errors
/// [`TlsError::Unusable`]
pub fn client_config(tls: &PeerTls, env: &Env) -> Result<ClientConfig, TlsError> {
    let provider = Arc::clone(&env.crypto);
    let chain = server_chain(tls, &provider)?;
    let verifier = PeerVerifier {
        chain,
        pins: Pins::of(tls)?,
    };
    let mut config = ClientConfig::builder_with_details(provider, clock(env))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain_of(&tls.cert_chain), key_of(&tls.key))
        .map_err(unusable)?;
    config.alpn_protocols = vec![PEER_RPC_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// WebPKI's verdict on chain, dates, revocation and name; then the pins, which only ever add a refusal.
#[derive(Debug)]
struct PeerVerifier<C> {
    chain: C,
    pins: Pins,
}

/// The rules on a certificate that WebPKI has accepted.
#[derive(Debug)]
struct Pins {
    local: NodeId,
    own_spki: SpkiPin,
    identities: Arc<dyn IdentityStore>,
    bootstrap_until: u64,
}

impl Pins {
    fn of(tls: &PeerTls) -> Result<Self, TlsError> {
        let own = tls.cert_chain.first().map(Vec::as_slice);
        let own = Leaf::from_der(own.unwrap_or_default()).map_err(unusable)?;
        Ok(Self {
            local: tls.local,
            own_spki: own.spki,
            identities: Arc::clone(&tls.identities),
            bootstrap_until: tls.bootstrap_until,
        })
    }

    fn check(&self, der: &[u8], now: UnixTime) -> Result<(), rustls::Error> {
        let judge = Judge {
            local: self.local,
            own_spki: self.own_spki,
            store: &*self.identities,
            bootstrap_until: self.bootstrap_until,
            unix_ms: now.as_secs().saturating_mul(1_000),
        };
        let leaf = Leaf::from_der(der).map_err(IdentityError::from);
        leaf.and_then(|leaf| judge.certificate(&leaf))
            .map_err(|refused| {
                let other = OtherError(Arc::new(Refused(refused)));
                rustls::Error::InvalidCertificate(CertificateError::Other(other))
            })
    }
}

/// A refusal that reads the same where rustls writes it with `Debug`, as it does with all that it does not know.
#[derive(thiserror::Error)]
#[error("{0}")]
struct Refused(IdentityError);

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ClientCertVerifier for PeerVerifier<Arc<dyn ClientCertVerifier>> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = &self.chain;
        let verified = chain.verify_client_cert(end_entity, intermediates, now)?;
        self.pins.check(end_entity, now)?;
        Ok(verified)
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

impl ServerCertVerifier for PeerVerifier<Arc<WebPkiServerVerifier>> {
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
        self.pins.check(end_entity, now)?;
        Ok(verified)
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

/// An issuer without a list of its own revokes nobody; WebPKI would refuse all that it signed (peer-rpc 10.2).
fn client_chain(
    tls: &PeerTls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(roots(&tls.roots)?, Arc::clone(provider))
        .with_crls(crls(tls))
        .allow_unknown_revocation_status()
        .build()
        .map_err(unusable)
}

fn server_chain(
    tls: &PeerTls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(roots(&tls.roots)?, Arc::clone(provider))
        .with_crls(crls(tls))
        .allow_unknown_revocation_status()
        .build()
        .map_err(unusable)
}

fn crls(tls: &PeerTls) -> Vec<CertificateRevocationListDer<'static>> {
    tls.crls.iter().cloned().map(Into::into).collect()
}

#[cfg(test)]
#[path = "peer_tls_tests.rs"]
mod tests;
