//! Two TCP sockets joined: a session that the gateway carries itself.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use adit_proto_core::session_timer::{SessionBounds, SessionTimer, TimeOver};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional},
    net::TcpStream,
    sync::oneshot,
};

use crate::{
    over::Over,
    pump::Traffic,
    socket::{Carried, Socket},
};

/// Moves bytes both ways until both directions have ended, with half-close, or an operator or its bounds end them. That,
/// an error at one end, or the end of the process becomes a reset at both, never a clean end.
pub(crate) async fn splice(
    user: Socket,
    target: TcpStream,
    early: Bytes,
    killed: oneshot::Receiver<()>,
    bounds: SessionBounds,
) -> (Traffic, Over) {
    let (mut user, mut target) = (Carried::new(user), Carried::new(target));
    let mut traffic = Traffic::new();
    traffic.sent = early.len() as u64;
    let (Some(from), Some(to)) = (user.get_mut(), target.get_mut()) else {
        return (traffic, Over::TcpReset);
    };
    let watch = Watch::new();
    let (mut from, mut to) = (watch.on(from), watch.on(to));
    let moving = async {
        to.write_all(&early).await?;
        copy_bidirectional(&mut from, &mut to).await
    };
    let moved = tokio::select! {
        biased;
        // Whoever could do it may be gone; then it moves on.
        Ok(()) = killed => {
            user.reset(Over::Killed.text());
            return (traffic, Over::Killed);
        }
        moved = moving => moved,
        over = watch.over(bounds) => {
            let over = Over::from(over);
            user.reset(over.text());
            return (traffic, over);
        }
    };
    match moved {
        Ok((sent, received)) => {
            traffic.sent += sent;
            traffic.received = received;
            drop((user.release(), target.release()));
            (traffic, Over::Clean)
        }
        Err(_) => (traffic, Over::TcpReset),
    }
}

/// Remembers when bytes moved last.
struct Watch {
    began: Instant,
    /// Milliseconds from then to the last byte.
    moved_ms: Arc<AtomicU64>,
}

impl Watch {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            moved_ms: Arc::default(),
        }
    }

    fn on<'a>(&self, tcp: &'a mut Socket) -> Watched<'a> {
        Watched {
            tcp,
            began: self.began,
            moved_ms: Arc::clone(&self.moved_ms),
        }
    }

    /// Waits until the session's time is over.
    async fn over(&self, bounds: SessionBounds) -> TimeOver {
        let mut timer = SessionTimer::new(self.began, bounds);
        loop {
            let Some(at) = timer.poll_timeout() else {
                return std::future::pending().await;
            };
            tokio::time::sleep_until(at.into()).await;
            let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
            timer.handle_bytes(self.began + moved);
            if let Some(over) = timer.poll_over(Instant::now()) {
                return over;
            }
        }
    }
}

/// A socket whose traffic is noticed.
struct Watched<'a> {
    tcp: &'a mut Socket,
    began: Instant,
    moved_ms: Arc<AtomicU64>,
}

impl Watched<'_> {
    fn note(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(ms, Ordering::Relaxed);
    }
}

impl AsyncRead for Watched<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut *self.tcp).poll_read(cx, buf);
        if polled.is_ready() {
            self.note();
        }
        polled
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.tcp).poll_write(cx, buf);
        if polled.is_ready() {
            self.note();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.tcp).poll_shutdown(cx)
    }
}
