//! An imitation of the other implementation: quinn as a QUIC stack, and frames written by hand after the specification, so
//! that no codec of ours can agree with its own mistake. It is ours all the same: where the specification is silent or
//! misread, it does as we think.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig,
    VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore, crypto::aws_lc_rs::default_provider, server::WebPkiClientVerifier,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// agent-tunnel 2: limits and timers of both ends.
fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(100))
        .keep_alive_interval(Some(Duration::from_secs(15)))
        .max_idle_timeout(Some(VarInt::from_u32(120_000).into()));
    Arc::new(transport)
}

fn roots(pem: &[u8]) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(pem) {
        roots.add(der.unwrap()).unwrap();
    }
    Arc::new(roots)
}

fn chain(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem)
        .map(Result::unwrap)
        .collect()
}

/// Connects as an agent with the files of an enrolment.
pub(crate) async fn dial(state: &Path, gateway: SocketAddr) -> (Endpoint, Connection) {
    let json = std::fs::read(state.join("agent-pair.json")).unwrap();
    let pair: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let part = |name: &str| pair[name].as_str().unwrap().as_bytes().to_vec();
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots(&part("gateway_ca")))
        .with_client_auth_cert(
            chain(&part("certificate")),
            PrivateKeyDer::from_pem_slice(&part("key")).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let quic = QuicClientConfig::try_from(tls).unwrap();
    let mut config = ClientConfig::new(Arc::new(quic));
    config.transport_config(transport());
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    // agent-tunnel 2.2: by name, as the reference's certificates hold DNS names only.
    let connecting = endpoint.connect_with(config, gateway, "localhost").unwrap();
    let connection = connecting.await.unwrap();
    (endpoint, connection)
}

/// Certificates of a gateway, for [`listen`].
pub(crate) struct GatewayFiles {
    pub(crate) ca_pem: String,
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
}

/// Listens as a gateway.
pub(crate) fn listen(files: &GatewayFiles) -> Endpoint {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        roots(files.ca_pem.as_bytes()),
        Arc::clone(&provider),
    );
    let mut certificates = chain(files.cert_pem.as_bytes());
    certificates.extend(chain(files.ca_pem.as_bytes()));
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            certificates,
            PrivateKeyDer::from_pem_slice(files.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let quic = QuicServerConfig::try_from(tls).unwrap();
    let mut config = ServerConfig::with_crypto(Arc::new(quic));
    config.transport_config(transport());
    Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Reads one frame: a length and that many bytes (agent-tunnel 5).
pub(crate) async fn frame(recv: &mut RecvStream) -> Vec<u8> {
    let mut length = [0; 4];
    recv.read_exact(&mut length).await.unwrap();
    let mut payload = vec![0; u32::from_be_bytes(length) as usize];
    recv.read_exact(&mut payload).await.unwrap();
    payload
}

/// Puts the length before a payload.
pub(crate) fn framed(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&length.to_be_bytes(), payload].concat()
}

/// The whole of a stream until its end.
pub(crate) async fn rest(recv: &mut RecvStream) -> Vec<u8> {
    recv.read_to_end(1 << 20).await.unwrap()
}

/// One control or session stream.
pub(crate) type Streams = (SendStream, RecvStream);

/// agent-tunnel 6.1: epoch 1, 127.0.0.1/32, and `localhost` as detected by itself.
pub(crate) const ROUTE_ADVERTISE: &[u8] = b"\x01\x00\x01\
    \x00\x00\x00\x00\x00\x00\x00\x01\
    \x00\x00\x00\x01\x7f\x00\x00\x01\x20\
    \x00\x00\x00\x01\x00\x00\x00\x09localhost\x01";
/// agent-tunnel 6.2: at time 1, with 0 streams.
pub(crate) const HEARTBEAT: &[u8] = b"\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00";
/// agent-tunnel 6.3: to that.
pub(crate) const HEARTBEAT_ACK: &[u8] = b"\x03\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01";
/// agent-tunnel 7.2: success.
pub(crate) const ACCEPTED: &[u8] = b"\x00\x00\x01";
const ALPN: &[u8] = b"gw-agent-tunnel/1";
