//! Names that were found quickly the last time.

use std::{collections::BTreeSet, mem};

/// Remembers at least the last [`KEPT_MAX`] names, and at most twice as many.
#[derive(Debug, Default)]
pub(super) struct Found {
    recent: BTreeSet<Box<str>>,
    former: BTreeSet<Box<str>>,
}

impl Found {
    pub(super) fn has(&self, name: &str) -> bool {
        self.recent.contains(name) || self.former.contains(name)
    }

    pub(super) fn add(&mut self, name: &str) {
        if self.recent.len() >= KEPT_MAX && !self.recent.contains(name) {
            self.former = mem::take(&mut self.recent);
        }
        self.recent.insert(name.into());
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.recent.remove(name);
        self.former.remove(name);
    }
}

/// More than the names that an agent's users open within hours; each is 255 bytes at most.
const KEPT_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_long_ago_makes_room() {
        let mut found = Found::default();
        for n in 0..2 * KEPT_MAX + 1 {
            found.add(&n.to_string());
        }
        assert!(!found.has("0"));
        assert!(found.has(&KEPT_MAX.to_string()));
        assert!(found.has(&(2 * KEPT_MAX).to_string()));
        found.remove(&KEPT_MAX.to_string());
        assert!(!found.has(&KEPT_MAX.to_string()));
        assert!(found.recent.len() + found.former.len() <= 2 * KEPT_MAX);
    }
}
