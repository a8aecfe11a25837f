//! The UDP socket: large buffers, batches in both directions.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use adit_proto_core::output::{PathMeta, Transmit};
use bytes::BytesMut;
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Sleep, sleep},
};

use crate::burst::Burst;

/// Asked of the kernel for both directions, in bytes: 20 ms at 1.6 Gbit/s. The kernel may give less (`rmem_max`).
const SOCKET_BUFFER: usize = 4 << 20;
/// Buffers that one system call fills. Each takes what the kernel merges of one peer, 64 KiB at most.
const RECV_BATCH: usize = 8;
const RECV_BUFFER: usize = 64 << 10;
/// Datagrams handed to the kernel at once: 40 of 1,452 bytes fit the 64 KiB that a segmented send may have.
pub(crate) const SEND_BATCH: usize = 40;

/// A bound UDP socket that several tasks send on and one receives from.
///
/// Only reading is registered with the reactor: the kernel reports a UDP socket writable after every datagram that it
/// has passed on, which would wake the process once more for each.
#[derive(Debug)]
pub(crate) struct UdpPort {
    socket: AsyncFd<StdSocket>,
    state: UdpSocketState,
}

/// A sender that waits for room in the kernel's buffer; none while it does not.
pub(crate) type Blocked = Option<AsyncFd<OwnedFd>>;

/// Buffers for receiving, filled by [`UdpPort::poll_recv`].
pub(crate) struct RecvBatch {
    buffer: Box<[u8]>,
    meta: [RecvMeta; RECV_BATCH],
    failures: Failures,
    /// Nothing is received before.
    pause: Option<Pin<Box<Sleep>>>,
}

/// Receive errors without a success between them.
#[derive(Debug, Default)]
struct Failures {
    in_a_row: u32,
    burst: Burst,
}

/// What follows a receive error.
#[derive(Debug, PartialEq, Eq)]
enum AfterFailure {
    Retry,
    Pause,
    GiveUp,
}

/// Receive errors in a row that are tried again at once: a socket reports one for each pending cause.
const FAILURES_RETRIED: u32 = 16;
/// Receive errors in a row that end the process. The pauses between them make it ten seconds without a datagram.
const FAILURES_MAX: u32 = 1_000;
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

impl Failures {
    fn note(&mut self, now: Instant, error: &io::Error) -> AfterFailure {
        if let Some(count) = self.burst.note(now) {
            tracing::warn!(%error, count, "receiving on a UDP socket failed; trying on");
        }
        self.in_a_row += 1;
        match self.in_a_row {
            FAILURES_MAX.. => AfterFailure::GiveUp,
            FAILURES_RETRIED.. => AfterFailure::Pause,
            _ => AfterFailure::Retry,
        }
    }
}

impl UdpPort {
    /// Binds. `[::]` also takes IPv4; where the machine has no IPv6 it becomes `0.0.0.0` (agent-tunnel 2.3).
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = match (bind(addr), addr.ip()) {
            (Err(error), IpAddr::V6(Ipv6Addr::UNSPECIFIED))
                if error.kind() != io::ErrorKind::AddrInUse =>
            {
                bind((Ipv4Addr::UNSPECIFIED, addr.port()).into())?
            }
            (socket, _) => socket?,
        };
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let socket = register(socket, Interest::READABLE)?;
        Ok(Self { socket, state })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    /// Datagrams of one size that one send may carry.
    pub(crate) fn send_batch(&self) -> usize {
        self.state.max_gso_segments().min(SEND_BATCH)
    }

