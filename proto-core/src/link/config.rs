//! The QUIC engine's settings, with every hook for determinism filled in (style 6.1).

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{hkdf, hmac};
use quinn_proto::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    ServerConfig, TimeSource, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use super::{
    cids::SeededCids,
    congestion::AckCounterFactory,
    peer_tls::PeerSecurity,
    reach::{PAYLOAD_MAX, Reach},
    tls::{self, AgentTls, GatewayTls, TlsError},
};
use crate::{
    env::{Env, WallClock},
    limits,
    peer::config::PeerTransport,
};

pub(crate) fn endpoint(env: &Env) -> EndpointConfig {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, env.secrets.reset_key.as_slice());
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    let cids = SeededCids::new(env.seed.derive("cid"));
    #[expect(
        clippy::expect_used,
        reason = "the engine takes 1,200 to 65,527, and this is the latter"
    )]
    config
        .max_udp_payload_size(PAYLOAD_MAX)
        .expect("a payload size that QUIC can name")
        .rng_seed(Some(env.seed.derive_bytes("quinn")))
        .cid_generator(move || Box::new(cids.clone()))
        // Behind our own allowance per source (design 8.5).
        .min_reset_interval(Duration::from_micros(100));
    config
}

pub(crate) fn server(tls: &GatewayTls, env: &Env) -> Result<ServerConfig, TlsError> {
    let transport = transport(
        limits::STREAMS_FROM_AGENT_MAX,
        Reach::Internet,
        window(limits::UNREAD_BUDGET),
    );
    serving(tls::server_config(tls, env)?, transport, env)
}

/// Of the endpoint between peers.
pub(crate) fn peer_server(
    security: &PeerSecurity,
    settings: &PeerTransport,
    env: &Env,
) -> Result<ServerConfig, TlsError> {
    let transport = peer_transport(settings, Reach::Internet);
    serving(security.server(env)?, transport, env)
}

fn serving(
    tls: rustls::ServerConfig,
    transport: TransportConfig,
    env: &Env,
) -> Result<ServerConfig, TlsError> {
    let quic = QuicServerConfig::try_from(tls).map_err(|e| TlsError::Unusable(e.to_string()))?;
    let token_key =
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(env.secrets.token_key.as_slice());
    let mut config = ServerConfig::new(Arc::new(quic), Arc::new(token_key));
    config
        .transport_config(Arc::new(transport))
        .time_source(Arc::new(TokenDates(Arc::clone(&env.wall_clock))))
        .max_incoming(limits::HANDSHAKES_MAX)
        .incoming_buffer_size(limits::HANDSHAKE_BUFFER_MAX)
        .incoming_buffer_size_total(limits::HANDSHAKE_BUFFERS_MAX);
    config.validation_token.sent(0);
    Ok(config)
}

/// The same for a client at this address, with this window for the connection.
pub(crate) fn server_for(server: &ServerConfig, client: IpAddr, window: u64) -> ServerConfig {
    let mut config = server.clone();
    let transport = transport(limits::STREAMS_FROM_AGENT_MAX, Reach::of(client), window);
    config.transport_config(Arc::new(transport));
    config
}

/// That of peers for a client at this address.
pub(crate) fn peer_server_for(
    server: &ServerConfig,
    client: IpAddr,
    settings: &PeerTransport,
) -> ServerConfig {
    let mut config = server.clone();
    let transport = peer_transport(settings, Reach::of(client));
    config.transport_config(Arc::new(transport));
    config
}

/// Of one connection to a peer, see [`client`].
pub(crate) fn peer_client(
    security: &PeerSecurity,
    alpn: &[u8],
    peer: IpAddr,
    settings: &PeerTransport,
    env: &Env,
) -> Result<ClientConfig, TlsError> {
    let quic = QuicClientConfig::try_from(security.client(alpn, env)?)
        .map_err(|e| TlsError::Unusable(e.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(quic));
    let transport = peer_transport(settings, Reach::of(peer));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The first destination id is fixed by the caller, since the engine's hook is a plain `Fn` and the core holds no
/// interior mutability: so one value serves one connection.
pub(crate) fn client(
    tls: &AgentTls,
    gateway: IpAddr,
    window: u64,
    env: &Env,
) -> Result<ClientConfig, TlsError> {
    let quic = QuicClientConfig::try_from(tls::client_config(tls, env)?)
        .map_err(|e| TlsError::Unusable(e.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(quic));
    let reach = Reach::of(gateway);
    let transport = transport(limits::SESSIONS_PER_AGENT_FIRST, reach, window);
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Window of a connection of which so many bytes may be held by readers that do not keep up.
pub(crate) fn window(unread: u64) -> u64 {
    // The engine withholds up to an eighth until more has been read.
    (limits::READERS_WINDOW + unread + limits::CONTROL_LEN_MAX as u64) / 7 * 8
}

fn transport(bidi_streams_from_peer: u32, reach: Reach, window: u64) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(reach.payload_bound());
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(limits::ACK_AFTER));
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(bidi_streams_from_peer))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(
            limits::IDLE_TIMEOUT_MS,
        ))))
        .stream_receive_window(VarInt::from_u32(limits::STREAM_WINDOW))
        .receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX))
        .send_window(limits::SEND_WINDOW)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(AckCounterFactory::default()));
    config
}

/// What both protocols have in common, with the peers' own settings (peer-rpc 1.1).
fn peer_transport(settings: &PeerTransport, reach: Reach) -> TransportConfig {
    let mut config = transport(settings.bidi_streams, reach, settings.receive_window.into());
    let idle_ms = u32::try_from(settings.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
        .keep_alive_interval(Some(settings.keep_alive))
        .initial_rtt(settings.initial_rtt)
        .stream_receive_window(VarInt::from_u32(settings.stream_receive_window))
        .send_window(settings.send_window);
    config
}

/// Dates in address-validation tokens come from the injected wall clock.
struct TokenDates(Arc<dyn WallClock>);

impl TimeSource for TokenDates {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.unix_ms())
    }
}
