//! Calls of the peer.

use std::{
    mem,
    time::{Duration, Instant},
};

use crate::{
    id::Slot,
    limits::{RPC_CALLS_PER_CONNECTION, RPC_TIMEOUT, RPC_UNREAD_UNPROVED},
    peer::{
        budget::Budget,
        envelope::{EnvelopeError, Layout, Unverified},
        in_order::InOrder,
        reader::{EnvelopeReader, Terms},
    },
};

/// Reads the peer's requests, and knows which of them run.
#[derive(Debug)]
pub struct Incoming {
    layout: Layout,
    budget: Budget,
    /// What comes before a request was accepted is charged to this one, too, until it is whole; none any more once one was.
    unproved: Option<Budget>,
    calls: InOrder<Slot, Call>,
    /// Until when running calls may go on, once no more are taken.
    draining: Option<Instant>,
}

#[derive(Debug)]
enum Call {
    /// The deadline begins with the first byte.
    Reading {
        reader: EnvelopeReader,
        until: Option<Instant>,
    },
    Running,
}

/// What came of a request's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The request is whole, and is to be judged. It runs until [`Incoming::done`].
    Request(Unverified),
    /// The stream ended without a byte: there is nothing to answer.
    Nothing,
    /// The request cannot be read. The stream is over, but for a typed refusal.
    Bad(EnvelopeError),
}

/// A stream that is not taken: it is to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamRefused {
    /// The node shuts down: nobody's fault.
    #[error("no more calls are taken")]
    Draining,
    /// More than [`RPC_CALLS_PER_CONNECTION`]: the peer exceeds its allowance.
    #[error("the peer has too many calls under way")]
    TooMany,
}

impl Incoming {
    /// Begins without calls. The budget is the connection's, below the process's; `strangers` bounds, beside it, what is read
    /// on all connections on which nothing was accepted yet.
    #[must_use]
    pub fn new(layout: Layout, budget: Budget, strangers: &Budget) -> Self {
        Self {
            layout,
            budget,
            unproved: Some(strangers.child(RPC_UNREAD_UNPROVED)),
            calls: InOrder::default(),
            draining: None,
        }
    }

    /// A request was accepted: whoever is at the other end has the cluster's key. What it declares is charged at once from
    /// here on, so that what it begins can end.
    pub fn is_proved(&mut self) {
        self.unproved = None;
    }

    /// The peer opened a stream.
    ///
    /// # Errors
    /// [`StreamRefused`]
    pub fn open(&mut self, slot: Slot) -> Result<(), StreamRefused> {
        if self.draining.is_some() {
            return Err(StreamRefused::Draining);
        }
        if self.calls.len() >= RPC_CALLS_PER_CONNECTION {
            return Err(StreamRefused::TooMany);
        }
        let terms = match &self.unproved {
            Some(unproved) => Terms::Taken(unproved.clone()),
            None => Terms::Declared,
        };
        let reader = EnvelopeReader::new(self.layout, self.budget.clone(), terms);
        let call = Call::Reading {
            reader,
            until: None,
        };
        self.calls.insert(slot, call);
        Ok(())
    }

    /// Tells whether a request on that stream is not whole.
    #[must_use]
    pub fn is_reading(&self, slot: Slot) -> bool {
        matches!(self.calls.get(&slot), Some(Call::Reading { .. }))
    }

    /// Bytes of a request came. What comes on a stream that is over, or whose request is whole, is passed over.
    pub fn handle_bytes(&mut self, now: Instant, slot: Slot, data: &[u8]) -> Option<Received> {
        let Some(Call::Reading { reader, until }) = self.calls.get_mut(&slot) else {
            return None;
        };
        let fed = reader.feed(data);
        if reader.has_begun() && until.is_none() {
            *until = now.checked_add(RPC_TIMEOUT);
        }
        fed.err().map(|error| self.bad(slot, error))
    }

    /// The peer has ended its half of a stream.
    pub fn handle_end(&mut self, slot: Slot) -> Option<Received> {
        let call = self.calls.get_mut(&slot)?;
        let Call::Reading { reader, .. } = mem::replace(call, Call::Running) else {
            return None;
        };
        Some(match reader.finish() {
            Ok(Some(envelope)) => Received::Request(envelope),
            Ok(None) => {
                self.done(slot);
                Received::Nothing
            }
            Err(error) => self.bad(slot, error),
        })
    }

    /// A call is over: its answer is written, the peer gave it up, or it was refused.
    pub fn done(&mut self, slot: Slot) {
        self.calls.remove(&slot);
    }

