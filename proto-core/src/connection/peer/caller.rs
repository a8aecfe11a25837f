//! The side that dialled: requests out, answers in (peer-rpc 6.1 and 9.2).

use std::time::Instant;

use bytes::Bytes;

use super::{
    super::{Connection, Role},
    ABANDONED,
};
use crate::{
    close::Closed,
    id::{CallId, Slot},
    link::{Broken, ReadState, StreamRef},
    peer::{
        bound::{ANYONE, Direction, Route},
        calls::Answered,
        capabilities::Capabilities,
        config::PeerNode,
        counters::{AuthFail, CallResult, Side},
        envelope::Sealed,
        epoch::EpochHook,
        event::PeerEvent,
        frame::Frame,
        refusal::Refusal,
        response::{Answer, Asked, ResponseError},
        retry::{self, Failure},
        role::{CallerSide, Phase, UnderWay, Wanted},
        rpc_type::RpcType,
    },
};

impl Connection {
    fn caller_side(&mut self) -> Option<&mut CallerSide> {
        match &mut self.peer_role()?.phase {
            Phase::Caller(side) => Some(side),
            Phase::Dialling { .. }
            | Phase::Greeting { .. }
            | Phase::Accepting { .. }
            | Phase::Callee(_) => None,
        }
    }

    /// Gives streams to calls that wait for one, oldest first, as far as the peer grants them.
    pub(super) fn make_calls(&mut self, now: Instant) {
        loop {
            let Role::Peer(role) = &mut self.role else {
                return;
            };
            let Phase::Caller(side) = &mut role.phase else {
                return;
            };
            if side.waiting.is_empty() {
                return;
            }
            let Some(StreamRef::Session(slot)) = self.link.open() else {
                return;
            };
            let Some(Wanted {
                call,
                kind,
                payload,
            }) = side.waiting.pop_front()
            else {
                return;
            };
            let Some(sealed) = seal(side, &role.node, kind, payload) else {
                side.outgoing.cancel(call);
                self.abandon(slot, ABANDONED);
                self.call_over(call, Err(Failure::NotTried));
                continue;
            };
            side.outgoing.asked(now, call);
            let tag = sealed.tag;
            let under_way = UnderWay {
                call,
                asked: Asked { kind, tag },
                since: now,
            };
            side.under_way.insert(slot, under_way);
            side.slots.insert(call, slot);
            let len = sealed.parts.iter().map(Bytes::len).sum::<usize>();
            role.node.ledger().count(|c| {
                c.began(Side::Out);
                c.moved(Side::Out, len as u64);
            });
            self.write_envelope(slot, sealed.parts, None);
        }
    }

    /// The whole request is with the engine: the answer's time begins.
    pub(super) fn request_written(&mut self, now: Instant, slot: Slot) {
        if let Some(side) = self.caller_side()
            && let Some(under_way) = side.under_way.get(&slot)
        {
            side.outgoing.written(now, under_way.call);
        }
    }

    /// The peer wants no more of a request.
    pub(super) fn request_unwanted(&mut self, slot: Slot) {
        if let Some(role) = self.peer_role() {
            role.writing.remove(&slot);
        }
    }

    pub(super) fn read_answer(&mut self, now: Instant, slot: Slot) {
        loop {
            let Role::Peer(role) = &mut self.role else {
                return;
            };
            let Phase::Caller(side) = &mut role.phase else {
                return;
            };
            let Some(call) = side.under_way.get(&slot).map(|under_way| under_way.call) else {
                return;
            };
            let mut answered = None;
            let outgoing = &mut side.outgoing;
            let state = self.link.read(StreamRef::Session(slot), READ_MAX, |chunk| {
                answered = answered
                    .take()
                    .or_else(|| outgoing.handle_bytes(call, &chunk));
            });
            if answered.is_none() && state == Ok(ReadState::End) {
                answered = outgoing.handle_end(call);
            }
            match (answered, state) {
                (Some(answered), _) => return self.answered(now, slot, answered),
                (None, Ok(ReadState::More)) => {}
                (None, Ok(ReadState::Blocked | ReadState::End)) => return,
                (None, Err(Broken::ByPeer(_) | Broken::Gone)) => {
                    return self.answer_broken(now, slot);
                }
            }
        }
    }

