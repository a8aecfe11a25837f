//! The endpoint between peers: it accepts and dials from one socket, with certificates on both sides (peer-rpc 1).

use std::{net::SocketAddr, sync::Arc, time::Instant};

use super::{ConnectError, Endpoint, EndpointLimits, INITIAL_DCID_LEN};
use crate::{
    connection::{Connection, PeerStanding},
    env::Env,
    id::ConnId,
    link::{Link, Shape, Streams, cids::random_cid, config, peer_tls::PeerSecurity, tls::TlsError},
    peer::{
        FORWARD_ALPN, NodeId, PEER_RPC_ALPN, PEER_SERVER_NAME,
        config::{PeerConfig, PeerNode, PeerTransport},
        role::PeerRole,
    },
};

/// What a connection between peers is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Calls (`nodedb-raft/1`).
    Rpc,
    /// Sessions that one gateway forwards to another (`adit-forward/1`).
    Forward,
}

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Rpc => PEER_RPC_ALPN,
            Self::Forward => FORWARD_ALPN,
        }
    }

    fn streams(self) -> Streams {
        match self {
            Self::Rpc => Streams::Calls,
            Self::Forward => Streams::Forwarded,
        }
    }
}

/// What an endpoint between peers has beyond others.
pub(super) struct Peer {
    node: Arc<PeerNode>,
    security: PeerSecurity,
}

impl Peer {
    pub(super) fn transport(&self) -> PeerTransport {
        self.node.config.transport
    }

    /// Of a connection whose protocol is not known yet.
    pub(super) fn shape(&self) -> Shape {
        self.shape_of(Protocol::Rpc)
    }

    fn shape_of(&self, protocol: Protocol) -> Shape {
        let transport = self.transport();
        Shape {
            streams: protocol.streams(),
            window: transport.receive_window.into(),
            send_window: transport.send_window,
        }
    }

    /// `unread` is what forwarded sessions that nobody reads may hold, where the protocol is that.
    pub(super) fn accepted(&self, now: Instant, id: ConnId, link: Link, unread: u64) -> Connection {
        let role = PeerRole::accepting(now, Arc::clone(&self.node));
        let clock = Arc::clone(&self.node.wall_clock);
        Connection::peer(now, id, link, role, clock, unread)
    }
}

impl Endpoint {
    /// Makes the endpoint of a node: it accepts and dials from one socket. In the insecure mode that is counted
    /// (`insecure_transport_count`), and the caller writes a warning.
    ///
    /// # Errors
    /// [`TlsError`] when a certificate, key or root is unusable, or the key ring is not of the security's kind.
    pub fn peer(
        config: &PeerConfig,
        security: &PeerSecurity,
        endpoint_limits: EndpointLimits,
        env: &Env,
    ) -> Result<Self, TlsError> {
        let server = config::peer_server(security, &config.transport, env)?;
        let node = Arc::new(security.node(config.clone(), env)?);
        if matches!(security, PeerSecurity::Insecure(_)) {
            config.ledger.count(|c| c.insecure_transports += 1);
        }
        let peer = Peer {
            node,
            security: security.clone(),
        };
        Ok(Self::new(Some(server), Some(peer), endpoint_limits, env))
    }

    /// Exchanges certificate, key, roots, revocation lists and the nodes' records. Connections that exist keep the keys
    /// that they have; each is to be told of the records ([`Connection::reconsider`]), so that a node which was taken out
    /// has no access left.
    ///
    /// # Errors
    /// [`TlsError`], also of an endpoint that is not between peers; the present ones stay.
    pub fn set_peer_security(
        &mut self,
        security: &PeerSecurity,
        env: &Env,
    ) -> Result<PeerStanding, TlsError> {
        let Some(peer) = &mut self.peer else {
            return Err(TlsError::Unusable(NO_PEERS.to_owned()));
        };
        let config = peer.node.config.clone();
        let server = config::peer_server(security, &config.transport, env)?;
        let vetting = security.vetting(env)?;
        peer.node = Arc::new(security.node(config, env)?);
        peer.security = security.clone();
        let standing = PeerStanding {
            node: Arc::clone(&peer.node),
            vetting,
        };
        self.server = Some(Arc::new(server));
        self.quic.set_server_config(self.server.clone());
        Ok(standing)
    }

    /// Begins a connection to a peer. Where the node is known its certificate is compared with the node's record right
    /// after the handshake, before a byte is sent (peer-rpc 1.4); where it is not, as when joining, the cluster's CA
    /// and key decide.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn dial_peer(
        &mut self,
        now: Instant,
        protocol: Protocol,
        node: Option<NodeId>,
        remote: SocketAddr,
        env: &Env,
    ) -> Result<Connection, ConnectError> {
        let Some(peer) = &self.peer else {
            return Err(ConnectError::Target(NO_PEERS.to_owned()));
        };
        let (alpn, transport) = (protocol.alpn(), peer.transport());
        let mut client = config::peer_client(&peer.security, alpn, remote.ip(), &transport, env)?;
        let dcid = random_cid(&mut self.dcids, INITIAL_DCID_LEN);
        client.initial_dst_cid_provider(Arc::new(move || dcid));
        let begun = self.quic.connect(now, client, remote, PEER_SERVER_NAME);
        let (handle, quic) = begun.map_err(|e| ConnectError::Target(e.to_string()))?;
        let id = self.know(handle, None);
        let Some(peer) = &self.peer else {
            return Err(ConnectError::Target(NO_PEERS.to_owned()));
        };
        let link = Link::new(quic, handle, peer.shape_of(protocol));
        let role = PeerRole::dialling(Arc::clone(&peer.node), node);
        let unread = self.limits.unread;
        let clock = self.wall_clock();
        Ok(Connection::peer(now, id, link, role, clock, unread))
    }
}

const NO_PEERS: &str = "this endpoint has no peers";
