//! What comes out of a handshake.

use std::net::{SocketAddr, TcpStream};

use adit_proto_core::replica::{KeyUsed, ReplicaId, Sealed, Stream};

/// A connection whose handshake is over: the peer, the socket and how its bytes are carried, as one value. Dropping it
/// closes the connection.
///
/// The socket does not block and is registered with nobody; not a byte behind the handshake was read from it.
#[derive(Debug)]
#[must_use = "dropping a link closes its connection"]
pub struct Link {
    pub(super) replica: ReplicaId,
    pub(super) peer: SocketAddr,
    pub(super) proof: Proof,
    pub(super) carrier: Carrier,
}

/// What is known of who the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It proved to hold this key, and so to be of the cluster (replica-handshake 13).
    Verified(KeyUsed),
    /// Nothing: authentication is off here.
    None,
}

/// The socket of a link, and what goes with it.
#[derive(Debug)]
pub enum Carrier {
    /// A bare stream: the descriptor is all there is, and may go to another thread or process as it is.
    Plain(TcpStream),
    /// Sealed records on the socket. Keys and counters go where the socket goes: without them nothing on it can be read,
    /// and nothing that is written on it will be taken.
    Sealed(TcpStream, Box<Sealed>),
}

/// The raw socket of a sealed link was asked for, which is of no use without its keys and counters: the caller's fault.
/// The link is unharmed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the link with replica {} is sealed: its socket goes only together with its keys and counters",
    .0.replica
)]
pub struct SealedLink(pub Box<Link>);

impl Link {
    /// Who the peer is, as far as [`proof`](Self::proof) says.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// What the peer has proven.
    #[must_use]
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// The address of the peer's end.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Tells whether the stream is sealed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(self.carrier, Carrier::Sealed(..))
    }

    /// The raw socket of a link that is not sealed, for a thread or process that goes on with it.
    ///
    /// # Errors
    /// If the link is sealed; it comes back whole.
    pub fn into_socket(self) -> Result<TcpStream, SealedLink> {
        match self.carrier {
            Carrier::Plain(tcp) => Ok(tcp),
            sealed @ Carrier::Sealed(..) => Err(SealedLink(Box::new(Self {
                carrier: sealed,
                ..self
            }))),
        }
    }

    /// The socket with all that goes with it.
    #[must_use = "dropping the socket closes the connection"]
    pub fn into_carrier(self) -> Carrier {
        self.carrier
    }
}

impl Carrier {
    pub(super) fn new(tcp: TcpStream, stream: Stream) -> Self {
        match stream {
            Stream::Plain => Self::Plain(tcp),
            Stream::Sealed(sealed) => Self::Sealed(tcp, Box::new(sealed)),
        }
    }
}
