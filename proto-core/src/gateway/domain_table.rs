//! Names: which connections advertise a name or a suffix of it (agent-tunnel 10, design 3.4).

use std::{
    collections::BTreeMap,
    ops::Bound::{Included, Unbounded},
};

use smallvec::SmallVec;

use crate::{domain::DomainPattern, id::ConnId};

/// A map from DNS routes to connections, searched from the longest match down.
///
/// Routes are kept under their labels in reverse order (`db.corp.local` under `local.corp.db`), so that every route
/// that covers a name is a prefix of the name's own key. Memory is proportional to the bytes of the routes.
#[derive(Clone, Debug, Default)]
pub(super) struct DomainTable {
    nodes: BTreeMap<Box<[u8]>, Node>,
}

/// The connections of one list, in ascending order and each at most once.
///
/// Adding and removing search by bisection and then move the tail: at most `AGENTS_MAX` ids of eight bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnList(SmallVec<[ConnId; 2]>);

#[derive(Clone, Debug, Default)]
struct Node {
    exact: ConnList,
    wildcard: ConnList,
}

impl DomainTable {
    /// Adds one route of a connection; a route that is there already stays once.
    pub(super) fn insert(&mut self, conn: ConnId, pattern: &DomainPattern) {
        let (name, wildcard) = split(pattern);
        if name.len() > NAME_LEN_MAX {
            return;
        }
        let node = self
            .nodes
            .entry(reverse(name).as_slice().into())
            .or_default();
        node.list_mut(wildcard).insert(conn);
    }

    /// Removes one route of a connection; a route that is not there is no error.
    pub(super) fn remove(&mut self, conn: ConnId, pattern: &DomainPattern) {
        let (name, wildcard) = split(pattern);
        if name.len() > NAME_LEN_MAX {
            return;
        }
        let key = reverse(name);
        let Some(node) = self.nodes.get_mut(key.as_slice()) else {
            return;
        };
        node.list_mut(wildcard).remove(conn);
        if node.exact.0.is_empty() && node.wildcard.0.is_empty() {
            self.nodes.remove(key.as_slice());
        }
    }

    /// Gives the lists that cover a name, best first: the exact one, then wildcards from the longest suffix down.
    pub(super) fn lookup(&self, name: &str) -> DomainMatches<'_> {
        // A longer name would only cost time: no route that is kept is exact for it, and no resolver takes it. A name
        // with the root's dot is covered by no route (agent-tunnel 10).
        let key = if name.len() > NAME_LEN_MAX || name.ends_with('.') {
            Key::new()
        } else {
            reverse(name)
        };
        DomainMatches {
            nodes: &self.nodes,
            next: (!key.is_empty()).then_some(key.len()),
            key,
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// The lists that cover one name; see [`DomainTable::lookup`].
#[derive(Clone, Debug)]
pub(super) struct DomainMatches<'a> {
    nodes: &'a BTreeMap<Box<[u8]>, Node>,
    key: Key,
    /// Length of the longest prefix of the key that is still to be asked; always at the border of a label.
    next: Option<usize>,
}

impl<'a> DomainMatches<'a> {
    /// Gives the next list and the length in bytes of the covering suffix, which is the whole name for the exact one.
    pub(super) fn next_list(&mut self) -> Option<(usize, &'a [ConnId])> {
        while let Some(len) = self.next {
            // Whatever covers the name sorts before its key and shares its beginning with everything in between: the
            // neighbour below therefore bounds how long a match can be, and labels in between need no probe.
            let wanted = &self.key[..len];
            let range = (Unbounded, Included(wanted));
            let Some((found, node)) = self.nodes.range::<[u8], _>(range).next_back() else {
                self.next = None;
                break;
            };
            let common = found.iter().zip(wanted).take_while(|(a, b)| a == b).count();
            if common < len {
                self.next = border(&self.key, common);
                continue;
            }
            self.next = border(&self.key, len - 1);
            let list = if len == self.key.len() {
                &node.exact
            } else {
                &node.wildcard
            };
            if !list.0.is_empty() {
                return Some((len, &list.0));
            }
        }
        None
    }
}

impl Node {
    fn list_mut(&mut self, wildcard: bool) -> &mut ConnList {
        if wildcard {
            &mut self.wildcard
        } else {
            &mut self.exact
        }
    }
}

impl ConnList {
    /// Adds a connection; one that is there already stays once.
    pub(super) fn insert(&mut self, conn: ConnId) {
        if let Err(at) = self.0.binary_search(&conn) {
            self.0.insert(at, conn);
        }
    }

