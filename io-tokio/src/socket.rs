//! A user's or target's socket on its way between owners.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::pipe::Pipe;

/// What a session's bytes come from and go to at this end of the tunnel.
#[derive(Debug)]
pub enum Socket {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A pipe, whose other end is with whoever speaks to the user.
    Pipe(Pipe),
}

impl Socket {
    /// Closes it hard: whoever is at the other end sees a reset, never a clean end. On failure a TCP connection is
    /// closed with a clean end; nothing better is possible.
    pub(crate) fn reset(self, why: &'static str) {
        match self {
            Self::Tcp(tcp) => {
                let _gone = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
            }
            Self::Pipe(pipe) => pipe.reset(why),
        }
    }

    /// Tells whether it has failed, without reading from it.
    pub(crate) fn has_failed(&self) -> bool {
        match self {
            Self::Tcp(tcp) => !matches!(tcp.take_error(), Ok(None)),
            Self::Pipe(pipe) => pipe.is_reset(),
        }
    }

    /// Registers it with the runtime of the calling thread, in place of the one that accepted or made it.
    pub(crate) fn move_here(self) -> io::Result<Self> {
        match self {
            Self::Tcp(tcp) => TcpStream::from_std(tcp.into_std()?).map(Self::Tcp),
            Self::Pipe(pipe) => Ok(Self::Pipe(pipe)),
        }
    }
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

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Pipe(pipe) => Pin::new(pipe).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Pipe(pipe) => Pin::new(pipe).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Pipe(pipe) => Pin::new(pipe).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Pipe(pipe) => pipe.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Pipe(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Pipe(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}

/// A socket that is reset when it is dropped: whoever loses it on the way must not let the program at its other end
/// take a failure for a clean end.
#[derive(Debug)]
pub(crate) struct Carried(Option<Socket>);

impl Carried {
    pub(crate) fn new(socket: impl Into<Socket>) -> Self {
        Self(Some(socket.into()))
    }

    /// Hands the socket to an owner who ends it properly.
    pub(crate) fn release(mut self) -> Option<Socket> {
        self.0.take()
    }

    /// Uses the socket without giving it away.
    pub(crate) fn get_mut(&mut self) -> Option<&mut Socket> {
        self.0.as_mut()
    }

    /// Resets it for a reason that its other end may get to know.
    pub(crate) fn reset(mut self, why: &'static str) {
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
