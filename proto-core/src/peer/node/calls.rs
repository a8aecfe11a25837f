//! Calls: attempts, what follows a failed one, and how they end (peer-rpc 9.2 and 9.3).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Node,
    state::{CallState, For, Pooled, Timer},
    step::{CallError, NodeStep},
};
use crate::{
    connection::CallRefused,
    id::{CallId, ConnId},
    limits::{RPC_BACKOFF_MAX, RPC_CALLS_PER_CONNECTION, RPC_CALLS_WAITING_MAX, RPC_TIMEOUT},
    peer::{
        NodeId,
        breaker::{CircuitOpen, Pass},
        refusal::Refusal,
        retry::{self, Counted, Failure},
    },
};

impl Node {
    /// The connection did not take a call.
    pub fn handle_refused(
        &mut self,
        now: Instant,
        conn: ConnId,
        call: CallId,
        refused: CallRefused,
    ) {
        self.handle_outcome(now, conn, call, Err(refused.into()));
    }

    /// One attempt begins: it passes the breaker, then waits for its node's connection.
    pub(super) fn attempt(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let For::Node(node) = call.target else {
            return;
        };
        call.attempts = call.attempts.saturating_add(1);
        let Some(peer) = self.peers.get_mut(&node) else {
            return self.end_call(id, Err(CallError::Unreachable { node }));
        };
        if peer.waiting.len() >= RPC_CALLS_WAITING_MAX {
            return self.end_call(id, Err(CallError::Busy { node }));
        }
        match peer.breaker.check(now) {
            Ok(pass) => call.pass = pass,
            Err(CircuitOpen { failures }) => {
                return self.end_call(id, Err(CallError::CircuitOpen { node, failures }));
            }
        }
        let is_first = peer.waiting.is_empty();
        if let Some(conn) = peer.pooled.connection().filter(|_| is_first)
            && let Some(held) = self.links.get_mut(&conn)
            && held.calls.len() < RPC_CALLS_PER_CONNECTION
        {
            held.calls.insert(id);
            return self.make(conn, id);
        }
        peer.waiting.push_back(id);
        let until = now.checked_add(RPC_TIMEOUT).unwrap_or(now);
        self.set_state(id, CallState::Waiting { until });
        self.advance(now, node);
    }

    /// Makes the calls that wait for a node, as far as its connection has places; dials where there is none.
    pub(super) fn advance(&mut self, now: Instant, node: NodeId) {
        loop {
            let Some(peer) = self.peers.get_mut(&node) else {
                return;
            };
            if peer.waiting.is_empty() {
                return;
            }
            let conn = match peer.pooled {
                Pooled::None => return self.dial(now, node, Pass::Free),
                Pooled::Dialling(_) => return,
                Pooled::Up(conn) => conn,
            };
            let Some(held) = self.links.get_mut(&conn) else {
                peer.pooled = Pooled::None;
                continue;
            };
            if held.calls.len() >= RPC_CALLS_PER_CONNECTION {
                return;
            }
            if let Some(id) = peer.waiting.pop_front() {
                held.calls.insert(id);
                self.make(conn, id);
            }
        }
    }

