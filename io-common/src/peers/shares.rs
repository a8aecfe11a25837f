//! How many requests of one node wait for the application, or are with it, whatever connections they came on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use adit_proto_core::peer::NodeId;

use super::REQUESTS_PER_NODE;

/// The requests of each node, counted for all its connections together.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares(Arc<Mutex<BTreeMap<NodeId, usize>>>);

/// One request's part. It is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Shares,
    node: NodeId,
}

impl Shares {
    /// Takes a part for a request of a node; none where it has [`REQUESTS_PER_NODE`].
    pub(super) fn take(&self, node: NodeId) -> Option<Share> {
        let mut shares = self.lock();
        let taken = shares.entry(node).or_default();
        if *taken >= REQUESTS_PER_NODE {
            return None;
        }
        *taken += 1;
        Some(Share {
            shares: self.clone(),
            node,
        })
    }

    /// Nothing panics between the halves of a change.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = self.shares.lock();
        if let Some(taken) = shares.get_mut(&self.node) {
            *taken -= 1;
            if *taken == 0 {
                shares.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_its_part_and_another_one_its_own() {
        let shares = Shares::default();
        let take = |node| shares.take(NodeId(node));
        let mut held: Vec<Share> = (0..REQUESTS_PER_NODE).filter_map(|_| take(2)).collect();
        assert_eq!(held.len(), REQUESTS_PER_NODE);
        assert!(take(2).is_none());
        assert!(take(3).is_some());
        held.pop();
        assert!(take(2).is_some());
        drop(held);
        assert!(shares.lock().is_empty());
    }
}
