//! Calls of this node.

use std::time::Instant;

use crate::{
    id::CallId,
    limits::{RPC_CALLS_PER_CONNECTION, RPC_TIMEOUT},
    peer::{
        budget::Budget,
        envelope::{EnvelopeError, Layout, Unverified},
        in_order::InOrder,
        reader::{EnvelopeReader, Terms},
        retry::Failure,
    },
};

/// Reads the answers to this node's requests, and bounds each wait.
#[derive(Debug)]
pub struct Outgoing {
    layout: Layout,
    budget: Budget,
    calls: InOrder<CallId, Call>,
}

#[derive(Debug)]
enum Call {
    /// For stream credit.
    Waiting { until: Instant },
    /// For the answer. Bytes of the request are with the engine.
    Asked {
        reader: EnvelopeReader,
        since: Instant,
        until: Instant,
    },
}

/// An answer that has come to its end.
#[derive(Debug)]
pub enum Answered {
    /// A whole envelope, to be judged.
    Envelope(Unverified),
    /// The stream ended without a byte.
    Nothing,
    /// The answer cannot be read. The stream is over.
    Bad(EnvelopeError),
}

/// A call whose time is over; its stream, if it has one, is to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut {
    /// Which call.
    pub call: CallId,
    /// What that says about the link: whether the request was written, and whether nothing was heard meanwhile.
    pub failure: Failure,
}

/// The caller's mistake: [`RPC_CALLS_PER_CONNECTION`] calls are under way on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many calls are under way to this node")]
pub struct TooManyCalls;

impl Outgoing {
    /// Begins without calls.
    #[must_use]
    pub fn new(layout: Layout, budget: Budget) -> Self {
        Self {
            layout,
            budget,
            calls: InOrder::default(),
        }
    }

    /// A call waits for a stream, at most [`RPC_TIMEOUT`].
    ///
    /// # Errors
    /// [`TooManyCalls`]
    pub fn begin(&mut self, now: Instant, id: CallId) -> Result<(), TooManyCalls> {
        if self.calls.len() >= RPC_CALLS_PER_CONNECTION {
            return Err(TooManyCalls);
        }
        let until = now.checked_add(RPC_TIMEOUT).unwrap_or(now);
        self.calls.insert(id, Call::Waiting { until });
        Ok(())
    }

    /// The request begins to be written: that has [`RPC_TIMEOUT`].
    pub fn asked(&mut self, now: Instant, id: CallId) {
        if let Some(call) = self.calls.get_mut(&id) {
            *call = Call::Asked {
                reader: EnvelopeReader::new(self.layout, self.budget.clone(), Terms::Declared),
                since: now,
                until: now.checked_add(RPC_TIMEOUT).unwrap_or(now),
            };
        }
    }

    /// The last byte of the request was written: the answer has [`RPC_TIMEOUT`] from here.
    pub fn written(&mut self, now: Instant, id: CallId) {
        if let Some(Call::Asked { until, .. }) = self.calls.get_mut(&id) {
            *until = now.checked_add(RPC_TIMEOUT).unwrap_or(now);
        }
    }

    /// The caller gave it up. Nothing follows for it.
    pub fn cancel(&mut self, id: CallId) {
        self.calls.remove(&id);
    }

    /// Calls that are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Bytes of an answer came.
    pub fn handle_bytes(&mut self, id: CallId, data: &[u8]) -> Option<Answered> {
        let Some(Call::Asked { reader, .. }) = self.calls.get_mut(&id) else {
            return None;
        };
        let error = reader.feed(data).err()?;
        self.calls.remove(&id);
        Some(Answered::Bad(error))
    }

    /// The peer has ended its half of a stream.
    pub fn handle_end(&mut self, id: CallId) -> Option<Answered> {
        if !matches!(self.calls.get(&id), Some(Call::Asked { .. })) {
            return None;
        }
        let Some(Call::Asked { reader, .. }) = self.calls.remove(&id) else {
            return None;
        };
        Some(match reader.finish() {
            Ok(Some(envelope)) => Answered::Envelope(envelope),
            Ok(None) => Answered::Nothing,
            Err(error) => Answered::Bad(error),
        })
    }

    /// A stream was reset by the peer, or the connection is lost: how each call failed that ends by it.
    pub fn handle_reset(&mut self, id: CallId, connection_is_lost: bool) -> Option<Failure> {
        let call = self.calls.remove(&id)?;
        let written = match call {
            Call::Waiting { .. } => false,
            Call::Asked { .. } => true,
        };
        Some(match connection_is_lost {
            true => Failure::Link {
                written,
                dead: true,
            },
            // What has no stream cannot be reset.
            false => Failure::Reset,
        })
    }

    /// Calls under way.
    pub fn calls(&self) -> impl Iterator<Item = CallId> {
        self.calls.keys().copied()
    }

    /// When [`Outgoing::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.calls.values().map(Call::until).min()
    }

    /// Time has passed: gives the calls whose time is over. `heard` is when the last datagram of the peer came.
    pub fn handle_timeout(&mut self, now: Instant, heard: Instant) -> Vec<TimedOut> {
        let late = self.calls.iter().filter(|(_, call)| call.until() <= now);
        let expired: Vec<TimedOut> = late
            .map(|(id, call)| TimedOut {
                call: *id,
                failure: call.failure(heard),
            })
            .collect();
        for call in &expired {
            self.calls.remove(&call.call);
        }
        expired
    }
}

