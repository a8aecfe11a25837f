//! A pipe's end for whoever speaks to the user.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use adit_io_common::{pipe, socket::Socket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end of a pair that works like a TCP connection within the process; see [`adit_io_common::pipe::Pipe`].
#[derive(Debug)]
pub struct Pipe(pipe::Pipe);

impl Pipe {
    /// Makes both ends.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (near, far) = pipe::Pipe::pair();
        (Self(near), Self(far))
    }

    /// Completes once either end has reset the pair, with the reason: also for one who cannot read on now, because what
    /// was read before has no taker. Never completes for a pair that ends cleanly.
    pub fn until_reset(&self) -> impl Future<Output = &'static str> + Send + use<> {
        self.0.until_reset()
    }
}

impl From<Pipe> for Socket {
    fn from(pipe: Pipe) -> Self {
        Self::Pipe(pipe.0)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() > 0 {
            let read = ready!(self.0.poll_read(cx, buf.remaining()))?;
            buf.put_slice(&read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shutdown();
        Poll::Ready(Ok(()))
    }
}
