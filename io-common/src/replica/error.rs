//! Why no link came about.

use std::io;

use adit_proto_core::{
    limits::REPLICA_HANDSHAKE_TIMEOUT,
    replica::{DialError, Fault},
};

use super::CONNECT_TIMEOUT;

/// Why no link came about. None of it holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The replica is not one to dial: the caller's fault.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// There is no connection to its address.
    #[error("no connection to the replica: {0}; see that it runs, and its address in the list")]
    Connect(#[source] io::Error),
    /// Its address does not answer.
    #[error(
        "no connection to the replica within {CONNECT_TIMEOUT:?}: see its address in the list, and firewalls between"
    )]
    ConnectTimedOut,
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] Fault),
    /// The connection broke before the last bytes of a handshake were written that went well otherwise.
    #[error("the connection broke at the end of the handshake: {0}")]
    Cut(#[source] io::Error),
    /// The peer did not take what it was sent.
    #[error(
        "the peer did not read the handshake's last bytes within {REPLICA_HANDSHAKE_TIMEOUT:?}"
    )]
    Unwritten,
    /// The handshake was given up before it was over: nobody's fault.
    #[error("the handshake was given up")]
    GivenUp,
    /// The socket cannot be used: a lack of this machine.
    #[error("the socket cannot be used: {0}")]
    Socket(#[source] io::Error),
    /// The operating system gives no randomness, without which there is no handshake.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}
