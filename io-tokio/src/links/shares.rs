//! Who may have how many links.

use std::collections::BTreeMap;

use adit_proto_core::{
    peer::NodeId,
    replica::{Config, ReplicaId},
};

/// Links there are with each peer, in one direction. Half of what there may be is shared out evenly, so that each peer gets
/// in whatever the others do; the other half is for whoever comes first, so that a busy peer has more than an even share.
#[derive(Debug)]
pub(super) struct Shares {
    /// For all together.
    max: usize,
    /// What a peer always gets.
    each: usize,
    taken: BTreeMap<NodeId, usize>,
}

impl Shares {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            each: max / 2,
            taken: BTreeMap::new(),
        }
    }

    /// What there may be of all together.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Shares out anew among the peers of a roster, in which this node is, too. Links that there are stay.
    pub(super) fn share_out(&mut self, config: &Config) {
        let replicas = (0..=u8::MAX).filter(|id| config.knows(ReplicaId(*id)));
        self.share_out_among(replicas.count().saturating_sub(1));
    }

    fn share_out_among(&mut self, peers: usize) {
        self.each = self.max / 2 / peers.max(1);
    }

    /// Takes a place for a link, where there is one for the peer.
    pub(super) fn take(&mut self, node: NodeId) -> bool {
        let common = self.taken.values().map(|n| n.saturating_sub(self.each));
        let is_common_left = common.sum::<usize>() < self.max - self.max / 2;
        let taken = self.taken.entry(node).or_default();
        let is_free = *taken < self.each || is_common_left;
        if is_free {
            *taken += 1;
        } else if *taken == 0 {
            self.taken.remove(&node);
        }
        is_free
    }

    pub(super) fn give_back(&mut self, node: NodeId) {
        if let Some(taken) = self.taken.get_mut(&node) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                self.taken.remove(&node);
            }
        }
    }

    /// Places taken by all.
    pub(super) fn taken(&self) -> usize {
        self.taken.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);
    const THREE: NodeId = NodeId(3);

    fn take_all(shares: &mut Shares, node: NodeId) -> usize {
        (0..1_000).take_while(|_| shares.take(node)).count()
    }

    #[test]
    fn the_only_peer_has_all_places() {
        let mut shares = Shares::new(64);
        shares.share_out_among(1);
        assert_eq!(take_all(&mut shares, ONE), 64);
        shares.give_back(ONE);
        assert!(shares.take(ONE) && !shares.take(ONE));
    }

    #[test]
    fn whoever_takes_all_it_can_leaves_each_other_peer_its_share() {
        let mut shares = Shares::new(64);
        shares.share_out_among(4);
        assert_eq!(take_all(&mut shares, ONE), 8 + 32);
        assert_eq!(take_all(&mut shares, TWO), 8);
        assert_eq!(take_all(&mut shares, THREE), 8);
        // What is free for all again goes to whoever comes.
        shares.give_back(ONE);
        assert!(shares.take(TWO) && !shares.take(ONE) && !shares.take(THREE));
        assert_eq!(shares.taken(), 56);
    }

    #[test]
    fn what_is_given_back_is_remembered_no_more() {
        let mut shares = Shares::new(2);
        shares.share_out_among(1_000);
        assert!(shares.take(ONE) && !shares.take(TWO));
        shares.give_back(ONE);
        shares.give_back(TWO);
        assert!(shares.taken.is_empty() && shares.taken() == 0);
    }
}
