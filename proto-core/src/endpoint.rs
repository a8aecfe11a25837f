//! One UDP socket's worth of connections: datagrams in, connections and stateless answers out.

mod counters;
mod peer;
mod resets;
mod unread;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::BytesMut;
use quinn_proto::{ConnectionHandle, DatagramEvent, EcnCodepoint, Incoming, ServerConfig};

pub use self::counters::{EndpointCounters, EndpointLoad, HandshakesRefused, UnreadHeld};
pub use self::peer::Protocol;
pub(crate) use self::unread::Held;
use self::{peer::Peer, resets::ResetAllowance, unread::Unread};
use crate::{
    agent::{
        advertise::AdvertiserConfig,
        role::{AgentRole, RoutesError},
    },
    connection::Connection,
    env::{Env, WallClock},
    id::ConnId,
    journal::{Begin, Journal},
    limits,
    link::{
        FromConnection, FromEndpoint, Link, Shape,
        cids::random_cid,
        config,
        tls::{AgentTls, GatewayTls, TlsError},
        transmit,
    },
    output::{PathMeta, Routed, ToConnection, ToEndpoint},
    route::RouteSet,
};

/// Routes datagrams to connections, makes connections, and answers what needs no state. One per UDP socket.
pub struct Endpoint {
    quic: quinn_proto::Endpoint,
    /// A gateway's, or a peer's.
    server: Option<Arc<ServerConfig>>,
    /// Of an endpoint between peers.
    peer: Option<Peer>,
    wall_clock: Arc<dyn WallClock>,
    /// First destination ids of connections that this side makes.
    dcids: rand_chacha::ChaCha12Rng,
    limits: EndpointLimits,
    next_id: u64,
    live: usize,
    /// By the engine's handle, which is a slab index.
    connections: Vec<Option<Known>>,
    handshakes: usize,
    sources: BTreeMap<Source, Pending>,
    resets: ResetAllowance,
    unread: Unread,
    counters: EndpointCounters,
    journal: Option<Journal>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    id: ConnId,
    /// Where it comes from and whether that was proved, while its handshake is in progress.
    handshaking: Option<(Source, Proof)>,
}

/// From here on connections between gateways are numbered: a gateway's `Dispatch` knows those of both its endpoints.
const PEER_IDS_FROM: u64 = 1 << 40;

/// What handshakes are counted by: an IPv4 address, or the /64 of an IPv6 one, all of which one host may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source(IpAddr);

impl Source {
    fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        })
    }
}

/// Whether a client has shown that it receives what is sent to its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Proven,
    Unproven,
}

/// A limit of [`EndpointLimits`] that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Connections,
    Handshakes,
    Source,
}

/// Handshakes in progress from one source. They are counted apart, as anybody can begin unproven ones in another's
/// name: those never refuse a client that proved its address.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    proven: usize,
    unproven: usize,
}

impl Pending {
    fn of(&mut self, proof: Proof) -> &mut usize {
        match proof {
            Proof::Proven => &mut self.proven,
            Proof::Unproven => &mut self.unproven,
        }
    }

    fn all(self) -> usize {
        self.proven + self.unproven
    }
}

/// Bounds of an endpoint that may be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointLimits {
    /// Connections whose handshake has succeeded; from there on none is begun. Handshakes in progress are bounded apart, so
    /// that who has no certificate takes no place of those who have: agents that come in one instant may exceed it by
    /// those.
    pub connections: usize,
    /// Handshakes in progress in all, those that have failed included until their farewell is over; a further one is
    /// refused.
    pub handshakes: usize,
    /// Handshakes in progress above which a client must first prove its address.
    pub handshakes_retry: usize,
    /// Handshakes in progress from one source, an IPv4 address or an IPv6 /64, that has proved its address; a further
    /// one is refused.
    pub handshakes_per_source: usize,
    /// Bytes that may wait for readers that do not keep up, for each connection; sessions of more than a share are ended
    /// above it. [`limits::UNREAD_BUDGET_MIN`] to [`limits::UNREAD_BUDGET_MAX`]; it counts for connections to come.
    pub unread: u64,
    /// Bytes that may wait on all connections together for readers that have stopped; sessions of the connection that
    /// holds most are ended above it. It counts at once.
    pub unread_in_all: u64,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self {
            connections: limits::AGENTS_MAX,
            handshakes: limits::HANDSHAKES_MAX,
            handshakes_retry: limits::HANDSHAKES_RETRY,
            handshakes_per_source: limits::HANDSHAKES_PER_SOURCE_MAX,
            unread: limits::UNREAD_BUDGET,
            unread_in_all: limits::UNREAD_IN_ALL,
        }
    }
}

