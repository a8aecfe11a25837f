//! The UDP socket: large buffers, batches in both directions.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use adit_proto_core::output::{PathMeta, Transmit};
use bytes::BytesMut;
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::burst::Burst;

/// Asked of the kernel for both directions, in bytes: 20 ms at 1.6 Gbit/s. The kernel may give less (`rmem_max`).
const SOCKET_BUFFER: usize = 4 << 20;
/// Buffers that one system call fills. Each takes what the kernel merges of one peer, 64 KiB at most.
const RECV_BATCH: usize = 8;
const RECV_BUFFER: usize = 64 << 10;
/// Datagrams handed to the kernel at once: 40 of 1,452 bytes fit the 64 KiB that a segmented send may have.
const SEND_BATCH: usize = 40;

/// A bound UDP socket that does not block; registered with no driver.
#[derive(Debug)]
pub struct UdpPort {
    socket: StdSocket,
    state: UdpSocketState,
    /// Sends that the kernel had no room for.
    blocked: AtomicU64,
}

/// Buffers for receiving, filled by [`UdpPort::receive`].
pub struct RecvBatch {
    buffer: Box<[u8]>,
    meta: [RecvMeta; RECV_BATCH],
    failures: Failures,
}

/// What an attempt to receive has led to.
#[derive(Debug)]
pub enum Received {
    /// So many datagrams, and there may be more.
    More(usize),
    /// So many datagrams, none of them where nothing was there; the socket is empty: the next datagram is a new edge.
    Drained(usize),
    /// Receiving fails again and again; nothing is to be received for so long.
    Pause(Duration),
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

/// An address as a socket takes it: an IPv6 one reaches IPv4 by the mapped address.
#[must_use]
pub fn for_socket(addr: SocketAddr, is_dual_stack: bool) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if is_dual_stack => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => addr,
    }
}

impl UdpPort {
    /// Binds. `[::]` also takes IPv4; where the machine has no IPv6 it becomes `0.0.0.0` (agent-tunnel 2.3).
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = match (bind(addr), addr.ip()) {
            (Err(error), IpAddr::V6(Ipv6Addr::UNSPECIFIED))
                if error.kind() != io::ErrorKind::AddrInUse =>
            {
                bind((Ipv4Addr::UNSPECIFIED, addr.port()).into())?
            }
            (socket, _) => socket?,
        };
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            socket,
            state,
            blocked: AtomicU64::new(0),
        })
    }

    /// The address in use.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Datagrams of one size that one send may carry.
    pub fn send_batch(&self) -> usize {
        self.state.max_gso_segments().min(SEND_BATCH)
    }

    /// How often the kernel had no room for what was to be sent. It was tried again when there was, or was a stateless
    /// answer and dropped.
    pub fn blocked(&self) -> u64 {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Sends if the kernel takes it now; gives whether it did. What the network refuses is dropped: QUIC repairs it.
    pub fn try_send(&self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let message = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(EcnCodepoint::from_bits),
            contents: bytes.get(..transmit.size).unwrap_or(bytes),
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match self
            .state
            .try_send(UdpSockRef::from(&self.socket), &message)
        {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(error) => {
                tracing::trace!(%error, to = %transmit.destination, "datagrams not sent");
                true
            }
            Ok(()) => true,
        }
    }

    /// Receives one batch and hands each datagram on. Errors that an earlier send caused are passed over: they belong to
    /// one peer. Others are logged and tried again, as a shortage passes, until they do not end.
    ///
    /// # Errors
    /// The last of very many in a row.
    pub fn receive(
        &self,
        batch: &mut RecvBatch,
        mut sink: impl FnMut(PathMeta, BytesMut),
    ) -> io::Result<Received> {
        loop {
            let mut chunks = batch.buffer.chunks_exact_mut(RECV_BUFFER);
            let mut buffers: [IoSliceMut<'_>; RECV_BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            match self.state.recv(
                UdpSockRef::from(&self.socket),
                &mut buffers,
                &mut batch.meta,
            ) {
                Ok(count) => {
                    batch.failures.in_a_row = 0;
                    let mut datagrams = 0;
                    for (meta, buffer) in batch.meta.iter().zip(&buffers).take(count) {
                        datagrams += split(meta, buffer, &mut sink);
                    }
                    // Fewer than asked for: the socket is empty.
                    return Ok(if count < RECV_BATCH {
                        Received::Drained(datagrams)
                    } else {
                        Received::More(datagrams)
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Received::Drained(0));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => match batch.failures.note(Instant::now(), &error) {
                    AfterFailure::Retry => {}
                    AfterFailure::Pause => return Ok(Received::Pause(FAILURE_PAUSE)),
                    AfterFailure::GiveUp => return Err(error),
                },
            }
        }
    }
}

impl AsFd for UdpPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for UdpPort {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// An empty one; it receives nothing. It stands in while the real one is lent.
impl Default for RecvBatch {
    fn default() -> Self {
        Self {
            buffer: Box::default(),
            meta: [RecvMeta::default(); RECV_BATCH],
            failures: Failures::default(),
        }
    }
}

impl RecvBatch {
    /// Allocates them.
    #[must_use]
    pub fn new() -> Self {
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
