//! Commands of the peer role.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::{CommandError, Connection, Role, State};
use crate::{
    id::{CallId, Slot},
    peer::{
        NodeId,
        capabilities::Capabilities,
        frame::PAYLOAD_LEN_MAX,
        identity::not_after,
        retry::Failure,
        role::{Farewell, Phase, Wanted},
        rpc_type::RpcType,
    },
};

/// Commands of a peer connection. Calls go from the side that dialled to the one that accepted.
#[derive(Debug)]
pub struct PeerHandle<'a> {
    pub(super) conn: &'a mut Connection,
}

/// A call that is not made; nothing was changed, and no event follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallRefused {
    /// The connection is not up, is being stopped, or is one that the peer dialled.
    #[error("no calls can be made on this connection")]
    NotACaller,
    /// [`RPC_CALLS_PER_CONNECTION`](crate::limits::RPC_CALLS_PER_CONNECTION) are under way: the caller is to wait.
    #[error("too many calls are under way on this connection")]
    TooMany,
    /// The body does not fit an envelope: the caller's mistake.
    #[error("a body of {len} bytes is too large for a call")]
    TooLarge {
        /// Its bytes.
        len: usize,
    },
    /// The kind is none that can be asked: the caller's mistake.
    #[error("{0:?} is no request")]
    NoRequest(RpcType),
}

impl From<CallRefused> for Failure {
    fn from(refused: CallRefused) -> Self {
        match refused {
            CallRefused::NotACaller => Self::Link {
                written: false,
                dead: true,
            },
            CallRefused::TooMany => Self::Link {
                written: false,
                dead: false,
            },
            CallRefused::TooLarge { .. } | CallRefused::NoRequest(_) => Self::NotTried,
        }
    }
}

impl Connection {
    /// Commands of the peer role; none on a tunnel's connection.
    pub fn as_peer(&mut self) -> Option<PeerHandle<'_>> {
        matches!(self.role, Role::Peer(_)).then_some(PeerHandle { conn: self })
    }
}

