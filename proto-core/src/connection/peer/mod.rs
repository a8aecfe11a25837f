//! The peer RPC on a connection: what joins the machines of [`crate::peer`] to streams (peer-rpc 3 to 9).

mod callee;
mod caller;
mod greeting;
mod handle;
mod standing;

use std::time::{Duration, Instant};

use smallvec::SmallVec;

pub use self::{
    handle::{CallRefused, PeerHandle},
    standing::PeerStanding,
};
use super::{Connection, Role, State};
use crate::{
    close::{Closed, PeerFault},
    id::Slot,
    link::{LinkEvent, StreamRef},
    output::Event,
    peer::{
        PeerClose,
        counters::HandshakeResult,
        event::PeerEvent,
        fault::RpcFault,
        negotiate::NegotiationError,
        role::{Farewell, PeerRole, Phase, Writing},
    },
};

impl Connection {
    pub(super) fn peer_role(&mut self) -> Option<&mut PeerRole> {
        match &mut self.role {
            Role::Peer(role) => Some(role),
            Role::Agent(_) | Role::Gateway(_) | Role::Forward(_) => None,
        }
    }

    pub(super) fn say(&mut self, event: PeerEvent) {
        self.events.push_back(Event::Peer(event));
    }

    /// What the engine says of a peer connection. The first stream is looked at after every event.
    pub(super) fn handle_peer_link(&mut self, now: Instant, event: LinkEvent) {
        match event {
            LinkEvent::Connected => self.peer_connected(now),
            LinkEvent::Lost(closed) => self.end(closed),
            LinkEvent::Readable(StreamRef::Session(slot)) => self.peer_readable(now, slot),
            LinkEvent::Writable(StreamRef::Session(slot)) => self.write_on(now, slot),
            LinkEvent::Acknowledged(StreamRef::Session(slot)) => {
                self.unacked.remove(&slot);
            }
            LinkEvent::Stopped(StreamRef::Session(slot), _) => self.peer_stopped(slot),
            LinkEvent::Reset(StreamRef::Session(slot), _) => self.peer_reset(now, slot),
            LinkEvent::Opened
            | LinkEvent::Credit
            | LinkEvent::Readable(StreamRef::Control | StreamRef::Stray(_))
            | LinkEvent::Writable(StreamRef::Control | StreamRef::Stray(_))
            | LinkEvent::Acknowledged(StreamRef::Control | StreamRef::Stray(_))
            | LinkEvent::Stopped(StreamRef::Control | StreamRef::Stray(_), _)
            | LinkEvent::Reset(StreamRef::Control | StreamRef::Stray(_), _) => {}
        }
    }

    /// Does what the role can do at the moment: greets, takes streams, makes calls, ends.
    pub(super) fn run_peer(&mut self, now: Instant) {
        self.end_peer(now);
        if self.state != State::Up {
            return;
        }
        if let Err(fault) = self.greet(now) {
            return self.peer_fault(now, fault);
        }
        self.accept_peer_streams(now);
        self.make_calls(now);
        self.end_peer(now);
    }

    pub(super) fn peer_timeouts(&mut self, now: Instant) {
        let Role::Peer(role) = &mut self.role else {
            return;
        };
        let greeted = match &role.phase {
            Phase::Greeting { dialler, .. } => dialler.handle_timeout(now),
            Phase::Accepting { acceptor, .. } => acceptor.handle_timeout(now),
            Phase::Dialling { .. } | Phase::Caller(_) | Phase::Callee(_) => Ok(()),
        };
        if let Err(error) = greeted {
            return self.peer_fault(now, error.into());
        }
        if let Phase::Callee(side) = &role.phase
            && side.is_unproved(now)
            && role.farewell.is_none()
        {
            return self.peer_fault(now, RpcFault::Unproved);
        }
        for slot in role.late_answers(now) {
            self.abandon(slot, ABANDONED);
        }
        self.calls_timed_out(now);
        self.requests_timed_out(now);
    }

    /// TLS did not end in time: to the peer that is a version handshake that did not (peer-rpc 3.4).
    pub(super) fn peer_handshake_timed_out(&mut self, now: Instant) {
        let close = NegotiationError::TimedOut.close();
        self.shut(now, close.code(), close.reason(), Closed::HandshakeTimedOut);
    }

