//! What is written to the log of connections between peers, bounded however often they come and go.

use std::{collections::BTreeMap, time::Instant};

use adit_proto_core::{
    close::Closed,
    endpoint::ConnectError,
    id::ConnId,
    peer::{
        NodeId,
        counters::AuthFail,
        disbelief::{Disbelief, Disbelieved},
        negotiate::Agreed,
        node::Reach,
    },
};

use crate::{burst::Burst, lines::Lines};

/// Writes lines.
#[derive(Debug)]
pub(super) struct Teller {
    visits: Lines,
    paths: Lines,
    /// By node, so that one does not hide another; those that dialled and whose names are not known are one.
    failed: BTreeMap<Option<NodeId>, Burst>,
    undiallable: BTreeMap<Option<NodeId>, Burst>,
    /// Messages that were not believed, and how many of them were told of.
    disbelieved: BTreeMap<(Option<NodeId>, AuthFail), (u64, Burst)>,
}

impl Default for Teller {
    fn default() -> Self {
        Self {
            visits: Lines::new("peer connected or disconnected"),
            paths: Lines::new("path to a peer changed"),
            failed: BTreeMap::new(),
            undiallable: BTreeMap::new(),
            disbelieved: BTreeMap::new(),
        }
    }
}

/// The node at the other end, where it is known.
fn name(node: Option<NodeId>) -> Option<tracing::field::DisplayValue<NodeId>> {
    node.map(tracing::field::display)
}

impl Teller {
    pub(super) fn up(&self, conn: ConnId, node: Option<NodeId>, agreed: Agreed) {
        if self.visits.allow() {
            // Who has dialled says so with its first request.
            tracing::info!(%conn, peer = name(node), version = agreed.version, "connected with a peer");
        }
    }

    pub(super) fn closed(&self, conn: ConnId, node: Option<NodeId>, why: &Closed) {
        if self.visits.allow() {
            tracing::info!(%conn, peer = name(node), %why, "a peer's connection ended");
        }
    }

    pub(super) fn forward_up(&self, conn: ConnId, node: NodeId) {
        if self.visits.allow() {
            tracing::info!(%conn, peer = %node, "sessions can be forwarded");
        }
    }

    pub(super) fn forward_closed(&self, conn: ConnId, node: NodeId, why: &Closed) {
        if self.visits.allow() {
            tracing::info!(%conn, peer = %node, %why, "a connection for forwarded sessions ended");
        }
    }

    /// The handshake came to nothing.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        conn: ConnId,
        node: Option<NodeId>,
        why: &Closed,
    ) {
        if matches!(why, Closed::Local) {
            // This node's own doing: the peer is gone, or is dialled elsewhere or anew.
            return;
        }
        if let Some(count) = self.failed.entry(node).or_default().note(now) {
            tracing::warn!(%conn, peer = name(node), %why, count, "no connection with a peer; are both of one cluster, and is each known to the other?");
        }
    }

    /// Tells of messages that are not believed. The peer is the one whose certificate was shown, whoever they say to be of.
    pub(super) fn disbelief(&mut self, now: Instant, disbelief: &Disbelief) {
        for (of, Disbelieved { count, remote }) in disbelief.iter() {
            let (told, burst) = self.disbelieved.entry(of).or_default();
            if *told < count && burst.note(now).is_some() {
                let more = count - std::mem::replace(told, count);
                let (peer, why) = (name(of.0), why(of.1));
                tracing::warn!(peer, %remote, why, count = more, "messages of peers are not believed");
            }
        }
    }

    /// A node is not named any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.failed.remove(&Some(node));
        self.undiallable.remove(&Some(node));
        self.disbelieved.retain(|of, _| of.0 != Some(node));
    }

    pub(super) fn reach(&self, node: NodeId, reach: Reach) {
        if reach == Reach::Suspect && self.paths.allow() {
            tracing::warn!(peer = %node, "the path to a peer stalls");
        }
    }

    pub(super) fn undiallable(&mut self, now: Instant, node: Option<NodeId>, why: &Undiallable) {
        if let Some(count) = self.undiallable.entry(node).or_default().note(now) {
            tracing::warn!(peer = name(node), %why, count, "a peer cannot be dialled");
        }
    }
}

/// What is the matter with a message, and what to look at.
fn why(reason: AuthFail) -> &'static str {
    match reason {
        AuthFail::Mac => {
            "they were not made with this cluster's key; do all gateways have the same one?"
        }
        AuthFail::Replay => "their number came before; somebody may replay messages",
        AuthFail::Stale => {
            "their number is too old; have two gateways one `peers.node`, or was a state directory put back from a copy?"
        }
        AuthFail::Reserved => "they have number 0, which nobody uses",
        AuthFail::Identity => {
            "the certificate is not that of the gateway that they name; do the ids and pins of all configurations agree?"
        }
        AuthFail::NoCert => "the peer has shown no certificate",
        AuthFail::BoundId => "they name another gateway than those before on the same connection",
    }
}

/// Why nobody was dialled.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undiallable {
    #[error("its name has no address that the socket reaches")]
    NoAddress,
    #[error(transparent)]
    Endpoint(#[from] ConnectError),
}
