//! Everything that can be asked of a [`Dispatch`], as a value: for journals (design 8.17).

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{AgentEvent, Dispatch, DispatchConfig};
use crate::{
    id::{AgentId, ConnId, SessionId},
    journal::{Begin, Journal, Recording, wait},
    peer::{NodeId, catalogue::Holding},
    target::Target,
};

/// One call of a dispatch by its owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    SetConfig(DispatchConfig),
    Open(SessionId, Target, Option<AgentId>),
    Cancel(SessionId),
    Stop,
    SetDrained(AgentId, bool),
    /// With the connections that were good.
    Disconnect(AgentId, Vec<ConnId>),
    Event(ConnId, AgentEvent),
    Direct(SessionId, Result<(), String>),
    Timeout,
    OpenForwarded(SessionId, Target, Option<AgentId>),
    PeerHolds(NodeId, Holding),
    PeerConnected(ConnId, NodeId),
}

impl Dispatch {
    /// Takes down from here on what happens; to be called before anything else is.
    pub fn record_in(&mut self, now: Instant, journal: &Journal) {
        let begin = Begin::Dispatch(self.config.clone());
        self.recording = Recording::begin(journal, now, &begin);
    }

    /// Makes one that does again what another did.
    pub(crate) fn replay(config: DispatchConfig, recording: Recording) -> Self {
        Self {
            recording,
            ..Self::new(config)
        }
    }

    /// Takes down a call, and when the next one was wished for until now.
    pub(super) fn called(&mut self, now: Option<Instant>, call: impl FnOnce() -> Call) {
        if self.recording.is_on() {
            let due = self.poll_timeout();
            self.recording.told(|last| wait(due, last));
            self.recording.call(now, call);
        }
    }

    pub(crate) fn recording(&mut self) -> &mut Recording {
        &mut self.recording
    }

    /// Does once more what was done.
    pub(crate) fn apply(&mut self, now: Instant, call: Call) {
        match call {
            Call::SetConfig(config) => self.set_config(config),
            Call::Open(session, target, pinned) => self.open(now, session, target, pinned),
            Call::Cancel(session) => self.cancel(now, session),
            Call::Stop => self.stop(now),
            Call::SetDrained(agent, drained) => self.set_drained(agent, drained),
            Call::Disconnect(agent, stay) => {
                let mut conns = self.hub.connections_of(agent);
                conns.retain(|conn| !stay.contains(conn));
                let call = || Call::Disconnect(agent, stay);
                self.called(Some(now), call);
                self.take_out(now, &conns);
            }
            Call::Event(conn, event) => self.handle_event(now, conn, event),
            Call::Direct(session, result) => self.handle_direct(now, session, result),
            Call::Timeout => self.handle_timeout(now),
            Call::OpenForwarded(session, target, pinned) => {
                self.open_forwarded(now, session, target, pinned);
            }
            Call::PeerHolds(node, holding) => self.peer_holds(now, node, holding.into()),
            Call::PeerConnected(conn, node) => self.peer_connected(now, conn, node),
        }
    }
}
