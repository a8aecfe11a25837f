//! The bare QUIC engine with a certificate of the cluster's CA: it says whatever bytes the adversary wants.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::{
    env::Seed,
    peer::{
        PEER_RPC_ALPN, PEER_SERVER_NAME,
        bound::{ConnectionSecret, EXPORTER_LABEL},
    },
};
use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, ConnectionId, ConnectionIdGenerator, DatagramEvent,
    Dir, Endpoint, EndpointConfig, Event, ReadError, ServerConfig, StreamId,
    crypto::{
        CryptoError, HmacKey,
        rustls::{QuicClientConfig, QuicServerConfig},
    },
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    time_provider::TimeProvider,
    version::TLS13,
};

use crate::{
    crypto::{self, Suite},
    pki::{Pair, WALL_START_MS},
};

/// A connection of the bare engine, by its number.
pub(super) type Handle = usize;

/// An endpoint without any rule.
pub(super) struct Bare {
    endpoint: Endpoint,
    conns: BTreeMap<Handle, Connection>,
}

/// What a stream has brought since it was last read.
#[derive(Debug, Default)]
pub(super) struct Got {
    pub(super) bytes: Vec<u8>,
    pub(super) is_end: bool,
}

impl Bare {
    /// One that accepts, for as long as TLS of any certificate succeeds.
    pub(super) fn server(seed: &Seed, pair: &Pair) -> Result<Self, Error> {
        let provider = crypto::provider(Suite::Plain);
        let mut tls = rustls::ServerConfig::builder_with_details(provider, Arc::new(Start))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(Trusting))
            .with_single_cert(chain(pair), key(pair))?;
        tls.alpn_protocols = vec![PEER_RPC_ALPN.to_vec()];
        let quic = QuicServerConfig::try_from(tls).map_err(|e| Error::General(e.to_string()))?;
        let mut server = ServerConfig::with_crypto(Arc::new(quic));
        server.validation_token.sent(0);
        Ok(Self::new(seed, Some(Arc::new(server))))
    }

    /// One that dials.
    pub(super) fn new(seed: &Seed, server: Option<Arc<ServerConfig>>) -> Self {
        let mut config = EndpointConfig::new(Arc::new(ResetKey));
        let first = u64::from_le_bytes(first_8(&seed.derive_bytes("ids")));
        config
            .rng_seed(Some(seed.derive_bytes("engine")))
            .cid_generator(move || Box::new(Counting(first)));
        Self {
            endpoint: Endpoint::new(Arc::new(config), server, true, None),
            conns: BTreeMap::new(),
        }
    }

    /// Dials with a certificate.
    pub(super) fn dial(
        &mut self,
        now: Instant,
        seed: &Seed,
        pair: &Pair,
        remote: SocketAddr,
    ) -> Result<Handle, Error> {
        let provider = crypto::provider(Suite::Plain);
        let mut tls = rustls::ClientConfig::builder_with_details(provider, Arc::new(Start))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting))
            .with_client_auth_cert(chain(pair), key(pair))?;
        tls.alpn_protocols = vec![PEER_RPC_ALPN.to_vec()];
        let general = |text: String| Error::General(text);
        let quic = QuicClientConfig::try_from(tls).map_err(|e| general(e.to_string()))?;
        let mut client = ClientConfig::new(Arc::new(quic));
        let dcid = ConnectionId::new(&seed.derive_bytes("dcid")[..20]);
        client.initial_dst_cid_provider(Arc::new(move || dcid));
        let dialled = (self.endpoint).connect(now, client, remote, PEER_SERVER_NAME);
        let (handle, conn) = dialled.map_err(|e| general(e.to_string()))?;
        self.conns.insert(handle.0, conn);
        Ok(handle.0)
    }

    /// Connections that there are.
    pub(super) fn handles(&self) -> Vec<Handle> {
        self.conns.keys().copied().collect()
    }

    /// Tells whether the handshake of QUIC is over, and the connection is not.
    pub(super) fn is_up(&self, handle: Handle) -> bool {
        let conn = self.conns.get(&handle);
        conn.is_some_and(|conn| !conn.is_handshaking() && !conn.is_closed())
    }

    pub(super) fn open(&mut self, handle: Handle) -> Option<StreamId> {
        self.conns.get_mut(&handle)?.streams().open(Dir::Bi)
    }

    pub(super) fn accept(&mut self, handle: Handle) -> Option<StreamId> {
        self.conns.get_mut(&handle)?.streams().accept(Dir::Bi)
    }

    /// Writes what flow control takes, and ends the half where that is wanted.
    pub(super) fn write(&mut self, handle: Handle, stream: StreamId, bytes: &[u8], ends: bool) {
        let Some(conn) = self.conns.get_mut(&handle) else {
            return;
        };
        let mut send = conn.send_stream(stream);
        // Whether the other side wants it is its affair.
        let _wanted = send.write(bytes);
        if ends {
            let _open = send.finish();
        }
    }

    /// Reads what has come on a stream.
    pub(super) fn read(&mut self, handle: Handle, stream: StreamId) -> Got {
        let mut got = Got::default();
        let Some(conn) = self.conns.get_mut(&handle) else {
            return got;
        };
        let mut recv = conn.recv_stream(stream);
        let Ok(mut chunks) = recv.read(true) else {
            got.is_end = true;
            return got;
        };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => got.bytes.extend_from_slice(&chunk.bytes),
                Ok(None) | Err(ReadError::Reset(_)) => {
                    got.is_end = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
            }
        }
        let _transmit = chunks.finalize();
        got
    }

    /// What only the two ends of the connection have.
    pub(super) fn secret(&self, handle: Handle) -> Option<ConnectionSecret> {
        let session = self.conns.get(&handle)?.crypto_session();
        let mut secret = [0; 32];
        let exported = session.export_keying_material(&mut secret, EXPORTER_LABEL, b"");
        exported.ok().map(|()| ConnectionSecret::new(secret))
    }

    pub(super) fn deadline(&mut self) -> Option<Instant> {
        self.conns
            .values_mut()
            .filter_map(Connection::poll_timeout)
            .min()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        for conn in self.conns.values_mut() {
            if conn.poll_timeout().is_some_and(|at| at <= now) {
                conn.handle_timeout(now);
            }
        }
    }

    /// Takes a datagram; gives a stateless answer to it.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        src: SocketAddr,
        data: BytesMut,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let mut reply = Vec::new();
        match self
            .endpoint
            .handle(now, src, None, None, data, &mut reply)?
        {
            DatagramEvent::ConnectionEvent(handle, event) => {
                if let Some(conn) = self.conns.get_mut(&handle.0) {
                    conn.handle_event(event);
                }
            }
            DatagramEvent::NewConnection(incoming) => {
                let accepted = self.endpoint.accept(incoming, now, &mut reply, None);
                if let Ok((handle, conn)) = accepted {
                    self.conns.insert(handle.0, conn);
                }
            }
            DatagramEvent::Response(t) => {
                reply.truncate(t.size);
                return Some((t.destination, reply));
            }
        }
        None
    }

    /// Gives the datagrams that are ready.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut datagrams = Vec::new();
        let mut drained = Vec::new();
        for (handle, conn) in &mut self.conns {
            while let Some(event) = conn.poll_endpoint_events() {
                let is_drained = event.is_drained();
                if let Some(event) = self.endpoint.handle_event(ConnectionHandle(*handle), event) {
                    conn.handle_event(event);
                }
                drained.extend(is_drained.then_some(*handle));
            }
            while let Some(event) = conn.poll() {
                match event {
                    Event::Connected
                    | Event::ConnectionLost { .. }
                    | Event::HandshakeDataReady
                    | Event::Stream(_)
                    | Event::DatagramReceived
                    | Event::DatagramsUnblocked => {}
                }
            }
            let mut datagram = Vec::new();
            while let Some(t) = conn.poll_transmit(now, 1, &mut datagram) {
                datagrams.push((t.destination, std::mem::take(&mut datagram)));
            }
        }
        for handle in drained {
            self.conns.remove(&handle);
        }
        datagrams
    }
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bare(..)")
    }
}

fn chain(pair: &Pair) -> Vec<CertificateDer<'static>> {
    vec![pair.cert.clone().into()]
}

fn key(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(pair.key.clone()).into()
}

fn first_8(bytes: &[u8; 32]) -> [u8; 8] {
    bytes.first_chunk().copied().unwrap_or_default()
}

/// A clock that stands still: the adversary's certificates are never too old for it.
#[derive(Debug)]
struct Start;

impl TimeProvider for Start {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(
            WALL_START_MS,
        )))
    }
}

/// Ids without chance.
#[derive(Debug)]
struct Counting(u64);

impl ConnectionIdGenerator for Counting {
    fn generate_cid(&mut self) -> ConnectionId {
        self.0 = self.0.wrapping_add(1);
        ConnectionId::new(&self.0.to_be_bytes())
    }

    fn cid_len(&self) -> usize {
        size_of::<u64>()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Nothing of the adversary's is secret.
struct ResetKey;

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::hash(data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        match blake3::hash(data).as_bytes() == signature {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}

/// Takes whatever certificate there is.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for Trusting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

const SCHEMES: [SignatureScheme; 2] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
];
