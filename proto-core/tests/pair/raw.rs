//! A peer made of the bare QUIC engine: it says whatever bytes a test wants.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint,
    EndpointConfig, Event, ReadError, ServerConfig, StreamEvent, StreamId, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS13,
};

use super::{
    net::{Net, Packet},
    pki::Pair,
};

/// How the bare peer is set up.
pub(crate) struct RawConfig {
    pub(crate) alpn: &'static [u8],
    /// None: the client presents no certificate.
    pub(crate) identity: Option<Pair>,
    /// Bytes that it takes on the whole connection.
    pub(crate) window: u32,
    /// Streams that it grants.
    pub(crate) streams: u32,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            alpn: b"gw-agent-tunnel/1",
            identity: None,
            window: 16 << 20,
            streams: 100,
        }
    }
}

pub(crate) struct Raw {
    endpoint: Endpoint,
    conn: Option<(ConnectionHandle, Connection)>,
    pub(crate) connected: bool,
    pub(crate) lost: Option<ConnectionError>,
    /// Streams that the peer wants no more of, with its codes.
    pub(crate) stopped: Vec<(StreamId, u64)>,
}

/// What a stream held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: bool,
    pub(crate) reset: Option<u64>,
}

impl Raw {
    pub(crate) fn server(pair: &Pair, config: &RawConfig) -> Self {
        let provider = Arc::new(adit_proto_core::link::provider::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.clone().into()], key(pair))
            .unwrap();
        tls.alpn_protocols = vec![config.alpn.to_vec()];
        let mut server =
            ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        server.transport_config(Arc::new(transport(config)));
        Self::new(Some(Arc::new(server)))
    }

    pub(crate) fn client(config: &RawConfig, now: Instant, remote: SocketAddr) -> Self {
        let provider = Arc::new(adit_proto_core::link::provider::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting));
        let mut tls = match &config.identity {
            Some(pair) => builder
                .with_client_auth_cert(vec![pair.cert.clone().into()], key(pair))
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![config.alpn.to_vec()];
        let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        client.transport_config(Arc::new(transport(config)));
        let mut raw = Self::new(None);
        let conn = raw
            .endpoint
            .connect(now, client, remote, super::pki::GATEWAY_NAME)
            .unwrap();
        raw.conn = Some(conn);
        raw
    }

    fn new(server: Option<Arc<ServerConfig>>) -> Self {
        let mut config = EndpointConfig::default();
        config.rng_seed(Some([9; 32]));
        Self {
            endpoint: Endpoint::new(Arc::new(config), server, true, None),
            conn: None,
            connected: false,
            lost: None,
            stopped: Vec::new(),
        }
    }

    pub(crate) fn conn(&mut self) -> &mut Connection {
        &mut self.conn.as_mut().expect("connected").1
    }

    pub(crate) fn open(&mut self) -> StreamId {
        self.conn().streams().open(Dir::Bi).expect("stream credit")
    }

    pub(crate) fn accept(&mut self) -> Option<StreamId> {
        self.conn().streams().accept(Dir::Bi)
    }

    pub(crate) fn write(&mut self, stream: StreamId, bytes: &[u8]) {
        let written = self.conn().send_stream(stream).write(bytes).unwrap();
        assert_eq!(written, bytes.len(), "flow control of the peer");
    }

    /// Writes what the peer's flow control allows.
    pub(crate) fn write_some(&mut self, stream: StreamId, bytes: &[u8]) -> usize {
        self.conn().send_stream(stream).write(bytes).unwrap_or(0)
    }

    pub(crate) fn finish(&mut self, stream: StreamId) {
        self.conn().send_stream(stream).finish().unwrap();
    }

    pub(crate) fn reset(&mut self, stream: StreamId, code: u32) {
        let code = VarInt::from_u32(code);
        self.conn().send_stream(stream).reset(code).unwrap();
    }

    pub(crate) fn stop(&mut self, stream: StreamId, code: u32) {
        let code = VarInt::from_u32(code);
        self.conn().recv_stream(stream).stop(code).unwrap();
    }

    /// Everything that came on a stream since the last look.
    pub(crate) fn read(&mut self, stream: StreamId) -> Got {
        let mut got = Got::default();
        let mut recv = self.conn().recv_stream(stream);
        let Ok(mut chunks) = recv.read(true) else {
            return got;
        };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => got.bytes.extend_from_slice(&chunk.bytes),
                Ok(None) => got.end = true,
                Err(ReadError::Reset(code)) => got.reset = Some(code.into_inner()),
                Err(ReadError::Blocked) => break,
            }
            if got.end || got.reset.is_some() {
                break;
            }
        }
        let _transmit = chunks.finalize();
        got
    }

    pub(crate) fn close(&mut self, now: Instant) {
        self.conn().close(now, VarInt::from_u32(0), Bytes::new());
    }

    pub(crate) fn receive(&mut self, now: Instant, net: &mut Net, packet: Packet) {
        let mut reply = Vec::new();
        let event = self
            .endpoint
            .handle(now, packet.src, None, None, packet.data, &mut reply);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some((known, conn)) = &mut self.conn
                    && *known == handle
                {
                    conn.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                if let Ok(conn) = self.endpoint.accept(incoming, now, &mut reply, None) {
                    self.conn = Some(conn);
                }
            }
            Some(DatagramEvent::Response(t)) => {
                net.send(now, (packet.dst, t.destination), None, &reply[..t.size]);
            }
            None => {}
        }
    }

    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        self.conn.as_mut()?.1.poll_timeout()
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        self.conn().handle_timeout(now);
    }

    pub(crate) fn drain(&mut self, now: Instant, addr: SocketAddr, net: &mut Net) {
        let Some((handle, conn)) = &mut self.conn else {
            return;
        };
        loop {
            let mut moved = false;
            while let Some(event) = conn.poll_endpoint_events() {
                moved = true;
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    conn.handle_event(event);
                }
            }
            while let Some(event) = conn.poll() {
                moved = true;
                match event {
                    Event::Connected => self.connected = true,
                    Event::ConnectionLost { reason } => self.lost = Some(reason),
                    Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                        self.stopped.push((id, error_code.into_inner()));
                    }
                    Event::HandshakeDataReady
                    | Event::Stream(_)
                    | Event::DatagramReceived
                    | Event::DatagramsUnblocked => {}
                }
            }
            let mut batch = Vec::new();
            while let Some(t) = conn.poll_transmit(now, 10, &mut batch) {
                moved = true;
                let ends = (addr, t.destination);
                net.send_batch(now, ends, None, &batch, t.segment_size);
                batch.clear();
            }
            if !moved {
                return;
            }
        }
    }
}

fn transport(config: &RawConfig) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .receive_window(VarInt::from_u32(config.window))
        .max_concurrent_bidi_streams(VarInt::from_u32(config.streams));
    transport
}

fn key(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(pair.key.clone()).into()
}

/// Takes any server.
#[derive(Debug)]
struct Trusting;

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &rustls::pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
