//! When whom to look after.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// At most one time per key. A time is left alone when it only moves back: whoever is looked after says when next.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    times: BTreeSet<(Instant, K)>,
    keys: BTreeMap<K, Instant>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self {
            times: BTreeSet::new(),
            keys: BTreeMap::new(),
        }
    }
}

impl<K: Copy + Ord> Timers<K> {
    /// Has a key looked after then, or earlier if that was wanted.
    pub(crate) fn arm(&mut self, key: K, at: Instant) {
        match self.keys.get_mut(&key) {
            Some(armed) if *armed <= at => {}
            Some(armed) => {
                self.times.remove(&(*armed, key));
                *armed = at;
                self.times.insert((at, key));
            }
            None => {
                self.keys.insert(key, at);
                self.times.insert((at, key));
            }
        }
    }

    /// The key is gone.
    pub(crate) fn forget(&mut self, key: K) {
        if let Some(at) = self.keys.remove(&key) {
            self.times.remove(&(at, key));
        }
    }

    /// The next time.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.times.first().map(|(at, _)| *at)
    }

    /// The next key that is due; its time is forgotten.
    pub(crate) fn due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.times.first().filter(|(at, _)| *at <= now)?;
        self.times.remove(&(at, key));
        self.keys.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_key_is_due_once_at_its_earliest_time() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut timers = Timers::default();
        timers.arm('a', at(5));
        timers.arm('b', at(3));
        timers.arm('a', at(9));
        assert_eq!(timers.next(), Some(at(3)));
        timers.arm('a', at(2));
        timers.arm('c', at(4));
        timers.forget('c');
        timers.forget('d');
        assert_eq!(timers.due(at(1)), None);
        assert_eq!(timers.due(at(9)), Some('a'));
        timers.arm('a', at(6));
        assert_eq!(timers.due(at(9)), Some('b'));
        assert_eq!(timers.due(at(9)), Some('a'));
        assert_eq!(timers.due(at(9)), None);
        assert_eq!(timers.next(), None);
    }
}