    /// Calls that are read or run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Tells whether there is no call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Takes no more streams, and gives those that run some time. Requests that are not whole are given up.
    pub fn drain(&mut self, now: Instant, grace: Duration) -> Vec<Slot> {
        self.draining
            .get_or_insert_with(|| now.checked_add(grace).unwrap_or(now));
        let reading = |call: &Call| matches!(call, Call::Reading { .. });
        let given_up = self.calls.iter().filter(|(_, call)| reading(call));
        let given_up: Vec<Slot> = given_up.map(|(slot, _)| *slot).collect();
        self.calls.retain(|call| !reading(call));
        given_up
    }

    /// Tells whether the connection can be closed: it drains, and nothing runs or the time for it is over.
    #[must_use]
    pub fn is_drained(&self, now: Instant) -> bool {
        self.draining
            .is_some_and(|until| self.calls.is_empty() || until <= now)
    }

    /// When [`Incoming::handle_timeout`] or [`Incoming::is_drained`] is to be asked.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = self.calls.values().filter_map(Call::until);
        deadlines.chain(self.draining).min()
    }

    /// Time has passed: gives the streams whose request did not come in time. They are to be reset.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Slot> {
        let late = |call: &Call| call.until().is_some_and(|until| until <= now);
        let expired = self.calls.iter().filter(|(_, call)| late(call));
        let expired: Vec<Slot> = expired.map(|(slot, _)| *slot).collect();
        for slot in &expired {
            self.calls.remove(slot);
        }
        expired
    }

    fn bad(&mut self, slot: Slot, error: EnvelopeError) -> Received {
        self.calls.remove(&slot);
        Received::Bad(error)
    }
}