impl PeerHandle<'_> {
    /// Tells whether this side dialled, and so is the one that makes calls.
    #[must_use]
    pub fn is_dialler(&mut self) -> bool {
        match self.conn.peer_role().map(|role| &role.phase) {
            Some(Phase::Dialling { .. } | Phase::Greeting { .. } | Phase::Caller(_)) => true,
            Some(Phase::Accepting { .. } | Phase::Callee(_)) | None => false,
        }
    }

    /// The node at the other end: the one that was dialled, or the one whose first request was accepted.
    #[must_use]
    pub fn node(&mut self) -> Option<NodeId> {
        self.conn.peer_role()?.phase.node()
    }

    /// When the certificate ends that the node at the other end showed as the connection began, in seconds of Unix time; none
    /// before the handshake is over.
    #[must_use]
    pub fn certificate_end(&self) -> Option<i64> {
        not_after(&self.conn.link.leaf()?).ok()
    }

    /// Makes a call. [`PeerEvent::Answered`](crate::peer::event::PeerEvent::Answered) follows, once: within
    /// [`RPC_TIMEOUT`](crate::limits::RPC_TIMEOUT) for a free stream, as long again for the request, and as long again
    /// for the answer. Where the connection ends first it comes before `Closed`. `call` names none that is under way.
    ///
    /// # Errors
    /// [`CallRefused`]
    pub fn call(
        &mut self,
        now: Instant,
        call: CallId,
        kind: RpcType,
        payload: Bytes,
    ) -> Result<(), CallRefused> {
        let len = payload.len();
        if !kind.is_request() {
            return Err(CallRefused::NoRequest(kind));
        }
        if u32::try_from(len).map_or(true, |len| len > PAYLOAD_LEN_MAX) {
            return Err(CallRefused::TooLarge { len });
        }
        let is_up = self.conn.state == State::Up;
        let Some(role) = self.conn.peer_role() else {
            return Err(CallRefused::NotACaller);
        };
        let Phase::Caller(side) = &mut role.phase else {
            return Err(CallRefused::NotACaller);
        };
        if !is_up || role.farewell.is_some() {
            return Err(CallRefused::NotACaller);
        }
        let begun = side.outgoing.begin(now, call);
        begun.map_err(|_| CallRefused::TooMany)?;
        let wanted = Wanted {
            call,
            kind,
            payload,
        };
        side.waiting.push_back(wanted);
        self.conn.dirty = true;
        Ok(())
    }

    /// Gives a call up. Nothing follows for it; the peer may have executed it.
    pub fn cancel(&mut self, call: CallId) {
        self.conn.dirty = true;
        self.conn.cancel_call(call);
    }

    /// Answers a request. The kind is the one that answers it; a request that goes one way is answered by the end of its
    /// stream alone, whatever the body.
    ///
    /// # Errors
    /// [`CommandError::NotWaiting`] where nobody waits for it any more; [`CommandError::TooLarge`], and the request still
    /// waits.
    pub fn answer(&mut self, now: Instant, slot: Slot, payload: Bytes) -> Result<(), CommandError> {
        self.conn.dirty = true;
        self.conn.answer_request(now, slot, payload)
    }

    /// Does not answer a request, which the caller takes for executed or not: it gets the end of the stream.
    ///
    /// # Errors
    /// [`CommandError::NotWaiting`]
    pub fn fail(&mut self, slot: Slot) -> Result<(), CommandError> {
        self.conn.dirty = true;
        self.conn.fail_request(slot)
    }

    /// Refuses a request that was not executed, as too much is going on. A peer that knows refusals may try again after
    /// `retry_after`; any other gets the end of the stream.
    ///
    /// # Errors
    /// [`CommandError::NotWaiting`]
    pub fn refuse(
        &mut self,
        now: Instant,
        slot: Slot,
        retry_after: Duration,
    ) -> Result<(), CommandError> {
        self.conn.dirty = true;
        self.conn.refuse_request(now, slot, retry_after)
    }

    /// Stops: no call is made or taken any more, those under way have `grace`, then the connection is closed with
    /// `node shutdown` (peer-rpc 8). [`Event::Closed`](crate::output::Event::Closed) follows.
    pub fn drain(&mut self, now: Instant, grace: Duration) {
        self.conn.dirty = true;
        self.conn.drain_peer(now, grace);
    }

    /// The extensions that are active; none before the version handshake is over.
    #[must_use]
    pub fn capabilities(&mut self) -> Capabilities {
        match self.conn.peer_role().map(|role| &role.phase) {
            Some(Phase::Caller(side)) => side.agreed,
            Some(Phase::Callee(side)) => side.agreed,
            Some(Phase::Dialling { .. } | Phase::Greeting { .. } | Phase::Accepting { .. })
            | None => Capabilities::NONE,
        }
    }
}

impl Connection {
    fn drain_peer(&mut self, now: Instant, grace: Duration) {
        let Role::Peer(role) = &mut self.role else {
            return;
        };
        if role.farewell.is_some() || self.state == State::Closed {
            return;
        }
        // What was asked for before this is under way if there is a place for it.
        self.make_calls(now);
        let Role::Peer(role) = &mut self.role else {
            return;
        };
        let until = now.checked_add(grace).unwrap_or(now);
        match &mut role.phase {
            // Nothing is under way on it.
            Phase::Dialling { .. } | Phase::Greeting { .. } | Phase::Accepting { .. } => {
                role.farewell = Some(Farewell::Drain { until: now });
            }
            Phase::Caller(_) => {
                role.farewell = Some(Farewell::Drain { until });
                self.waiting_lost(super::caller::LOST_UNWRITTEN);
            }
            Phase::Callee(side) => {
                role.farewell = Some(Farewell::Drain { until });
                for slot in side.incoming.drain(now, grace) {
                    self.abandon(slot, super::ABANDONED);
                }
            }
        }
        if matches!(self.state, State::Handshaking { .. }) {
            self.end_peer(now);
        }
    }
}
