//! TLS between the gateway and a target, for `/jet/fwd/tls` (agent-tunnel 15.1).

use std::{sync::Arc, time::Duration};

use adit_io_tokio::Pipe;
use adit_proto_core::target::Host;
use rustls::{ClientConfig, client::danger::ServerCertVerifier, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::pki::pinned::{Pin, PinVerifier};

/// Speaks TLS to targets.
#[derive(Debug)]
pub(super) struct TargetTls {
    /// For targets whose certificates have to be good for the roots.
    rooted: Result<Arc<ClientConfig>, rustls::Error>,
}

/// Why there is no TLS with a target.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetTlsError {
    #[error("the target's name is none that a certificate could have")]
    Name,
    #[error("the gateway's TLS cannot be used: {0}")]
    Config(#[from] rustls::Error),
    #[error("TLS with the target failed: {0}")]
    Handshake(#[from] std::io::Error),
    #[error("the target did not answer in TLS in time")]
    TimedOut,
}

impl TargetTls {
    /// Trusts the system's roots and these.
    pub(super) fn new(extra_roots: Vec<CertificateDer<'static>>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            rustls_platform_verifier::Verifier::new_with_extra_roots(extra_roots, provider);
        Self {
            rooted: verifier.and_then(|verifier| config(Arc::new(verifier))),
        }
    }

    /// Speaks TLS over a session. With the hash of a certificate, that one is trusted and no other.
    pub(super) async fn connect(
        &self,
        host: &Host,
        cert_sha256: Option<[u8; 32]>,
        session: Pipe,
    ) -> Result<TlsStream<Pipe>, TargetTlsError> {
        let name = match host {
            Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
            Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|_| TargetTlsError::Name)?,
        };
        let config = match cert_sha256 {
            Some(hash) => {
                let provider = Arc::new(aws_lc_rs::default_provider());
                config(Arc::new(PinVerifier::new(Pin::Certificate(hash), provider)))?
            }
            None => Arc::clone(self.rooted.as_ref().map_err(Clone::clone)?),
        };
        let handshake = TlsConnector::from(config).connect(name, session);
        let done = timeout(HANDSHAKE_TIMEOUT, handshake).await;
        Ok(done.map_err(|_| TargetTlsError::TimedOut)??)
    }
}

fn config(verifier: Arc<dyn ServerCertVerifier>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// From the open session to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
