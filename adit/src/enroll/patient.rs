//! A connection whose peer has to take what it is sent: who reads no answer would keep a place for ever.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Writes fail with [`TimedOut`](io::ErrorKind::TimedOut) once the peer has taken nothing for [`PATIENCE`], however many
/// bytes wait, until [`Upgraded::set`].
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    upgraded: Upgraded,
}

/// Whether a connection has left HTTP, and its peer may take its time.
#[derive(Clone, Debug, Default)]
pub(super) struct Upgraded(Arc<AtomicBool>);

impl Upgraded {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S) -> (Self, Upgraded) {
        let upgraded = Upgraded::default();
        let patient = Self {
            stream,
            waiting: None,
            upgraded: upgraded.clone(),
        };
        (patient, upgraded)
    }

    /// Looks at the outcome of a write: whether it waits, and for how long it has.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() || self.upgraded.0.load(Ordering::Relaxed) {
            self.waiting = None;
            return written;
        }
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// For how long a peer may take nothing.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::{Instant, timeout},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_little_now_and_then_has_all_the_time() {
        let (near, mut far) = duplex(4);
        let (mut near, _) = Patient::new(near);
        let writing = tokio::spawn(async move {
            let outcome = near.write_all(&[0; 40]).await;
            (outcome, near)
        });
        for _ in 0..9 {
            sleep(PATIENCE - Duration::from_secs(1)).await;
            far.read_exact(&mut [0; 4]).await.unwrap();
        }
        let (outcome, mut near) = writing.await.unwrap();
        outcome.unwrap();
        let start = Instant::now();
        let error = near.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_left_http_may_take_nothing() {
        let (near, _far) = duplex(4);
        let (mut near, upgraded) = Patient::new(near);
        upgraded.set();
        let writing = near.write_all(b"too many");
        timeout(PATIENCE * 100, writing).await.unwrap_err();
    }
}
