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
    let (Some(from), Some(to)) = (user.get_mut(), target.get_mut()) else {
        return (traffic, Over::TcpReset);
    };
    let watch = Watch::new();
    let moved = Arc::clone(&watch.moved);
    moved.sent.store(early.len() as u64, Ordering::Relaxed);
    let mut from = watch.on(from, End::User);
    let mut to = watch.on(to, End::Target);
    let moving = async {
        to.write_all(&early).await?;
        copy_bidirectional(&mut from, &mut to).await
    };
    let ended = tokio::select! {
        biased;
        // Whoever could do it may be gone; then it moves on.
        Ok(()) = killed => Err(Over::Killed),
        ended = moving => Ok(ended),
        over = watch.over(bounds) => Err(Over::from(over)),
    };
    traffic.sent = moved.sent.load(Ordering::Relaxed);
    traffic.received = moved.received.load(Ordering::Relaxed);
    let over = match ended {
        Ok(Ok(_)) => {
            drop((user.release(), target.release()));
            Over::Clean
        }
        Ok(Err(_)) => Over::TcpReset,
        Err(over) => {
            user.reset(over.text());
            over
        }
    };
    (traffic, over)
}

/// Remembers when bytes moved last, and how many did: however a session ends.
struct Watch {
    began: Instant,
    moved: Arc<Moved>,
}

#[derive(Default)]
struct Moved {
    /// Milliseconds from the beginning to the last byte.
    ms: AtomicU64,
    /// Bytes from the user.
    sent: AtomicU64,
    /// Bytes to the user.
    received: AtomicU64,
}

/// Whose socket.
#[derive(Clone, Copy)]
enum End {
    User,
    Target,
}

impl Watch {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            moved: Arc::default(),
        }
    }

    fn on<'a>(&self, tcp: &'a mut Socket, end: End) -> Watched<'a> {
        Watched {
            tcp,
            end,
            began: self.began,
            moved: Arc::clone(&self.moved),
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
            let moved = Duration::from_millis(self.moved.ms.load(Ordering::Relaxed));
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
    end: End,
    began: Instant,
    moved: Arc<Moved>,
}

impl Watched<'_> {
    /// At the user's end `len` bytes more are in this counter.
    fn note(&self, counter: &AtomicU64, len: usize) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.ms.store(ms, Ordering::Relaxed);
        match self.end {
            End::User => drop(counter.fetch_add(len as u64, Ordering::Relaxed)),
            End::Target => {}
        }
    }
}

impl AsyncRead for Watched<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut *self.tcp).poll_read(cx, buf);
        if polled.is_ready() {
            self.note(&self.moved.sent, buf.filled().len() - before);
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
        if let Poll::Ready(written) = &polled {
            let len = written.as_ref().map_or(0, |len| *len);
            self.note(&self.moved.received, len);
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

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn what_was_carried_is_known_however_a_session_ends() {
        for how in [Over::Clean, Over::TcpReset, Over::Killed, Over::Idle] {
            let ((mut user, near), (far, mut target)) = (pair().await, pair().await);
            let (kill, killed) = oneshot::channel();
            let bounds = SessionBounds {
                idle: (how == Over::Idle).then_some(Duration::from_millis(300)),
                ..SessionBounds::default()
            };
            let early = Bytes::from_static(b"early");
            let spliced = tokio::spawn(splice(near.into(), far, early, killed, bounds));
            user.write_all(b" and late").await.unwrap();
            let mut read = [0; 14];
            target.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"early and late");
            target.write_all(b"answer").await.unwrap();
            user.read_exact(&mut read[..6]).await.unwrap();
            if how == Over::Killed {
                kill.send(()).unwrap();
            } else if how == Over::TcpReset {
                let linger = Some(Duration::ZERO);
                SockRef::from(&target).set_linger(linger).unwrap();
                drop(target);
            } else if how == Over::Clean {
                drop((user, target));
            }
            let (traffic, over) = spliced.await.unwrap();
            assert_eq!(over, how);
            assert_eq!((traffic.sent, traffic.received), (14, 6), "{how:?}");
        }
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).await;
        (one.unwrap(), listener.accept().await.unwrap().0)
    }
}
