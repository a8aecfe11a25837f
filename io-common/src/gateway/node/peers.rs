//! What the node tells connections to other gateways, and is told by them.

use std::time::Instant;

use adit_proto_core::{gateway::dispatch::AgentEvent, id::ConnId};

use super::{Node, wishes::Asker};
use crate::gateway::{Carriage, input::FromPeers};

impl Node {
    pub(super) fn told_by_peers(&mut self, now: Instant, told: FromPeers) {
        match told {
            FromPeers::Watch(changed) => self.holding_watch = Some(changed),
            FromPeers::Collect(done) => done(self.dispatch.hub().holding(now)),
            FromPeers::Holds(peer, holding) => self.dispatch.peer_holds(now, peer, holding),
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
        let changes = changes_holding(&event);
        self.dispatch.handle_event(now, conn, event);
        if changes {
            self.holding_changed();
        }
    }

    /// What this gateway holds may be another set than before.
    pub(super) fn holding_changed(&self) {
        if let Some(changed) = &self.holding_watch {
            changed();
        }
    }
}

/// Tells whether an event may change what the gateway holds. An agent that falls silent is noticed by the clock alone; its
/// routes are told of until something else changes.
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
