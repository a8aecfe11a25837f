//! A user's end of a session without a socket: for an ingress whose users' bytes are wrapped in a protocol.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};

/// One end of a pair that works like a TCP connection within the process: bytes both ways, each direction with an end
/// of its own, and so many bytes under way in each at most as the pair was made for. What was read takes no memory any more.
///
/// An end that is dropped before [`shutdown`](Self::shutdown) resets the pair, as a socket that is lost must
/// never look like a clean end: the other end reads what came before, and then
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset) with the reason.
#[derive(Debug)]
pub struct Pipe {
    shared: Arc<Shared>,
    /// Which direction is written here; the other one is read.
    own: usize,
}

/// Bytes under way in each direction of [`Pipe::pair`].
pub const PIPE_LEN: usize = 64 << 10;
/// Least room that is made at a time, so that a writer of single bytes takes little more than these.
const CHUNK_MIN: usize = 4 << 10;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Bytes that may be under way in each direction.
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    ways: [Way; 2],
    /// Why the pair was reset, if it was.
    reset: Option<&'static str>,
    /// Who wait to hear of a reset.
    watchers: Vec<Waker>,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// Never an empty one.
    chunks: VecDeque<BytesMut>,
    /// Bytes in all of them.
    len: usize,
    /// Whoever writes has said all.
    finished: bool,
    /// Whoever reads is gone.
    unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Shared {
    /// A panic elsewhere leaves the pair as it was: every change below is a single step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    /// Takes the next bytes, `max` at most.
    fn take(&mut self, max: usize) -> Option<Bytes> {
        let mut first = self.chunks.pop_front()?;
        if first.len() > max {
            let rest = first.split_off(max);
            self.chunks.push_front(rest);
        }
        self.len = self.len.saturating_sub(first.len());
        Some(first.freeze())
    }

    /// Adds bytes; those of one write, or of many small ones, are one chunk.
    fn put(&mut self, slices: &[IoSlice<'_>], mut room: usize) -> usize {
        let wanted = slices.iter().map(|slice| slice.len()).sum();
        let taken = room.min(wanted);
        let fits = |last: &BytesMut| last.capacity() - last.len() >= taken;
        if taken > 0 && !self.chunks.back().is_some_and(fits) {
            let chunk = BytesMut::with_capacity(taken.max(CHUNK_MIN));
            self.chunks.push_back(chunk);
        }
        if let Some(last) = self.chunks.back_mut() {
            for slice in slices {
                let slice = slice.get(..room).unwrap_or(slice);
                last.extend_from_slice(slice);
                room -= slice.len();
            }
        }
        self.len += taken;
        taken
    }
}

impl State {
    /// Takes the wakers of all who wait; to be woken outside the lock.
    fn reset(&mut self, why: &'static str) -> Vec<Waker> {
        if self.reset.is_some() {
            return Vec::new();
        }
        self.reset = Some(why);
        let mut waiting = std::mem::take(&mut self.watchers);
        for way in &mut self.ways {
            waiting.extend(way.reader.take());
            waiting.extend(way.writer.take());
        }
        waiting
    }
}

impl Pipe {
    /// Makes both ends, with [`PIPE_LEN`] bytes under way in each direction.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        Self::pair_of(PIPE_LEN)
    }

    /// Makes both ends, with `capacity` bytes under way in each direction, at least 1.
    #[must_use]
    pub fn pair_of(capacity: usize) -> (Self, Self) {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            capacity,
        });
        let end = |own| Self {
            shared: Arc::clone(&shared),
            own,
        };
        (end(0), end(1))
    }

    /// Completes once either end has reset the pair, with the reason: also for one who cannot read on now, because what
    /// was read before has no taker. Never completes for a pair that ends cleanly.
    pub fn until_reset(&self) -> impl Future<Output = &'static str> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        poll_fn(move |cx| {
            let mut state = shared.lock();
            if let Some(why) = state.reset {
                return Poll::Ready(why);
            }
            if !state.watchers.iter().any(|w| w.will_wake(cx.waker())) {
                state.watchers.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// Reads `max` bytes at most. Empty bytes are the end.
    ///
    /// # Errors
    /// `ConnectionReset` once everything was read that came before a reset.
    pub fn poll_read(&mut self, cx: &Context<'_>, max: usize) -> Poll<io::Result<Bytes>> {
        let mut state = self.shared.lock();
        let reset = state.reset;
        let way = &mut state.ways[1 - self.own];
        let Some(bytes) = way.take(max) else {
            return match reset {
                Some(why) => Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, why))),
                None if way.finished => Poll::Ready(Ok(Bytes::new())),
                None => {
                    way.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        // Whoever writes may be on another thread: it is woken for a good part, and not for each.
        let is_worth_while = way.len <= self.shared.capacity / 2;
        let writer = way.writer.take_if(|_| is_worth_while);
        drop(state);
        wake(writer);
        Poll::Ready(Ok(bytes))
    }

    /// Writes as much of these as fits.
    ///
    /// # Errors
    /// `BrokenPipe` where the other end is gone or the pair was reset.
    pub fn poll_write(
        &mut self,
        cx: &Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        let reset = state.reset.is_some();
        let way = &mut state.ways[self.own];
        if reset || way.unread || way.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = self.shared.capacity.saturating_sub(way.len);
        if room == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = way.put(slices, room);
        let reader = way.reader.take();
        drop(state);
        wake(reader);
        Poll::Ready(Ok(len))
    }

    /// Ends this direction; what was written before arrives.
    pub fn shutdown(&mut self) {
        let mut state = self.shared.lock();
        let way = &mut state.ways[self.own];
        way.finished = true;
        let reader = way.reader.take();
        drop(state);
        wake(reader);
    }

    /// Resets the pair; `why` is what the other end gets to know. The first reason counts.
    pub fn reset(self, why: &'static str) {
        self.set_reset(why);
    }

    /// Tells whether either end has reset the pair.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.shared.lock().reset.is_some()
    }

    fn set_reset(&self, why: &'static str) {
        let waiting = self.shared.lock().reset(why);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let waiting = if state.ways[self.own].finished {
            let way = &mut state.ways[1 - self.own];
            way.unread = true;
            way.writer.take().into_iter().collect()
        } else {
            state.reset("cut")
        };
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_has_an_end_of_its_own() {
        let (mut near, mut far) = Pipe::pair();
        write(&mut near, b"question");
        near.shutdown();
        assert_eq!(read(&mut far).unwrap(), "question");
        assert!(read(&mut far).unwrap().is_empty());
        write(&mut far, b"answer");
        far.shutdown();
        drop(far);
        assert_eq!(read(&mut near).unwrap(), "answer");
        assert!(read(&mut near).unwrap().is_empty());
        assert!(!near.is_reset());
    }

    #[test]
    fn a_lost_end_is_a_reset_behind_what_came_before() {
        for reset in [None, Some("ended by an operator")] {
            let (mut near, mut far) = Pipe::pair();
            write(&mut far, b"half");
            match reset {
                Some(why) => far.reset(why),
                None => drop(far),
            }
            assert_eq!(read(&mut near).unwrap(), "half");
            let error = read(&mut near).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(error.to_string(), reset.unwrap_or("cut"));
            assert!(near.is_reset());
            let slices = [IoSlice::new(b"x")];
            assert!(matches!(
                near.poll_write(&cx(), &slices),
                Poll::Ready(Err(_))
            ));
        }
    }

    #[test]
    fn a_reset_is_told_to_one_who_does_not_read() {
        for reset in [None, Some("ended by an operator")] {
            let (near, mut far) = Pipe::pair();
            let mut told = std::pin::pin!(near.until_reset());
            write(&mut far, b"unread");
            assert!(told.as_mut().poll(&mut cx()).is_pending());
            match reset {
                Some(why) => far.reset(why),
                None => drop(far),
            }
            assert_eq!(told.poll(&mut cx()), Poll::Ready(reset.unwrap_or("cut")));
        }
        let (mut near, mut far) = Pipe::pair();
        let told = near.until_reset();
        near.shutdown();
        far.shutdown();
        drop((near, far));
        assert!(std::pin::pin!(told).poll(&mut cx()).is_pending());
    }

    #[test]
    fn bytes_under_way_are_bounded_and_reading_makes_room() {
        let (mut near, mut far) = Pipe::pair();
        let bytes = vec![7; 2 * PIPE_LEN];
        let mut written = 0;
        while let Poll::Ready(len) = near.poll_write(&cx(), &[IoSlice::new(&bytes)]) {
            written += len.unwrap();
        }
        assert_eq!(written, PIPE_LEN);
        let Poll::Ready(Ok(some)) = far.poll_read(&cx(), 1_000) else {
            panic!("there is some");
        };
        assert_eq!(some.len(), 1_000);
        assert!(matches!(
            near.poll_write(&cx(), &[IoSlice::new(&bytes)]),
            Poll::Ready(Ok(1_000))
        ));
    }

    #[test]
    fn single_bytes_take_little_more_than_themselves() {
        let (mut near, mut far) = Pipe::pair_of(4 * CHUNK_MIN);
        for n in 0..4 * CHUNK_MIN {
            write(&mut near, &n.to_le_bytes()[..1]);
        }
        assert_eq!(near.shared.lock().ways[0].chunks.len(), 4);
        let mut got = Vec::new();
        while got.len() < 4 * CHUNK_MIN {
            got.extend_from_slice(&read(&mut far).unwrap());
        }
        let sent = (0..4 * CHUNK_MIN).map(|n| n.to_le_bytes()[0]);
        assert!(sent.eq(got));
        assert!(near.shared.lock().ways[0].chunks.is_empty());
    }

    #[test]
    fn whoever_waits_is_woken() {
        let (mut near, mut far) = Pipe::pair();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let waits = Context::from_waker(&waker);
        assert!(far.poll_read(&waits, 1).is_pending());
        write(&mut near, &[0; PIPE_LEN]);
        assert_eq!(woken.count(), 1);
        assert!(near.poll_write(&waits, &[IoSlice::new(b"x")]).is_pending());
        read(&mut far).unwrap();
        assert_eq!(woken.count(), 2);
        assert!(far.poll_read(&waits, 1).is_pending());
        near.shutdown();
        assert_eq!(woken.count(), 3);
        assert!(near.poll_read(&waits, 1).is_pending());
        drop(far);
        assert_eq!(woken.count(), 4);
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicUsize);

    impl Woken {
        fn count(&self) -> usize {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn write(pipe: &mut Pipe, bytes: &[u8]) {
        assert!(matches!(
            pipe.poll_write(&cx(), &[IoSlice::new(bytes)]),
            Poll::Ready(Ok(len)) if len == bytes.len()
        ));
    }

    /// What there is.
    fn read(pipe: &mut Pipe) -> io::Result<Bytes> {
        match pipe.poll_read(&cx(), usize::MAX) {
            Poll::Ready(read) => read,
            Poll::Pending => panic!("nothing came"),
        }
    }
}
