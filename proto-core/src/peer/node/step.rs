//! What a [`Node`](super::Node) asks of its driver, and how calls end.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    close::CloseReason,
    id::{CallId, ConnId, Slot},
    peer::{NodeId, retry::Failure, rpc_type::RpcType},
    target::Target,
};

/// Names one dial; never used twice in the life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// What the driver is to do, or the application is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeStep {
    /// Look the address up and call [`Endpoint::dial_peer`](crate::endpoint::Endpoint::dial_peer) with
    /// [`Protocol::Rpc`](crate::endpoint::Protocol::Rpc); answer with [`Node::handle_dialled`](super::Node::handle_dialled).
    Dial {
        /// Its name.
        dial: DialId,
        /// Whose certificate is expected; none where only the address is known.
        node: Option<NodeId>,
        /// Where to.
        address: Target,
    },
    /// [`PeerHandle::call`](crate::connection::PeerHandle::call); an error is answered with
    /// [`Node::handle_refused`](super::Node::handle_refused).
    Call {
        /// On which connection.
        conn: ConnId,
        /// Its name.
        call: CallId,
        /// What is asked.
        kind: RpcType,
        /// The body.
        payload: Bytes,
    },
    /// [`PeerHandle::cancel`](crate::connection::PeerHandle::cancel)
    Cancel {
        /// On which connection.
        conn: ConnId,
        /// Which call.
        call: CallId,
    },
    /// [`Connection::close`](crate::connection::Connection::close)
    Close(ConnId, CloseReason),
    /// [`PeerHandle::drain`](crate::connection::PeerHandle::drain) with this grace. Of a connection for forwarded sessions
    /// [`ForwardHandle::drain`](crate::connection::ForwardHandle::drain), or without grace a close.
    Drain(ConnId, Duration),
    /// A call is over; once for each that was not cancelled.
    Answered {
        /// Which one.
        call: CallId,
        /// The body of the answer, or why there is none.
        outcome: Result<Bytes, CallError>,
    },
    /// A peer asks; answer on that connection.
    Requested {
        /// Which one.
        conn: ConnId,
        /// Its place there.
        slot: Slot,
        /// Who asks.
        from: NodeId,
        /// What is asked.
        kind: RpcType,
        /// The body.
        payload: Bytes,
    },
    /// Nobody waits for the answer to a request any more.
    GivenUp(ConnId, Slot),
    /// How a node can be reached has changed, as far as this node's connection to it tells.
    Reach(NodeId, Reach),
}

/// The state of this node's connection to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// There is one, and its path works.
    Up,
    /// There is one, and nothing was acknowledged for 3 s (design 8.3).
    Suspect,
    /// There is none.
    Down,
}

/// Why a call has no answer (peer-rpc 10.1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No address is known: the caller's mistake, or the topology is behind.
    #[error("no address is known for {node}")]
    Unreachable {
        /// Who was called.
        node: NodeId,
    },
    /// Nobody's fault: the node failed lately, and is left alone for a while.
    #[error("{node} failed {failures} times in a row and is not called for now")]
    CircuitOpen {
        /// Who was called.
        node: NodeId,
        /// Failures in a row.
        failures: u32,
    },
    /// This node's limit: too many calls wait for that node.
    #[error("too many calls wait for {node}")]
    Busy {
        /// Who was called.
        node: NodeId,
    },
    /// The caller's mistake: the body does not fit an envelope.
    #[error("a body of {len} bytes is too large for a call")]
    TooLarge {
        /// Its bytes.
        len: usize,
    },
    /// The caller's mistake.
    #[error("{0:?} is no request")]
    NoRequest(RpcType),
    /// This node stops.
    #[error("this node is stopping")]
    Stopping,
    /// The last attempt failed.
    #[error("{0}")]
    Failed(Failure),
}
