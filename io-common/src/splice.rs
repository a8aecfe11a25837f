//! Two sockets joined: a session that the gateway carries itself.

use std::{
    io::{self, IoSlice},
    task::Poll,
    time::Instant,
};

use adit_proto_core::session_timer::{SessionBounds, SessionTimer};
use bytes::{Buf, Bytes};

use crate::{leg::Leg, over::Over, pump::Traffic};

/// Moves bytes both ways until both directions have ended, with half-close, or somebody or its bounds end them. That, and
/// an error at one end, become a reset at both, never a clean end.
#[derive(Debug)]
pub struct Splice<L: Leg> {
    user: L,
    target: L,
    buffer: L::Buffer,
    to_target: Way,
    to_user: Way,
    timer: SessionTimer,
    traffic: Traffic,
}

/// What a turn led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpliceTurn {
    /// Nothing to do until a socket is ready.
    Waiting,
    /// The turn's allowance is used up; there is more.
    More,
    /// It is over; [`Splice::end`] is next.
    Over(Over),
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// Read and not yet written: one read's worth at most.
    pending: Bytes,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The end was read; what was read before may still have to be written.
    Ending,
    /// The end was passed on.
    Ended,
}

/// Moved in one direction before others have their turn, in bytes.
const TURN_LEN: usize = 128 << 10;

impl<L: Leg> Splice<L> {
    /// Joins two sockets, the user's and the target's. `early` was read from the user's already.
    pub fn new(now: Instant, (user, target): (L, L), early: Bytes, bounds: SessionBounds) -> Self {
        let mut traffic = Traffic::begin();
        traffic.sent = early.len() as u64;
        Self {
            user,
            target,
            buffer: L::Buffer::default(),
            to_target: Way {
                pending: early,
                state: State::Open,
            },
            to_user: Way::default(),
            timer: SessionTimer::new(now, bounds),
            traffic,
        }
    }

    /// Both sockets, the user's first, for their driver to say what they are ready for.
    pub fn legs(&mut self) -> (&mut L, &mut L) {
        (&mut self.user, &mut self.target)
    }

    /// When a turn is due although no socket is ready.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timer.poll_timeout()
    }

    /// Moves bytes both ways, as far as one turn goes.
    pub fn turn(&mut self, now: Instant) -> SpliceTurn {
        self.user.begin_turn();
        self.target.begin_turn();
        let (user, target) = (&mut self.user, &mut self.target);
        let sent = self.to_target.carry(user, target, &mut self.buffer);
        let received = self.to_user.carry(target, user, &mut self.buffer);
        self.traffic.sent += sent.read as u64;
        self.traffic.received += received.written as u64;
        if sent.failed || received.failed {
            return SpliceTurn::Over(Over::TcpReset);
        }
        if sent.read + sent.written + received.read + received.written > 0 {
            self.timer.handle_bytes(now);
        }
        if self.to_target.state == State::Ended && self.to_user.state == State::Ended {
            return SpliceTurn::Over(Over::Clean);
        }
        if let Some(over) = self.timer.poll_over(now) {
            return SpliceTurn::Over(over.into());
        }
        if sent.more || received.more {
            SpliceTurn::More
        } else {
            SpliceTurn::Waiting
        }
    }

    /// Ends it; gives what was carried.
    pub fn end(self, how: Over) -> Traffic {
        if how != Over::Clean {
            self.user.reset(how.text());
            self.target.reset(how.text());
        }
        self.traffic
    }
}

/// What one direction has moved in a turn.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    read: usize,
    written: usize,
    /// There may be more.
    more: bool,
    /// A socket has failed.
    failed: bool,
}

impl Way {
    fn carry<L: Leg>(&mut self, from: &mut L, to: &mut L, buffer: &mut L::Buffer) -> Moved {
        let mut moved = Moved::default();
        let carried = self.carry_on(from, to, buffer, &mut moved);
        moved.failed = carried.is_err();
        moved
    }

    fn carry_on<L: Leg>(
        &mut self,
        from: &mut L,
        to: &mut L,
        buffer: &mut L::Buffer,
        moved: &mut Moved,
    ) -> io::Result<()> {
        loop {
            while !self.pending.is_empty() {
                match to.poll_write(&[IoSlice::new(&self.pending)])? {
                    Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(len) => {
                        moved.written += len;
                        self.pending.advance(len);
                    }
                    Poll::Pending => return Ok(()),
                }
            }
            match self.state {
                State::Ended => return Ok(()),
                State::Ending => match to.poll_shutdown() {
                    Poll::Ready(Ok(())) => self.state = State::Ended,
                    // The program at the other end is gone already.
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                        self.state = State::Ended;
                    }
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => return Ok(()),
                },
                State::Open if moved.read >= TURN_LEN => {
                    moved.more = true;
                    return Ok(());
                }
                State::Open => match from.poll_read(buffer)? {
                    Poll::Ready(end) if end.is_empty() => self.state = State::Ending,
                    Poll::Ready(read) => {
                        moved.read += read.len();
                        self.pending = read;
                    }
                    Poll::Pending => return Ok(()),
                },
            }
        }
    }
}
