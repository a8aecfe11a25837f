//! The agent's part of a connection: sessions asked for by the gateway, routes, renewal.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Call, Connection, Farewell, Role, State};
use crate::{
    agent::{
        accept::{Accept, AcceptStep},
        role::RoutesError,
    },
    close::session_code,
    id::Slot,
    link::{Broken, ReadState, StreamRef},
    output::{Event, SessionEnd},
    route::RouteSet,
    wire::connect::ConnectResponse,
};

/// Commands of the agent's role.
#[derive(Debug)]
pub struct AgentHandle<'a> {
    conn: &'a mut Connection,
}

/// A command that does not fit the state; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The session is not one that waits for an answer; it may have ended meanwhile.
    #[error("no session waits for an answer at this place")]
    NotWaiting,
    /// The connection is not established.
    #[error("the connection is not established")]
    NotConnected,
    /// The body of an answer does not fit an envelope (peer-rpc 4.3).
    #[error("the answer is too large")]
    TooLarge,
}

impl Connection {
    /// Commands of the agent's role; none on a gateway's connection.
    pub fn as_agent(&mut self) -> Option<AgentHandle<'_>> {
        matches!(self.role, Role::Agent(_)).then_some(AgentHandle { conn: self })
    }

    pub(super) fn begin_accept(&mut self, now: Instant, slot: Slot) {
        self.make_room();
        let accept = Accept::new(now);
        self.deadlines.insert((accept.deadline(), slot));
        if let Role::Agent(role) = &mut self.role {
            role.accepts.insert(slot, accept);
        }
        self.advance_accept(now, slot);
    }

    /// Reads as much of the request as has come, and no byte more.
    pub(super) fn advance_accept(&mut self, now: Instant, slot: Slot) {
        loop {
            let Role::Agent(role) = &mut self.role else {
                return;
            };
            let Some(accept) = role.accepts.get_mut(&slot) else {
                return;
            };
            let wanted = accept.wanted();
            if wanted == 0 {
                return;
            }
            let before = accept.deadline();
            let mut step = None;
            let state = self
                .link
                .read_message(StreamRef::Session(slot), wanted, |chunk: Bytes| {
                    step = step.take().or_else(|| accept.handle_bytes(now, &chunk));
                });
            if step.is_none() && state == Ok(ReadState::End) {
                step = Some(accept.handle_end());
            }
            if accept.deadline() != before {
                let deadline = accept.deadline();
                self.deadlines.remove(&(before, slot));
                self.deadlines.insert((deadline, slot));
            }
            match (step, state) {
                (Some(step), _) => return self.apply_accept(slot, step),
                (None, Ok(ReadState::More)) => {}
                (None, Ok(ReadState::Blocked | ReadState::End)) => return,
                (None, Err(Broken::ByPeer(code))) => return self.accept_broken(slot, code),
                (None, Err(Broken::Gone)) => return self.accept_broken(slot, 0),
            }
        }
    }

    fn apply_accept(&mut self, slot: Slot, step: AcceptStep) {
        match step {
            AcceptStep::Ask { session, target } => {
                self.events.push_back(Event::SessionRequested {
                    slot,
                    session,
                    target,
                });
            }
            AcceptStep::Refuse(reason) => {
                self.counters.setups_malformed += 1;
                self.take_accept(slot);
                self.send_refusal(slot, &reason);
            }
            AcceptStep::Abandon(_) => {
                self.counters.setups_abandoned += 1;
                self.take_accept(slot);
                self.abandon(slot, session_code::MALFORMED);
            }
        }
    }

    pub(super) fn accept_broken(&mut self, slot: Slot, code: u64) {
        if let Some(accept) = self.take_accept(slot) {
            self.counters.setups_abandoned += 1;
            self.abandon(slot, session_code::CANCELLED);
            if accept.is_deciding() {
                self.events.push_back(Event::SessionEnded {
                    slot,
                    how: SessionEnd::ResetByPeer(code),
                });
            }
        }
    }

    pub(super) fn accept_timed_out(&mut self, slot: Slot) {
        let Some(accept) = self.take_accept(slot) else {
            return;
        };
        if accept.is_deciding() {
            self.send_refusal(slot, "timed out: the agent did not decide");
            self.events.push_back(Event::SessionEnded {
                slot,
                how: SessionEnd::Unanswered,
            });
        } else {
            // agent-tunnel 7.3: dropped without an answer.
            self.counters.setups_abandoned += 1;
            self.abandon(slot, session_code::TIMED_OUT);
        }
    }

    fn take_accept(&mut self, slot: Slot) -> Option<Accept> {
        let Role::Agent(role) = &mut self.role else {
            return None;
        };
        let accept = role.accepts.remove(&slot)?;
        self.deadlines.remove(&(accept.deadline(), slot));
        Some(accept)
    }

    /// agent-tunnel 7.3: the answer, then the clean end of the stream.
    fn send_refusal(&mut self, slot: Slot, reason: &str) {
        if let Ok(frame) = ConnectResponse::refused(reason).encode() {
            self.send_setup(slot, frame, true);
        }
        self.link
            .stop(StreamRef::Session(slot), session_code::CANCELLED);
    }
}

