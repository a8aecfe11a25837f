//! Peers whose sessions go over replica links, instead of a QUIC connection: what the owner of the pool tells of them.

use std::collections::BTreeSet;

use adit_proto_core::peer::{NodeId, node::Reach};

use crate::handoff::Sender;

/// Whoever carries replica links is told whether calls reach a peer: where they do not, its routes are forgotten soon, and
/// sessions go elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkNotice {
    /// The peer.
    pub node: NodeId,
    /// How calls reach it from here on.
    pub reach: Reach,
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
