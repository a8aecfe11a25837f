//! A map for keys that come, and mostly leave, in their order.

use std::{collections::VecDeque, mem};

/// An ordered map in one piece: a new highest key is put at the end, any other is found by halves, and what lies between
/// a key that leaves and the nearer end moves up. For the calls of a connection, which are few, bounded in number, and
/// mostly over in the order in which they began, that is less work than a tree.
#[derive(Clone, Debug)]
pub(crate) struct InOrder<K, V>(VecDeque<(K, V)>);

impl<K, V> Default for InOrder<K, V> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: Copy + Ord, V> InOrder<K, V> {
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.0.back().is_none_or(|(last, _)| *last < key) {
            self.0.push_back((key, value));
            return None;
        }
        match self.find(key) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| mem::replace(old, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let at = self.find(*key).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(*key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.find(*key).is_ok()
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(*key).ok()?;
        self.0.remove(at).map(|(_, value)| value)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.0.retain(|(_, value)| keep(value));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    fn find(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(at, _)| *at)
    }
}

impl<K, V> IntoIterator for InOrder<K, V> {
    type Item = (K, V);
    type IntoIter = std::collections::vec_deque::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn it_does_what_a_tree_does(steps in vec((0..4_u8, 0..20_u16), 0..200)) {
            let (mut map, mut tree) = (InOrder::default(), BTreeMap::new());
            for (n, (what, key)) in steps.into_iter().enumerate() {
                match what {
                    0 | 1 => prop_assert_eq!(map.insert(key, n), tree.insert(key, n)),
                    2 => prop_assert_eq!(map.remove(&key), tree.remove(&key)),
                    _ => {
                        map.retain(|n| n % 7 != 0);
                        tree.retain(|_, n| *n % 7 != 0);
                    }
                }
                prop_assert_eq!(map.get(&key), tree.get(&key));
                prop_assert_eq!(map.get_mut(&key), tree.get_mut(&key));
                prop_assert_eq!(map.contains_key(&key), tree.contains_key(&key));
                prop_assert_eq!((map.len(), map.is_empty()), (tree.len(), tree.is_empty()));
                prop_assert!(map.iter().eq(tree.iter()));
                prop_assert!(map.keys().eq(tree.keys()) && map.values().eq(tree.values()));
            }
            prop_assert!(map.clone().into_iter().eq(tree));
            map.clear();
            prop_assert!(map.is_empty());
        }
    }
}
