//! A sealed link as one end of a session: bytes on this side, records on the socket's.

use std::{
    io::{self, IoSlice},
    task::{Poll, ready},
};

use adit_proto_core::{
    limits::REPLICA_RECORD_LEN_MAX,
    replica::{OpenFault, Opened, Opener, RECORD_HEAD, Sealed, Sealer},
};
use bytes::{Buf, Bytes, BytesMut};

use crate::leg::Leg;

/// A sealed link over the leg of its socket. An end of a half is a record, so a connection that ends without one is a
/// reset of the session, and is never taken for its end (docs/protocol-peer.md, "Sealed links").
///
/// It holds at most one read of the socket and a part of a record that has come, and [`UNWRITTEN_MAX`] bytes that are to
/// be written; beyond that neither side is read.
#[derive(Debug)]
pub struct SealedLeg<L> {
    socket: L,
    sealer: Sealer,
    opener: Opener,
    /// What has come and was not opened.
    incoming: BytesMut,
    /// Records that the socket has not taken.
    unwritten: Vec<u8>,
    /// How much of them it has.
    written: usize,
    is_shut: bool,
    /// The peer has ended its half.
    has_ended: bool,
    failed: Option<io::ErrorKind>,
}

/// Bytes that are sealed at once, before the socket takes any of them.
pub const UNWRITTEN_MAX: usize = 4 * REPLICA_RECORD_LEN_MAX;

impl<L: Leg> SealedLeg<L> {
    /// Takes a link over: the leg of its socket, with the keys and counters that go with it.
    pub fn new(socket: L, sealed: Sealed) -> Self {
        let Sealed { sealer, opener } = sealed;
        Self {
            socket,
            sealer,
            opener,
            incoming: BytesMut::new(),
            unwritten: Vec::new(),
            written: 0,
            is_shut: false,
            has_ended: false,
            failed: None,
        }
    }

    /// The socket's leg, for its driver to say what it is ready for.
    pub fn socket(&mut self) -> &mut L {
        &mut self.socket
    }

    /// Tells whether the link has failed, or its peer has reset the session: the other end of the session has not.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.failed.is_some()
    }

    /// Writes what was sealed before. A session that is over is so once this is ready.
    ///
    /// # Errors
    /// That of the socket, and any earlier one.
    pub fn poll_flush(&mut self) -> Poll<io::Result<()>> {
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(kind.into()));
        }
        while let Some(rest) = self.unwritten.get(self.written..)
            && !rest.is_empty()
        {
            match ready!(self.socket.poll_write(&[IoSlice::new(rest)])) {
                Ok(0) => return Poll::Ready(Err(self.fail(io::ErrorKind::WriteZero.into()))),
                Ok(len) => self.written += len,
                Err(error) => return Poll::Ready(Err(self.fail(error))),
            }
        }
        // An idle session owns no buffer.
        self.unwritten = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// The peer has ended its half, so nobody reads any more. Before the other half has ended, too, the peer keeps its
    /// connection: whatever comes of it says that the session is reset, and whoever has nothing to write hears of it here.
    fn watch(&mut self) {
        if !self.has_ended || self.is_shut || self.failed.is_some() {
            return;
        }
        let kind = match self.socket.poll_read(&mut L::Buffer::default()) {
            Poll::Pending => return,
            Poll::Ready(Ok(end)) if end.is_empty() => io::ErrorKind::UnexpectedEof,
            Poll::Ready(Ok(_)) => io::ErrorKind::InvalidData,
            Poll::Ready(Err(error)) => error.kind(),
        };
        self.failed = Some(kind);
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        self.failed = Some(error.kind());
        error
    }

    /// The next record's payload that is here already; empty bytes are the end of the half.
    fn open(&mut self) -> Result<Option<Bytes>, OpenFault> {
        let (len, used) = match self.opener.open(&mut self.incoming)? {
            Opened::Missing(_) => return Ok(None),
            Opened::End { used } => {
                // What is asked again has its end again; nothing may come behind it.
                self.incoming.advance(used);
                if !self.incoming.is_empty() {
                    return Err(OpenFault::BehindEnd);
                }
                self.has_ended = true;
                return Ok(Some(Bytes::new()));
            }
            Opened::Data { payload, used } => (payload.len(), used),
        };
        let mut record = self.incoming.split_to(used).freeze();
        record.advance(RECORD_HEAD);
        record.truncate(len);
        if self.incoming.is_empty() {
            self.incoming = BytesMut::new();
        }
        Ok(Some(record))
    }

    fn seal(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        for slice in slices {
            let room = UNWRITTEN_MAX - taken;
            let data = slice.get(..room).unwrap_or(slice);
            (self.sealer.seal(data, &mut self.unwritten)).map_err(io::Error::other)?;
            taken += data.len();
        }
        Ok(taken)
    }
}

impl<L: Leg> Leg for SealedLeg<L> {
    type Buffer = L::Buffer;

