//! What the node tells connections to other gateways, and is told by them.

use std::time::Instant;

use adit_proto_core::{gateway::dispatch::AgentEvent, id::ConnId, limits::AGENT_SILENT};

use super::{Node, wishes::Asker};
use crate::gateway::{Carriage, input::FromPeers};

/// Told when what the gateway holds may have changed.
pub(super) struct HoldingWatch {
    changed: Box<dyn Fn() + Send>,
    /// When an agent may have fallen silent, which the clock alone tells.
    pub(super) look_at: Instant,
}

impl Node {
    pub(super) fn told_by_peers(&mut self, now: Instant, told: FromPeers) {
        match told {
            FromPeers::Watch(changed) => {
                let look_at = self.next_look(now);
                self.watch = Some(HoldingWatch { changed, look_at });
            }
            FromPeers::Collect(done) => done(self.dispatch.hub().holding(now)),
            FromPeers::Holds {
                peer,
                holding,
                taken,
            } => {
                self.dispatch.peer_holds(now, peer, holding);
                taken();
            }
            FromPeers::Connected(conn, carriage) => {
                let node = carriage.to;
                self.connection_up(conn, Carriage::Peer(carriage));
                if !self.leaving {
                    self.dispatch.peer_connected(now, conn, node);
                }
            }
            FromPeers::Forwarded(forwarded) => self.open_forwarded(now, forwarded),
            FromPeers::GivenUp(place) => self.give_up(now, Asker::Peer(place)),
        }
    }

    pub(super) fn handle_event(&mut self, now: Instant, conn: ConnId, event: AgentEvent) {
        let is_back = matches!(event, AgentEvent::Seen) && self.dispatch.hub().is_silent(now, conn);
        let changes = is_back || changes_holding(&event);
        self.dispatch.handle_event(now, conn, event);
        if changes {
            self.holding_changed();
        }
    }

    /// What this gateway holds may be another set than before.
    pub(super) fn holding_changed(&self) {
        if let Some(watch) = &self.watch {
            (watch.changed)();
        }
    }

    /// An agent may have fallen silent.
    pub(super) fn look_for_silent(&mut self, now: Instant) {
        if self.watch.as_ref().is_none_or(|watch| now < watch.look_at) {
            return;
        }
        let look_at = self.next_look(now);
        if let Some(watch) = &mut self.watch {
            watch.look_at = look_at;
            (watch.changed)();
        }
    }

    /// No agent that comes, or is seen, after this is silent before the next look.
    fn next_look(&self, now: Instant) -> Instant {
        let next = self.dispatch.hub().next_silence(now);
        next.unwrap_or(now + AGENT_SILENT)
    }
}

/// Tells whether an event may change what the gateway holds. That an agent falls silent is no event.
fn changes_holding(event: &AgentEvent) -> bool {
    match event {
        AgentEvent::Registered { .. }
        | AgentEvent::Routes { .. }
        | AgentEvent::Suspect
        | AgentEvent::Recovered
        | AgentEvent::Closed => true,
        AgentEvent::Seen
        | AgentEvent::Opened { .. }
        | AgentEvent::Failed { .. }
        | AgentEvent::SessionEnded { .. } => false,
    }
}
