//! What a peer connection has to say to its application.

use bytes::Bytes;

use super::{
    NodeId, forward::Forward, negotiate::Agreed, retry::Failure, rpc_type::RpcType,
    verdict::Accepted,
};
use crate::id::{CallId, Slot};

/// A fact about a peer connection. Bodies are shared, not copied.
#[derive(Debug)]
pub enum PeerEvent {
    /// The version handshake is over: calls can be made by the side that dialled, and come in at the other one.
    Up {
        /// Who was dialled; none where only an address was known, and on the side that accepted: there each request says
        /// who asks.
        node: Option<NodeId>,
        /// What both sides speak.
        agreed: Agreed,
    },
    /// A connection for forwarded sessions is up.
    ForwardUp {
        /// The node at the other end, by its certificate.
        node: NodeId,
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
        /// The body.
        payload: Bytes,
    },
    /// Nobody waits for the answer to a request any more; answering it is an error.
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
