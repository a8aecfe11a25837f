//! When a connection is to be called next, and what is due then: of the handshake, of sessions being set up, of the role,
//! of the path.

use std::time::Instant;

use super::{Connection, Farewell, Role, State};
use crate::{
    close::{CODE_HANDSHAKE_TIMED_OUT, Closed, PeerFault},
    limits,
};

impl Connection {
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        let deadlines = [self.own_timeout(), self.link.poll_timeout()];
        deadlines.into_iter().flatten().min()
    }

    /// Without the engine's.
    pub(super) fn own_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Handshaking { deadline, .. } => Some(deadline),
            State::Up => {
                let setup = self.deadlines.first().map(|(at, _)| *at);
                let farewell = self.farewell.as_ref().and_then(Farewell::poll_timeout);
                let (role, path) = (self.role_timeout(), self.path_timeout());
                [setup, role, path, farewell, self.hoard.poll_timeout()]
                    .into_iter()
                    .flatten()
                    .min()
            }
            State::Closed => None,
        }
    }

    fn role_timeout(&self) -> Option<Instant> {
        match &self.role {
            Role::Agent(role) => role.poll_timeout(),
            Role::Gateway(role) => role.poll_timeout(),
            Role::Peer(role) => role.poll_timeout(),
            Role::Forward(role) => role.poll_timeout(),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.link.handle_timeout(now);
        match self.state {
            State::Handshaking { deadline, .. } if deadline <= now && self.is_peer() => {
                self.peer_handshake_timed_out(now);
            }
            State::Handshaking { begun, deadline } if deadline <= now => {
                // A gateway that has answered at all gets the whole time.
                let deadline = begun + limits::HANDSHAKE_TIMEOUT;
                if self.link.has_heard() && now < deadline {
                    self.state = State::Handshaking { begun, deadline };
                    return;
                }
                self.shut(
                    now,
                    CODE_HANDSHAKE_TIMED_OUT,
                    "handshake timed out",
                    Closed::HandshakeTimedOut,
                );
            }
            State::Up => {
                self.setup_timeouts(now);
                self.role_timeouts(now);
                // A fault of the peer's may have ended it.
                if self.state == State::Up {
                    self.check_path(now);
                    self.look_for_hoards(now);
                }
            }
            State::Handshaking { .. } | State::Closed => {}
        }
    }

    fn role_timeouts(&mut self, now: Instant) {
        match &self.role {
            // The agent's control messages are made when the control stream is looked at.
            Role::Agent(_) => {}
            Role::Gateway(role) => {
                let is_lost = role.has_lost_credit(now);
                self.waiting_timeouts(now);
                if is_lost {
                    self.fault(now, PeerFault::NoStreams);
                }
            }
            Role::Peer(_) => self.peer_timeouts(now),
            Role::Forward(_) => self.forwards_timed_out(now),
        }
    }

    fn setup_timeouts(&mut self, now: Instant) {
        while let Some(&(at, slot)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, slot));
            match self.role {
                Role::Agent(_) => self.accept_timed_out(slot),
                Role::Gateway(_) => self.open_timed_out(slot),
                // A call's deadlines are with its own machine.
                Role::Peer(_) => {}
                Role::Forward(_) => self.forward_timed_out(slot),
            }
        }
    }
}
