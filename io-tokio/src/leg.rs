//! A session's socket, registered with the runtime.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use adit_io_common::{
    leg::Leg,
    pipe::Pipe,
    pump::READ_LEN,
    socket::{Socket, end_tcp, reset_tcp},
};
use adit_proto_core::id::Slot;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::{io::AsyncWrite, net::TcpStream};
use tokio_util::io::poll_read_buf;

use crate::ready::{ReadyQueue, SlotWaker};

/// A pooled buffer with less room than this is exchanged for a fresh one.
const READ_ROOM_MIN: usize = 16 << 10;

/// Takes a TCP connection off the runtime, on its way to whoever carries it.
///
/// # Errors
/// What the system says.
pub fn socket(tcp: TcpStream) -> io::Result<Socket> {
    tcp.into_std().map(Socket::Tcp)
}

/// A socket of the present thread's runtime, so that every wake-up stays on this thread.
#[derive(Debug)]
pub(crate) struct TokioLeg {
    socket: Registered,
    waker: Waker,
    /// What the waker is, where many sockets wake one task.
    slot: Option<Arc<SlotWaker>>,
}

#[derive(Debug)]
enum Registered {
    Tcp(TcpStream),
    Pipe(Pipe),
}

impl TokioLeg {
    /// Registers a socket; when it is ready its slot is in the queue.
    pub(crate) fn new(socket: Socket, queue: &Arc<ReadyQueue>, slot: Slot) -> io::Result<Self> {
        let slot = SlotWaker::new(queue, slot);
        Ok(Self {
            socket: Registered::new(socket)?,
            waker: Waker::from(Arc::clone(&slot)),
            slot: Some(slot),
        })
    }

    /// Registers a socket that wakes the task that calls [`wake`](Self::wake).
    pub(crate) fn alone(socket: Socket) -> io::Result<Self> {
        Ok(Self {
            socket: Registered::new(socket)?,
            waker: Waker::noop().clone(),
            slot: None,
        })
    }

    /// The task to wake from here on.
    pub(crate) fn wake(&mut self, cx: &Context<'_>) {
        self.waker.clone_from(cx.waker());
    }
}

impl Registered {
    fn new(socket: Socket) -> io::Result<Self> {
        match socket {
            Socket::Tcp(tcp) => {
                // The runtime drops a socket that it cannot watch, which must not look like one that has ended.
                reset_tcp(&tcp);
                let tcp = TcpStream::from_std(tcp)?;
                end_tcp(&tcp);
                Ok(Self::Tcp(tcp))
            }
            Socket::Pipe(pipe) => Ok(Self::Pipe(pipe)),
        }
    }
}

impl Leg for TokioLeg {
    type Buffer = BytesMut;

    fn begin_turn(&mut self) {
        if let Some(slot) = &self.slot {
            slot.rearm();
        }
    }

    fn poll_read(&mut self, buffer: &mut BytesMut) -> Poll<io::Result<Bytes>> {
        let cx = &mut Context::from_waker(&self.waker);
        match &mut self.socket {
            Registered::Tcp(tcp) => {
                if buffer.capacity() < READ_ROOM_MIN {
                    // A socket that has nothing is asked often, and needs no buffer for that.
                    ready!(tcp.poll_read_ready(cx))?;
                    *buffer = BytesMut::with_capacity(READ_LEN);
                }
                let room = buffer.capacity();
                let read = poll_read_buf(Pin::new(tcp), cx, &mut (&mut *buffer).limit(room));
                read.map_ok(|_| buffer.split().freeze())
            }
            Registered::Pipe(pipe) => pipe.poll_read(cx, READ_LEN),
        }
    }

    fn poll_write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let cx = &mut Context::from_waker(&self.waker);
        match &mut self.socket {
            Registered::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Registered::Pipe(pipe) => pipe.poll_write(cx, slices),
        }
    }

    fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
        let cx = &mut Context::from_waker(&self.waker);
        match &mut self.socket {
            Registered::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Registered::Pipe(pipe) => {
                pipe.shutdown();
                Poll::Ready(Ok(()))
            }
        }
    }

    fn reset(self, why: &'static str) {
        match self.socket {
            Registered::Tcp(tcp) => reset_tcp(&tcp),
            Registered::Pipe(pipe) => pipe.reset(why),
        }
    }

    fn has_failed(&self) -> bool {
        match &self.socket {
            Registered::Tcp(tcp) => !matches!(tcp.take_error(), Ok(None)),
            Registered::Pipe(pipe) => pipe.is_reset(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{ErrorKind, Read, Write},
        net::{TcpListener, TcpStream as StdStream},
        os::fd::AsRawFd,
    };

    use tokio::io::Interest;

    use super::*;
    use crate::udp::register;

    #[tokio::test]
    async fn nothing_is_allocated_for_a_socket_that_has_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let (mut leg, mut buffer) = (TokioLeg::alone(near.into()).unwrap(), BytesMut::new());
        assert!(leg.poll_read(&mut buffer).is_pending());
        assert_eq!(buffer.capacity(), 0);
        far.write_all(b"x").unwrap();
        let read = poll_fn(|cx| {
            leg.wake(cx);
            leg.poll_read(&mut buffer)
        });
        assert_eq!(read.await.unwrap(), "x");
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_watched_is_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        // The system refuses a descriptor that is watched already.
        let _watched = register(near.as_raw_fd(), Interest::READABLE).unwrap();
        TokioLeg::alone(near.into()).unwrap_err();
        let error = far.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
