//! A target that speaks TLS.

use std::{net::SocketAddr, sync::Arc};

use rustls_pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256};

use super::{RUNTIME, block_on};

/// An echo in TLS, with a certificate for `localhost` that nobody vouches for.
pub(crate) struct TlsTarget {
    pub(crate) addr: SocketAddr,
    pub(crate) pem: String,
    der: Vec<u8>,
}

impl TlsTarget {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], private)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        RUNTIME.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Those who do not trust it leave here.
                    let Ok(tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let (mut from, mut to) = tokio::io::split(tls);
                    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
                        // The user may be gone.
                        let _gone = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
                    }
                });
            }
        });
        Self {
            addr,
            pem: cert.pem(),
            der: cert.der().to_vec(),
        }
    }

    /// SHA-256 of the certificate, as tokens carry it.
    pub(crate) fn pin(&self) -> String {
        let hash = Sha256::digest(&self.der);
        hash.iter().map(|byte| format!("{byte:02X}")).collect()
    }
}
