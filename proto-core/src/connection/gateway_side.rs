//! The gateway's part of a connection: sessions that it opens, renewals that it answers.

use std::time::Instant;

use bytes::Bytes;

use super::{Call, Connection, Role, State};
use crate::{
    close::session_code,
    gateway::{AttemptError, open::Open, role::Waiting},
    id::{AttemptId, SessionId, Slot},
    limits,
    link::{Broken, ReadState, StreamRef},
    output::{Event, Renewed},
    target::Target,
    wire::{
        connect::ConnectRequest,
        control::{ControlMessage, RenewalResult},
    },
};

/// Commands of the gateway's role.
#[derive(Debug)]
pub struct GatewayHandle<'a> {
    conn: &'a mut Connection,
}

impl Connection {
    /// Commands of the gateway's role; none on an agent's connection.
    pub fn as_gateway(&mut self) -> Option<GatewayHandle<'_>> {
        matches!(self.role, Role::Gateway(_)).then_some(GatewayHandle { conn: self })
    }

    /// Opens what waits for credit, oldest first.
    pub(super) fn open_waiting(&mut self) {
        loop {
            let Role::Gateway(role) = &mut self.role else {
                return;
            };
            if role.waiting.is_empty() {
                return;
            }
            let Some(StreamRef::Session(slot)) = self.link.open() else {
                return;
            };
            let Some(waiting) = role.waiting.pop_front() else {
                return;
            };
            self.deadlines.insert((waiting.deadline, slot));
            role.attempts.insert(waiting.attempt, slot);
            role.opens
                .insert(slot, Open::new(waiting.attempt, waiting.deadline));
            self.make_room();
            self.send_setup(slot, waiting.request, false);
        }
    }

    pub(super) fn waiting_timeouts(&mut self, now: Instant) {
        let Role::Gateway(role) = &mut self.role else {
            return;
        };
        // Deadlines follow the order of the commands, so the oldest is the first to expire.
        while role
            .waiting
            .front()
            .is_some_and(|waiting| waiting.deadline <= now)
        {
            if let Some(waiting) = role.waiting.pop_front() {
                let cause = AttemptError::NoCredit;
                self.events.push_back(Event::SessionRefused {
                    attempt: waiting.attempt,
                    cause,
                });
            }
        }
    }

    /// Reads as much of the answer as has come, and no byte more.
    pub(super) fn advance_open(&mut self, slot: Slot) {
        loop {
            let Role::Gateway(role) = &mut self.role else {
                return;
            };
            let Some(open) = role.opens.get_mut(&slot) else {
                return;
            };
            let mut answer = None;
            let state =
                self.link
                    .read_message(StreamRef::Session(slot), open.wanted(), |chunk: Bytes| {
                        answer = answer.take().or_else(|| open.handle_bytes(&chunk));
                    });
            if answer.is_none() && state == Ok(ReadState::End) {
                answer = Some(Err(open.handle_end()));
            }
            match (answer, state) {
                (Some(Ok(())), _) => return self.open_answered(slot),
                (Some(Err(cause)), _) => {
                    return self.open_failed(slot, cause, session_code::CANCELLED);
                }
                (None, Ok(ReadState::More)) => {}
                (None, Ok(ReadState::Blocked | ReadState::End)) => return,
                (None, Err(Broken::ByPeer(_) | Broken::Gone)) => return self.open_broken(slot),
            }
        }
    }

    fn open_answered(&mut self, slot: Slot) {
        if let Some(open) = self.take_open(slot) {
            self.events.push_back(Event::SessionOpened {
                attempt: open.attempt,
                slot,
            });
            self.carry(slot);
        }
    }

    fn open_failed(&mut self, slot: Slot, cause: AttemptError, code: u32) {
        if let Some(open) = self.take_open(slot) {
            if matches!(cause, AttemptError::Malformed(_)) {
                self.counters.setups_malformed += 1;
            }
            self.abandon(slot, code);
            self.unsent.remove(&slot);
            self.events.push_back(Event::SessionRefused {
                attempt: open.attempt,
                cause,
            });
        }
    }

    pub(super) fn open_broken(&mut self, slot: Slot) {
        self.open_failed(slot, AttemptError::ConnectionLost, session_code::CANCELLED);
    }

    pub(super) fn open_timed_out(&mut self, slot: Slot) {
        self.open_failed(slot, AttemptError::TimedOut, session_code::TIMED_OUT);
    }

    fn take_open(&mut self, slot: Slot) -> Option<Open> {
        let Role::Gateway(role) = &mut self.role else {
            return None;
        };
        let open = role.opens.remove(&slot)?;
        role.attempts.remove(&open.attempt);
        self.deadlines.remove(&(open.deadline, slot));
        Some(open)
    }
}