/// What an agent needs to make a connection.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Certificates, keys, pin.
    pub tls: Arc<AgentTls>,
    /// What is advertised.
    pub routes: Arc<RouteSet>,
    /// Intervals of control messages.
    pub intervals: AdvertiserConfig,
}

/// Why no connection could be made; the caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A certificate or key is unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The routes or intervals are not usable.
    #[error(transparent)]
    Routes(#[from] RoutesError),
    /// The server name or the address is not usable.
    #[error("cannot connect there: {0}")]
    Target(String),
}

impl Endpoint {
    /// Makes the endpoint of a gateway.
    ///
    /// # Errors
    /// [`TlsError`] when a certificate, key or root is unusable.
    pub fn gateway(
        tls: &GatewayTls,
        endpoint_limits: EndpointLimits,
        env: &Env,
    ) -> Result<Self, TlsError> {
        let server = config::server(tls, env)?;
        Ok(Self::new(Some(server), None, endpoint_limits, env))
    }

    /// Makes the endpoint of an agent.
    #[must_use]
    pub fn agent(env: &Env) -> Self {
        Self::new(None, None, EndpointLimits::default(), env)
    }

    fn new(
        server: Option<ServerConfig>,
        peer: Option<Peer>,
        endpoint_limits: EndpointLimits,
        env: &Env,
    ) -> Self {
        let server = server.map(Arc::new);
        let next_id = if peer.is_some() { PEER_IDS_FROM } else { 0 };
        // MTU discovery is on: the drivers' sockets forbid fragmentation.
        let quic =
            quinn_proto::Endpoint::new(Arc::new(config::endpoint(env)), server.clone(), true, None);
        Self {
            quic,
            server,
            peer,
            wall_clock: Arc::clone(&env.wall_clock),
            dcids: env.seed.derive("dcid"),
            limits: endpoint_limits,
            next_id,
            live: 0,
            connections: Vec::new(),
            handshakes: 0,
            sources: BTreeMap::new(),
            resets: ResetAllowance::default(),
            unread: Unread::default(),
            counters: EndpointCounters::default(),
            journal: None,
        }
    }

    /// Takes down from here on what happens on connections that begin.
    pub fn record_in(&mut self, journal: Journal) {
        self.journal = Some(journal);
    }

    /// Exchanges certificates, keys and roots; connections that exist keep theirs (design 8.13).
    ///
    /// # Errors
    /// [`TlsError`]; the present ones stay.
    pub fn set_server_tls(&mut self, tls: &GatewayTls, env: &Env) -> Result<(), TlsError> {
        self.server = Some(Arc::new(config::server(tls, env)?));
        self.quic.set_server_config(self.server.clone());
        Ok(())
    }

    /// Exchanges the limits; nothing that exists is closed.
    pub fn set_limits(&mut self, endpoint_limits: EndpointLimits) {
        self.limits = endpoint_limits;
    }

    /// What was done without a connection so far.
    #[must_use]
    pub fn counters(&self) -> EndpointCounters {
        self.counters
    }

    /// How full it is.
    #[must_use]
    pub fn load(&self) -> EndpointLoad {
        EndpointLoad {
            connections: self.live,
            handshakes: self.handshakes,
            unread: self.unread.held(),
            limits: self.limits,
        }
    }

