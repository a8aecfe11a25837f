//! One UDP socket's worth of connections: datagrams in, connections and stateless answers out.

mod admission;
mod counters;
mod peer;
mod resets;
mod unread;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::BytesMut;
use quinn_proto::{ConnectionHandle, DatagramEvent, EcnCodepoint, Incoming, ServerConfig};

pub use self::admission::EndpointLimits;
pub use self::counters::{EndpointCounters, EndpointLoad, HandshakesRefused, UnreadHeld};
pub use self::peer::Protocol;
pub(crate) use self::unread::Held;
use self::{
    admission::{Admission, Client, Verdict},
    peer::Peer,
    resets::ResetAllowance,
    unread::Unread,
};
use crate::{
    agent::{
        advertise::AdvertiserConfig,
        role::{AgentRole, RoutesError},
    },
    connection::Connection,
    env::{Env, WallClock},
    id::ConnId,
    journal::{Begin, Journal},
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
    admission: Admission,
    resets: ResetAllowance,
    unread: Unread,
    counters: EndpointCounters,
    journal: Option<Journal>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    id: ConnId,
    /// Who began it, while its handshake is in progress.
    handshaking: Option<Client>,
}

/// From here on connections between gateways are numbered: a gateway's `Dispatch` knows those of both its endpoints.
const PEER_IDS_FROM: u64 = 1 << 40;

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
            admission: Admission::default(),
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
            handshakes: self.admission.handshakes(),
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
        let is_proven = incoming.remote_address_validated();
        let client = Client::of(incoming.remote_address().ip(), is_proven);
        let may_retry = incoming.may_retry();
        match (self.admission).verdict(client, may_retry, self.live, &self.limits) {
            Verdict::Begin => self.begin(now, client, incoming, reply),
            Verdict::Retry => {
                self.counters.retried += 1;
                match self.quic.retry(incoming, reply) {
                    Ok(retry) => Routed::Reply(transmit(retry)),
                    Err(_) => self.dropped(),
                }
            }
            Verdict::Refuse(limit) => {
                self.counters.refused.count(limit);
                Routed::Reply(transmit(self.quic.refuse(incoming, reply)))
            }
        }
    }

    /// Begins the handshake of a client for which there is a place.
    fn begin(
        &mut self,
        now: Instant,
        client: Client,
        incoming: Incoming,
        reply: &mut Vec<u8>,
    ) -> Routed {
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
                self.admission.begun(client);
                let id = self.know(handle, Some(client));
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

    fn know(&mut self, handle: ConnectionHandle, handshaking: Option<Client>) -> ConnId {
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
        if let Some(client) = known.and_then(|known| known.handshaking.take()) {
            self.admission.over(client);
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
