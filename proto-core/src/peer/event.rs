//! What a peer connection has to say to its application.

use bytes::Bytes;

use super::{
    NodeId, forward::Forward, interest::Interest, negotiate::Agreed, retry::Failure,
    rpc_type::RpcType, verdict::Accepted,
};
use crate::id::{CallId, Slot};

/// A fact about a peer connection. Bodies are shared, not copied.
#[derive(Debug)]
pub enum PeerEvent {
    /// The version handshake is over: calls can be made by the side that dialled, and come in at the other one.
    Up {
        /// Who was dialled, none where only an address was known; on the side that accepted the node whose certificate was
        /// shown, none where no record has that. There only [`PeerEvent::Bound`] says that it has the cluster's key, too.
        node: Option<NodeId>,
        /// What both sides speak.
        agreed: Agreed,
    },
    /// The first message was accepted on a connection that a peer dialled: it belongs to this node from here on.
    Bound {
        /// Which one.
        node: NodeId,
    },
    /// A connection for forwarded sessions is up.
    ForwardUp {
        /// The node at the other end, by its certificate.
        node: NodeId,
        /// This side dialled, and hands sessions over.
        is_dialler: bool,
    },
    /// The peer hands a session over; answer with [`ForwardHandle::accept`](crate::connection::ForwardHandle::accept) or
    /// [`refuse`](crate::connection::ForwardHandle::refuse). What follows are the events of any session.
    ForwardRequested {
        /// Its place on this connection.
        slot: Slot,
        /// What the header says; it was made by the peer, for this node, on this connection.
        forward: Box<Forward>,
    },
    /// The peer asks; answer with [`PeerHandle::answer`](crate::connection::PeerHandle::answer) or
    /// [`refuse`](crate::connection::PeerHandle::refuse). At most
    /// [`RPC_CALLS_PER_CONNECTION`](crate::limits::RPC_CALLS_PER_CONNECTION) wait for that.
    Requested {
        /// Its place on this connection.
        slot: Slot,
        /// Who asks: its identity was judged, and its number is good.
        from: NodeId,
        /// How that was proved.
        accepted: Accepted,
        /// What is asked.
        kind: RpcType,
        /// The body. As long as anybody holds it, or a part of it, it counts against the budget of its connection
        /// ([`RPC_UNREAD_PER_CONNECTION`](crate::limits::RPC_UNREAD_PER_CONNECTION)).
        payload: Bytes,
        /// Whether anybody waits for the answer.
        interest: Interest,
    },
    /// Nobody waits for the answer to a request any more; answering it is an error. A request that was given up before it
    /// was told of is not told of at all. [`Event::Closed`](crate::output::Event::Closed) stands for this for all that wait.
    GivenUp(Slot),
    /// A call of this side is over; exactly once for each, before [`Event::Closed`](crate::output::Event::Closed).
    Answered {
        /// Which one.
        call: CallId,
        /// The body of the answer, empty where the request goes one way; or how the attempt failed, which
        /// [`retry::judge`](super::retry::judge) weighs.
        outcome: Result<Bytes, Failure>,
    },
}