    /// Begins a connection to a gateway. `server_name` is what its certificate must name (agent-tunnel 2.2).
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(
        &mut self,
        now: Instant,
        agent: &AgentConfig,
        remote: SocketAddr,
        server_name: &str,
        env: &Env,
    ) -> Result<Connection, ConnectError> {
        let role = AgentRole::new(agent.intervals, Arc::clone(&agent.routes))?;
        let window = config::window(self.limits.unread);
        let mut client = config::client(&agent.tls, remote.ip(), window, env)?;
        let dcid = random_cid(&mut self.dcids, INITIAL_DCID_LEN);
        client.initial_dst_cid_provider(Arc::new(move || dcid));
        let begun = self.quic.connect(now, client, remote, server_name);
        let (handle, quic) = begun.map_err(|e| ConnectError::Target(e.to_string()))?;
        let id = self.know(handle, None);
        let unread = self.limits.unread;
        let link = Link::new(quic, handle, Shape::tunnel(window));
        let mut conn = Connection::agent(now, id, link, role, self.wall_clock(), unread);
        self.record(now, &mut conn, || Begin::Agent {
            conn: id,
            routes: RouteSet::clone(&agent.routes),
            advertise_interval: agent.intervals.advertise_interval,
            heartbeat_interval: agent.intervals.heartbeat_interval,
            unread,
        });
        Ok(conn)
    }

