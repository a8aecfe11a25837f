//! The orderly end of a connection: what was sent reaches the peer first, and what the peer had sent is not lost.

use std::{collections::VecDeque, time::Instant};

use super::{Connection, State};
use crate::{
    close::{CloseReason, Closed},
    id::Slot,
    limits,
    link::{Broken, ReadState, StreamRef},
    output::{Event, SessionEnd},
};

/// What a connection waits for before it is closed here.
#[derive(Debug)]
pub(super) enum Farewell {
    /// To have carried nothing for a while. What the peer sent for its last session may still be under way when that
    /// is over here.
    WhenIdle {
        /// Since when it carries nothing.
        since: Option<Instant>,
    },
    /// That the sessions which have ended have reached the peer.
    WhenSent {
        /// What the peer is told.
        reason: CloseReason,
        /// Closed by then, if it is bounded.
        until: Option<Instant>,
    },
}

impl Farewell {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::WhenIdle { since } => since.map(|since| since + limits::DRAIN_LINGER),
            Self::WhenSent { until, .. } => *until,
        }
    }
}

impl Connection {
    /// Closes the connection once what it waits for has come. One that is not up yet has carried nothing, and waits for
    /// nothing.
    pub(super) fn bid_farewell(&mut self, now: Instant) {
        let is_up = match self.state {
            State::Handshaking { .. } => false,
            State::Up => true,
            State::Closed => return,
        };
        let (is_sent, is_idle) = (self.is_sent(), !self.carries());
        let reason = match &mut self.farewell {
            None => return,
            Some(Farewell::WhenIdle { since }) if is_idle => {
                let since = *since.get_or_insert(now);
                if is_up && now < since + limits::DRAIN_LINGER {
                    return;
                }
                CloseReason::Renewed
            }
            Some(Farewell::WhenIdle { since }) => {
                *since = None;
                return;
            }
            Some(Farewell::WhenSent { until, .. })
                if !is_sent && until.is_none_or(|until| now < until) =>
            {
                return;
            }
            Some(Farewell::WhenSent { reason, .. }) => reason.clone(),
        };
        self.shut(now, reason.code(), reason.text(), Closed::Local);
    }

    /// Everything of the sessions that have ended here has reached the peer.
    pub(super) fn is_sent(&self) -> bool {
        self.unacked.is_empty() && self.unsent.is_empty()
    }

    /// Ends our half of a session's stream cleanly.
    pub(super) fn finish(&mut self, slot: Slot) -> Result<(), Broken> {
        self.link.finish(StreamRef::Session(slot))?;
        self.unacked.insert(slot);
        Ok(())
    }

    /// Abandons both halves of a session's stream.
    pub(super) fn abandon(&mut self, slot: Slot, code: u32) {
        self.unacked.remove(&slot);
        self.link.abandon(StreamRef::Session(slot), code);
    }

    /// The connection is lost. A session of which the peer has everything, and of which everything from the peer is
    /// here, has lost nothing by that, however much of it is still unread: acknowledged is not read, and a peer that
    /// drains cannot know the difference.
    pub(super) fn deliver_rests(&mut self) {
        let whole = |slot: &Slot| !self.unsent.contains_key(slot) && !self.unacked.contains(slot);
        let ended: Vec<Slot> = (self.sessions.iter())
            .filter(|(slot, carried)| carried.lacks_only_the_peers_end() && whole(slot))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in ended {
            let mut rest = VecDeque::new();
            let read = (self.sessions.get_mut(&slot))
                .map(|carried| carried.read(&mut self.link, slot, usize::MAX, &mut rest));
            if read == Some(Ok(ReadState::End)) {
                self.events.push_back(Event::SessionRest { slot, rest });
                self.end_session(slot, SessionEnd::Clean);
            }
        }
    }
}
