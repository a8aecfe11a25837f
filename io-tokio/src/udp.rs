//! The UDP socket, registered with the runtime.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use adit_io_common::udp::{Received, RecvBatch, UdpPort};
use adit_proto_core::output::{PathMeta, Transmit};
use bytes::BytesMut;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Sleep, sleep},
};

/// A bound UDP socket that several tasks send on and one receives from.
///
/// Only reading is registered with the reactor: the kernel reports a UDP socket writable after every datagram that it
/// has passed on, which would wake the process once more for each.
#[derive(Debug)]
pub(crate) struct Port(AsyncFd<UdpPort>);

/// A sender that waits for room in the kernel's buffer; none while it does not.
pub(crate) type Blocked = Option<AsyncFd<OwnedFd>>;

/// Nothing is received before its end.
pub(crate) type Pause = Option<Pin<Box<Sleep>>>;

impl Port {
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Self> {
        register(UdpPort::bind(addr)?, Interest::READABLE).map(Self)
    }

    /// The socket.
    pub(crate) fn get(&self) -> &UdpPort {
        self.0.get_ref()
    }

    /// Sends; pending while the kernel takes no more, which `blocked` then waits for.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        bytes: &[u8],
        blocked: &mut Blocked,
    ) -> Poll<()> {
        while !self.get().try_send(transmit, bytes) {
            let waiting = match blocked {
                Some(waiting) => waiting,
                None => match self.writable() {
                    Ok(waiting) => blocked.insert(waiting),
                    Err(error) => {
                        tracing::warn!(%error, "cannot wait for room to send; datagrams dropped");
                        return Poll::Ready(());
                    }
                },
            };
            match waiting.poll_write_ready(cx) {
                Poll::Ready(Ok(mut ready)) => ready.clear_ready(),
                Poll::Ready(Err(_)) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        *blocked = None;
        Poll::Ready(())
    }

    fn writable(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let fd = self.get().as_fd().try_clone_to_owned()?;
        register(fd, Interest::WRITABLE)
    }

    /// Receives one batch and hands each datagram on.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        batch: &mut RecvBatch,
        pause: &mut Pause,
        mut sink: impl FnMut(PathMeta, BytesMut),
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(waiting) = pause {
                ready!(waiting.as_mut().poll(cx));
                *pause = None;
            }
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match self.get().receive(batch, &mut sink)? {
                Received::More(_) => return Poll::Ready(Ok(())),
                Received::Drained(count) => {
                    ready.clear_ready();
                    if count > 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Received::Pause(time) => *pause = Some(Box::pin(sleep(time))),
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types that lie about their descriptor; those used here do not"
)]
pub(crate) fn register<T: AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}