    pub(super) fn peer_fault(&mut self, now: Instant, fault: RpcFault) {
        if let (RpcFault::Negotiation(error), Some(role)) = (&fault, self.peer_role()) {
            let result = match error {
                NegotiationError::NoCommonVersion { .. } | NegotiationError::NotOffered { .. } => {
                    HandshakeResult::Disjoint
                }
                NegotiationError::Message(_) => HandshakeResult::Malformed,
                NegotiationError::TimedOut => HandshakeResult::TimedOut,
            };
            role.node.ledger().count(|c| c.handshake(result));
        }
        let close = fault.close();
        let closed = Closed::Fault(PeerFault::Rpc(fault));
        self.shut(now, close.code(), close.reason(), closed);
    }

    fn peer_readable(&mut self, now: Instant, slot: Slot) {
        match self.peer_role().map(|role| &role.phase) {
            Some(Phase::Caller(_)) => self.read_answer(now, slot),
            Some(Phase::Callee(_)) => self.read_request(now, slot),
            Some(Phase::Dialling { .. } | Phase::Greeting { .. } | Phase::Accepting { .. })
            | None => {}
        }
    }

    fn peer_stopped(&mut self, slot: Slot) {
        match self.peer_role().map(|role| &role.phase) {
            // A callee that has read enough may still answer; what is unwritten it does not want.
            Some(Phase::Caller(_)) => self.request_unwanted(slot),
            Some(Phase::Callee(_)) => self.caller_gone(slot),
            Some(Phase::Dialling { .. } | Phase::Greeting { .. } | Phase::Accepting { .. })
            | None => {}
        }
    }

    fn peer_reset(&mut self, now: Instant, slot: Slot) {
        match self.peer_role().map(|role| &role.phase) {
            Some(Phase::Caller(_)) => self.answer_broken(now, slot),
            Some(Phase::Callee(_)) => self.caller_gone(slot),
            Some(Phase::Dialling { .. } | Phase::Greeting { .. } | Phase::Accepting { .. })
            | None => {}
        }
    }

    /// Hands an envelope to the engine, part by part; what is not taken at once waits. Tells whether all of it was.
    fn write_envelope(
        &mut self,
        slot: Slot,
        parts: SmallVec<[bytes::Bytes; 4]>,
        until: Option<Instant>,
    ) -> bool {
        let mut parts = parts.into_iter();
        for mut part in &mut parts {
            match self.link.write(StreamRef::Session(slot), &mut part) {
                Ok(_) if part.is_empty() => {}
                Ok(_) => {
                    let parts = std::iter::once(part).chain(parts).collect();
                    if let Some(role) = self.peer_role() {
                        role.writing.insert(slot, Writing { parts, until });
                    }
                    return false;
                }
                // Why is told by an event of its own, or by the caller's deadline.
                Err(_) => return false,
            }
        }
        let _gone = self.finish(slot);
        true
    }

    /// There is room for more of an envelope that waits.
    fn write_on(&mut self, now: Instant, slot: Slot) {
        let Role::Peer(role) = &mut self.role else {
            return;
        };
        if let Some(Writing { parts, until }) = role.writing.remove(&slot) {
            let is_written = self.write_envelope(slot, parts, until);
            if is_written {
                self.request_written(now, slot);
            }
        }
    }

    fn end_peer(&mut self, now: Instant) {
        let is_acked = self.unacked.is_empty() && self.link.is_confirmed();
        let Some(role) = self.peer_role() else {
            return;
        };
        if !role.may_end(now, is_acked) {
            return;
        }
        match role.farewell.take() {
            Some(Farewell::LastWords { fault, .. }) => self.peer_fault(now, fault),
            Some(Farewell::Drain { .. }) => {
                let close = PeerClose::Shutdown;
                self.shut(now, close.code(), close.reason(), Closed::Local);
            }
            None => {}
        }
    }

    /// The connection is over, and so is what was under way on it.
    pub(super) fn peer_ended(&mut self, closed: &Closed) {
        debug_assert_eq!(self.state, State::Closed);
        self.calls_lost(closed);
        self.requests_lost();
        if let Some(role) = self.peer_role() {
            role.writing.clear();
            role.farewell = None;
        }
    }
}

/// Time for what explains a close to reach the peer before it.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Code of abandoned streams: none of them means anything (peer-rpc 2).
const ABANDONED: u32 = 0;