    /// The peer abandoned the stream of a call.
    pub(super) fn answer_broken(&mut self, now: Instant, slot: Slot) {
        let Some(side) = self.caller_side() else {
            return;
        };
        let Some(under_way) = side.take(slot) else {
            return;
        };
        let failure = side.outgoing.handle_reset(under_way.call, false);
        let failure = failure.unwrap_or(Failure::Reset);
        self.finished(now, slot, &under_way, Err(failure));
    }

    fn answered(&mut self, now: Instant, slot: Slot, answered: Answered) {
        let Role::Peer(role) = &mut self.role else {
            return;
        };
        let Phase::Caller(side) = &mut role.phase else {
            return;
        };
        let Some(under_way) = side.take(slot) else {
            return;
        };
        let judged = judge(side, &role.node, answered, &under_way.asked);
        let fault = match &judged {
            Ok(_) => None,
            Err(error) => {
                let ledger = role.node.ledger();
                ledger.count(|c| c.distrusted(error));
                if let Some(reason) = AuthFail::of_response(error) {
                    ledger.disbelieve(side.caller.called(), self.link.remote(), reason);
                }
                error.close().is_some().then_some(*error)
            }
        };
        side.is_believed |= match &judged {
            Ok(Answer::Body(_)) => true,
            Ok(Answer::Refused(refusal)) => *refusal != Refusal::Identity,
            Ok(Answer::Taken) | Err(_) => false,
        };
        let outcome = match judged {
            Ok(Answer::Body(body)) => Ok(body),
            Ok(Answer::Taken) => Ok(Bytes::new()),
            Ok(Answer::Refused(refusal)) => {
                // One that was refused itself is not followed by another one until a call is refused again.
                if under_way.call != RESET {
                    self.heed_refusal(now, refusal);
                }
                Err(Failure::Refused(refusal))
            }
            Err(error) => Err(Failure::BadAnswer(error)),
        };
        self.finished(now, slot, &under_way, outcome);
        if let Some(error) = fault {
            self.peer_fault(now, error.into());
        }
    }

    /// A peer that remembers numbers from before this node's durable epoch was lost is asked to begin anew.
    fn heed_refusal(&mut self, now: Instant, refusal: Refusal) {
        let Some(side) = self.caller_side() else {
            return;
        };
        let Refusal::Number { high } = refusal else {
            return;
        };
        let is_resetting = side.slots.contains_key(&RESET)
            || side.waiting.iter().any(|wanted| wanted.call == RESET);
        if is_resetting || !side.agreed.has(Capabilities::WINDOW_RESET) {
            return;
        }
        if side.outgoing.begin(now, RESET).is_ok() {
            let payload = Bytes::copy_from_slice(&high.to_le_bytes());
            side.waiting.push_front(Wanted {
                call: RESET,
                kind: RpcType::WindowReset,
                payload,
            });
        }
    }

    /// A call that had a stream is over. What of the stream is still open is abandoned.
    fn finished(
        &mut self,
        now: Instant,
        slot: Slot,
        under_way: &UnderWay,
        outcome: Result<Bytes, Failure>,
    ) {
        let kind = under_way.asked.kind;
        if let Some(role) = self.peer_role() {
            role.writing.remove(&slot);
            let took = now.saturating_duration_since(under_way.since);
            role.node.ledger().count(|c| {
                c.over(Side::Out);
                let result = match &outcome {
                    Ok(_) => {
                        c.answered_after(kind, took);
                        CallResult::Answered
                    }
                    Err(Failure::Refused(_)) => CallResult::Refused,
                    Err(_) => CallResult::Failed,
                };
                c.ended(Side::Out, kind, result);
            });
        }
        if self.unacked.contains(&slot) && outcome.is_ok() {
            // The answer proves that the request was read to its end; the acknowledgement is on its way.
            self.unacked.remove(&slot);
        } else {
            self.abandon(slot, ABANDONED);
        }
        self.call_over(under_way.call, outcome);
    }

    fn call_over(&mut self, call: CallId, outcome: Result<Bytes, Failure>) {
        if call != RESET {
            self.say(PeerEvent::Answered { call, outcome });
        }
    }