impl GatewayHandle<'_> {
    /// Asks the agent for a session; [`Event::SessionOpened`] or [`Event::SessionRefused`] follows, within
    /// [`limits::OPEN_TIMEOUT`] even if the agent grants no stream. [`Event::Closed`] stands for the outcome of every
    /// attempt without one, and nothing follows on a connection that is closed.
    pub fn open_session(
        &mut self,
        now: Instant,
        attempt: AttemptId,
        session: SessionId,
        target: &Target,
    ) {
        let call = || Call::Open(attempt, session, target.clone());
        self.conn.link.called(Some(now), call);
        self.conn.dirty = true;
        let refused = |cause| Event::SessionRefused { attempt, cause };
        let Role::Gateway(role) = &mut self.conn.role else {
            return;
        };
        match self.conn.state {
            State::Up => {}
            State::Handshaking { .. } => {
                return self
                    .conn
                    .events
                    .push_back(refused(AttemptError::ConnectionLost));
            }
            State::Closed => return,
        }
        // A target is 263 bytes at most, so it fits.
        let Ok(request) = ConnectRequest::new(session, target.to_string()).encode() else {
            return;
        };
        if role.waiting.len() >= limits::OPENS_WAITING_MAX {
            return self.conn.events.push_back(refused(AttemptError::NoCredit));
        }
        role.waiting.push_back(Waiting {
            attempt,
            request,
            deadline: now + limits::OPEN_TIMEOUT,
        });
        self.conn.open_waiting();
    }

    /// Gives an attempt up. Nothing follows for it.
    pub fn cancel(&mut self, attempt: AttemptId) {
        self.conn.link.called(None, || Call::Cancel(attempt));
        self.conn.dirty = true;
        let Role::Gateway(role) = &mut self.conn.role else {
            return;
        };
        if let Some(&slot) = role.attempts.get(&attempt) {
            self.conn.take_open(slot);
            self.conn.unsent.remove(&slot);
            self.conn
                .link
                .abandon(StreamRef::Session(slot), session_code::CANCELLED);
        } else if let Some(at) = role.waiting.iter().position(|w| w.attempt == attempt) {
            role.waiting.remove(at);
        }
    }

    /// Answers a renewal (agent-tunnel 12). A connection that asked for none, or closed meanwhile, ignores it: gives
    /// false.
    pub fn answer_renewal(&mut self, answer: Result<Renewed, String>) -> bool {
        let call = || Call::AnswerRenewal(answer.clone());
        self.conn.link.called(None, call);
        self.conn.dirty = true;
        let Role::Gateway(role) = &mut self.conn.role else {
            return false;
        };
        if self.conn.state != State::Up || !std::mem::take(&mut role.renewing) {
            return false;
        }
        let result = match answer {
            Ok(renewed) => RenewalResult::Granted {
                client_cert_pem: renewed.client_cert_pem,
                gateway_ca_cert_pem: renewed.gateway_ca_pem,
            },
            Err(reason) => RenewalResult::Refused { reason },
        };
        let message = ControlMessage::CertRenewalResponse {
            version: limits::VERSION_MAX,
            result,
        };
        self.conn.control.is_open() && self.conn.control.send(&message).is_ok()
    }
}
