//! Sessions between gateways: those that go to a peer, and those that came from one (design 8.8, 8.15).

use std::{sync::Arc, time::Instant};

use super::{Call, Dispatch, attempts::Opening};
use crate::{
    gateway::{info::PeerCandidate, peers::Peers},
    id::{AgentId, ConnId, SessionId},
    limits::DISPATCH_TIMEOUT,
    peer::{NodeId, catalogue::Holding},
    target::Target,
};

impl Dispatch {
    /// Starts to open a session that a peer forwarded. It goes through an agent of this gateway or nowhere: to no peer,
    /// as it would go round in circles, and not directly, as the operator's rules are for this gateway's own users.
    pub fn open_forwarded(
        &mut self,
        now: Instant,
        session: SessionId,
        target: Target,
        pinned: Option<AgentId>,
    ) {
        let call = || Call::OpenForwarded(session, target.clone(), pinned);
        self.called(Some(now), call);
        let unknown = self.unknown(pinned);
        let opening = Opening::new(target, pinned, now + DISPATCH_TIMEOUT);
        self.begin(now, session, opening.forwarded(), unknown);
    }

    /// Takes what a peer holds in the place of what it held; an empty holding where it is gone. Sessions that it carries
    /// go on.
    pub fn peer_holds(&mut self, now: Instant, node: NodeId, holding: Arc<Holding>) {
        self.called(Some(now), || {
            Call::PeerHolds(node, Holding::clone(&holding))
        });
        self.peers.set_holding(node, holding);
    }

    /// Takes a connection on which sessions may be forwarded to a peer. What happens on it is told by
    /// [`Dispatch::handle_event`], as of an agent's; an agent's connection is left as it is.
    pub fn peer_connected(&mut self, now: Instant, conn: ConnId, node: NodeId) {
        self.called(Some(now), || Call::PeerConnected(conn, node));
        if self.hub.identity(conn).is_none() {
            self.peers.connect(conn, node);
        }
    }

    /// Reads what is known of peers.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The peers that would be tried for a target, each behind the agents that come before it.
    pub(super) fn explain_peers(
        &self,
        now: Instant,
        target: &Target,
        pinned: Option<AgentId>,
    ) -> Vec<PeerCandidate> {
        let choices = self.peers.candidates(target, pinned).into_iter();
        let explained = choices.map(|choice| {
            let local = self.hub.candidates(now, target, pinned);
            let route = choice.route.map(|route| route.text(&target.host));
            PeerCandidate {
                node: choice.node,
                route: route.unwrap_or_else(|| "pinned".into()),
                sessions: self.peers.load(choice.node),
                after: local.filter(|local| !choice.is_before(local)).count(),
            }
        });
        explained.collect()
    }

    pub(super) fn set_suspect(&mut self, conn: ConnId, suspect: bool) {
        self.hub.set_suspect(conn, suspect);
        self.peers.set_suspect(conn, suspect);
    }

    pub(super) fn sub_load(&mut self, conn: ConnId) {
        self.hub.sub_load(conn);
        self.peers.sub_load(conn);
    }
}
