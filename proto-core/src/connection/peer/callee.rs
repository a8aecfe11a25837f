//! The side that was dialled: requests in, answers out (peer-rpc 4.4, 6.1, 6.3 and 8).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    super::{CommandError, Connection, Role},
    ABANDONED, LAST_WORDS,
};
use crate::{
    id::Slot,
    limits::RPC_TIMEOUT,
    link::{Broken, ReadState, StreamRef},
    output::Event,
    peer::{
        NodeId,
        bound::{ANYONE, Direction, Route},
        calls::Received,
        capabilities::Capabilities,
        config::PeerNode,
        counters::{AuthFail, CallResult, Side},
        envelope::{EnvelopeError, Sealed, Unverified},
        epoch::EpochHook,
        event::PeerEvent,
        fault::RpcFault,
        forward::role::node_of,
        frame::{Frame, PAYLOAD_LEN_MAX},
        interest::Interest,
        key::Tag,
        receive::{Consequence, ReceiveError, Refused, Request},
        refusal::Refusal,
        role::{CalleeSide, Farewell, Phase, Running},
        rpc_type::RpcType,
    },
};

impl Connection {
    fn callee_side(&mut self) -> Option<&mut CalleeSide> {
        match &mut self.peer_role()?.phase {
            Phase::Callee(side) => Some(side),
            Phase::Dialling { .. }
            | Phase::Greeting { .. }
            | Phase::Accepting { .. }
            | Phase::Caller(_) => None,
        }
    }

    /// Takes the streams that the peer opened, each of which is one request. At the side that dialled there is no use
    /// for them, and before the hello is answered none is taken.
    pub(super) fn accept_peer_streams(&mut self, now: Instant) {
        loop {
            let Role::Peer(role) = &mut self.role else {
                return;
            };
            if matches!(role.phase, Phase::Accepting { .. }) {
                return;
            }
            let Some(stream) = self.link.accept() else {
                return;
            };
            match (stream, &mut role.phase) {
                (StreamRef::Session(slot), Phase::Callee(side)) => match side.incoming.open(slot) {
                    Ok(()) => self.read_request(now, slot),
                    Err(_) => self.refuse_stream(now, slot),
                },
                (StreamRef::Control | StreamRef::Session(_) | StreamRef::Stray(_), _) => {
                    self.counters.streams_stray += 1;
                    self.link.abandon(stream, ABANDONED);
                }
            }
        }
    }

    pub(super) fn read_request(&mut self, now: Instant, slot: Slot) {
        loop {
            let Role::Peer(role) = &mut self.role else {
                return;
            };
            let is_ending = matches!(role.farewell, Some(Farewell::LastWords { .. }));
            let Phase::Callee(side) = &mut role.phase else {
                return;
            };
            // The engine tells of bytes on streams that were not taken yet, too: they stay there until it is.
            if is_ending || !side.incoming.is_reading(slot) {
                return;
            }
            let mut received = None;
            let incoming = &mut side.incoming;
            let state = self.link.read(StreamRef::Session(slot), READ_MAX, |chunk| {
                received = (received.take()).or_else(|| incoming.handle_bytes(now, slot, &chunk));
            });
            if received.is_none() && state == Ok(ReadState::End) {
                received = incoming.handle_end(slot);
            }
            match (received, state) {
                (Some(received), _) => return self.received(now, slot, received),
                (None, Ok(ReadState::More)) => {}
                (None, Ok(ReadState::Blocked | ReadState::End)) => return,
                (None, Err(Broken::ByPeer(_))) => return self.caller_gone(slot),
                (None, Err(Broken::Gone)) => return,
            }
        }
    }

    fn received(&mut self, now: Instant, slot: Slot, received: Received) {
        match received {
            Received::Nothing => self.end_stream(slot),
            Received::Bad(error) => {
                let bound = self.callee_side().and_then(|side| side.callee.bound());
                let to = bound.unwrap_or(ANYONE);
                self.refused(now, slot, to, &Refused::unread(error));
            }
            Received::Request(envelope) => {
                let from = envelope.header().from;
                let Role::Peer(role) = &mut self.role else {
                    return;
                };
                let Phase::Callee(side) = &mut role.phase else {
                    return;
                };
                let size = envelope.size() as u64;
                (role.node.ledger()).count(|c| c.moved(Side::In, size));
                let was_bound = side.callee.bound().is_some();
                let judged = judge(side, &role.node, envelope);
                if let Some(node) = side.callee.bound().filter(|_| !was_bound) {
                    side.prove_by = None;
                    side.incoming.is_proved();
                    self.events
                        .push_back(Event::Peer(PeerEvent::Bound { node }));
                }
                match judged {
                    Ok(request) => self.request(now, slot, request),
                    Err(refused) => {
                        side.incoming.done(slot);
                        self.refused(now, slot, from, &refused);
                    }
                }
            }
        }
    }

