//! One session's TCP side: bytes between a socket and its place on the connection, in the connection's own task.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    task::Poll,
    time::{Duration, Instant},
};

use adit_proto_core::{
    close::session_code,
    connection::Connection,
    id::Slot,
    session::{Read, SessionError, Written},
};
use bytes::{Buf, Bytes};

use crate::leg::Leg;

/// Read from a connection at once, in bytes; what a leg reads from its socket at once is as much at most.
pub const READ_LEN: usize = 64 << 10;
/// Moved in one direction of one session before the next session has its turn, in bytes.
const TURN_LEN: usize = 128 << 10;
/// Slices given to one vectored write.
const SLICES_MAX: usize = 64;

/// Buffers that the sessions of one connection share, so that an idle one owns none.
#[derive(Debug, Default)]
pub struct Pool<B> {
    read: B,
    chunks: VecDeque<Bytes>,
}

/// The TCP side of one session.
#[derive(Debug)]
pub struct Pump<L> {
    slot: Slot,
    tcp: L,
    /// Read from the socket and not yet taken by the connection.
    to_peer: Bytes,
    /// Read from the connection and not yet taken by the socket; at most one read's worth.
    to_tcp: VecDeque<Bytes>,
    outbound: Outbound,
    inbound: Inbound,
    /// When this session last got room on the connection, in turns of the connection: those who waited longest go
    /// first, so that none starves.
    pub served: u64,
    took_room: bool,
    /// [`Turn::Failed`] was said.
    told_failed: bool,
    /// Bytes that the socket had taken when it was last asked whether it takes any.
    seen: u64,
    traffic: Traffic,
}

/// Socket to connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outbound {
    Open,
    /// The connection takes no more for now.
    Blocked,
    /// The socket's end was passed on.
    Ended,
    /// The socket failed; everything that came before has been passed on.
    Failed,
}

/// Connection to socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inbound {
    Open,
    /// The connection has nothing for now.
    Blocked,
    /// The peer's end was read; what was read before it may still have to be written.
    Ending,
    /// The end was passed on to the socket.
    Ended,
    /// The socket takes nothing more. What it has sent before may still have to be read.
    Failed,
    /// The peer abandoned the session; what was read before may still have to be written.
    Abandoned,
}

/// What a turn led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing to do until a wake-up or an event.
    Waiting,
    /// The turn's allowance is used up; there is more.
    More,
    /// Both directions have ended cleanly.
    Done,
    /// The socket has failed. The peer is to be told by a reset, once what came before has reached it. Said once.
    Failed,
    /// The session is over otherwise; the socket must be closed hard.
    Broken(Break),
}

/// Why a session broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// The socket at this end failed or was reset.
    Tcp,
    /// The peer abandoned the session.
    Peer,
}

/// What a session has carried.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Bytes from the socket at this end.
    pub sent: u64,
    /// Bytes to the socket at this end.
    pub received: u64,
    since: Instant,
}

impl Traffic {
    /// Nothing yet; from now on its duration counts.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            sent: 0,
            received: 0,
            since: Instant::now(),
        }
    }

    /// Time since the socket was attached.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.since.elapsed()
    }
}

impl<L: Leg> Pump<L> {
    /// Takes a socket over. `early` is what was read from it already.
    pub fn new(slot: Slot, tcp: L, early: Bytes) -> Self {
        let mut traffic = Traffic::begin();
        traffic.sent = early.len() as u64;
        Self {
            slot,
            tcp,
            to_peer: early,
            to_tcp: VecDeque::new(),
            outbound: Outbound::Open,
            inbound: Inbound::Open,
            served: 0,
            took_room: false,
            told_failed: false,
            seen: 0,
            traffic,
        }
    }

    /// What it has carried.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The connection may have something to read again.
    pub fn set_readable(&mut self) {
        if self.inbound == Inbound::Blocked {
            self.inbound = Inbound::Open;
        }
    }