impl AgentHandle<'_> {
    /// Opens a requested session: the target is connected.
    ///
    /// # Errors
    /// [`CommandError::NotWaiting`] when it has ended meanwhile: close the TCP connection.
    pub fn accept(&mut self, slot: Slot) -> Result<(), CommandError> {
        self.conn.link.called(None, || Call::Accept(slot));
        self.take_deciding(slot)?;
        if let Ok(frame) = ConnectResponse::accepted().encode() {
            self.conn.send_setup(slot, frame, false);
        }
        self.conn.carry(slot);
        Ok(())
    }

    /// Refuses a requested session with a text for humans; it is cut to what fits a message.
    ///
    /// # Errors
    /// [`CommandError::NotWaiting`] when it has ended meanwhile.
    pub fn refuse(&mut self, slot: Slot, reason: &str) -> Result<(), CommandError> {
        (self.conn.link).called(None, || Call::Refuse(slot, reason.to_owned()));
        self.take_deciding(slot)?;
        self.conn.send_refusal(slot, reason);
        Ok(())
    }

    /// Replaces what is advertised; it is sent at once with a higher epoch.
    ///
    /// # Errors
    /// [`RoutesError`] when the set does not fit one message; nothing is changed.
    pub fn set_routes(&mut self, now: Instant, routes: Arc<RouteSet>) -> Result<(), RoutesError> {
        let call = || Call::SetRoutes(RouteSet::clone(&routes));
        self.conn.link.called(Some(now), call);
        self.conn.dirty = true;
        let Role::Agent(role) = &mut self.conn.role else {
            return Ok(());
        };
        role.set_routes(now, routes)
    }

    /// Asks the gateway for a new certificate (agent-tunnel 12); [`Event::RenewalAnswered`] follows, once at most, however
    /// often it is asked: with the first answer that comes.
    ///
    /// # Errors
    /// [`CommandError::NotConnected`].
    pub fn renew(&mut self, csr_pem: String) -> Result<(), CommandError> {
        (self.conn.link).called(None, || Call::Renew(csr_pem.clone()));
        if self.conn.state != State::Up {
            return Err(CommandError::NotConnected);
        }
        self.conn.dirty = true;
        let Role::Agent(role) = &mut self.conn.role else {
            return Err(CommandError::NotConnected);
        };
        role.renew(csr_pem);
        Ok(())
    }

    /// Closes the connection as soon as it has carried nothing for [`DRAIN_LINGER`](crate::limits::DRAIN_LINGER): no
    /// session is open or asked for, and everything sent is acknowledged. Sessions that come meanwhile are served. One that
    /// stops already does that.
    pub fn drain(&mut self) {
        self.conn.link.called(None, || Call::Drain);
        self.conn.dirty = true;
        let farewell = &mut self.conn.farewell;
        farewell.get_or_insert(Farewell::WhenIdle { since: None });
    }

    /// Time from the latest acknowledged heartbeat to its ack, the queues of both ends included; none before the first.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        match &self.conn.role {
            Role::Agent(role) => role.round_trip(),
            Role::Gateway(_) | Role::Peer(_) | Role::Forward(_) => None,
        }
    }

    fn take_deciding(&mut self, slot: Slot) -> Result<(), CommandError> {
        let is_deciding = match &self.conn.role {
            Role::Agent(role) => role.accepts.get(&slot).is_some_and(Accept::is_deciding),
            Role::Gateway(_) | Role::Peer(_) | Role::Forward(_) => false,
        };
        self.conn.link.answered(&is_deciding);
        if !is_deciding {
            return Err(CommandError::NotWaiting);
        }
        self.conn.take_accept(slot);
        Ok(())
    }
}