    fn request(&mut self, now: Instant, slot: Slot, request: Request) {
        let Role::Peer(role) = &mut self.role else {
            return;
        };
        let Phase::Callee(side) = &mut role.phase else {
            return;
        };
        let Request {
            from,
            accepted,
            kind,
            payload,
            tag,
        } = request;
        let ledger = role.node.ledger();
        ledger.count(|c| {
            c.accepted(accepted);
            c.began(Side::In);
        });
        let interest = Interest::default();
        let running = Running {
            from,
            kind,
            tag,
            interest: interest.clone(),
        };
        side.running.insert(slot, running);
        if kind == RpcType::WindowReset {
            let high = Bytes::copy_from_slice(&ledger.high(from).to_le_bytes());
            // It was put there a line ago, and 8 bytes fit.
            let _answered = self.answer_request(now, slot, high);
            return;
        }
        self.say(PeerEvent::Requested {
            slot,
            from,
            accepted,
            kind,
            payload,
            interest,
        });
    }

    /// Does what follows a request that is not executed (peer-rpc 6.1 and 6.3).
    fn refused(&mut self, now: Instant, slot: Slot, to: NodeId, refused: &Refused) {
        let Role::Peer(role) = &mut self.role else {
            return;
        };
        let Phase::Callee(side) = &mut role.phase else {
            return;
        };
        let ledger = role.node.ledger();
        ledger.count(|c| c.refused(&refused.cause));
        if let Some(reason) = AuthFail::of_request(&refused.cause) {
            let shown = || node_of(&role.node, None, side.callee.leaf()).ok();
            let node = side.callee.bound().or_else(shown);
            ledger.disbelieve(node, self.link.remote(), reason);
        }
        let fault = if let ReceiveError::Identity(error) = refused.cause {
            Some(RpcFault::Identity(error))
        } else if let ReceiveError::Frame(error) = refused.cause {
            Some(RpcFault::Frame(error))
        } else {
            None
        };
        match (side.callee.consequence(refused, ledger.high(to)), fault) {
            (Consequence::EndStream | Consequence::Close(_, None), None) => self.end_stream(slot),
            (Consequence::EndStream, Some(_)) => self.end_stream(slot),
            (Consequence::Answer(refusal), _) | (Consequence::Close(_, Some(refusal)), None) => {
                self.send_refusal_frame(now, slot, to, &refused.tag, refusal);
            }
            (Consequence::Close(_, None), Some(fault)) => self.peer_fault(now, fault),
            (Consequence::Close(_, Some(refusal)), Some(fault)) => {
                let until = now.checked_add(LAST_WORDS).unwrap_or(now);
                role.farewell = Some(Farewell::LastWords { fault, until });
                self.send_refusal_frame(now, slot, to, &refused.tag, refusal);
            }
        }
    }

    /// A stream that is not read: the node stops, or the peer has too many.
    fn refuse_stream(&mut self, now: Instant, slot: Slot) {
        let unread = Refused::unread(EnvelopeError::OverBudget { len: 0 });
        let Some(side) = self.callee_side() else {
            return;
        };
        let to = side.callee.bound().unwrap_or(ANYONE);
        match side.callee.consequence(&unread, 0) {
            Consequence::Answer(refusal) => {
                self.send_refusal_frame(now, slot, to, &unread.tag, refusal);
            }
            Consequence::EndStream | Consequence::Close(..) => self.abandon(slot, ABANDONED),
        }
    }

    fn send_refusal_frame(
        &mut self,
        now: Instant,
        slot: Slot,
        to: NodeId,
        tag: &Tag,
        refusal: Refusal,
    ) {
        self.link.stop(StreamRef::Session(slot), ABANDONED);
        let Role::Peer(role) = &mut self.role else {
            return;
        };
        let Phase::Callee(side) = &mut role.phase else {
            return;
        };
        match seal(
            side,
            &role.node,
            RpcType::Refusal,
            to,
            tag,
            refusal.encode(),
        ) {
            Some(sealed) => self.write_answer(now, slot, sealed),
            None => self.end_stream(slot),
        }
    }

    fn write_answer(&mut self, now: Instant, slot: Slot, sealed: Sealed) {
        let len = sealed.parts.iter().map(Bytes::len).sum::<usize>();
        if let Some(role) = self.peer_role() {
            (role.node.ledger()).count(|c| c.moved(Side::Out, len as u64));
        }
        let until = now.checked_add(RPC_TIMEOUT);
        self.write_envelope(slot, sealed.parts, until);
    }

    /// The stream ends without a byte; what is unread of the request nobody wants.
    fn end_stream(&mut self, slot: Slot) {
        self.link.stop(StreamRef::Session(slot), ABANDONED);
        let _gone = self.finish(slot);
    }

