//! Two sockets joined: a session that the gateway carries itself.

use std::{
    io::{self, IoSlice},
    task::Poll,
    time::Instant,
};

use adit_proto_core::session_timer::{SessionBounds, SessionTimer};
use bytes::{Buf, Bytes};

use crate::{
    leg::Leg,
    over::Over,
    pump::Traffic,
    socket::{Carried, Socket},
};

/// The sockets of a session that the gateway carries itself, before they are joined.
#[derive(Debug)]
pub struct Spliced {
    /// The user's.
    pub user: Carried,
    /// The target's.
    pub target: Carried,
    /// What the user has sent already.
    pub early: Bytes,
    /// How long it may be idle, and last.
    pub bounds: SessionBounds,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The user's.
    User,
    /// The target's.
    Target,
}

impl Spliced {
    /// Joins them, each as the leg that a driver makes of it. Where it can make none of one of them, both are reset, and
    /// there is nothing to carry.
    pub fn join<L: Leg>(
        self,
        now: Instant,
        mut leg: impl FnMut(End, Socket) -> io::Result<L>,
    ) -> Option<Splice<L>> {
        let mut made = |end, carried: Carried| match leg(end, carried.release()?) {
            Ok(leg) => Some(leg),
            Err(error) => {
                tracing::warn!(%error, "a session's socket cannot be used; the session is ended");
                None
            }
        };
        match (made(End::User, self.user), made(End::Target, self.target)) {
            (Some(user), Some(target)) => {
                Some(Splice::new(now, (user, target), self.early, self.bounds))
            }
            (user, target) => {
                for left in [user, target].into_iter().flatten() {
                    left.reset(Over::TcpReset.text());
                }
                None
            }
        }
    }
}

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

    /// One of its sockets, for its driver to say what it is ready for.
    pub fn leg(&mut self, end: End) -> &mut L {
        match end {
            End::User => &mut self.user,
            End::Target => &mut self.target,
        }
    }

    /// What was carried so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
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

#[cfg(test)]
mod tests {
    use std::{
        task::{Context, Waker},
        time::Duration,
    };

    use super::*;
    use crate::pipe::{PIPE_LEN, Pipe};

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

    fn write(pipe: &mut Pipe, bytes: &[u8]) {
        let written = pipe.poll_write(&cx(), &[IoSlice::new(bytes)]);
        assert!(matches!(written, Poll::Ready(Ok(len)) if len == bytes.len()));
    }

    fn read(pipe: &mut Pipe) -> Option<io::Result<Bytes>> {
        match pipe.poll_read(&cx(), usize::MAX) {
            Poll::Ready(read) => Some(read),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_was_carried_is_known_however_a_session_ends() {
        let s = Duration::from_secs;
        for how in [Over::Clean, Over::TcpReset, Over::Killed, Over::Idle] {
            let start = Instant::now();
            let ((mut user, near), (far, mut target)) = (Pipe::pair(), Pipe::pair());
            let bounds = SessionBounds {
                idle: Some(s(30)),
                ..SessionBounds::default()
            };
            let early = Bytes::from_static(b"early");
            let mut splice = Splice::new(start, (Asked(near), Asked(far)), early, bounds);
            write(&mut user, b" and late");
            assert_eq!(splice.turn(start + s(20)), SpliceTurn::Waiting);
            assert_eq!(read(&mut target).unwrap().unwrap(), "early and late");
            write(&mut target, b"answer");
            assert_eq!(splice.turn(start + s(40)), SpliceTurn::Waiting);
            assert_eq!(read(&mut user).unwrap().unwrap(), "answer");
            assert!(splice.poll_timeout().is_some());
            // Bytes have moved since, so its time is not over yet.
            assert_eq!(splice.turn(start + s(69)), SpliceTurn::Waiting);
            if how == Over::Clean {
                user.shutdown();
                assert_eq!(splice.turn(start + s(69)), SpliceTurn::Waiting);
                assert!(read(&mut target).unwrap().unwrap().is_empty());
                target.shutdown();
                assert_eq!(splice.turn(start + s(69)), SpliceTurn::Over(how));
            } else if how == Over::TcpReset {
                drop(target);
                assert_eq!(splice.turn(start + s(69)), SpliceTurn::Over(how));
            } else if how == Over::Idle {
                assert_eq!(splice.turn(start + s(70)), SpliceTurn::Over(how));
            }
            let traffic = splice.end(how);
            assert_eq!((traffic.sent, traffic.received), (14, 6), "{how:?}");
            let told = read(&mut user).unwrap();
            if how == Over::Clean {
                assert!(told.unwrap().is_empty());
            } else if how != Over::TcpReset {
                assert_eq!(told.unwrap_err().to_string(), how.text());
            }
        }
    }

    #[test]
    fn where_one_socket_is_of_no_use_both_are_reset() {
        for useless in [End::User, End::Target] {
            let ((mut user, near), (far, mut target)) = (Pipe::pair(), Pipe::pair());
            let spliced = Spliced {
                user: Carried::new(near),
                target: Carried::new(far),
                early: Bytes::new(),
                bounds: SessionBounds::default(),
            };
            let leg = |end, socket: Socket| match socket {
                Socket::Pipe(pipe) if end != useless => Ok(Asked(pipe)),
                Socket::Pipe(_) | Socket::Tcp(_) => Err(io::ErrorKind::Other.into()),
            };
            assert!(spliced.join(Instant::now(), leg).is_none());
            for end in [&mut user, &mut target] {
                assert!(read(end).unwrap().is_err(), "{useless:?}");
            }
        }
    }

    #[test]
    fn one_who_does_not_read_stops_the_other_and_nobody_else() {
        let start = Instant::now();
        let ((mut user, near), (far, mut target)) = (Pipe::pair(), Pipe::pair());
        let mut splice = Splice::new(
            start,
            (Asked(near), Asked(far)),
            Bytes::new(),
            SessionBounds::default(),
        );
        let bytes = vec![7; PIPE_LEN];
        let mut sent = 0;
        while let Poll::Ready(Ok(len)) = user.poll_write(&cx(), &[IoSlice::new(&bytes)]) {
            sent += len;
            splice.turn(start);
        }
        // What is in both pipes, and one read's worth in between.
        assert!(sent <= 3 * PIPE_LEN, "{sent}");
        write(&mut target, b"answer");
        splice.turn(start);
        assert_eq!(read(&mut user).unwrap().unwrap(), "answer");
        let mut got = 0;
        while got < sent {
            got += read(&mut target).unwrap().unwrap().len();
            splice.turn(start);
        }
    }
}
