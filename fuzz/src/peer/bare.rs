//! The peer: the bare QUIC engine with good credentials, which says what it is told to, and notes what it said and heard.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, ConnectionId,
    ConnectionIdGenerator, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, ReadError,
    ServerConfig, StreamId, TransportConfig, VarInt,
    crypto::{
        CryptoError, HmacKey,
        rustls::{QuicClientConfig, QuicServerConfig},
    },
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
    time_provider::TimeProvider,
    version::TLS13,
};

use super::env;
use crate::fixtures::{self, NOON_UNIX_S};

/// The peer, and everything that passed its streams.
pub(super) struct Bare {
    endpoint: Endpoint,
    conn: Option<(ConnectionHandle, Connection)>,
    pub(super) is_connected: bool,
    pub(super) lost: Option<ConnectionError>,
    pub(super) has_closed: bool,
    /// In the order in which they were opened or seen.
    pub(super) streams: Vec<StreamId>,
    pub(super) logs: BTreeMap<StreamId, Log>,
}

/// What one stream carried, and what the peer did to it.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) sent: Vec<u8>,
    pub(super) finished: bool,
    /// The peer abandoned a half of it: what it sent before may be lost.
    pub(super) broken: bool,
    pub(super) got: Vec<u8>,
    pub(super) got_end: bool,
    /// When the first and the last bytes were sent.
    written: Option<(Instant, Instant)>,
}

impl Log {
    /// How long the peer took to say it all.
    pub(super) fn took(&self) -> Duration {
        self.written
            .map_or(Duration::ZERO, |(first, last)| last - first)
    }
}

/// How generous the peer is.
pub(super) struct Credit {
    pub(super) streams: u32,
    pub(super) window: u32,
}

impl Bare {
    /// A gateway that is none.
    pub(super) fn server(credit: &Credit) -> Self {
        let tls = rustls::ServerConfig::builder_with_details(env().crypto, Arc::new(Noon))
            .with_protocol_versions(&[&TLS13])
            .map(|tls| tls.with_no_client_auth())
            .and_then(|tls| {
                tls.with_single_cert(chain(fixtures::GATEWAY), key(fixtures::GATEWAY_KEY))
            });
        let mut tls = fixtures::known(tls);
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let quic = fixtures::known(QuicServerConfig::try_from(tls));
        let mut server = ServerConfig::with_crypto(Arc::new(quic));
        server.transport_config(Arc::new(transport(credit)));
        server.validation_token.sent(0);
        Self::new(Some(Arc::new(server)))
    }

    /// An agent that is none; it connects at once.
    pub(super) fn client(credit: &Credit, now: Instant, remote: SocketAddr) -> Self {
        let mut roots = RootCertStore::empty();
        fixtures::known(roots.add(fixtures::CA.into()));
        let tls = rustls::ClientConfig::builder_with_details(env().crypto, Arc::new(Noon))
            .with_protocol_versions(&[&TLS13])
            .map(|tls| tls.with_root_certificates(roots))
            .and_then(|tls| {
                tls.with_client_auth_cert(chain(fixtures::AGENT), key(fixtures::AGENT_KEY))
            });
        let mut tls = fixtures::known(tls);
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let quic = fixtures::known(QuicClientConfig::try_from(tls));
        let mut client = ClientConfig::new(Arc::new(quic));
        client.transport_config(Arc::new(transport(credit)));
        let mut bare = Self::new(None);
        let conn = bare
            .endpoint
            .connect(now, client, remote, fixtures::GATEWAY_NAME);
        bare.conn = Some(fixtures::known(conn));
        bare
    }

    fn new(server: Option<Arc<ServerConfig>>) -> Self {
        let mut config = EndpointConfig::new(Arc::new(ResetKey));
        config
            .rng_seed(Some([9; 32]))
            .cid_generator(|| Box::new(Counting(0)));
        Self {
            endpoint: Endpoint::new(Arc::new(config), server, true, None),
            conn: None,
            is_connected: false,
            lost: None,
            has_closed: false,
            streams: Vec::new(),
            logs: BTreeMap::new(),
        }
    }

    pub(super) fn open(&mut self) {
        let Some((_, conn)) = &mut self.conn else {
            return;
        };
        if let Some(id) = conn.streams().open(Dir::Bi) {
            self.note(id);
        }
    }

    /// Takes the streams that the other side has opened.
    pub(super) fn accept(&mut self) {
        while let Some((_, conn)) = &mut self.conn
            && let Some(id) = conn.streams().accept(Dir::Bi)
        {
            self.note(id);
        }
    }

    fn note(&mut self, id: StreamId) {
        self.streams.push(id);
        self.logs.insert(id, Log::default());
    }

