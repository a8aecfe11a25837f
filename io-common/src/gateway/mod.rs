//! The gateway, all but its sockets: one node that decides where sessions go, and the role of each agent's connection.

mod agent_lines;
mod carriage;
mod counters;
mod handle;
mod input;
mod node;
mod role;

use std::{fmt, io, net::SocketAddr, sync::Arc};

use adit_proto_core::{
    endpoint::{Endpoint, EndpointLimits},
    gateway::dispatch::DispatchConfig,
    id::AgentId,
    identity::AgentIdentity,
    journal::Journal,
    link::tls::{GatewayTls, TlsError},
    output::Renewed,
    session_timer::SessionBounds,
};
use futures_channel::oneshot;

pub use self::{
    agent_lines::AgentLines,
    carriage::{Carriage, Ended, PeerCarriage},
    counters::{
        Bytes, EndpointSnapshot, GatewayCounters, NodeCounters, NodeSnapshot, SessionEnding,
    },
    handle::{GatewayHandle, OpenRequest, PendingSession, SessionRow, SetTlsError, Stopped},
    input::{Forwarded, FromConnection, FromPeers, NodeInput, NodeSettings, Place},
    node::{Node, NodeHost},
    role::{AgentConnection, GatewayCommand, Shared},
};

/// Takes the answer to a wish for a new certificate; one that comes too late is of no use and does no harm.
pub type AnswerRenewal = Box<dyn FnOnce(Result<Renewed, String>) + Send>;

/// Takes an agent's wish for a new certificate: its proven identity, its signing request in PEM, and the way for the
/// answer. May not block.
pub type Renew = Arc<dyn Fn(AgentIdentity, String, AnswerRenewal) + Send + Sync>;

/// Notes that an agent has connected with what it was issued last: a renewed key becomes its only one, and the string of an
/// enrolment is good no more.
pub type Confirm = Arc<dyn Fn(&AgentIdentity) + Send + Sync>;

/// What a gateway asks of whoever keeps its certificates and agents.
#[derive(Clone)]
pub struct Hooks {
    /// Signs renewals.
    pub renew: Renew,
    /// Tells whether an agent shows what it was issued last, by an enrolment or a renewal, and that has not been confirmed
    /// yet; may not block.
    pub is_renewed: Arc<dyn Fn(&AgentIdentity) -> bool + Send + Sync>,
    /// Told of an agent that is registered with such a key or certificate: what it had before counts no more. May not
    /// block.
    pub confirm: Confirm,
    /// Told of an agent whose connection ended; it may have another one. May not block.
    pub left: Arc<dyn Fn(&AgentIdentity) + Send + Sync>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

/// What a gateway is started with.
pub struct GatewayConfig {
    /// UDP address of the tunnel.
    pub listen: SocketAddr,
    /// Certificates, keys, admission.
    pub tls: GatewayTls,
    /// Bounds of the endpoint.
    pub limits: EndpointLimits,
    /// Direct dialling and bounds of sessions.
    pub dispatch: DispatchConfig,
    /// Bounds on the time of a session.
    pub sessions: SessionBounds,
    /// Agents that get no new sessions by routing from the start on.
    pub drained: Vec<AgentId>,
    /// Certificates and agents.
    pub hooks: Hooks,
    /// Where what happens is taken down; none for nowhere.
    pub journal: Option<Journal>,
    /// Threads, at least 1; the caller's is the first. A driver that has one thread takes no more.
    pub threads: usize,
}

impl fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayConfig")
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Why a gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// The UDP socket or a thread.
    Io(io::Error),
    /// Certificates or keys.
    Tls(TlsError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// Messages that wait for the node. Each producer's own are bounded: by its sessions and opens.
pub const NODE_LEN: usize = 1 << 22;
/// Orders to the endpoint that wait; each has a person or a timer behind it.
pub const ORDERS_LEN: usize = 1 << 10;

/// What administration asks of the endpoint.
#[derive(Debug)]
pub enum EndpointOrder {
    /// What has been counted, how full is it, and datagrams dropped because a connection's inbox was full?
    Counters(oneshot::Sender<EndpointSnapshot>),
    /// Exchange certificates or limits.
    Change(EndpointChange),
    /// The process stops: end when the last connection has said its farewell.
    Stop,
}

/// A change of the endpoint, made between two datagrams.
pub struct EndpointChange(Box<dyn FnOnce(&mut Endpoint) + Send>);

impl EndpointChange {
    /// Makes it.
    pub fn make(self, endpoint: &mut Endpoint) {
        (self.0)(endpoint);
    }
}

impl fmt::Debug for EndpointChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointChange")
    }
}
