//! A user's end of a session without a socket: for an ingress whose users' bytes are wrapped in a protocol.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::watch,
};

/// One end of a pair that works like a TCP connection within the process: bytes both ways, each direction with an end
/// of its own, at most [`PIPE_LEN`] bytes under way in each.
///
/// An end that is dropped before [`shutdown`](tokio::io::AsyncWriteExt::shutdown) resets the pair, as a socket that is
/// lost must never look like a clean end: the other end reads what came before, and then
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset) with the reason.
#[derive(Debug)]
pub struct Pipe {
    io: DuplexStream,
    /// Why the pair was reset, if it was.
    reset: watch::Sender<Option<&'static str>>,
    /// This end has said all that it has to say.
    finished: bool,
}

/// Bytes under way in each direction of a [`Pipe`].
pub const PIPE_LEN: usize = 64 << 10;

impl Pipe {
    /// Makes both ends.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let reset = watch::Sender::default();
        let end = |io, reset: &watch::Sender<_>| Self {
            io,
            reset: reset.clone(),
            finished: false,
        };
        let (a, b) = duplex(PIPE_LEN);
        (end(a, &reset), end(b, &reset))
    }

    /// Completes once either end has reset the pair, with the reason: also for one who cannot read on now, because what
    /// was read before has no taker. Never completes for a pair that ends cleanly.
    pub fn until_reset(&self) -> impl Future<Output = &'static str> + Send + use<> {
        let mut reset = self.reset.subscribe();
        async move {
            let why = match reset.wait_for(Option::is_some).await {
                Ok(why) => *why,
                Err(_) => None,
            };
            match why {
                Some(why) => why,
                None => std::future::pending().await,
            }
        }
    }

    /// Resets the pair; `why` is what the other end gets to know. The first reason counts.
    pub(crate) fn reset(self, why: &'static str) {
        self.set_reset(why);
    }

    /// Tells whether either end has reset the pair.
    pub(crate) fn is_reset(&self) -> bool {
        self.reset.borrow().is_some()
    }

    fn set_reset(&self, why: &'static str) {
        self.reset.send_if_modified(|reset| {
            let is_first = reset.is_none();
            reset.get_or_insert(why);
            is_first
        });
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if !self.finished {
            self.set_reset("cut");
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let ended = buf.filled().len() == before && buf.remaining() > 0;
        Poll::Ready(match *self.reset.borrow() {
            Some(why) if ended => Err(io::Error::new(io::ErrorKind::ConnectionReset, why)),
            Some(_) | None => Ok(()),
        })
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        self.finished = true;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn each_direction_has_an_end_of_its_own() {
        let (mut near, mut far) = Pipe::pair();
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "question");
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        drop(far);
        got.clear();
        near.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "answer");
    }

    #[tokio::test]
    async fn a_lost_end_is_a_reset_behind_what_came_before() {
        for reset in [None, Some("ended by an operator")] {
            let (mut near, mut far) = Pipe::pair();
            far.write_all(b"half").await.unwrap();
            match reset {
                Some(why) => far.reset(why),
                None => drop(far),
            }
            let mut got = [0; 4];
            near.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"half");
            let error = near.read(&mut got).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(error.to_string(), reset.unwrap_or("cut"));
            assert!(near.is_reset());
            assert!(near.write_all(b"x").await.is_err());
        }
    }

    #[tokio::test]
    async fn a_reset_is_told_to_one_who_does_not_read() {
        for reset in [None, Some("ended by an operator")] {
            let (near, mut far) = Pipe::pair();
            let told = near.until_reset();
            far.write_all(b"unread").await.unwrap();
            match reset {
                Some(why) => far.reset(why),
                None => drop(far),
            }
            assert_eq!(told.await, reset.unwrap_or("cut"));
        }
        let (mut near, mut far) = Pipe::pair();
        let told = near.until_reset();
        near.shutdown().await.unwrap();
        far.shutdown().await.unwrap();
        drop((near, far));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(std::pin::pin!(told).poll(&mut cx).is_pending());
    }

    #[tokio::test]
    async fn bytes_under_way_are_bounded() {
        let (mut near, _far) = Pipe::pair();
        let bytes = vec![0; 2 * PIPE_LEN];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut written = 0;
        while let Poll::Ready(len) = Pin::new(&mut near).poll_write(&mut cx, &bytes) {
            written += len.unwrap();
        }
        assert_eq!(written, PIPE_LEN);
    }
}
