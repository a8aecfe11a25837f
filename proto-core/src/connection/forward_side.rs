//! Sessions that one gateway hands to another: one stream each, opened by the side that dialled (design 8.15).

use std::time::Instant;

use bytes::Bytes;

use super::{CommandError, Connection, Farewell, Role, State};
use crate::{
    close::session_code,
    gateway::AttemptError,
    id::{AttemptId, Slot},
    limits,
    link::{Broken, ReadState, StreamRef, Streams},
    output::{Event, SessionEnd},
    peer::{
        NodeId,
        bound::ConnectionSecret,
        event::PeerEvent,
        fault::RpcFault,
        forward::{
            EXPORTER_LABEL, Forward, ForwardReader, Status,
            role::{
                ForwardRole, ForwardSide, Opener, Opening, Taking, TakingState, Wanted, node_of,
                outcome,
            },
        },
        identity::Leaf,
        role::Phase,
    },
};

/// Commands of a connection that carries forwarded sessions.
#[derive(Debug)]
pub struct ForwardHandle<'a> {
    conn: &'a mut Connection,
}

impl Connection {
    /// Commands of a connection that carries forwarded sessions; none before its handshake is over, and on any other.
    pub fn as_forward(&mut self) -> Option<ForwardHandle<'_>> {
        matches!(self.role, Role::Forward(_)).then_some(ForwardHandle { conn: self })
    }

    /// The handshake has chosen this protocol. The other end is known by its certificate.
    pub(super) fn begin_forward(&mut self) -> Result<(), RpcFault> {
        let leaf = self.link.leaf().map(|der| Leaf::from_der(&der));
        let Role::Peer(role) = &self.role else {
            return Ok(());
        };
        let (called, is_dialler) = match role.phase {
            Phase::Dialling { called } => (called, true),
            Phase::Greeting { .. }
            | Phase::Accepting { .. }
            | Phase::Caller(_)
            | Phase::Callee(_) => (None, false),
        };
        let peer = node_of(&role.node, called, leaf.as_ref())?;
        let secret = self.link.export(EXPORTER_LABEL);
        let secret = ConnectionSecret::new(secret.ok_or(RpcFault::NoSecret)?);
        let role = ForwardRole::new(role.node.clone(), peer, secret, is_dialler);
        self.role = Role::Forward(Box::new(role));
        self.link.set_streams(Streams::Forwarded);
        self.link.set_window(self.hoard.window());
        self.say(PeerEvent::ForwardUp {
            node: peer,
            is_dialler,
        });
        Ok(())
    }

    fn opener(&mut self) -> Option<&mut Opener> {
        let Role::Forward(role) = &mut self.role else {
            return None;
        };
        match &mut role.side {
            ForwardSide::Opener(opener) => Some(opener),
            ForwardSide::Taker(_) => None,
        }
    }

    /// Opens what waits for credit, oldest first.
    pub(super) fn open_forwards(&mut self) {
        loop {
            let Role::Forward(role) = &mut self.role else {
                return;
            };
            let ForwardSide::Opener(opener) = &mut role.side else {
                return;
            };
            if opener.waiting.is_empty() {
                return;
            }
            let Some(StreamRef::Session(slot)) = self.link.open() else {
                return;
            };
            let Some(wanted) = opener.waiting.pop_front() else {
                return;
            };
            let Wanted {
                attempt, deadline, ..
            } = wanted;
            let sealed = wanted
                .forward
                .seal(&role.node.ledger().keys(), &role.secret);
            let Ok((header, reader)) = sealed else {
                // A ring always has a key, and the connection its secret.
                debug_assert!(false, "no key for a header");
                self.link
                    .abandon(StreamRef::Session(slot), session_code::CANCELLED);
                let cause = AttemptError::PeerLost;
                self.events
                    .push_back(Event::SessionRefused { attempt, cause });
                continue;
            };
            let opening = Opening {
                attempt,
                deadline,
                reader,
            };
            opener.opens.insert(slot, opening);
            opener.attempts.insert(attempt, slot);
            self.deadlines.insert((deadline, slot));
            self.send_setup(slot, header, false);
        }
    }

    pub(super) fn forwards_timed_out(&mut self, now: Instant) {
        while let Some(opener) = self.opener() {
            let is_late = |wanted: &Wanted| wanted.deadline <= now;
            // Deadlines follow the order of the commands, so the oldest is the first to expire.
            if !opener.waiting.front().is_some_and(is_late) {
                return;
            }
            if let Some(Wanted { attempt, .. }) = opener.waiting.pop_front() {
                let cause = AttemptError::NoCredit;
                self.events
                    .push_back(Event::SessionRefused { attempt, cause });
            }
        }
    }

    pub(super) fn begin_take(&mut self, now: Instant, slot: Slot) {
        self.make_room();
        let deadline = now + limits::RPC_TIMEOUT;
        if let Role::Forward(role) = &mut self.role
            && let ForwardSide::Taker(takings) = &mut role.side
        {
            let state = TakingState::Reading(ForwardReader::default());
            takings.insert(slot, Taking { deadline, state });
            self.deadlines.insert((deadline, slot));
        }
        self.advance_forward(now, slot);
    }

    /// Reads as much of a header or an answer as has come, and no byte more.
    pub(super) fn advance_forward(&mut self, now: Instant, slot: Slot) {
        match &self.role {
            Role::Forward(role) if matches!(role.side, ForwardSide::Taker(_)) => {
                self.advance_take(now, slot);
            }
            Role::Forward(_) => self.advance_opening(slot),
            Role::Agent(_) | Role::Gateway(_) | Role::Peer(_) => {}
        }
    }

    fn advance_take(&mut self, now: Instant, slot: Slot) {
        loop {
            let Role::Forward(role) = &mut self.role else {
                return;
            };
            let ForwardSide::Taker(takings) = &mut role.side else {
                return;
            };
            let Some(TakingState::Reading(reader)) = takings.get_mut(&slot).map(|t| &mut t.state)
            else {
                return;
            };
            let mut fed = Ok(None);
            let state =
                (self.link).read_message(StreamRef::Session(slot), reader.wanted(), |mut chunk| {
                    if let Ok(None) = fed {
                        fed = reader.feed(&mut chunk);
                    }
                });
            match (fed, state) {
                (Ok(Some(header)), _) => {
                    return match role.verify(header) {
                        Ok((forward, answering)) => {
                            let deciding = TakingState::Deciding(Box::new(answering));
                            self.decide(now, slot, forward, deciding);
                        }
                        Err(_) => self.take_failed(slot),
                    };
                }
                (Err(_), _) | (Ok(None), Ok(ReadState::End)) => return self.take_failed(slot),
                (Ok(None), Ok(ReadState::More)) => {}
                (Ok(None), Ok(ReadState::Blocked)) => return,
                (Ok(None), Err(Broken::ByPeer(code))) => return self.forward_broken(slot, code),
                (Ok(None), Err(Broken::Gone)) => return self.forward_broken(slot, 0),
            }
        }
    }

    fn decide(&mut self, now: Instant, slot: Slot, forward: Forward, state: TakingState) {
        self.take_taking(slot);
        let deadline = now + limits::OPEN_TIMEOUT;
        if let Role::Forward(role) = &mut self.role
            && let ForwardSide::Taker(takings) = &mut role.side
        {
            takings.insert(slot, Taking { deadline, state });
            self.deadlines.insert((deadline, slot));
        }
        let forward = Box::new(forward);
        self.say(PeerEvent::ForwardRequested { slot, forward });
    }

    /// Nothing of it is answered: who sent it may not have been allowed to.
    fn take_failed(&mut self, slot: Slot) {
        self.counters.setups_malformed += 1;
        self.take_taking(slot);
        self.abandon(slot, session_code::MALFORMED);
    }

    fn advance_opening(&mut self, slot: Slot) {
        loop {
            let Role::Forward(role) = &mut self.role else {
                return;
            };
            let ForwardSide::Opener(opener) = &mut role.side else {
                return;
            };
            let Some(opening) = opener.opens.get_mut(&slot) else {
                return;
            };
            let reader = &mut opening.reader;
            let mut fed = Ok(None);
            let state =
                (self.link).read_message(StreamRef::Session(slot), reader.wanted(), |mut chunk| {
                    if let Ok(None) = fed {
                        fed = reader.feed(&mut chunk);
                    }
                });
            match (fed, state) {
                (Ok(Some(answer)), _) => return self.opening_answered(slot, outcome(answer)),
                (Err(_), _) => {
                    self.counters.setups_malformed += 1;
                    return self.opening_answered(slot, Err(AttemptError::PeerLost));
                }
                (Ok(None), Ok(ReadState::More)) => {}
                (Ok(None), Ok(ReadState::Blocked)) => return,
                (Ok(None), Ok(ReadState::End) | Err(Broken::ByPeer(_) | Broken::Gone)) => {
                    return self.opening_answered(slot, Err(AttemptError::PeerLost));
                }
            }
        }
    }

    fn opening_answered(&mut self, slot: Slot, outcome: Result<(), AttemptError>) {
        let Some(Opening { attempt, .. }) = self.take_opening(slot) else {
            return;
        };
        match outcome {
            Ok(()) => {
                self.events
                    .push_back(Event::SessionOpened { attempt, slot });
                self.carry(slot);
            }
            Err(cause) => {
                self.unsent.remove(&slot);
                self.abandon(slot, session_code::CANCELLED);
                self.events
                    .push_back(Event::SessionRefused { attempt, cause });
            }
        }
    }

    /// A set-up took too long.
    pub(super) fn forward_timed_out(&mut self, slot: Slot) {
        if self.opener().is_some() {
            return self.opening_answered(slot, Err(AttemptError::TimedOut));
        }
        let Some(taking) = self.take_taking(slot) else {
            return;
        };
        match taking.state {
            TakingState::Reading(_) => {
                self.counters.setups_abandoned += 1;
                self.abandon(slot, session_code::TIMED_OUT);
            }
            TakingState::Deciding(answering) => {
                let answer = answering.seal(Status::TimedOut, "the gateway did not decide");
                self.send_setup(slot, answer, true);
                let how = SessionEnd::Unanswered;
                self.events.push_back(Event::SessionEnded { slot, how });
            }
        }
    }

    /// The peer abandoned a session that is not open yet.
    pub(super) fn forward_broken(&mut self, slot: Slot, code: u64) {
        if self.opener().is_some() {
            return self.opening_answered(slot, Err(AttemptError::PeerLost));
        }
        let Some(taking) = self.take_taking(slot) else {
            return;
        };
        self.counters.setups_abandoned += 1;
        self.abandon(slot, session_code::CANCELLED);
        if let TakingState::Deciding(_) = taking.state {
            let how = SessionEnd::ResetByPeer(code);
            self.events.push_back(Event::SessionEnded { slot, how });
        }
    }

    fn take_opening(&mut self, slot: Slot) -> Option<Opening> {
        let opener = self.opener()?;
        let opening = opener.opens.remove(&slot)?;
        opener.attempts.remove(&opening.attempt);
        self.deadlines.remove(&(opening.deadline, slot));
        Some(opening)
    }

    fn take_taking(&mut self, slot: Slot) -> Option<Taking> {
        let Role::Forward(role) = &mut self.role else {
            return None;
        };
        let ForwardSide::Taker(takings) = &mut role.side else {
            return None;
        };
        let taking = takings.remove(&slot)?;
        self.deadlines.remove(&(taking.deadline, slot));
        Some(taking)
    }

    fn take_deciding(&mut self, slot: Slot) -> Result<Taking, CommandError> {
        let Role::Forward(role) = &self.role else {
            return Err(CommandError::NotWaiting);
        };
        let ForwardSide::Taker(takings) = &role.side else {
            return Err(CommandError::NotWaiting);
        };
        match takings.get(&slot).map(|taking| &taking.state) {
            Some(TakingState::Deciding(_)) => {}
            Some(TakingState::Reading(_)) | None => return Err(CommandError::NotWaiting),
        }
        self.take_taking(slot).ok_or(CommandError::NotWaiting)
    }

    fn answer_forward(
        &mut self,
        slot: Slot,
        status: Status,
        reason: &str,
    ) -> Result<(), CommandError> {
        let TakingState::Deciding(answering) = self.take_deciding(slot)?.state else {
            return Err(CommandError::NotWaiting);
        };
        let answer: Bytes = answering.seal(status, reason);
        self.send_setup(slot, answer, status != Status::Open);
        Ok(())
    }
}

