//! What a handshake asks for, and what comes out of it.

use bytes::Bytes;

use super::{Fault, KeyUsed, ReplicaId, Sealed};

/// What the caller has to do, in order.
#[derive(Debug)]
pub enum Step {
    /// These bytes go to the peer.
    Send(Bytes),
    /// The peer proved that it is of the cluster, once everything before is written. The handshake is over.
    Verified(Box<Verified>),
    /// Authentication is off: the peer says, or is expected, to be this replica, and nothing is proven. The handshake is
    /// over; the stream is bare.
    Announced(ReplicaId),
    /// The handshake failed; the connection is closed once everything before is written, as far as that goes.
    Failed(Fault),
}

/// A peer that holds the cluster's key. Who it is comes only together with the stream to speak with it.
///
/// What is proven is membership: any holder of the key may claim any id (replica-handshake 13).
#[derive(Debug)]
#[must_use = "a verified peer that is dropped has to be told so by closing its connection"]
pub struct Verified {
    replica: ReplicaId,
    key: KeyUsed,
    stream: Stream,
}

/// How the bytes behind the handshake are carried.
#[derive(Debug)]
pub enum Stream {
    /// As they are: the socket is a bare stream.
    Plain,
    /// In sealed records; keys and counters are one value, which may be handed over together with the socket.
    Sealed(Sealed),
}

impl Verified {
    pub(super) fn new(replica: ReplicaId, key: KeyUsed, stream: Stream) -> Self {
        Self {
            replica,
            key,
            stream,
        }
    }

    /// The key that the peer signed with, for the log: one that is the previous here tells that the peer is still to
    /// change its key.
    #[must_use]
    pub fn key(&self) -> KeyUsed {
        self.key
    }

    /// Who the peer is, and how to speak with it.
    #[must_use = "a link without its stream would lose bytes or the seal"]
    pub fn into_parts(self) -> (ReplicaId, Stream) {
        (self.replica, self.stream)
    }
}