    pub(super) fn make(&mut self, conn: ConnId, id: CallId) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        self.steps.push_back(NodeStep::Call {
            conn,
            call: id,
            kind: call.kind,
            payload: call.payload.clone(),
        });
        if call.target != For::Address {
            self.set_state(id, CallState::UnderWay { conn });
        }
    }

    /// An attempt on a connection is over.
    pub(super) fn handle_outcome(
        &mut self,
        now: Instant,
        conn: ConnId,
        id: CallId,
        outcome: Result<Bytes, Failure>,
    ) {
        if !self.forget_on(conn, id) {
            return;
        }
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let (kind, attempts) = (call.kind, call.attempts);
        let For::Node(node) = call.target else {
            // Its connection ends with it.
            return self.end_call(id, outcome.map_err(CallError::Failed));
        };
        match outcome {
            Ok(body) => {
                self.attempt_over(now, id, Some(Counted::Success));
                self.end_call(id, Ok(body));
            }
            Err(failure) => {
                let verdict = retry::judge(kind, attempts, &failure);
                // However many calls a lost connection takes with it, it is one failure of the node.
                let is_of_all = matches!(
                    failure,
                    Failure::Link { dead: true, .. } | Failure::Identity
                );
                let is_known = is_of_all && self.connection(node) != Some(conn);
                self.attempt_over(now, id, verdict.breaker.filter(|_| !is_known));
                // Why a call is over is told before the end of its connection, with which whoever called may forget it.
                self.retry_or_end(now, id, &failure, verdict.retry);
                if verdict.evict {
                    self.evict(node, conn);
                }
            }
        }
        self.close_if_spent(conn);
        self.advance(now, node);
    }

    /// Rests before another attempt where one is worth while, and else is over.
    pub(super) fn retry_or_end(
        &mut self,
        now: Instant,
        id: CallId,
        failure: &Failure,
        retry: bool,
    ) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        if !retry {
            return self.end_call(id, Err(CallError::Failed(*failure)));
        }
        if self.stopping {
            let error = match failure.is_unexecuted() {
                true => CallError::Stopping,
                false => CallError::Failed(*failure),
            };
            return self.end_call(id, Err(error));
        }
        let mut rest = retry::wait(call.attempts, &mut self.rng);
        if let Failure::Refused(Refusal::Overload { retry_after_ms }) = failure {
            let advice = Duration::from_millis(*retry_after_ms);
            rest = rest.max(advice.min(RPC_BACKOFF_MAX));
        }
        let until = now.checked_add(rest).unwrap_or(now);
        self.set_state(id, CallState::Resting { until });
    }

    pub(super) fn call_timed_out(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let (kind, attempts, state) = (call.kind, call.attempts, call.state);
        match (state, call.target) {
            (CallState::Resting { .. }, _) => self.attempt(now, id),
            (CallState::Waiting { .. }, For::Node(node)) => {
                // Nobody knows yet whether the node is there: its dial is still under way, or all places are taken.
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.waiting.retain(|waiting| *waiting != id);
                }
                let failure = Failure::Link {
                    written: false,
                    dead: false,
                };
                let verdict = retry::judge(kind, attempts, &failure);
                self.attempt_over(now, id, verdict.breaker);
                self.retry_or_end(now, id, &failure, verdict.retry);
            }
            (CallState::Alone { .. }, _) => {
                let failure = Failure::Link {
                    written: true,
                    dead: false,
                };
                self.leave_alone(id);
                self.end_call(id, Err(CallError::Failed(failure)));
            }
            (CallState::New | CallState::UnderWay { .. } | CallState::Waiting { .. }, _) => {}
        }
    }

    /// An attempt is over. What it says of the node goes to the breaker; a probe that says nothing makes room for another.
    pub(super) fn attempt_over(&mut self, now: Instant, id: CallId, counted: Option<Counted>) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let pass = std::mem::replace(&mut call.pass, Pass::Free);
        let For::Node(node) = call.target else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        match counted {
            Some(Counted::Failure) => peer.breaker.failed(now),
            Some(Counted::Success) => peer.breaker.succeeded(now),
            None => peer.breaker.released(pass),
        }
    }

    pub(super) fn set_state(&mut self, id: CallId, state: CallState) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut call.state, state);
        if let Some(at) = before.until() {
            self.timers.remove(&(at, Timer::Call(id)));
        }
        if let Some(at) = state.until() {
            self.timers.insert((at, Timer::Call(id)));
        }
    }

    pub(super) fn end_call(&mut self, call: CallId, outcome: Result<Bytes, CallError>) {
        if self.drop_call(call).is_some() {
            self.steps.push_back(NodeStep::Answered { call, outcome });
        }
    }

    /// Forgets a call, and gives whom it was for, in whose queue it may have been.
    pub(super) fn drop_call(&mut self, id: CallId) -> Option<For> {
        let call = self.calls.remove(&id)?;
        if let Some(at) = call.state.until() {
            self.timers.remove(&(at, Timer::Call(id)));
        }
        match call.target {
            For::Address => self.leave_alone(id),
            For::Node(node) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    if let CallState::Waiting { .. } = call.state {
                        peer.waiting.retain(|waiting| *waiting != id);
                    }
                    peer.breaker.released(call.pass);
                }
            }
        }
        Some(call.target)
    }
}
