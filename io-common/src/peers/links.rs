//! Peers whose sessions go over replica links, instead of a QUIC connection: what the owner of the pool tells of them.

use std::collections::BTreeSet;

use adit_proto_core::peer::{NodeId, node::Reach};

use crate::handoff::Sender;

/// What whoever carries replica links is told of the peers that they are with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkNotice {
    /// Whether calls reach the peer: where they do not, its routes are forgotten soon, and sessions go elsewhere.
    Reach(NodeId, Reach),
    /// The peer has started anew: what its former process carried is lost, although nothing may have shown it yet.
    Restarted(NodeId),
}

/// The peers with which sessions go over replica links, and the way to whoever carries those.
#[derive(Debug)]
pub struct PeerLinks {
    /// To these no connection for sessions is dialled.
    pub nodes: BTreeSet<NodeId>,
    /// The way.
    pub notices: Sender<LinkNotice>,
}

impl PeerLinks {
    /// The way to whoever carries the links with a node; none where its sessions go over QUIC.
    pub(super) fn with(links: Option<&Self>, node: NodeId) -> Option<&Sender<LinkNotice>> {
        let links = links.filter(|links| links.nodes.contains(&node));
        links.map(|links| &links.notices)
    }
}

/// Notices that wait. There are a few of each peer, each time that it comes or goes.
pub const NOTICES_LEN: usize = 16_384;
