//! A user's or target's socket on its way between owners.

use std::{net::TcpStream, time::Duration};

use socket2::SockRef;

use crate::pipe::Pipe;

/// What a session's bytes come from and go to at this end of the tunnel; registered with no driver.
#[derive(Debug)]
pub enum Socket {
    /// A TCP connection that does not block.
    Tcp(TcpStream),
    /// A pipe, whose other end is with whoever speaks to the user.
    Pipe(Pipe),
}

impl Socket {
    /// Closes it hard: whoever is at the other end sees a reset, never a clean end.
    pub fn reset(self, why: &'static str) {
        match self {
            Self::Tcp(tcp) => reset_tcp(&tcp),
            Self::Pipe(pipe) => pipe.reset(why),
        }
    }
}

/// Has the close of a TCP connection be a reset. On failure it is closed with a clean end; nothing better is possible.
pub fn reset_tcp<'a>(tcp: impl Into<SockRef<'a>>) {
    let _gone = tcp.into().set_linger(Some(Duration::ZERO));
}

/// Has the close of a TCP connection be a clean end again.
pub fn end_tcp<'a>(tcp: impl Into<SockRef<'a>>) {
    let _gone = tcp.into().set_linger(None);
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self::Tcp(tcp)
    }
}

impl From<Pipe> for Socket {
    fn from(pipe: Pipe) -> Self {
        Self::Pipe(pipe)
    }
}

/// A socket that is reset when it is dropped: whoever loses it on the way must not let the program at its other end
/// take a failure for a clean end.
#[derive(Debug)]
pub struct Carried(Option<Socket>);

impl Carried {
    /// Takes charge of a socket.
    pub fn new(socket: impl Into<Socket>) -> Self {
        Self(Some(socket.into()))
    }

    /// Hands the socket to an owner who ends it properly.
    #[must_use]
    pub fn release(mut self) -> Option<Socket> {
        self.0.take()
    }

    /// Resets it for a reason that its other end may get to know.
    pub fn reset(mut self, why: &'static str) {
        if let Some(socket) = self.0.take() {
            socket.reset(why);
        }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if let Some(socket) = self.0.take() {
            socket.reset("cut");
        }
    }
}