impl ForwardHandle<'_> {
    /// The node at the other end.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match &self.conn.role {
            Role::Forward(role) => Some(role.peer),
            Role::Agent(_) | Role::Gateway(_) | Role::Peer(_) => None,
        }
    }

    /// Tells whether this side dialled, and so hands sessions over; the other side takes them.
    #[must_use]
    pub fn is_dialler(&self) -> bool {
        match &self.conn.role {
            Role::Forward(role) => matches!(role.side, ForwardSide::Opener(_)),
            Role::Agent(_) | Role::Gateway(_) | Role::Peer(_) => false,
        }
    }

    /// Hands a session to the peer; [`Event::SessionOpened`] or [`Event::SessionRefused`] follows, within
    /// [`limits::OPEN_TIMEOUT`] even if the peer grants no stream. [`Event::Closed`] stands for the outcome of every
    /// attempt without one. Only the side that dialled hands sessions over: at the other one the attempt is refused.
    pub fn open_session(&mut self, now: Instant, attempt: AttemptId, forward: Forward) {
        self.conn.dirty = true;
        if self.conn.state == State::Closed {
            return;
        }
        let deadline = now + limits::OPEN_TIMEOUT;
        let cause = match self.conn.opener() {
            None => AttemptError::PeerLost,
            Some(opener) if opener.waiting.len() >= limits::OPENS_WAITING_MAX => {
                AttemptError::NoCredit
            }
            Some(opener) => {
                opener.waiting.push_back(Wanted {
                    attempt,
                    forward,
                    deadline,
                });
                return self.conn.open_forwards();
            }
        };
        let refused = Event::SessionRefused { attempt, cause };
        self.conn.events.push_back(refused);
    }

    /// Gives an attempt up. Nothing follows for it.
    pub fn cancel(&mut self, attempt: AttemptId) {
        self.conn.dirty = true;
        let Some(opener) = self.conn.opener() else {
            return;
        };
        opener.waiting.retain(|wanted| wanted.attempt != attempt);
        if let Some(slot) = opener.attempts.get(&attempt).copied() {
            self.conn.take_opening(slot);
            self.conn.unsent.remove(&slot);
            self.conn.abandon(slot, session_code::CANCELLED);
        }
    }

    /// Opens a session that the peer hands over: the way to the target is there.
    ///
    /// # Errors
    /// [`CommandError::NotWaiting`] when it has ended meanwhile.
    pub fn accept(&mut self, slot: Slot) -> Result<(), CommandError> {
        self.conn.answer_forward(slot, Status::Open, "")?;
        self.conn.carry(slot);
        Ok(())
    }

    /// Refuses a session that the peer hands over; the text is for humans, and cut to what fits.
    ///
    /// # Errors
    /// [`CommandError::NotWaiting`] when it has ended meanwhile, and for [`Status::Open`], which is no refusal.
    pub fn refuse(&mut self, slot: Slot, status: Status, reason: &str) -> Result<(), CommandError> {
        if status == Status::Open {
            return Err(CommandError::NotWaiting);
        }
        self.conn.answer_forward(slot, status, reason)?;
        (self.conn.link).stop(StreamRef::Session(slot), session_code::CANCELLED);
        Ok(())
    }

    /// Closes the connection as soon as it has carried nothing for [`DRAIN_LINGER`](limits::DRAIN_LINGER). Sessions that
    /// come meanwhile are served.
    pub fn drain(&mut self) {
        self.conn.dirty = true;
        self.conn.farewell = Some(Farewell::WhenIdle { since: None });
    }
}