    /// The caller abandoned a call.
    pub(super) fn caller_gone(&mut self, slot: Slot) {
        let Some(role) = self.peer_role() else {
            return;
        };
        role.writing.remove(&slot);
        let Some(side) = self.callee_side() else {
            return;
        };
        side.incoming.done(slot);
        if let Some(running) = side.running.remove(&slot) {
            running.interest.end();
            self.handled(&running, CallResult::Failed);
            if !self.unsay_request(slot) {
                self.say(PeerEvent::GivenUp(slot));
            }
        }
        self.abandon(slot, ABANDONED);
    }

    /// Takes a request back of which the application was not told yet; tells whether there was one.
    fn unsay_request(&mut self, slot: Slot) -> bool {
        let is_it = |event: &Event| matches!(event, Event::Peer(PeerEvent::Requested { slot: of, .. }) if *of == slot);
        let place = self.events.iter().position(is_it);
        place.is_some_and(|place| self.events.remove(place).is_some())
    }

    /// The connection is over: nobody waits for an answer, and what the application was not told of is not executed.
    pub(super) fn requests_lost(&mut self) {
        let Some(side) = self.callee_side() else {
            return;
        };
        for (slot, running) in std::mem::take(&mut side.running) {
            running.interest.end();
            self.handled(&running, CallResult::Failed);
            self.unsay_request(slot);
        }
    }

    pub(super) fn requests_timed_out(&mut self, now: Instant) {
        let Some(side) = self.callee_side() else {
            return;
        };
        for slot in side.incoming.handle_timeout(now) {
            self.abandon(slot, ABANDONED);
        }
    }

    pub(super) fn answer_request(
        &mut self,
        now: Instant,
        slot: Slot,
        payload: Bytes,
    ) -> Result<(), CommandError> {
        if u32::try_from(payload.len()).map_or(true, |len| len > PAYLOAD_LEN_MAX) {
            return Err(CommandError::TooLarge);
        }
        let running = self.take_running(slot)?;
        self.handled(&running, CallResult::Answered);
        let Some(kind) = running.kind.answer() else {
            self.end_stream(slot);
            return Ok(());
        };
        let Role::Peer(role) = &mut self.role else {
            return Err(CommandError::NotWaiting);
        };
        let Phase::Callee(side) = &mut role.phase else {
            return Err(CommandError::NotWaiting);
        };
        let Running { from, tag, .. } = running;
        match seal(side, &role.node, kind, from, &tag, payload) {
            Some(sealed) => self.write_answer(now, slot, sealed),
            None => self.end_stream(slot),
        }
        Ok(())
    }

    pub(super) fn fail_request(&mut self, slot: Slot) -> Result<(), CommandError> {
        let running = self.take_running(slot)?;
        self.handled(&running, CallResult::Failed);
        self.end_stream(slot);
        Ok(())
    }

    pub(super) fn refuse_request(
        &mut self,
        now: Instant,
        slot: Slot,
        retry_after: Duration,
    ) -> Result<(), CommandError> {
        let running = self.take_running(slot)?;
        self.handled(&running, CallResult::Refused);
        let agreed = self.callee_side().map(|side| side.agreed);
        if agreed.is_some_and(|agreed| agreed.has(Capabilities::REFUSALS)) {
            let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            let refusal = Refusal::Overload { retry_after_ms };
            self.send_refusal_frame(now, slot, running.from, &running.tag, refusal);
        } else {
            self.end_stream(slot);
        }
        Ok(())
    }

    fn take_running(&mut self, slot: Slot) -> Result<Running, CommandError> {
        let side = self.callee_side().ok_or(CommandError::NotWaiting)?;
        let running = side.running.remove(&slot);
        let running = running.ok_or(CommandError::NotWaiting)?;
        side.incoming.done(slot);
        Ok(running)
    }

    fn handled(&mut self, running: &Running, result: CallResult) {
        if let Some(role) = self.peer_role() {
            role.node.ledger().count(|c| {
                c.over(Side::In);
                c.ended(Side::In, running.kind, result);
            });
        }
    }
}

/// Every check on a request, in the order of peer-rpc 6.3.
fn judge(side: &mut CalleeSide, node: &PeerNode, envelope: Unverified) -> Result<Request, Refused> {
    let authentic = side.callee.verify(envelope, &node.ledger().keys())?;
    let identified = side
        .callee
        .identify(authentic, &node.judge(), &*node.config.joins)?;
    node.ledger().admit(&mut side.callee, identified)
}

fn seal(
    side: &mut CalleeSide,
    node: &PeerNode,
    kind: RpcType,
    to: NodeId,
    answered: &Tag,
    payload: Bytes,
) -> Option<Sealed> {
    let ledger = node.ledger();
    let route = Route {
        from: node.local,
        to,
        seq: ledger.number().ok()?,
    };
    let frame = Frame::new(kind, EpochHook::stamp(&ledger), payload);
    let tags = side.callee.tags();
    let keys = ledger.keys();
    let sealed = tags.seal_frame(&keys, Direction::Response, route, frame, Some(answered));
    sealed.ok()
}

/// Bytes of an envelope read at a time.
const READ_MAX: usize = 256 << 10;