    /// The connection may take something again.
    pub fn set_writable(&mut self) {
        if self.outbound == Outbound::Blocked {
            self.outbound = Outbound::Open;
        }
    }

    /// The peer abandoned the session: only what was read before is still written.
    pub fn set_abandoned(&mut self) {
        self.inbound = Inbound::Abandoned;
    }

    /// The connection is lost, and these are the last bytes of a session that is whole.
    pub fn set_rest(&mut self, rest: VecDeque<Bytes>) {
        if let Inbound::Open | Inbound::Blocked = self.inbound {
            self.to_tcp.extend(rest);
            self.inbound = Inbound::Ending;
        }
    }

    /// Tells whether the socket of a session that only has to be told the rest has taken any of it since the last look.
    pub fn makes_progress(&mut self) -> bool {
        let seen = std::mem::replace(&mut self.seen, self.traffic.received);
        self.is_flushing() && seen < self.traffic.received
    }

    /// Tells whether the peer abandoned the session.
    pub fn is_abandoned(&self) -> bool {
        self.inbound == Inbound::Abandoned
    }

    /// Tells whether the session has ended cleanly and only the socket has to be told the rest.
    pub fn is_flushing(&self) -> bool {
        self.outbound == Outbound::Ended && self.inbound == Inbound::Ending
    }

    /// Asks a socket that is not being read whether it still stands: without reading, a reset or a failed keep-alive
    /// goes unseen. Tells whether it died.
    pub fn died(&mut self) -> bool {
        let unread = self.outbound != Outbound::Open;
        let dead = unread && self.tcp.has_failed();
        if dead {
            self.outbound = Outbound::Failed;
        }
        dead
    }

    /// The socket.
    pub fn leg(&mut self) -> &mut L {
        &mut self.tcp
    }

    /// Closes the socket hard: the program at its other end sees a reset, never a clean end.
    pub fn abort(self, why: &'static str) -> Traffic {
        self.tcp.reset(why);
        self.traffic
    }

    /// Tells whether the last turn got room on the connection.
    pub fn took_room(&mut self) -> bool {
        std::mem::take(&mut self.took_room)
    }

    /// Moves bytes both ways, as far as one turn goes.
    pub fn turn(&mut self, conn: &mut Connection, pool: &mut Pool<L::Buffer>) -> Turn {
        self.tcp.begin_turn();
        if self.is_abandoned() {
            return match self.write_tcp() {
                Ok(false) => Turn::Waiting,
                Ok(true) | Err(_) => Turn::Broken(Break::Peer),
            };
        }
        let moved = self
            .send(conn, pool)
            .and_then(|more| Ok(more | self.receive(conn, pool)?));
        match moved {
            Err(cause) => self.broken(conn, cause),
            Ok(_) if self.outbound == Outbound::Ended && self.inbound == Inbound::Ended => {
                Turn::Done
            }
            Ok(_) if self.has_failed() && !self.told_failed => {
                self.told_failed = true;
                Turn::Failed
            }
            Ok(true) => Turn::More,
            Ok(false) => Turn::Waiting,
        }
    }

    fn has_failed(&self) -> bool {
        self.outbound == Outbound::Failed || self.inbound == Inbound::Failed
    }

    /// Socket to connection. Gives whether the turn ended before the bytes did.
    fn send(&mut self, conn: &mut Connection, pool: &mut Pool<L::Buffer>) -> Result<bool, Break> {
        let mut moved = 0;
        while self.outbound == Outbound::Open {
            if !self.to_peer.is_empty() {
                let mut session = conn.session(self.slot).ok_or(Break::Peer)?;
                let before = self.to_peer.len();
                let written = session.write(&mut self.to_peer).map_err(broken)?;
                self.took_room |= self.to_peer.len() < before;
                if written == Written::Blocked {
                    self.outbound = Outbound::Blocked;
                    break;
                }
            }
            if moved >= TURN_LEN {
                return Ok(true);
            }
            match self.tcp.poll_read(&mut pool.read) {
                // A socket that has failed ends its reading without an error: the failure was told to the writing.
                Poll::Ready(Ok(end)) if end.is_empty() && self.inbound == Inbound::Failed => {
                    self.outbound = Outbound::Failed
                }
                Poll::Ready(Ok(end)) if end.is_empty() => {
                    conn.session(self.slot)
                        .ok_or(Break::Peer)?
                        .finish()
                        .map_err(broken)?;
                    self.outbound = Outbound::Ended;
                }
                Poll::Ready(Ok(read)) => {
                    moved += read.len();
                    self.traffic.sent += read.len() as u64;
                    self.to_peer = read;
                }
                Poll::Ready(Err(_)) => self.outbound = Outbound::Failed,
                Poll::Pending => break,
            }
        }
        Ok(false)
    }

