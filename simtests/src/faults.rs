//! What the script of a run does to nodes, paths and programs, and what it asks of them.

use std::sync::Arc;

use adit_proto_core::{
    endpoint::EndpointLimits, gateway::dispatch::DispatchConfig, id::AgentId, link::tls::AgentTls,
    route::RouteSet, target::Target,
};

use crate::{At, facts::NodeId, net::Path, tcp::Script};

/// One action of the script.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The process ends without a word; its memory and its TCP connections are gone.
    Crash(NodeId),
    /// The process ends without a word, and the machine comes back with the disk of its beginning.
    Restore(NodeId),
    /// The process closes its connections, as on a signal, and is gone.
    Stop(NodeId),
    /// The process starts with what it had made durable. Does nothing where it runs.
    Start(NodeId),
    /// The process stands still; its socket goes on to receive until its buffer is full.
    Freeze(NodeId),
    /// The process goes on.
    Thaw(NodeId),
    /// Datagrams from one node to another vanish.
    Cut(NodeId, NodeId),
    /// They arrive again.
    Mend(NodeId, NodeId),
    /// UDP from and to a node vanishes.
    BlockUdp(NodeId),
    /// It arrives again.
    UnblockUdp(NodeId),
    /// The NAT before a node forgets its mappings.
    Rebind(NodeId),
    /// The path from one node to another changes.
    SetPath(NodeId, NodeId, Box<Path>),
    /// A node's wall clock is set by so many milliseconds.
    WallClock(NodeId, i64),
    /// A node's socket takes nothing for a while.
    BlockSocket(NodeId, At),
    /// An agent advertises something else. A gateway knows of it in this time, as nothing is in its way but sessions.
    SetRoutes(NodeId, Arc<RouteSet>, Option<At>),
    /// An agent's machine has new addresses: its socket is exchanged, and its supervisor told.
    ChangeNetwork(NodeId),
    /// An agent has enrolled again, with a key of this hash: its next process shows that.
    NewKey(NodeId, Arc<AgentTls>, [u8; 32]),
    /// An operator asks something of a gateway; one that stands still does it later, one that does not run never.
    Order(NodeId, Order),
    /// A user comes to a gateway.
    Open(Box<Wish>),
}

/// What an operator asks of a gateway.
#[derive(Clone, Debug)]
pub enum Order {
    /// An agent is deleted.
    Delete(AgentId),
    /// An agent is enrolled with a key of this hash.
    Enroll(AgentId, [u8; 32]),
    /// An agent gets no new sessions by routing, or gets them again. A process that starts knows nothing of that.
    Drain(AgentId, bool),
    /// Other bounds.
    Configure(Box<(EndpointLimits, DispatchConfig)>),
    /// The server certificate is exchanged; its key stays.
    Certificate,
}

/// A user and what it wants.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The gateway.
    pub gateway: NodeId,
    /// Where it wants to go.
    pub target: Target,
    /// The agent that it asks for by id.
    pub pinned: Option<AgentId>,
    /// What its program does once the session is open.
    pub user: Script,
    /// What the target's program does.
    pub target_script: Script,
    /// It completes in this time, as nothing is in its way but other sessions.
    pub promise: Option<At>,
    /// It goes away where the session is not open by then.
    pub patience: Option<At>,
}
