//! What the node is told, by users, administration and connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use adit_proto_core::{
    connection::Counters,
    gateway::{
        OpenError,
        dispatch::{AgentEvent, DispatchConfig},
        info::{AgentInfo, Explanation},
    },
    id::{AgentId, ConnId, SessionId, Slot},
    peer::{NodeId, catalogue::Holding, forward::Forward},
    session_timer::SessionBounds,
    target::Target,
};
use futures_channel::oneshot;

use super::{
    carriage::PeerCarriage,
    counters::NodeSnapshot,
    handle::{OpenRequest, PendingSession, SessionRow},
    role::GatewayCommand,
};
use crate::{
    commands::Commands, glance::Glance, over::Over, peers::PeerCommand, pump::Traffic,
    splice::Spliced,
};

/// Where a session runs.
pub type Place = (ConnId, Slot);

/// What the node is told.
#[derive(Debug)]
pub enum NodeInput {
    /// A user wants a session. The number is for giving it up.
    Open {
        /// Drawn by whoever asks.
        number: u64,
        /// What is wanted.
        request: OpenRequest,
        /// The way for the answer.
        reply: oneshot::Sender<Result<PendingSession, OpenError>>,
    },
    /// The user of that wish went away.
    GiveUp(u64),
    /// Something happened on a connection.
    Connection(ConnId, FromConnection),
    /// A handshake came to nothing.
    HandshakeFailed {
        /// Whose.
        remote: SocketAddr,
        /// For the log.
        why: String,
    },
    /// The agent of a connection that ended sent what the protocol has no use for.
    Oddities(Counters),
    /// A direct dial ended.
    Dialled(SessionId, Result<TcpStream, String>),
    /// Both sockets of a session that the gateway carries itself.
    Splice(SessionId, Spliced),
    /// A session that was not a connection's is over, or one whose socket was never attached.
    SessionOver {
        /// Which.
        session: SessionId,
        /// What it has carried.
        traffic: Traffic,
        /// How it ended.
        how: Over,
    },
    /// List the connections of agents.
    Agents(oneshot::Sender<Vec<AgentInfo>>),
    /// List the connections of one agent.
    Agent(AgentId, oneshot::Sender<Vec<AgentInfo>>),
    /// The open sessions, and where on a connection each runs.
    Sessions(oneshot::Sender<Vec<(SessionRow, Option<Place>)>>),
    /// Pass a look on to these connections; those that are gone answer nothing.
    Look(
        BTreeSet<ConnId>,
        oneshot::Sender<BTreeMap<ConnId, oneshot::Receiver<Glance>>>,
    ),
    /// What has been counted?
    Counters(oneshot::Sender<NodeSnapshot>),
    /// Is a session open or being opened?
    IsBusy(oneshot::Sender<bool>),
    /// How would a target be routed?
    Explain {
        /// The target.
        target: Target,
        /// The agent that is asked for, if one is.
        agent: Option<AgentId>,
        /// The way for the answer.
        reply: oneshot::Sender<Explanation>,
    },
    /// Is an agent connected?
    IsConnected {
        /// Which.
        agent: AgentId,
        /// The way for the answer.
        reply: oneshot::Sender<bool>,
    },
    /// Say whether an agent gets new sessions by routing.
    Drain {
        /// Which.
        agent: AgentId,
        /// It gets none.
        drained: bool,
        /// Told when that is so.
        reply: oneshot::Sender<()>,
    },
    /// End an open session; tell whether there was one.
    Kill {
        /// Which.
        session: SessionId,
        /// The way for the answer.
        reply: oneshot::Sender<bool>,
    },
    /// Close the connections of an agent that may not connect any more; tell how many there were.
    Disconnect {
        /// Which.
        agent: AgentId,
        /// The way for the answer.
        reply: oneshot::Sender<usize>,
    },
    /// Go by other settings from now on.
    Configure(NodeSettings, oneshot::Sender<()>),
    /// Of connections to other gateways.
    Peers(FromPeers),
    /// Close every connection once all has reached its agent, and cut what the gateway carries itself; told when nothing
    /// is left.
    Farewell(oneshot::Sender<()>),
    /// Close everything, and end when nothing is left.
    Stop,
}

/// What connections to other gateways ask and tell.
pub enum FromPeers {
    /// Call this whenever what the gateway holds may be another set than before.
    Watch(Box<dyn Fn() + Send>),
    /// Tell what the gateway holds.
    Collect(Box<dyn FnOnce(Holding) + Send>),
    /// A peer holds this, in the place of what it held.
    Holds {
        /// Which.
        peer: NodeId,
        /// What; nothing where it is gone.
        holding: Arc<Holding>,
        /// Called once that is so.
        taken: Box<dyn FnOnce() + Send>,
    },
    /// Sessions may be forwarded on this connection; what happens on it is told as of an agent's.
    Connected(ConnId, PeerCarriage),
    /// A peer hands a session over.
    Forwarded(Forwarded),
    /// A session that a peer handed over, and that is not open yet, has ended there.
    GivenUp(Place),
}

/// A session that a peer hands over.
#[derive(Debug)]
pub struct Forwarded {
    /// Where it is.
    pub place: Place,
    /// What the peer says of it.
    pub forward: Box<Forward>,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The way for the answer.
    pub commands: Commands<PeerCommand>,
}

impl fmt::Debug for FromPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromPeers")
    }
}

/// What the node goes by, and may be told anew.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Direct dialling and bounds.
    pub dispatch: DispatchConfig,
    /// How long sessions may be idle, and last.
    pub sessions: SessionBounds,
}

/// What a connection tells the node.
#[derive(Debug)]
pub enum FromConnection {
    /// It is established; the way to its task.
    Up(Commands<GatewayCommand>),
    /// What the dispatcher needs to know.
    Event(AgentEvent),
    /// It is about to end, and these sessions only have to tell their users the rest.
    Flushing(BTreeSet<Slot>),
    /// A session whose socket was attached is over.
    SessionOver {
        /// Which.
        slot: Slot,
        /// What it has carried.
        traffic: Traffic,
        /// How it ended.
        how: Over,
    },
}
