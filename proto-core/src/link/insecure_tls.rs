//! TLS of the insecure mode: encrypted, and anybody may be at the other end (peer-rpc 1.2).

use std::{fmt, net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use zeroize::Zeroizing;

use super::tls::{TlsError, chain_of, clock, key_of, unusable};
use crate::{env::Env, peer::NodeId};

/// A node that trusts everybody, for tests and demonstrations on one machine.
pub struct Insecure {
    local: NodeId,
    cert_chain: Vec<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
}

/// Whether the insecure mode may be reached from other machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Only from this one.
    Loopback,
    /// From everywhere: the operator has said so, by an option of its own.
    Everywhere,
}

/// The configuration's mistake: anybody on the network could give this node orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "insecure mode does not listen on {listen}, which is no loopback address; allow it explicitly or use certificates"
)]
pub struct NotLoopback {
    /// Where the node was to listen.
    pub listen: SocketAddr,
}

impl Insecure {
    /// A node that listens at `listen`, with a throw-away certificate that it signed itself and its key; DER.
    ///
    /// # Errors
    /// [`NotLoopback`]
    pub fn new(
        local: NodeId,
        cert_chain: Vec<Vec<u8>>,
        key: Zeroizing<Vec<u8>>,
        listen: SocketAddr,
        exposure: Exposure,
    ) -> Result<Self, NotLoopback> {
        let is_loopback = listen.ip().to_canonical().is_loopback();
        match is_loopback || exposure == Exposure::Everywhere {
            true => Ok(Self {
                local,
                cert_chain,
                key,
            }),
            false => Err(NotLoopback { listen }),
        }
    }

    pub(super) fn local(&self) -> NodeId {
        self.local
    }
}

impl fmt::Debug for Insecure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Insecure(..)")
    }
}

pub(super) fn server_config(insecure: &Insecure, env: &Env) -> Result<ServerConfig, TlsError> {
    let chain = chain_of(&insecure.cert_chain);
    let mut config = ServerConfig::builder_with_details(Arc::clone(&env.crypto), clock(env))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key_of(&insecure.key))
        .map_err(unusable)?;
    config.send_tls13_tickets = 0;
    Ok(config)
}

pub(super) fn client_config(env: &Env) -> Result<ClientConfig, TlsError> {
    let anybody = Anybody(Arc::clone(&env.crypto));
    let mut config = ClientConfig::builder_with_details(Arc::clone(&env.crypto), clock(env))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anybody))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Any certificate will do, as long as its key is there.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_beyond_the_machine_only_when_told_twice() {
        let at = |listen: &str, exposure| {
            let listen = listen.parse().unwrap();
            Insecure::new(NodeId(1), Vec::new(), Vec::new().into(), listen, exposure).is_ok()
        };
        for listen in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(at(listen, Exposure::Loopback), "{listen}");
        }
        for listen in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "[fe80::1]:1"] {
            assert!(!at(listen, Exposure::Loopback), "{listen}");
            assert!(at(listen, Exposure::Everywhere), "{listen}");
        }
    }
}