impl Call {
    fn until(&self) -> Instant {
        match self {
            Self::Waiting { until } | Self::Asked { until, .. } => *until,
        }
    }

    fn failure(&self, heard: Instant) -> Failure {
        match self {
            // A peer that gives no credit is busy, not gone.
            Self::Waiting { .. } => Failure::Link {
                written: false,
                dead: false,
            },
            Self::Asked { since, .. } => Failure::Link {
                written: true,
                dead: heard < *since,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        peer::bed::{self, route, start, tags},
        peer::{bound::Direction, capabilities::Capabilities},
    };

    fn outgoing() -> Outgoing {
        Outgoing::new(Layout::Plain, Budget::new(1_000))
    }

    const fn link(written: bool, dead: bool) -> Failure {
        Failure::Link { written, dead }
    }

    #[test]
    fn an_answer_is_read_to_the_end_of_its_stream() {
        let (now, mut calls) = (start(), outgoing());
        calls.begin(now, CallId(1)).unwrap();
        calls.asked(now, CallId(1));
        let inner = [b"inner".to_vec().into()];
        let sealed =
            tags(Capabilities::NONE).seal(&bed::ring(), Direction::Response, route(1), inner, None);
        assert!(
            calls
                .handle_bytes(CallId(1), &sealed.unwrap().to_bytes())
                .is_none()
        );
        assert!(matches!(
            calls.handle_end(CallId(1)),
            Some(Answered::Envelope(_))
        ));
        assert_eq!(calls.calls().count(), 0);
    }

    #[test]
    fn a_call_without_a_stream_goes_on_waiting() {
        let (now, mut calls) = (start(), outgoing());
        calls.begin(now, CallId(1)).unwrap();
        assert!(calls.handle_end(CallId(1)).is_none());
        assert!(calls.handle_bytes(CallId(1), b"x").is_none());
        assert_eq!(calls.calls().count(), 1);
    }

    #[test]
    fn an_answer_may_be_nothing_or_bad() {
        let (now, mut calls) = (start(), outgoing());
        for n in 1..=3 {
            calls.begin(now, CallId(n)).unwrap();
            calls.asked(now, CallId(n));
        }
        assert!(matches!(
            calls.handle_end(CallId(1)),
            Some(Answered::Nothing)
        ));
        let got = calls.handle_bytes(CallId(2), &[7; 21]);
        assert!(matches!(
            got,
            Some(Answered::Bad(EnvelopeError::Version { .. }))
        ));
        calls.handle_bytes(CallId(3), &[1]);
        let got = calls.handle_end(CallId(3));
        assert!(matches!(
            got,
            Some(Answered::Bad(EnvelopeError::UnexpectedEnd { got: 1 }))
        ));
        assert!(calls.handle_end(CallId(3)).is_none());
    }

    #[test]
    fn the_wait_for_a_stream_and_the_wait_for_an_answer_are_bounded() {
        let (now, mut calls) = (start(), outgoing());
        calls.begin(now, CallId(1)).unwrap();
        calls.begin(now, CallId(2)).unwrap();
        let three = now + Duration::from_secs(3);
        calls.asked(three, CallId(2));
        let five = now + Duration::from_secs(5);
        assert_eq!(calls.poll_timeout(), Some(five));
        assert!(
            calls
                .handle_timeout(five - Duration::from_nanos(1), now)
                .is_empty()
        );
        let unwritten = TimedOut {
            call: CallId(1),
            failure: link(false, false),
        };
        assert_eq!(calls.handle_timeout(five, now), [unwritten]);
        let eight = now + Duration::from_secs(8);
        assert_eq!(calls.poll_timeout(), Some(eight));
        let silent = TimedOut {
            call: CallId(2),
            failure: link(true, true),
        };
        assert_eq!(calls.handle_timeout(eight, now), [silent]);
        assert_eq!(calls.poll_timeout(), None);
    }

    #[test]
    fn a_peer_that_was_heard_meanwhile_is_alive() {
        let (now, mut calls) = (start(), outgoing());
        calls.begin(now, CallId(1)).unwrap();
        calls.asked(now, CallId(1));
        let five = now + Duration::from_secs(5);
        let [timed_out] = calls.handle_timeout(five, now + Duration::from_secs(1))[..] else {
            panic!("one call is late");
        };
        assert_eq!(timed_out.failure, link(true, false));
    }

    #[test]
    fn a_reset_tells_whether_the_request_was_written() {
        let (now, mut calls) = (start(), outgoing());
        calls.begin(now, CallId(1)).unwrap();
        calls.begin(now, CallId(2)).unwrap();
        calls.asked(now, CallId(2));
        assert_eq!(calls.handle_reset(CallId(1), true), Some(link(false, true)));
        assert_eq!(calls.handle_reset(CallId(2), false), Some(Failure::Reset));
        calls.begin(now, CallId(3)).unwrap();
        calls.asked(now, CallId(3));
        assert_eq!(calls.handle_reset(CallId(3), true), Some(link(true, true)));
        assert_eq!(calls.handle_reset(CallId(2), false), None);
    }

    #[test]
    fn calls_are_bounded() {
        let (now, mut calls) = (start(), outgoing());
        for n in 0..RPC_CALLS_PER_CONNECTION as u64 {
            calls.begin(now, CallId(n)).unwrap();
        }
        assert_eq!(calls.begin(now, CallId(1 << 20)), Err(TooManyCalls));
    }
}