    /// Removes a connection and tells whether none is left.
    pub(super) fn remove(&mut self, conn: ConnId) -> bool {
        if let Ok(at) = self.0.binary_search(&conn) {
            self.0.remove(at);
        }
        self.0.is_empty()
    }

    /// The connections in ascending order.
    pub(super) fn as_slice(&self) -> &[ConnId] {
        &self.0
    }
}

type Key = SmallVec<[u8; 64]>;

/// Splits a route into the name that it is kept under and whether it is a wildcard.
fn split(pattern: &DomainPattern) -> (&str, bool) {
    match pattern.suffix() {
        Some(suffix) => (suffix, true),
        None => (pattern.as_str(), false),
    }
}

/// Writes the labels in reverse order, in lower case.
fn reverse(name: &str) -> Key {
    let mut key = Key::with_capacity(name.len());
    for label in name.rsplit('.') {
        if !key.is_empty() {
            key.push(b'.');
        }
        key.extend_from_slice(label.as_bytes());
    }
    key.make_ascii_lowercase();
    key
}

/// Finds the longest prefix of whole labels that is not longer than `len`; none where not even one label fits.
fn border(key: &[u8], len: usize) -> Option<usize> {
    (1..=len).rev().find(|&at| key.get(at) == Some(&b'.'))
}

/// Longest name that a target can have, in bytes; a longer route matches nothing and is not kept.
const NAME_LEN_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_then_longest_suffix() {
        let mut table = DomainTable::default();
        let routes = [
            "h.x", "*.x", "*.h.x", "*.a.h.x", "h-1.x", "h0.x", "hh.x", "a.b", "*.X", "y",
        ];
        for (n, route) in routes.iter().enumerate() {
            table.insert(ConnId(n as u64), &DomainPattern::parse(route).unwrap());
        }
        for (name, wanted) in [
            ("h.x", vec![vec![0], vec![1, 8]]),
            ("H.x", vec![vec![0], vec![1, 8]]),
            ("z.h.x", vec![vec![2], vec![1, 8]]),
            ("q.a.h.x", vec![vec![3], vec![2], vec![1, 8]]),
            ("a.h.x", vec![vec![2], vec![1, 8]]),
            ("h-1.x", vec![vec![4], vec![1, 8]]),
            ("h-2.x", vec![vec![1, 8]]),
            ("hx", vec![]),
            ("x", vec![]),
            ("", vec![]),
            ("y", vec![vec![9]]),
            ("b", vec![]),
            ("q.a.b", vec![]),
        ] {
            assert_eq!(lists(&table, name), wanted, "{name}");
        }
    }

    #[test]
    fn removal_leaves_nothing_behind() {
        let mut table = DomainTable::default();
        let routes = ["h.x", "*.h.x", "h.x"].map(|r| DomainPattern::parse(r).unwrap());
        for conn in [ConnId(2), ConnId(1)] {
            routes.iter().for_each(|r| table.insert(conn, r));
        }
        assert_eq!(lists(&table, "h.x"), [[1, 2]]);
        routes.iter().for_each(|r| table.remove(ConnId(1), r));
        assert_eq!(lists(&table, "q.h.x"), [[2]]);
        routes.iter().for_each(|r| table.remove(ConnId(2), r));
        assert!(table.is_empty());
    }

    #[test]
    fn names_beyond_the_longest_are_neither_kept_nor_found() {
        let mut table = DomainTable::default();
        table.insert(ConnId(1), &DomainPattern::parse(&"a".repeat(256)).unwrap());
        assert!(table.is_empty());
        table.remove(ConnId(1), &DomainPattern::parse(&"a".repeat(256)).unwrap());
        table.insert(ConnId(1), &DomainPattern::parse("*.x").unwrap());
        assert_eq!(lists(&table, &format!("{}.x", "a".repeat(253))), [[1]]);
        assert!(lists(&table, &format!("{}.x", "a".repeat(254))).is_empty());
    }

    fn lists(table: &DomainTable, name: &str) -> Vec<Vec<u64>> {
        let mut found = table.lookup(name);
        std::iter::from_fn(|| found.next_list())
            .map(|(_, list)| list.iter().map(|c| c.0).collect())
            .collect()
    }
}
