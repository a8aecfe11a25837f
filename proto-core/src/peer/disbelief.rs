//! Who sends messages that are not believed.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{NodeId, counters::AuthFail};
use crate::limits::PEERS_MAX;

/// Messages that were not believed, by the node whose connection they came on, as far as its certificate tells, and by what
/// was the matter. No message makes this grow: a node has a record, and of more than [`PEERS_MAX`] of them the others are
/// counted as nobody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disbelief(BTreeMap<(Option<NodeId>, AuthFail), Disbelieved>);

/// Messages of one node that were not believed for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disbelieved {
    /// So many.
    pub count: u64,
    /// Where the last of them came from.
    pub remote: SocketAddr,
}

impl Disbelief {
    /// One more.
    pub(crate) fn note(&mut self, node: Option<NodeId>, remote: SocketAddr, reason: AuthFail) {
        let is_new = !self.0.contains_key(&(node, reason));
        let is_full = self.0.keys().filter(|of| of.1 == reason).count() > PEERS_MAX;
        let node = node.filter(|_| !is_new || !is_full);
        let first = Disbelieved { count: 0, remote };
        let noted = self.0.entry((node, reason)).or_insert(first);
        noted.count = noted.count.saturating_add(1);
        noted.remote = remote;
    }

    /// Forgets a node that left the cluster.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.0.retain(|of, _| of.0 != Some(node));
    }

    /// All of them; of messages on connections that are no node's the node is none.
    pub fn iter(&self) -> impl Iterator<Item = ((Option<NodeId>, AuthFail), Disbelieved)> {
        self.0.iter().map(|(of, noted)| (*of, *noted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn more_nodes_than_a_cluster_has_are_nobody() {
        let mut disbelief = Disbelief::default();
        let nodes = PEERS_MAX as u64 + 10;
        for node in 0..nodes {
            disbelief.note(Some(NodeId(node)), from(1), AuthFail::Mac);
        }
        disbelief.note(Some(NodeId(0)), from(2), AuthFail::Mac);
        let all: BTreeMap<_, _> = disbelief.iter().collect();
        assert_eq!(all.len(), PEERS_MAX + 2);
        assert_eq!(
            all.values().map(|noted| noted.count).sum::<u64>(),
            nodes + 1
        );
        let first = all[&(Some(NodeId(0)), AuthFail::Mac)];
        assert_eq!((first.count, first.remote), (2, from(2)));
        disbelief.forget(NodeId(0));
        assert_eq!(disbelief.iter().count(), PEERS_MAX + 1);
    }
}