    /// What was sealed before goes on, too: whoever wrote it may have nothing more to write.
    fn begin_turn(&mut self) {
        self.socket.begin_turn();
        // A failure is told by what is done next.
        let _told_later = self.poll_flush();
        self.watch();
    }

    /// One record at a time, so that whoever reads sees where each ends.
    fn poll_read(&mut self, buffer: &mut L::Buffer) -> Poll<io::Result<Bytes>> {
        loop {
            match self.open() {
                Ok(Some(payload)) => {
                    // From here on nobody else asks the socket to tell of what becomes of it.
                    self.watch();
                    return Poll::Ready(Ok(payload));
                }
                Ok(None) => {}
                Err(fault) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, fault);
                    return Poll::Ready(Err(self.fail(error)));
                }
            }
            match ready!(self.socket.poll_read(buffer)) {
                Ok(end) if end.is_empty() => {
                    let cut = self.opener.handle_end().err();
                    let fault = cut.unwrap_or(OpenFault::Truncated);
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, fault);
                    return Poll::Ready(Err(self.fail(error)));
                }
                Ok(read) => self.incoming.extend_from_slice(&read),
                Err(error) => return Poll::Ready(Err(self.fail(error))),
            }
        }
    }

    fn poll_write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush())?;
        let taken = self.seal(slices).map_err(|error| self.fail(error))?;
        match self.poll_flush() {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(self.poll_flush())?;
            let ended = self.sealer.end(&mut self.unwritten);
            ended.map_err(|error| self.fail(io::Error::other(error)))?;
            self.is_shut = true;
        }
        self.poll_flush()
    }

    /// The connection ends without the record that says so. What the socket has taken by then still arrives, so it is not
    /// reset itself.
    fn reset(mut self, _why: &'static str) {
        let _gone = self.poll_flush();
    }

    fn has_failed(&self) -> bool {
        self.failed.is_some() || self.socket.has_failed()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        task::{Context, Waker},
        time::Instant,
    };

    use adit_proto_core::replica::{
        ClusterId, Config, Keys, ReplicaId, ReplicaKey, Roster, Seal, Slots,
    };

    use super::*;
    use crate::{
        pipe::{PIPE_LEN, Pipe},
        replica::{Carrier, Replica, Turn},
    };

    /// A pipe that is asked again and again.
    #[derive(Debug)]
    struct Asked(Pipe);

    impl Leg for Asked {
        type Buffer = ();

        fn begin_turn(&mut self) {}

        fn poll_read(&mut self, (): &mut ()) -> Poll<io::Result<Bytes>> {
            self.0.poll_read(&cx(), usize::MAX)
        }

        fn poll_write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            self.0.poll_write(&cx(), slices)
        }

        fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
            self.0.shutdown();
            Poll::Ready(Ok(()))
        }

        fn reset(self, why: &'static str) {
            self.0.reset(why);
        }

        fn has_failed(&self) -> bool {
            self.0.is_reset()
        }
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// Keys and counters of both ends of one link.
    fn sealed() -> (Sealed, Sealed) {
        let replica = |id| {
            let key = ReplicaKey::new(b"0123456789abcdef0123456789abcdef").unwrap();
            let (keys, roster) = (Keys::new(key, None), Roster::dense(2, Seal::Require));
            let config = Config::new(ClusterId::of("c"), ReplicaId(id), roster, keys.ok());
            Replica::new(config.unwrap(), Slots::default())
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (now, addr) = (Instant::now(), listener.local_addr().unwrap());
        let near = TcpStream::connect(addr).unwrap();
        let (far, from) = listener.accept().unwrap();
        let mut near = replica(0).dial(now, near, addr, ReplicaId(1)).unwrap();
        let mut far = replica(1).accept(now, far, from).unwrap();
        let (mut near_over, mut far_over) = (false, false);
        while !(near_over && far_over) {
            near_over = near_over || near.turn(now) == Turn::Over;
            far_over = far_over || far.turn(now) == Turn::Over;
        }
        let of = |carrier| match carrier {
            Carrier::Sealed(_, sealed) => *sealed,
            Carrier::Plain(_) => panic!("not sealed"),
        };
        let ends = (near.end().unwrap(), far.end().unwrap());
        (of(ends.0.into_carrier()), of(ends.1.into_carrier()))
    }

    fn legs() -> (SealedLeg<Asked>, SealedLeg<Asked>) {
        let ((near, far), (one, other)) = (sealed(), Pipe::pair());
        (
            SealedLeg::new(Asked(one), near),
            SealedLeg::new(Asked(other), far),
        )
    }

    fn write(leg: &mut SealedLeg<Asked>, data: &[u8]) -> usize {
        match leg.poll_write(&[IoSlice::new(data)]) {
            Poll::Ready(taken) => taken.unwrap(),
            Poll::Pending => 0,
        }
    }

    fn read(leg: &mut SealedLeg<Asked>) -> io::Result<Bytes> {
        match leg.poll_read(&mut ()) {
            Poll::Ready(read) => read,
            Poll::Pending => panic!("nothing came"),
        }
    }

    #[test]
    fn records_come_one_by_one_and_each_half_has_its_end() {
        let (mut near, mut far) = legs();
        assert_eq!(write(&mut near, b"header"), 6);
        assert_eq!(write(&mut near, b"data"), 4);
        assert!(near.poll_shutdown().is_ready());
        assert_eq!(read(&mut far).unwrap(), "header");
        assert_eq!(write(&mut far, b"answer"), 6);
        assert_eq!(read(&mut far).unwrap(), "data");
        assert!(read(&mut far).unwrap().is_empty());
        assert!(far.poll_shutdown().is_ready());
        assert_eq!(read(&mut near).unwrap(), "answer");
        assert!(read(&mut near).unwrap().is_empty());
        assert!(!near.is_broken() && !far.is_broken());
    }

    #[test]
    fn a_connection_that_ends_without_an_end_is_a_reset_behind_what_came_before() {
        for socket_ends in [true, false] {
            let (mut near, mut far) = legs();
            write(&mut near, b"half");
            if socket_ends {
                // As when its process dies: the connection ends cleanly, the session does not.
                near.socket().0.shutdown();
            }
            near.reset("cut");
            assert_eq!(read(&mut far).unwrap(), "half");
            read(&mut far).unwrap_err();
            assert!(far.is_broken() && far.has_failed());
            assert!(matches!(
                far.poll_write(&[IoSlice::new(b"x")]),
                Poll::Ready(Err(_))
            ));
        }
    }

    #[test]
    fn an_end_stays_one_for_whoever_asks_again() {
        let (mut near, mut far) = legs();
        write(&mut near, b"last");
        assert!(near.poll_shutdown().is_ready());
        assert_eq!(read(&mut far).unwrap(), "last");
        for _ in 0..3 {
            far.begin_turn();
            assert!(read(&mut far).unwrap().is_empty());
        }
        assert_eq!(write(&mut far, b"answer"), 6);
        assert_eq!(read(&mut near).unwrap(), "answer");
        assert!(!far.is_broken() && !near.is_broken());
    }

    #[test]
    fn a_peer_that_goes_behind_its_end_is_seen_by_one_that_is_idle() {
        for how in ["reset", "end", "bytes", "clean"] {
            let (mut near, mut far) = legs();
            assert!(near.poll_shutdown().is_ready());
            assert!(read(&mut far).unwrap().is_empty());
            far.begin_turn();
            assert!(!far.is_broken());
            match how {
                "reset" => near.socket.0.reset("cut"),
                "end" => near.socket.0.shutdown(),
                "bytes" => assert!(near.socket.poll_write(&[IoSlice::new(b"x")]).is_ready()),
                _ => {
                    // Both halves have ended: the connection may go.
                    assert!(far.poll_shutdown().is_ready());
                    near.socket.0.shutdown();
                }
            }
            far.begin_turn();
            assert_eq!(far.is_broken(), how != "clean", "{how}");
        }
    }

    #[test]
    fn bytes_that_come_with_an_end_break_the_link_as_later_ones_do() {
        let (mut near, mut far) = legs();
        let mut bytes = Vec::new();
        near.sealer.seal(b"last", &mut bytes).unwrap();
        near.sealer.end(&mut bytes).unwrap();
        bytes.push(b'x');
        assert!(near.socket.poll_write(&[IoSlice::new(&bytes)]).is_ready());
        assert_eq!(read(&mut far).unwrap(), "last");
        let error = read(&mut far).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(far.is_broken());
    }

    #[test]
    fn what_is_not_written_is_bounded_and_goes_on_with_the_next_turn() {
        let (mut near, mut far) = legs();
        let data: Vec<u8> = (0..4 * PIPE_LEN).map(|n| n.to_le_bytes()[0]).collect();
        let mut taken = 0;
        loop {
            match write(&mut near, &data[taken..]) {
                0 => break,
                len => taken += len,
            }
        }
        assert!(taken <= PIPE_LEN + UNWRITTEN_MAX, "{taken}");
        let mut came = Vec::new();
        while came.len() < taken {
            near.begin_turn();
            came.extend_from_slice(&read(&mut far).unwrap());
        }
        assert_eq!(came, data[..taken]);
        assert!(near.unwritten.is_empty() && far.poll_read(&mut ()).is_pending());
    }

    #[test]
    fn bytes_that_are_no_records_end_the_link() {
        let (near, mut far) = legs();
        let SealedLeg { mut socket, .. } = near;
        assert!(socket.poll_write(&[IoSlice::new(&[0; 64])]).is_ready());
        let error = read(&mut far).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(far.is_broken());
    }
}
