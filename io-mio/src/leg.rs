//! A session's socket, watched by the loop's poll.

use std::{
    io::{self, IoSlice, Write},
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use adit_io_common::{
    handoff::Sender,
    leg::Leg,
    pipe::Pipe,
    pump::READ_LEN,
    socket::{Socket, reset_tcp},
};
use bytes::Bytes;
use mio::{Interest, event::Event, net::TcpStream};
use rustix::buffer::spare_capacity;

use crate::sources::{Owner, Place, Sources};

/// A read of at least this many bytes keeps the buffer that it is in; a smaller one is copied out, so that a few bytes do
/// not hold 64 KiB.
const KEEP_LEN: usize = 16 << 10;

/// A socket, and what it is ready for as far as is known.
#[derive(Debug)]
pub(crate) enum MioLeg {
    Tcp(Tcp),
    Pipe(Pipe, Arc<PipeWaker>, Waker),
}

#[derive(Debug)]
pub(crate) struct Tcp {
    socket: TcpStream,
    _place: Place,
    readable: bool,
    writable: bool,
    /// Its end, or a failure, can be read: no further event tells of it.
    read_closed: bool,
}

/// Tells the loop that a pipe may be ready.
#[derive(Debug)]
pub(crate) struct PipeWaker {
    owner: Owner,
    woken: Sender<Owner>,
    queued: AtomicBool,
}

impl Wake for PipeWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.woken.push_or_stop(self.owner);
        }
    }
}

impl MioLeg {
    pub(crate) fn new(
        socket: Socket,
        sources: &Sources,
        owner: Owner,
        woken: &Sender<Owner>,
    ) -> io::Result<Self> {
        match socket {
            Socket::Tcp(tcp) => {
                let mut socket = TcpStream::from_std(tcp);
                let both = Interest::READABLE | Interest::WRITABLE;
                // A socket that nobody can carry must not look like one that has ended.
                let place = sources
                    .watch(&mut socket, owner, both)
                    .inspect_err(|_| reset_tcp(&socket))?;
                Ok(Self::Tcp(Tcp {
                    socket,
                    _place: place,
                    // What is there already is found by trying.
                    readable: true,
                    writable: true,
                    read_closed: false,
                }))
            }
            Socket::Pipe(pipe) => {
                let waker = Arc::new(PipeWaker {
                    owner,
                    woken: woken.clone(),
                    queued: AtomicBool::new(false),
                });
                Ok(Self::Pipe(pipe, Arc::clone(&waker), Waker::from(waker)))
            }
        }
    }

    /// Takes an event.
    pub(crate) fn ready(&mut self, event: &Event) {
        if let Self::Tcp(tcp) = self {
            tcp.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            tcp.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
            tcp.read_closed |= event.is_read_closed() || event.is_error();
        }
    }
}

impl Tcp {
    fn poll_read(&mut self, buffer: &mut Vec<u8>) -> Poll<io::Result<Bytes>> {
        if !self.readable {
            return Poll::Pending;
        }
        buffer.reserve_exact(READ_LEN.saturating_sub(buffer.capacity()));
        let room = buffer.capacity();
        let read = loop {
            match rustix::io::read(&self.socket, spare_capacity(buffer)) {
                Ok(read) => break read,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    self.readable = false;
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        };
        // Fewer than asked for: the socket is empty, and what comes is a new edge.
        if read < room && !self.read_closed {
            self.readable = read == 0;
        }
        Poll::Ready(Ok(if read >= KEEP_LEN {
            Bytes::from(std::mem::take(buffer))
        } else {
            let bytes = Bytes::copy_from_slice(buffer);
            buffer.clear();
            bytes
        }))
    }

    fn poll_write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while self.writable {
            match self.socket.write_vectored(slices) {
                Ok(written) => {
                    // Less than was given: the socket is full, and room is a new edge.
                    let given = slices.iter().map(|slice| slice.len()).sum::<usize>();
                    self.writable = written == given;
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }
}

impl Leg for MioLeg {
    type Buffer = Vec<u8>;

    fn begin_turn(&mut self) {
        if let Self::Pipe(_, waker, _) = self {
            waker.queued.store(false, Ordering::Release);
        }
    }

    fn poll_read(&mut self, buffer: &mut Vec<u8>) -> Poll<io::Result<Bytes>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read(buffer),
            Self::Pipe(pipe, _, waker) => pipe.poll_read(&Context::from_waker(waker), READ_LEN),
        }
    }

    fn poll_write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_write(slices),
            Self::Pipe(pipe, _, waker) => pipe.poll_write(&Context::from_waker(waker), slices),
        }
    }

    fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(match self {
            Self::Tcp(tcp) => tcp.socket.shutdown(Shutdown::Write),
            Self::Pipe(pipe, ..) => {
                pipe.shutdown();
                Ok(())
            }
        })
    }

    fn reset(self, why: &'static str) {
        match self {
            Self::Tcp(tcp) => reset_tcp(&tcp.socket),
            Self::Pipe(pipe, ..) => pipe.reset(why),
        }
    }

    fn has_failed(&self) -> bool {
        match self {
            Self::Tcp(tcp) => !matches!(tcp.socket.take_error(), Ok(None)),
            Self::Pipe(pipe, ..) => pipe.is_reset(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream as StdStream},
        os::fd::AsRawFd,
    };

    use adit_io_common::handoff::handoff;
    use mio::unix::SourceFd;

    use super::*;

    #[test]
    fn a_socket_that_cannot_be_watched_is_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let poll = mio::Poll::new().unwrap();
        let sources = Sources::new(poll.registry().try_clone().unwrap());
        let fd = near.as_raw_fd();
        // The system refuses a descriptor that is watched already.
        let _watched = sources
            .watch(&mut SourceFd(&fd), Owner::Udp, Interest::READABLE)
            .unwrap();
        let (woken, _) = handoff(1);
        MioLeg::new(near.into(), &sources, Owner::Udp, &woken).unwrap_err();
        let error = far.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