    /// Connection to socket. Gives whether the turn ended before the bytes did.
    fn receive(
        &mut self,
        conn: &mut Connection,
        pool: &mut Pool<L::Buffer>,
    ) -> Result<bool, Break> {
        let mut moved = 0;
        loop {
            match self.write_tcp() {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(_) => self.fail_inbound(),
            }
            match self.inbound {
                Inbound::Open if moved >= TURN_LEN => return Ok(true),
                Inbound::Open => moved += self.read_peer(conn, pool)?,
                Inbound::Ending => match self.tcp.poll_shutdown() {
                    Poll::Ready(Ok(())) => self.inbound = Inbound::Ended,
                    // The program at the other end is gone already.
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                        self.inbound = Inbound::Ended;
                    }
                    Poll::Ready(Err(_)) => self.fail_inbound(),
                    Poll::Pending => return Ok(false),
                },
                Inbound::Blocked | Inbound::Ended | Inbound::Failed | Inbound::Abandoned => {
                    // The buffer goes back: what is left of it is empty.
                    if self.to_tcp.capacity() > 0 && pool.chunks.capacity() == 0 {
                        pool.chunks = std::mem::take(&mut self.to_tcp);
                    } else {
                        self.to_tcp = VecDeque::new();
                    }
                    return Ok(false);
                }
            }
        }
    }

    fn fail_inbound(&mut self) {
        self.inbound = Inbound::Failed;
        self.to_tcp.clear();
    }

    fn read_peer(
        &mut self,
        conn: &mut Connection,
        pool: &mut Pool<L::Buffer>,
    ) -> Result<usize, Break> {
        if self.to_tcp.capacity() == 0 {
            self.to_tcp = std::mem::take(&mut pool.chunks);
        }
        let mut session = conn.session(self.slot).ok_or(Break::Peer)?;
        match session.read(READ_LEN, &mut self.to_tcp).map_err(broken)? {
            Read::More => {}
            Read::Blocked => self.inbound = Inbound::Blocked,
            Read::End => self.inbound = Inbound::Ending,
        }
        Ok(self.to_tcp.iter().map(Bytes::len).sum())
    }

    /// Gives whether everything was written.
    fn write_tcp(&mut self) -> Result<bool, Break> {
        while !self.to_tcp.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.to_tcp.len().min(SLICES_MAX);
            for (slice, chunk) in slices.iter_mut().zip(&self.to_tcp) {
                *slice = IoSlice::new(chunk);
            }
            let slices = slices.get(..count).unwrap_or_default();
            match self.tcp.poll_write(slices) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Err(Break::Tcp),
                Poll::Ready(Ok(len)) => {
                    self.traffic.received += len as u64;
                    self.advance(len);
                }
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, mut len: usize) {
        while let Some(chunk) = self.to_tcp.front_mut() {
            if chunk.len() > len {
                chunk.advance(len);
                return;
            }
            len -= chunk.len();
            self.to_tcp.pop_front();
        }
    }

    fn broken(&self, conn: &mut Connection, cause: Break) -> Turn {
        if let Some(session) = conn.session(self.slot) {
            session.reset(session_code::TCP_RESET);
        }
        Turn::Broken(cause)
    }
}

fn broken(_: SessionError) -> Break {
    Break::Peer
}