    pub(super) fn calls_timed_out(&mut self, now: Instant) {
        let heard = self.heard_at.unwrap_or(now);
        let Some(side) = self.caller_side() else {
            return;
        };
        for late in side.outgoing.handle_timeout(now, heard) {
            let Some(side) = self.caller_side() else {
                return;
            };
            match side.slots.get(&late.call).copied() {
                Some(slot) => {
                    if let Some(under_way) = side.take(slot) {
                        self.finished(now, slot, &under_way, Err(late.failure));
                    }
                }
                None => {
                    side.waiting.retain(|wanted| wanted.call != late.call);
                    self.call_over(late.call, Err(late.failure));
                }
            }
        }
    }

    pub(super) fn cancel_call(&mut self, call: CallId) {
        let Some(side) = self.caller_side() else {
            return;
        };
        side.outgoing.cancel(call);
        side.waiting.retain(|wanted| wanted.call != call);
        let Some(slot) = side.slots.get(&call).copied() else {
            return;
        };
        side.take(slot);
        if let Some(role) = self.peer_role() {
            role.writing.remove(&slot);
            role.node.ledger().count(|c| c.over(Side::Out));
        }
        self.abandon(slot, ABANDONED);
    }

    /// Calls without a stream get none any more.
    pub(super) fn waiting_lost(&mut self, failure: Failure) {
        let Some(side) = self.caller_side() else {
            return;
        };
        for wanted in std::mem::take(&mut side.waiting) {
            if let Some(side) = self.caller_side() {
                side.outgoing.cancel(wanted.call);
            }
            self.call_over(wanted.call, Err(failure));
        }
    }

    /// The connection is over. A peer that does not believe this node may say so by its close alone, and is not asked again
    /// (peer-rpc 10.2). Where it did believe it before, records have changed since, and another connection is as good as ever.
    pub(super) fn calls_lost(&mut self, closed: &Closed) {
        let is_stranger = retry::refuses_identity(closed)
            && self.caller_side().is_some_and(|side| !side.is_believed);
        let identity = is_stranger.then_some(Failure::Identity);
        self.waiting_lost(identity.unwrap_or(LOST_UNWRITTEN));
        let Some(side) = self.caller_side() else {
            return;
        };
        side.slots.clear();
        for (_, under_way) in std::mem::take(&mut side.under_way) {
            let call = under_way.call;
            let failure =
                (self.caller_side()).and_then(|side| side.outgoing.handle_reset(call, true));
            if let Some(role) = self.peer_role() {
                role.node.ledger().count(|c| {
                    c.over(Side::Out);
                    c.ended(Side::Out, under_way.asked.kind, CallResult::Failed);
                });
            }
            let failure = identity.or(failure).unwrap_or(LOST_UNWRITTEN);
            self.call_over(call, Err(failure));
        }
    }
}

fn seal(side: &mut CallerSide, node: &PeerNode, kind: RpcType, payload: Bytes) -> Option<Sealed> {
    let ledger = node.ledger();
    let route = Route {
        from: node.local,
        to: side.caller.called().unwrap_or(ANYONE),
        seq: ledger.number().ok()?,
    };
    let frame = Frame::new(kind, EpochHook::stamp(&ledger), payload);
    let tags = side.caller.tags();
    let sealed = tags.seal_frame(&ledger.keys(), Direction::Request, route, frame, None);
    sealed.ok()
}

fn judge(
    side: &mut CallerSide,
    node: &PeerNode,
    answered: Answered,
    asked: &Asked,
) -> Result<Answer, ResponseError> {
    let envelope = match answered {
        Answered::Envelope(envelope) => {
            let size = envelope.size() as u64;
            (node.ledger()).count(|c| c.moved(Side::In, size));
            Some(envelope)
        }
        Answered::Nothing => None,
        Answered::Bad(error) => return Err(error.into()),
    };
    let (mut numbers, mut epochs) = (node.ledger(), node.ledger());
    let state = (&mut numbers, &mut epochs as &mut dyn EpochHook);
    let keys = node.ledger().keys();
    side.caller
        .receive(envelope, asked, &keys, &node.judge(), state)
}

/// How a call failed that never had a stream.
pub(super) const LOST_UNWRITTEN: Failure = Failure::Link {
    written: false,
    dead: true,
};
/// The call by which the peer's window begins anew; no application's call has this name.
const RESET: CallId = CallId(u64::MAX);
/// Bytes of an envelope read at a time.
const READ_MAX: usize = 256 << 10;
