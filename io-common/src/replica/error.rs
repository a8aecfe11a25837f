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
    /// The name of its address is not known here: a lack of this machine, or of the list.
    #[error(
        "its name cannot be looked up: {0}; see its address in the list, and this machine's resolver"
    )]
    Unknown(#[source] io::Error),
    /// There is no connection to its address.
    #[error("no connection to the replica: {0}; see that it runs, and its address in the list")]
    Connect(#[source] io::Error),
    /// This machine cannot begin a connection: a lack of its own, which says nothing of the replica.
    #[error(
        "this machine cannot open a connection to the replica: {0}; see its limits of open files and memory, its \
         addresses, its free local ports and its own firewall"
    )]
    Local(#[source] io::Error),
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

impl LinkError {
    /// Judges whose lack it is that there is no connection.
    #[must_use]
    pub fn of_connect(error: io::Error) -> Self {
        let is_local = LACKS_BY_KIND.contains(&error.kind())
            || (error.raw_os_error()).is_some_and(|code| LACKS_BY_CODE.contains(&code));
        match is_local {
            true => Self::Local(error),
            false => Self::Connect(error),
        }
    }

    /// Tells whether this machine, or whoever uses it, is at fault: nothing is known of the replica by it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Dial(_)
            | Self::Unknown(_)
            | Self::Local(_)
            | Self::GivenUp
            | Self::Socket(_)
            | Self::NoRandomness => true,
            Self::Connect(_)
            | Self::ConnectTimedOut
            | Self::Handshake(_)
            | Self::Cut(_)
            | Self::Unwritten => false,
        }
    }
}

/// No port of this machine's is left, or none may be used; its rules forbid it (EPERM and EACCES); its own interface is down; no
/// memory. That a network is not reached may be the network's doing.
const LACKS_BY_KIND: [io::ErrorKind; 5] = [
    io::ErrorKind::AddrNotAvailable,
    io::ErrorKind::WouldBlock,
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::NetworkDown,
    io::ErrorKind::OutOfMemory,
];
/// ENFILE, EMFILE and Linux's ENOBUFS, for which the standard library has no kinds of their own.
const LACKS_BY_CODE: [i32; 3] = [23, 24, 105];

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_lack_of_this_machine_is_not_held_against_the_replica() {
        let of = |errno: Errno| LinkError::of_connect(errno.into());
        for lack in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::ADDRNOTAVAIL,
            Errno::NOBUFS,
            Errno::PERM,
            Errno::ACCESS,
            Errno::NETDOWN,
        ] {
            let error = of(lack);
            assert!(error.is_local(), "{error:?}");
            assert!(error.to_string().contains("this machine"), "{error}");
        }
        for away in [
            Errno::CONNREFUSED,
            Errno::HOSTUNREACH,
            Errno::NETUNREACH,
            Errno::TIMEDOUT,
        ] {
            let error = of(away);
            assert!(!error.is_local(), "{error:?}");
            assert!(error.to_string().contains("see that it runs"), "{error}");
        }
    }
}
