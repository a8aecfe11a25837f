//! A user's or target's socket on its way between owners.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// A socket that is reset when it is dropped: whoever loses it on the way must not let the program at its other end
/// take a failure for a clean end.
#[derive(Debug)]
pub(crate) struct Carried(Option<TcpStream>);

impl Carried {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self(Some(tcp))
    }

    /// Hands the socket to an owner who ends it properly.
    pub(crate) fn release(mut self) -> Option<TcpStream> {
        self.0.take()
    }

    /// Uses the socket without giving it away.
    pub(crate) fn get_mut(&mut self) -> Option<&mut TcpStream> {
        self.0.as_mut()
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if let Some(tcp) = &self.0 {
            reset_on_close(tcp);
        }
    }
}

/// Makes the close of a socket a reset. On failure it is closed with a clean end; nothing better is possible.
pub(crate) fn reset_on_close(tcp: &TcpStream) {
    let _gone = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}