impl Call {
    fn until(&self) -> Option<Instant> {
        match self {
            Self::Reading { until, .. } => *until,
            Self::Running => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::RPC_DRAIN_GRACE,
        peer::bed::{self, route, start, tags},
        peer::{bound::Direction, capabilities::Capabilities},
    };

    fn incoming(budget: &Budget) -> Incoming {
        let mut calls = Incoming::new(Layout::Plain, budget.child(1_000), &Budget::new(0));
        calls.is_proved();
        calls
    }

    fn request() -> Vec<u8> {
        let mut tags = tags(Capabilities::NONE);
        let inner = [b"inner".to_vec().into()];
        let sealed = tags.seal(&bed::ring(), Direction::Request, route(1), inner, None);
        sealed.unwrap().to_bytes().to_vec()
    }

    #[test]
    fn a_request_runs_from_its_end_until_it_is_done() {
        let (now, budget) = (start(), Budget::new(1_000));
        let mut calls = incoming(&budget);
        calls.open(Slot(1)).unwrap();
        for byte in request() {
            assert_eq!(calls.handle_bytes(now, Slot(1), &[byte]), None);
        }
        let request = calls.handle_end(Slot(1));
        assert!(matches!(request, Some(Received::Request(_))));
        assert_eq!((calls.len(), budget.used()), (1, 58));
        // A handler's time is its own affair.
        assert_eq!(calls.poll_timeout(), None);
        assert_eq!(calls.handle_bytes(now, Slot(1), b"more"), None);
        assert_eq!(calls.handle_end(Slot(1)), None);
        calls.done(Slot(1));
        assert_eq!((calls.is_empty(), budget.used()), (true, 58));
        drop(request);
        assert_eq!(budget.used(), 0, "nobody has its bytes any more");
    }

    #[test]
    fn what_a_stranger_declares_is_not_believed() {
        let (now, budget) = (start(), Budget::new(u64::MAX));
        let strangers = Budget::new(u64::MAX);
        let mut calls = Incoming::new(Layout::Plain, budget.clone(), &strangers);
        let mut head = request()[..21].to_vec();
        head[17..].copy_from_slice(&(64_u32 << 20).to_le_bytes());
        for slot in 1..=20 {
            calls.open(Slot(slot)).unwrap();
            assert_eq!(calls.handle_bytes(now, Slot(slot), &head), None);
        }
        assert!(budget.used() <= 20 << 16, "{}", budget.used());
        calls.is_proved();
        let before = budget.used();
        calls.open(Slot(21)).unwrap();
        assert_eq!(calls.handle_bytes(now, Slot(21), &head), None);
        assert_eq!(budget.used() - before, (64 << 20) + 53);
    }

    #[test]
    fn a_first_request_that_is_held_leaves_the_room_of_strangers() {
        let (now, budget, strangers) = (start(), Budget::new(1_000), Budget::new(1_000));
        let mut calls = Incoming::new(Layout::Plain, budget.clone(), &strangers);
        calls.open(Slot(1)).unwrap();
        assert_eq!(calls.handle_bytes(now, Slot(1), &request()), None);
        assert_eq!((budget.used(), strangers.used()), (58, 58));
        let held = calls.handle_end(Slot(1));
        calls.is_proved();
        assert_eq!((budget.used(), strangers.used()), (58, 0));
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_request_has_five_seconds_from_its_first_byte() {
        let now = start();
        let mut calls = incoming(&Budget::new(1_000));
        calls.open(Slot(1)).unwrap();
        assert_eq!(calls.poll_timeout(), None, "an open stream may rest");
        calls.handle_bytes(now, Slot(1), &[1]);
        let until = now + Duration::from_secs(5);
        calls.handle_bytes(now + Duration::from_secs(3), Slot(1), &[0]);
        assert_eq!(calls.poll_timeout(), Some(until));
        let before = until - Duration::from_nanos(1);
        assert!(calls.handle_timeout(before).is_empty());
        assert_eq!(calls.handle_timeout(until), [Slot(1)]);
        assert!(calls.is_empty());
        assert_eq!(calls.handle_end(Slot(1)), None);
    }

    #[test]
    fn what_is_no_request_ends_its_stream_only() {
        let (now, budget) = (start(), Budget::new(1_000));
        let mut calls = incoming(&budget);
        for slot in 1..=4 {
            calls.open(Slot(slot)).unwrap();
        }
        let got = calls.handle_bytes(now, Slot(1), &[9; 30]);
        assert!(matches!(
            got,
            Some(Received::Bad(EnvelopeError::Version { .. }))
        ));
        calls.handle_bytes(now, Slot(2), &[1; 3]);
        let end = EnvelopeError::UnexpectedEnd { got: 3 };
        assert_eq!(calls.handle_end(Slot(2)), Some(Received::Bad(end)));
        assert_eq!(calls.handle_end(Slot(3)), Some(Received::Nothing));
        assert_eq!(calls.len(), 1);
        calls.handle_bytes(now, Slot(4), &request());
        assert!(calls.handle_end(Slot(4)).is_some());
    }

    #[test]
    fn requests_share_their_connections_budget() {
        let (now, budget) = (start(), Budget::new(10_000));
        let mut calls = incoming(&budget);
        let mut head = request()[..21].to_vec();
        head[17..].copy_from_slice(&400_u32.to_le_bytes());
        for slot in 1..=3 {
            calls.open(Slot(slot)).unwrap();
        }
        assert_eq!(calls.handle_bytes(now, Slot(1), &head), None);
        assert_eq!(calls.handle_bytes(now, Slot(2), &head), None);
        let over = Received::Bad(EnvelopeError::OverBudget { len: 453 });
        assert_eq!(calls.handle_bytes(now, Slot(3), &head), Some(over));
        calls.done(Slot(1));
        calls.open(Slot(4)).unwrap();
        assert_eq!(calls.handle_bytes(now, Slot(4), &head), None);
        drop(calls);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_peer_has_so_many_calls() {
        let mut calls = incoming(&Budget::new(1_000));
        for slot in 0..RPC_CALLS_PER_CONNECTION as u64 {
            calls.open(Slot(slot)).unwrap();
        }
        let one_more = Slot(1 << 20);
        assert_eq!(calls.open(one_more), Err(StreamRefused::TooMany));
        calls.done(Slot(0));
        assert_eq!(calls.open(one_more), Ok(()));
    }

    #[test]
    fn draining_lets_what_runs_end_and_nothing_begin() {
        let now = start();
        let mut calls = incoming(&Budget::new(1_000));
        calls.open(Slot(1)).unwrap();
        calls.open(Slot(2)).unwrap();
        calls.handle_bytes(now, Slot(1), &request());
        calls.handle_end(Slot(1)).unwrap();
        assert!(!calls.is_drained(now));
        assert_eq!(calls.drain(now, RPC_DRAIN_GRACE), [Slot(2)]);
        assert_eq!(calls.open(Slot(3)), Err(StreamRefused::Draining));
        let until = now + Duration::from_secs(2);
        assert_eq!(calls.poll_timeout(), Some(until));
        assert!(!calls.is_drained(until - Duration::from_nanos(1)));
        assert!(calls.is_drained(until), "it had its time");
        calls.done(Slot(1));
        assert!(calls.is_drained(now), "nothing runs");
    }

    #[test]
    fn a_second_drain_gives_no_more_time() {
        let now = start();
        let mut calls = incoming(&Budget::new(1_000));
        calls.drain(now, RPC_DRAIN_GRACE);
        calls.drain(now + Duration::from_secs(1), RPC_DRAIN_GRACE);
        assert_eq!(calls.poll_timeout(), Some(now + RPC_DRAIN_GRACE));
    }
}
