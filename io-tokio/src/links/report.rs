//! What the gateway is told of a session, whatever becomes of the task that carries it.

use adit_io_common::{
    gateway::{FromConnection, FromPeers, GatewayHandle, Place},
    over::Over,
    pump::Traffic,
};
use adit_proto_core::{
    gateway::{AttemptError, dispatch::AgentEvent},
    id::AttemptId,
};

/// Of a session of this gateway's user. Dropped at any time, by a panic as well, it tells what is missing: each attempt is
/// answered once, and each session that was opened ends once.
#[derive(Debug)]
pub(super) struct Report {
    gateway: GatewayHandle,
    place: Place,
    state: State,
}

#[derive(Debug)]
enum State {
    Opening(AttemptId),
    Open,
    Over,
    Failed,
}

impl Report {
    pub(super) fn new(gateway: GatewayHandle, place: Place, attempt: AttemptId) -> Self {
        Self {
            gateway,
            place,
            state: State::Opening(attempt),
        }
    }

    pub(super) fn opened(&mut self) {
        if let State::Opening(attempt) = self.state {
            self.state = State::Open;
            let slot = self.place.1;
            self.tell_event(AgentEvent::Opened { attempt, slot });
        }
    }

    pub(super) fn failed(&mut self, cause: AttemptError) {
        if let State::Opening(attempt) = self.state {
            self.state = State::Failed;
            self.tell_event(AgentEvent::Failed { attempt, cause });
        }
    }

    /// The user's socket is done with, if there was one.
    pub(super) fn over(&mut self, traffic: Traffic, how: Over) {
        if let State::Open = self.state {
            self.state = State::Over;
            let slot = self.place.1;
            self.tell(FromConnection::SessionOver { slot, traffic, how });
        }
    }

    fn tell(&self, what: FromConnection) {
        self.gateway.told_by_connection(self.place.0, what);
    }

    fn tell_event(&self, event: AgentEvent) {
        self.tell(FromConnection::Event(event));
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.failed(AttemptError::PeerLost);
        self.over(Traffic::begin(), Over::ConnectionLost);
        if let State::Over = self.state {
            let slot = self.place.1;
            self.tell_event(AgentEvent::SessionEnded { slot });
        }
    }
}

/// Of a session that a peer asks for. Until the gateway has decided, it is told if nobody waits for that any more.
#[derive(Debug)]
pub(super) struct Asked {
    gateway: GatewayHandle,
    place: Place,
    is_decided: bool,
}

impl Asked {
    pub(super) fn new(gateway: GatewayHandle, place: Place) -> Self {
        Self {
            gateway,
            place,
            is_decided: false,
        }
    }

    /// From here on the gateway knows of it no more.
    pub(super) fn decided(mut self) {
        self.is_decided = true;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_decided {
            self.gateway.told_by_peers(FromPeers::GivenUp(self.place));
        }
    }
}
