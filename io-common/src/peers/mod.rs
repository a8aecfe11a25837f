//! Connections between gateways, all but their socket: one owner of the pool, and the role of each connection.
//!
//! ```text
//! PeersHandle --call--> PeersCore (peer::node::Node) --command--> PeerConnection --> Connection
//!      ^                    |    ^-------------events--------------|
//!      '------outcome-------'                                      '--request--> Requests, answered by a Responder
//! ```

#[cfg(test)]
mod bed;
mod core;
mod forward;
mod handle;
mod links;
mod request;
mod role;
mod shares;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use adit_proto_core::{
    connection::CallRefused,
    endpoint::EndpointLimits,
    id::{CallId, ConnId},
    link::peer_tls::PeerSecurity,
    output::Event,
    peer::{
        NodeId, breaker::BreakerSettings, catalogue::Holding, config::PeerConfig, node::CallError,
        node::DialId, rpc_type::RpcType,
    },
    target::Target,
};
use bytes::Bytes;
use futures_channel::oneshot;

pub use self::{
    core::{PeersCore, PeersHost},
    handle::{Calls, PeerRow, PeersHandle, SetSecurityError},
    links::{LinkNotice, NOTICES_LEN, PeerLinks},
    request::{Request, Requests, Responder, requests},
    role::{PeerCommand, PeerConnection, PeerParts},
};
use crate::{gateway::GatewayHandle, glance::Glance};

/// What the peers of a gateway are started with.
#[derive(Debug)]
pub struct PeersConfig {
    /// UDP address for peers, which is not that of the tunnel (design 8.14).
    pub listen: SocketAddr,
    /// Certificates, and by what other nodes are known.
    pub security: PeerSecurity,
    /// Versions, extensions, QUIC, and what all connections share: keys, numbers, counters.
    pub config: PeerConfig,
    /// Bounds of the endpoint.
    pub limits: EndpointLimits,
    /// When a node is called no more for a while.
    pub breaker: BreakerSettings,
    /// The other nodes, and where each is dialled.
    pub peers: Vec<(NodeId, Target)>,
    /// Whether gateways tell each other what they hold.
    pub catalogue: Option<CatalogueConfig>,
    /// With whom sessions go over replica links; none where with nobody.
    pub links: Option<PeerLinks>,
}

/// For whom the catalogue is kept: peers are told what the gateway holds, and the gateway what peers hold. All peers are
/// dialled then without being called.
pub struct CatalogueConfig {
    /// This node.
    pub local: NodeId,
    /// Counts the starts of this node, and is durable (peer-rpc 7.3).
    pub epoch: u64,
    /// What is done where a peer knows of a later start of this node.
    pub lost_epoch: LostEpoch,
    /// Where the agents are.
    pub gateway: GatewayHandle,
}

impl fmt::Debug for CatalogueConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogueConfig")
            .field("local", &self.local)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Takes the latest start of this node that a peer knows of, and the way for a count above it that is durable, or for why
/// there is none. May not block; one wish is under way at a time. How far peers may lift the count is for this to bound.
pub type LostEpoch = Box<dyn Fn(u64, Box<dyn FnOnce(Result<u64, String>) + Send>) + Send>;

/// What the one owner is told, by callers, administration and connections.
pub enum PeersInput {
    /// Somebody calls. The number is for giving it up.
    Call {
        /// Drawn by whoever calls.
        number: u64,
        /// Who is called.
        node: NodeId,
        /// What is asked.
        kind: RpcType,
        /// The body.
        payload: Bytes,
        /// The way for the answer.
        reply: oneshot::Sender<Result<Bytes, CallError>>,
    },
    /// Whoever made that call waits no more.
    GiveUp(u64),
    /// Dial a node that has no connection.
    Warm(NodeId),
    /// Know these nodes and no other.
    SetPeers(Vec<(NodeId, Target)>, oneshot::Sender<()>),
    /// Sessions go over replica links with these nodes and no other.
    SetLinks(BTreeSet<NodeId>),
    /// Show, and go by, other certificates.
    SetSecurity(
        Box<PeerSecurity>,
        oneshot::Sender<Result<(), SetSecurityError>>,
    ),
    /// Say what is known of the nodes.
    List(oneshot::Sender<Vec<(PeerRow, Option<oneshot::Receiver<Glance>>)>>),
    /// A connection says something.
    Event(ConnId, Event),
    /// A connection ends before its time, and cannot tell which of its calls were written.
    Abandoned(ConnId),
    /// A connection did not take a call.
    Refused(ConnId, CallId, CallRefused),
    /// The first request on a connection that a peer dialled says who is there.
    Caller(ConnId, NodeId),
    /// A peer says what it holds.
    Told(Request),
    /// The gateway has taken what a peer holds.
    Taken(NodeId),
    /// What the gateway holds may be another set than before.
    HoldingChanged,
    /// What the gateway holds.
    Holding(Holding),
    /// The count of this node's starts is so high from here on, or could not be lifted, after that peer knew of a later
    /// start.
    EpochLifted(NodeId, Result<u64, String>),
    /// A name was looked up.
    Resolved(DialId, Vec<IpAddr>),
    /// Calls and requests under way have so long; then end.
    Stop(Duration),
}

impl fmt::Debug for PeersInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeersInput")
    }
}

/// Inputs that wait. Callers' are bounded by [`CALLS_MAX`], those of a connection by the calls on it.
pub const INPUTS_LEN: usize = 1 << 20;
/// Calls of a process that are under way; a further one is refused.
pub const CALLS_MAX: usize = 1 << 16;
/// Requests of all peers that wait for the application; a further one is refused as overload.
pub const REQUESTS_LEN: usize = 4_096;
/// Those of one node that wait, or are with the application, whatever connections they came on; a further one is refused.
pub const REQUESTS_PER_NODE: usize = REQUESTS_LEN / 4;
