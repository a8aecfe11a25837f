//! A topology in memory: what a node reads identities from.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    NodeId,
    identity::{IdentityStore, NodeRecord, SpkiPin},
};

/// Records and pre-authorised keys. A plain value: whoever owns the cluster's state makes a changed copy and swaps it in.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    nodes: BTreeMap<NodeId, Arc<NodeRecord>>,
    by_spki: BTreeMap<SpkiPin, NodeId>,
    by_spiffe: BTreeMap<String, NodeId>,
    /// Milliseconds of Unix time at which each ends.
    enrolments: BTreeMap<SpkiPin, u64>,
    /// Whoever is not in it is no member, even where nobody is.
    is_complete: bool,
}

/// A record that would give one identity to two nodes: the caller's mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {owner} already has this identity")]
pub struct IdentityTaken {
    /// Who has the key or the SPIFFE id.
    pub owner: NodeId,
}

impl Directory {
    /// A topology that an operator wrote down: while it has no record, no certificate is let in. The default one is that
    /// of a node that has not joined yet, which lets in whom the cluster's CA vouches for (peer-rpc 1.4).
    #[must_use]
    pub fn complete() -> Self {
        Self {
            is_complete: true,
            ..Self::default()
        }
    }

    /// Sets or replaces a record. A key of it that was pre-authorised is used up.
    ///
    /// # Errors
    /// [`IdentityTaken`]; nothing has changed then.
    pub fn set(&mut self, record: NodeRecord) -> Result<(), IdentityTaken> {
        let node = record.node;
        let keys = record.spki_pins.iter().map(|pin| self.by_spki.get(pin));
        let id = record.spiffe_id.as_ref().map(|id| self.by_spiffe.get(id));
        let other = keys.chain(id).flatten().find(|owner| **owner != node);
        if let Some(&owner) = other {
            return Err(IdentityTaken { owner });
        }
        self.remove(node);
        for pin in record.spki_pins.iter() {
            self.by_spki.insert(*pin, node);
            self.enrolments.remove(pin);
        }
        if let Some(id) = &record.spiffe_id {
            self.by_spiffe.insert(id.clone(), node);
        }
        self.nodes.insert(node, Arc::new(record));
        Ok(())
    }

    /// Takes a node out.
    pub fn remove(&mut self, node: NodeId) {
        if self.nodes.remove(&node).is_some() {
            self.by_spki.retain(|_, owner| *owner != node);
            self.by_spiffe.retain(|_, owner| *owner != node);
        }
    }

    /// Lets a key join until a moment, in milliseconds of Unix time.
    pub fn authorise(&mut self, pin: SpkiPin, until_unix_ms: u64) {
        self.enrolments.insert(pin, until_unix_ms);
    }

    /// Forgets pre-authorised keys whose time is over.
    pub fn expire(&mut self, now_unix_ms: u64) {
        self.enrolments.retain(|_, until| *until > now_unix_ms);
    }

    fn of(&self, node: Option<&NodeId>) -> Option<Arc<NodeRecord>> {
        self.nodes.get(node?).cloned()
    }
}

impl IdentityStore for Directory {
    fn by_node(&self, node: NodeId) -> Option<Arc<NodeRecord>> {
        self.of(Some(&node))
    }

    fn by_spki(&self, pin: &SpkiPin) -> Option<Arc<NodeRecord>> {
        self.of(self.by_spki.get(pin))
    }

    fn by_spiffe(&self, id: &str) -> Option<Arc<NodeRecord>> {
        self.of(self.by_spiffe.get(id))
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && !self.is_complete
    }

    fn enrolment(&self, pin: &SpkiPin) -> Option<u64> {
        self.enrolments.get(pin).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::identity::PinSet;

    fn record(node: u64, pins: &[u8], spiffe_id: Option<&str>) -> NodeRecord {
        NodeRecord {
            node: NodeId(node),
            spki_pins: PinSet::new(pins.iter().map(|byte| SpkiPin([*byte; 32]))).unwrap(),
            spiffe_id: spiffe_id.map(str::to_owned),
            address: String::new(),
        }
    }

    #[test]
    fn a_record_is_found_by_each_of_its_names_until_it_changes() {
        let mut d = Directory::default();
        assert!(d.is_empty());
        d.set(record(1, &[1, 2], Some("spiffe://c/1"))).unwrap();
        for pin in [1, 2] {
            assert_eq!(d.by_spki(&SpkiPin([pin; 32])).unwrap().node, NodeId(1));
        }
        assert!(d.by_spiffe("spiffe://c/1").is_some() && d.by_node(NodeId(1)).is_some());
        d.set(record(1, &[2, 3], None)).unwrap();
        assert!(d.by_spki(&SpkiPin([1; 32])).is_none());
        assert!(d.by_spiffe("spiffe://c/1").is_none());
        d.remove(NodeId(1));
        assert!(d.is_empty() && d.by_spki(&SpkiPin([3; 32])).is_none());
    }

    #[test]
    fn a_complete_topology_is_never_that_of_a_node_that_has_not_joined() {
        let mut d = Directory::complete();
        assert!(!d.is_empty());
        d.set(record(1, &[1], None)).unwrap();
        d.remove(NodeId(1));
        assert!(!d.is_empty());
    }

    #[test]
    fn an_identity_belongs_to_one_node() {
        let mut d = Directory::default();
        d.set(record(1, &[1], Some("spiffe://c/1"))).unwrap();
        let taken = Err(IdentityTaken { owner: NodeId(1) });
        assert_eq!(d.set(record(2, &[9, 1], None)), taken);
        assert_eq!(d.set(record(2, &[], Some("spiffe://c/1"))), taken);
        assert!(d.by_node(NodeId(2)).is_none());
    }

    #[test]
    fn an_enrolment_ends_by_use_or_by_time() {
        let mut d = Directory::default();
        let (one, two) = (SpkiPin([1; 32]), SpkiPin([2; 32]));
        d.authorise(one, 100);
        d.authorise(two, 200);
        d.set(record(1, &[1], None)).unwrap();
        assert_eq!(d.enrolment(&one), None);
        d.expire(199);
        assert_eq!(d.enrolment(&two), Some(200));
        d.expire(200);
        assert_eq!(d.enrolment(&two), None);
    }
}
