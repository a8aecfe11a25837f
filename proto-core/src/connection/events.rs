//! What the engine says happened, passed on to the session, the set-up or the control stream that it is about.

use std::time::Instant;

use super::{Connection, Role, State};
use crate::{
    close::{PeerFault, session_code},
    id::Slot,
    link::{FromConnection, LinkEvent, StreamRef},
    liveness::{Liveness, LivenessConfig, LivenessRole},
    output::Event,
};

impl Connection {
    pub(super) fn handle_link(&mut self, now: Instant, event: LinkEvent) {
        // What was under way when the connection was closed here is over with it; `Closed` is the last event.
        if self.state == State::Closed {
            return;
        }
        if self.is_peer() {
            return self.handle_peer_link(now, event);
        }
        match event {
            LinkEvent::Connected => self.handle_connected(now),
            LinkEvent::Lost(closed) => self.end(closed),
            LinkEvent::Opened => self.accept_streams(now),
            LinkEvent::Credit => match self.role {
                Role::Agent(_) => self.open_control(),
                Role::Gateway(_) => self.open_waiting(),
                Role::Peer(_) => {}
                Role::Forward(_) => self.open_forwards(),
            },
            LinkEvent::Readable(StreamRef::Session(slot)) => {
                match self.sessions.contains_key(&slot) {
                    true => self.mark_readable(slot),
                    false => self.advance(now, slot),
                }
            }
            LinkEvent::Writable(StreamRef::Session(slot)) => self.mark_writable(slot),
            LinkEvent::Reset(StreamRef::Session(slot), code) => {
                match self.sessions.contains_key(&slot) {
                    true => self.session_broken(slot, code),
                    false => self.setup_broken(slot, code),
                }
            }
            LinkEvent::Stopped(StreamRef::Session(slot), code) => {
                self.session_stopped(slot, code);
            }
            LinkEvent::Reset(StreamRef::Control, _) | LinkEvent::Stopped(StreamRef::Control, _) => {
                self.fault(now, PeerFault::ControlEnded);
            }
            // The control stream is looked at after every event; strays are gone already.
            LinkEvent::Acknowledged(StreamRef::Session(slot)) => {
                self.unacked.remove(&slot);
            }
            LinkEvent::Acknowledged(StreamRef::Control | StreamRef::Stray(_))
            | LinkEvent::Readable(StreamRef::Control | StreamRef::Stray(_))
            | LinkEvent::Writable(StreamRef::Control | StreamRef::Stray(_))
            | LinkEvent::Reset(StreamRef::Stray(_), _)
            | LinkEvent::Stopped(StreamRef::Stray(_), _) => {}
        }
    }

    pub(super) fn handle_connected(&mut self, now: Instant) {
        self.state = State::Up;
        self.link.recording().release();
        self.notices.push_back(FromConnection::HandshakeOver {
            handle: self.link.handle(),
        });
        let role = match self.role {
            Role::Agent(_) => LivenessRole::Agent,
            Role::Gateway(_) => LivenessRole::Gateway,
            Role::Peer(_) | Role::Forward(_) => return,
        };
        self.liveness = Some(Liveness::new(now, LivenessConfig { role }));
        match &mut self.role {
            Role::Agent(role) => {
                role.handle_connected(now);
                self.open_control();
                self.events.push_back(Event::Established { identity: None });
            }
            Role::Gateway(_) => match self.link.identity() {
                Some(identity) => self.events.push_back(Event::Established {
                    identity: Some(identity),
                }),
                None => self.fault(now, PeerFault::NoIdentity),
            },
            Role::Peer(_) | Role::Forward(_) => {}
        }
    }

    /// agent-tunnel 4: the first stream; it exists for the gateway with the first advertisement. A gateway that grants
    /// none yet is waited for.
    pub(super) fn open_control(&mut self) {
        if self.state == State::Up && !self.control.is_open() && self.link.open().is_some() {
            self.control.set_open(&mut self.link);
        }
    }

    pub(super) fn accept_streams(&mut self, now: Instant) {
        while let Some(stream) = self.link.accept() {
            match (stream, &self.role) {
                (StreamRef::Control, Role::Gateway(_)) => self.control.set_open(&mut self.link),
                (StreamRef::Session(slot), Role::Agent(_)) => self.begin_accept(now, slot),
                (StreamRef::Session(slot), Role::Forward(_)) => self.begin_take(now, slot),
                (StreamRef::Control | StreamRef::Session(_) | StreamRef::Stray(_), _) => {
                    self.counters.streams_stray += 1;
                    self.link.abandon(stream, session_code::STRAY);
                }
            }
        }
    }

    pub(super) fn advance(&mut self, now: Instant, slot: Slot) {
        match self.role {
            Role::Agent(_) => self.advance_accept(now, slot),
            Role::Gateway(_) => self.advance_open(slot),
            Role::Peer(_) => {}
            Role::Forward(_) => self.advance_forward(now, slot),
        }
    }

    /// The peer wants no more of our half.
    pub(super) fn session_stopped(&mut self, slot: Slot, code: u64) {
        if self.sessions.contains_key(&slot) {
            return self.session_broken(slot, code);
        }
        match &self.role {
            // An agent that refuses wants no more of the request's half; its answer comes on the other one.
            Role::Gateway(role) if role.opens.contains_key(&slot) => return,
            Role::Gateway(_) => {}
            Role::Agent(_) => self.accept_broken(slot, code),
            Role::Peer(_) => {}
            // A peer that refuses wants no more of the header's half; its answer comes on the other one.
            Role::Forward(role) if role.is_opening(slot) => return,
            Role::Forward(_) => self.forward_broken(slot, code),
        }
        // Until our half is reset the stream counts against the gateway's credit, and what is unsent on it waits.
        self.abandon(slot, session_code::CANCELLED);
    }

    pub(super) fn setup_broken(&mut self, slot: Slot, code: u64) {
        match self.role {
            Role::Agent(_) => self.accept_broken(slot, code),
            Role::Gateway(_) => self.open_broken(slot),
            Role::Peer(_) => {}
            Role::Forward(_) => self.forward_broken(slot, code),
        }
    }
}