    /// Sends if the kernel takes it now; gives whether it did. What the network refuses is dropped: QUIC repairs it.
    pub(crate) fn try_send(&self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let message = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(EcnCodepoint::from_bits),
            contents: bytes.get(..transmit.size).unwrap_or(bytes),
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match self
            .state
            .try_send(UdpSockRef::from(self.socket.get_ref()), &message)
        {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                tracing::trace!(%error, to = %transmit.destination, "datagrams not sent");
                true
            }
            Ok(()) => true,
        }
    }

    /// Sends; pending while the kernel takes no more, which `blocked` then waits for.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        bytes: &[u8],
        blocked: &mut Blocked,
    ) -> Poll<()> {
        while !self.try_send(transmit, bytes) {
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
        let fd = self.socket.get_ref().as_fd().try_clone_to_owned()?;
        register(fd, Interest::WRITABLE)
    }

    /// Receives one batch and hands each datagram on; gives how many. Errors that an earlier send caused are passed
    /// over: they belong to one peer. Others are logged and tried again, as a shortage passes, until they do not end.
    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        batch: &mut RecvBatch,
        mut sink: impl FnMut(PathMeta, BytesMut),
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(pause) = &mut batch.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                batch.pause = None;
            }
            let mut ready = std::task::ready!(self.socket.poll_read_ready(cx))?;
            let mut chunks = batch.buffer.chunks_exact_mut(RECV_BUFFER);
            let mut buffers: [IoSliceMut<'_>; RECV_BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            match self.state.recv(
                UdpSockRef::from(self.socket.get_ref()),
                &mut buffers,
                &mut batch.meta,
            ) {
                Ok(count) => {
                    batch.failures.in_a_row = 0;
                    // Fewer than asked for: the socket is empty, and the next datagram is a new edge.
                    if count < RECV_BATCH {
                        ready.clear_ready();
                    }
                    let mut datagrams = 0;
                    for (meta, buffer) in batch.meta.iter().zip(&buffers).take(count) {
                        datagrams += split(meta, buffer, &mut sink);
                    }
                    return Poll::Ready(Ok(datagrams));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => match batch.failures.note(Instant::now(), &error) {
                    AfterFailure::Retry => {}
                    AfterFailure::Pause => batch.pause = Some(Box::pin(sleep(FAILURE_PAUSE))),
                    AfterFailure::GiveUp => return Poll::Ready(Err(error)),
                },
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types that lie about their descriptor; the two used here are std's"
)]
fn register<T: AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}

/// An empty one; it receives nothing. It stands in while the real one is lent.
impl Default for RecvBatch {
    fn default() -> Self {
        Self {
            buffer: Box::default(),
            meta: [RecvMeta::default(); RECV_BATCH],
            failures: Failures::default(),
            pause: None,
        }
    }
}

impl RecvBatch {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; RECV_BUFFER * RECV_BATCH].into_boxed_slice(),
            ..Self::default()
        }
    }
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecvBatch")
    }
}

/// Cuts what the kernel merged into datagrams again. One copy, of the exact size: the large buffers stay here.
fn split(meta: &RecvMeta, buffer: &[u8], sink: &mut impl FnMut(PathMeta, BytesMut)) -> usize {
    let path = PathMeta {
        // As the socket knows it: an answer to an IPv4 peer of an IPv6 socket needs the mapped address.
        remote: meta.addr,
        local_ip: meta.dst_ip,
        ecn: meta.ecn.map(|codepoint| codepoint as u8),
    };
    let mut data = BytesMut::from(buffer.get(..meta.len).unwrap_or_default());
    let mut count = 0;
    while !data.is_empty() {
        let len = meta.stride.clamp(1, data.len());
        sink(path, data.split_to(len));
        count += 1;
    }
    count
}

fn bind(addr: SocketAddr) -> io::Result<StdSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Best effort: the kernel's own limit stands above.
    let _less = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _less = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receive_errors_are_tried_again_then_slower_then_given_up() {
        let mut failures = Failures::default();
        let (now, error) = (Instant::now(), io::Error::from(io::ErrorKind::OutOfMemory));
        let after: Vec<_> = (0..FAILURES_MAX)
            .map(|_| failures.note(now, &error))
            .collect();
        let count = |wanted| after.iter().filter(|after| **after == wanted).count();
        assert_eq!(count(AfterFailure::Retry), 15);
        assert_eq!(count(AfterFailure::Pause), 984);
        assert_eq!(after.last(), Some(&AfterFailure::GiveUp));
    }
}