    /// Takes a datagram. `reply` is cleared, and filled if the answer is [`Routed::Reply`].
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        path: PathMeta,
        data: BytesMut,
        reply: &mut Vec<u8>,
    ) -> Routed {
        reply.clear();
        let short_header = data.first().is_some_and(|first| first & 0x80 == 0);
        let ecn = path.ecn.and_then(EcnCodepoint::from_bits);
        match self
            .quic
            .handle(now, path.remote, path.local_ip, ecn, data, reply)
        {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => match self.known(handle) {
                Some(known) => {
                    Routed::Existing(known.id, ToConnection(FromEndpoint::Engine(event)))
                }
                None => self.dropped(),
            },
            Some(DatagramEvent::NewConnection(incoming)) => self.admit(now, incoming, reply),
            // An answer to a short header is a stateless reset (RFC 9000 10.3).
            Some(DatagramEvent::Response(_))
                if short_header && !self.resets.take(now, path.remote.ip()) =>
            {
                self.counters.resets_withheld += 1;
                self.dropped()
            }
            Some(DatagramEvent::Response(response)) => Routed::Reply(transmit(response)),
            None => self.dropped(),
        }
    }

    /// Takes what a connection has to say, and gives what it is to be told.
    pub fn handle_notice(&mut self, notice: ToEndpoint) -> Option<ToConnection> {
        match notice.0 {
            FromConnection::HandshakeOver { handle } => {
                self.handshake_over(handle);
                None
            }
            FromConnection::Unread { handle, held } => {
                let kept = (self.unread).report(handle.0, held, self.limits.unread_in_all);
                kept.map(|kept| ToConnection(FromEndpoint::Unread(kept)))
            }
            FromConnection::Engine { handle, event } => {
                if event.is_drained() {
                    self.handshake_over(handle);
                    if let Some(place) = self.connections.get_mut(handle.0)
                        && place.take().is_some()
                    {
                        self.live -= 1;
                        self.unread.forget(handle.0);
                    }
                }
                self.quic
                    .handle_event(handle, event)
                    .map(|event| ToConnection(FromEndpoint::Engine(event)))
            }
        }
    }

    /// Connections that exist, those saying farewell included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.live
    }

    fn admit(&mut self, now: Instant, incoming: Incoming, reply: &mut Vec<u8>) -> Routed {
        let source = Source::of(incoming.remote_address().ip());
        let pending = self.sources.get(&source).copied().unwrap_or_default();
        let proof = if incoming.remote_address_validated() {
            Proof::Proven
        } else {
            Proof::Unproven
        };
        let full = self.full(proof, pending);
        match proof {
            Proof::Proven => {}
            Proof::Unproven => {
                let retry_mark =
                    limits::HANDSHAKES_PER_SOURCE_RETRY.min(self.limits.handshakes_per_source);
                let retry = full.is_some()
                    || self.handshakes >= self.limits.handshakes_retry
                    || pending.all() >= retry_mark;
                if retry && incoming.may_retry() {
                    self.counters.retried += 1;
                    return match self.quic.retry(incoming, reply) {
                        Ok(retry) => Routed::Reply(transmit(retry)),
                        Err(_) => self.dropped(),
                    };
                }
            }
        }
        if let Some(limit) = full {
            let refused = &mut self.counters.refused;
            *match limit {
                Limit::Connections => &mut refused.connections,
                Limit::Handshakes => &mut refused.handshakes,
                Limit::Source => &mut refused.source,
            } += 1;
            return Routed::Reply(transmit(self.quic.refuse(incoming, reply)));
        }
        let window = config::window(self.limits.unread);
        let server = self.server_for(incoming.remote_address().ip(), window);
        match self.quic.accept(incoming, now, reply, server) {
            // Its first datagram ended it. The engine would keep it until its idle timeout, and as no handshake is in
            // progress nothing would count it: anybody could fill all places by one datagram for each.
            Ok((handle, quic)) if quic.is_closed() => {
                self.counters.malformed += 1;
                let gone = quinn_proto::EndpointEvent::drained();
                let _no_answer = self.quic.handle_event(handle, gone);
                self.dropped()
            }
            Ok((handle, quic)) => {
                self.counters.accepted += 1;
                self.handshakes += 1;
                *self.sources.entry(source).or_default().of(proof) += 1;
                let id = self.know(handle, Some((source, proof)));
                let conn = self.accepted(now, id, (handle, quic), window);
                Routed::New(Box::new(conn))
            }
            Err(error) => {
                self.counters.malformed += 1;
                error.response.map_or(Routed::Dropped, |response| {
                    Routed::Reply(transmit(response))
                })
            }
        }
    }

    /// The server's settings for a client at this address.
    fn server_for(&self, client: IpAddr, window: u64) -> Option<Arc<ServerConfig>> {
        let server = self.server.as_ref()?;
        Some(Arc::new(match &self.peer {
            None => config::server_for(server, client, window),
            Some(peer) => config::peer_server_for(server, client, &peer.transport()),
        }))
    }

    fn accepted(
        &self,
        now: Instant,
        id: ConnId,
        (handle, quic): (ConnectionHandle, quinn_proto::Connection),
        window: u64,
    ) -> Connection {
        if let Some(peer) = &self.peer {
            let link = Link::new(quic, handle, peer.shape());
            return peer.accepted(now, id, link, self.limits.unread);
        }
        let unread = self.limits.unread;
        let link = Link::new(quic, handle, Shape::tunnel(window));
        let mut conn = Connection::gateway(now, id, link, self.wall_clock(), unread);
        self.record(now, &mut conn, || Begin::Gateway { conn: id, unread });
        conn
    }

    fn wall_clock(&self) -> Arc<dyn WallClock> {
        Arc::clone(&self.wall_clock)
    }

    fn record(&self, now: Instant, conn: &mut Connection, begin: impl FnOnce() -> Begin) {
        if let Some(journal) = &self.journal {
            conn.record_in(now, journal, &begin());
        }
    }

    /// Tells which limit leaves no place for one handshake more.
    fn full(&self, proof: Proof, pending: Pending) -> Option<Limit> {
        let source_full = pending.proven >= self.limits.handshakes_per_source;
        if self.live - self.handshakes >= self.limits.connections {
            Some(Limit::Connections)
        } else if self.handshakes >= self.limits.handshakes {
            Some(Limit::Handshakes)
        } else {
            (proof == Proof::Proven && source_full).then_some(Limit::Source)
        }
    }

    fn know(&mut self, handle: ConnectionHandle, handshaking: Option<(Source, Proof)>) -> ConnId {
        let id = ConnId(self.next_id);
        self.next_id += 1;
        self.live += 1;
        if self.connections.len() <= handle.0 {
            self.connections.resize(handle.0 + 1, None);
        }
        if let Some(place) = self.connections.get_mut(handle.0) {
            *place = Some(Known { id, handshaking });
        }
        id
    }

    fn known(&self, handle: ConnectionHandle) -> Option<Known> {
        self.connections.get(handle.0).copied().flatten()
    }

    fn handshake_over(&mut self, handle: ConnectionHandle) {
        let known = self.connections.get_mut(handle.0).and_then(Option::as_mut);
        if let Some((source, proof)) = known.and_then(|known| known.handshaking.take()) {
            self.handshakes = self.handshakes.saturating_sub(1);
            if let Some(pending) = self.sources.get_mut(&source) {
                *pending.of(proof) -= 1;
                if pending.all() == 0 {
                    self.sources.remove(&source);
                }
            }
        }
    }

    fn dropped(&mut self) -> Routed {
        self.counters.dropped += 1;
        Routed::Dropped
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Longest that RFC 9000 allows: an observer learns nothing from it, and a server can spread load by it.
const INITIAL_DCID_LEN: usize = 20;
