//! What the node is told, by users, administration and connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use adit_proto_core::{
    connection::Counters,
    gateway::{
        OpenError,
        dispatch::{AgentEvent, DispatchConfig},
        info::{AgentInfo, Explanation},
    },
    id::{AgentId, ConnId, SessionId, Slot},
    session_timer::SessionBounds,
    target::Target,
};
use tokio::{net::TcpStream, sync::oneshot};

use super::{
    counters::NodeSnapshot,
    handle::{OpenRequest, PendingSession, SessionRow},
    role::GatewayCommand,
};
use crate::{connection_task::ConnectionSender, glance::Glance, over::Over, pump::Traffic};

/// Where a session runs.
pub(crate) type Place = (ConnId, Slot);

/// What the node is told.
#[derive(Debug)]
pub(crate) enum NodeInput {
    /// A user wants a session. The number is for giving it up.
    Open {
        number: u64,
        request: OpenRequest,
        reply: oneshot::Sender<Result<PendingSession, OpenError>>,
    },
    /// The user of that wish went away.
    GiveUp(u64),
    /// Something happened on a connection.
    Connection(ConnId, FromConnection),
    /// A handshake came to nothing.
    HandshakeFailed {
        remote: SocketAddr,
        why: String,
    },
    /// The agent of a connection that ended sent what the protocol has no use for.
    Oddities(Counters),
    /// A direct dial ended.
    Dialled(SessionId, Result<TcpStream, String>),
    /// A session that was not a connection's is over, or one whose socket was never attached.
    SessionOver {
        session: SessionId,
        traffic: Traffic,
        how: Over,
    },
    Agents(oneshot::Sender<Vec<AgentInfo>>),
    Agent(AgentId, oneshot::Sender<Vec<AgentInfo>>),
    /// The open sessions, and where on a connection each runs.
    Sessions(oneshot::Sender<Vec<(SessionRow, Option<Place>)>>),
    /// Pass a look on to these connections; those that are gone answer nothing.
    Look(
        BTreeSet<ConnId>,
        oneshot::Sender<BTreeMap<ConnId, oneshot::Receiver<Glance>>>,
    ),
    Counters(oneshot::Sender<NodeSnapshot>),
    /// Is a session open or being opened?
    IsBusy(oneshot::Sender<bool>),
    Explain {
        target: Target,
        agent: Option<AgentId>,
        reply: oneshot::Sender<Explanation>,
    },
    IsConnected {
        agent: AgentId,
        reply: oneshot::Sender<bool>,
    },
    /// Say whether an agent gets new sessions by routing.
    Drain {
        agent: AgentId,
        drained: bool,
        reply: oneshot::Sender<()>,
    },
    /// End an open session; tell whether there was one.
    Kill {
        session: SessionId,
        reply: oneshot::Sender<bool>,
    },
    /// Close the connections of an agent that may not connect any more; tell how many there were.
    Disconnect {
        agent: AgentId,
        reply: oneshot::Sender<usize>,
    },
    /// Go by other settings from now on.
    Configure(NodeSettings, oneshot::Sender<()>),
    /// Close every connection once all has reached its agent, and end with the last.
    Farewell,
    /// Close everything, and end with the last connection.
    Stop,
}

/// What the node goes by, and may be told anew.
#[derive(Clone, Debug)]
pub(crate) struct NodeSettings {
    pub(crate) dispatch: DispatchConfig,
    pub(crate) sessions: SessionBounds,
}

/// What a connection tells the node.
#[derive(Debug)]
pub(crate) enum FromConnection {
    /// It is established; the way to its task.
    Up(ConnectionSender<GatewayCommand>),
    Event(AgentEvent),
    /// It is about to end, and these sessions only have to tell their users the rest.
    Flushing(BTreeSet<Slot>),
    SessionOver {
        slot: Slot,
        traffic: Traffic,
        how: Over,
    },
}