    /// Writes what flow control takes.
    pub(super) fn write(&mut self, now: Instant, id: StreamId, bytes: &[u8]) {
        if let (Some((_, conn)), Some(log)) = (&mut self.conn, self.logs.get_mut(&id)) {
            let written = conn.send_stream(id).write(bytes).unwrap_or(0);
            log.sent.extend_from_slice(&bytes[..written]);
            log.written = Some((log.written.map_or(now, |(first, _)| first), now));
        }
    }

    pub(super) fn finish(&mut self, id: StreamId) {
        if let (Some((_, conn)), Some(log)) = (&mut self.conn, self.logs.get_mut(&id)) {
            log.finished |= conn.send_stream(id).finish().is_ok();
        }
    }

    pub(super) fn reset(&mut self, id: StreamId, code: u32) {
        if let (Some((_, conn)), Some(log)) = (&mut self.conn, self.logs.get_mut(&id)) {
            log.broken |= conn.send_stream(id).reset(VarInt::from_u32(code)).is_ok();
        }
    }

    pub(super) fn stop(&mut self, id: StreamId, code: u32) {
        if let (Some((_, conn)), Some(log)) = (&mut self.conn, self.logs.get_mut(&id)) {
            log.broken |= conn.recv_stream(id).stop(VarInt::from_u32(code)).is_ok();
        }
    }

    /// Reads all that has come on a stream.
    pub(super) fn read(&mut self, id: StreamId) {
        let (Some((_, conn)), Some(log)) = (&mut self.conn, self.logs.get_mut(&id)) else {
            return;
        };
        let mut recv = conn.recv_stream(id);
        let Ok(mut chunks) = recv.read(true) else {
            return;
        };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => log.got.extend_from_slice(&chunk.bytes),
                Ok(None) => {
                    log.got_end = true;
                    break;
                }
                Err(ReadError::Reset(_) | ReadError::Blocked) => break,
            }
        }
        let _transmit = chunks.finalize();
    }

    /// Bytes read so far on all streams.
    pub(super) fn received(&self) -> usize {
        self.logs.values().map(|log| log.got.len()).sum()
    }

    pub(super) fn close(&mut self, now: Instant, reason: &[u8]) {
        if let Some((_, conn)) = &mut self.conn {
            self.has_closed |= !conn.is_closed();
            conn.close(now, VarInt::from_u32(7), Bytes::copy_from_slice(reason));
        }
    }

    pub(super) fn deadline(&mut self) -> Option<Instant> {
        self.conn.as_mut()?.1.poll_timeout()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if let Some((_, conn)) = &mut self.conn {
            conn.handle_timeout(now);
        }
    }

    pub(super) fn receive(&mut self, now: Instant, src: SocketAddr, data: BytesMut) {
        let mut reply = Vec::new();
        match self.endpoint.handle(now, src, None, None, data, &mut reply) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some((known, conn)) = &mut self.conn
                    && *known == handle
                {
                    conn.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.conn = self.endpoint.accept(incoming, now, &mut reply, None).ok();
            }
            // A stateless answer helps nobody here: both sides keep their state.
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    /// Gives the datagrams that are ready.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<BytesMut> {
        let mut datagrams = Vec::new();
        let Some((handle, conn)) = &mut self.conn else {
            return datagrams;
        };
        while let Some(event) = conn.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                conn.handle_event(event);
            }
        }
        while let Some(event) = conn.poll() {
            match event {
                Event::Connected => self.is_connected = true,
                Event::ConnectionLost { reason } => self.lost = Some(reason),
                Event::HandshakeDataReady
                | Event::Stream(_)
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => {}
            }
        }
        let mut datagram = Vec::new();
        while conn.poll_transmit(now, 1, &mut datagram).is_some() {
            datagrams.push(datagram.as_slice().into());
            datagram.clear();
        }
        datagrams
    }
}

fn transport(credit: &Credit) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .receive_window(VarInt::from_u32(credit.window))
        .max_concurrent_bidi_streams(VarInt::from_u32(credit.streams));
    transport
}

fn chain(cert: &[u8]) -> Vec<CertificateDer<'static>> {
    vec![cert.to_vec().into()]
}

fn key(pkcs8: &[u8]) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(pkcs8.to_vec()).into()
}

#[derive(Debug)]
struct Noon;

impl TimeProvider for Noon {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOON_UNIX_S)))
    }
}

/// Ids without chance.
#[derive(Debug)]
struct Counting(u64);

impl ConnectionIdGenerator for Counting {
    fn generate_cid(&mut self) -> ConnectionId {
        self.0 += 1;
        ConnectionId::new(&self.0.to_be_bytes())
    }

    fn cid_len(&self) -> usize {
        size_of::<u64>()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Nothing is secret here.
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

const ALPN: &[u8] = b"gw-agent-tunnel/1";
