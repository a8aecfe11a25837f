//! Places for look-ups, shared out by domain.

use std::{
    collections::{BTreeMap, VecDeque},
    iter,
    sync::Arc,
};

use super::names::Id;

/// A bounded number of places. Names below one domain hold at most three quarters of those that names below its parent
/// may: whoever asks for any number of names below a domain whose servers hang leaves places to others at each level.
#[derive(Debug)]
pub(super) struct Places {
    total: usize,
    /// Of domains whose names hold places or wait for them; the root's, the empty one, has all.
    shares: BTreeMap<Box<str>, Share>,
    claims: BTreeMap<Id, Claim>,
}

/// What a domain's names have of the places.
#[derive(Debug)]
struct Share {
    max: usize,
    held: usize,
    waiting: VecDeque<Id>,
}

/// A name that holds a place, or waits for it in the share after those that it has a part of.
#[derive(Debug)]
struct Claim {
    name: Arc<str>,
    /// Shares that it has a part of, the narrowest domain first: of those that wait for a wider one, only as many are of
    /// one domain as may be.
    held: usize,
}

impl Places {
    pub(super) fn new(total: usize) -> Self {
        Self {
            total,
            shares: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    /// Asks for a place, in turn with other names of the same domain, and tells whether it is had at once. If not, a call
    /// of [`Self::leave`] gives it.
    pub(super) fn ask(&mut self, id: Id, name: Arc<str>) -> bool {
        self.claims.insert(id, Claim { name, held: 0 });
        self.advance(id)
    }

    /// Takes a place back, or ends the wait for it, and gives those who have their places by that.
    pub(super) fn leave(&mut self, id: Id) -> Vec<Id> {
        let Some(claim) = self.claims.remove(&id) else {
            return Vec::new();
        };
        // All that it held, and then the share that it waits for, if it does.
        let left: Vec<_> = domains(&claim.name).take(claim.held + 1).collect();
        for (level, &domain) in left.iter().enumerate() {
            if let Some(share) = self.shares.get_mut(domain) {
                if level < claim.held {
                    share.held -= 1;
                } else {
                    share.waiting.retain(|&waiting| waiting != id);
                }
            }
        }
        let hand_on = |domain| self.hand_on(domain);
        left.into_iter().filter_map(hand_on).collect()
    }

    /// Takes parts of the shares that are left for a name to take; tells whether it has all of them, or waits.
    fn advance(&mut self, id: Id) -> bool {
        let Some(claim) = self.claims.get_mut(&id) else {
            return false;
        };
        for domain in domains(&claim.name).skip(claim.held) {
            let new = || Share {
                max: wider(domain).fold(self.total, |max, _| max - max / 4),
                held: 0,
                waiting: VecDeque::new(),
            };
            let share = self.shares.entry(domain.into()).or_insert_with(new);
            // What is free while others wait is about to be handed on to them.
            if share.held == share.max || !share.waiting.is_empty() {
                share.waiting.push_back(id);
                return false;
            }
            share.held += 1;
            claim.held += 1;
        }
        true
    }

    /// Gives what is free in a share to the first who waits for it; gives who has a place by that.
    fn hand_on(&mut self, domain: &str) -> Option<Id> {
        let share = self.shares.get_mut(domain)?;
        if share.held == 0 && share.waiting.is_empty() {
            self.shares.remove(domain);
            return None;
        }
        if share.held == share.max {
            return None;
        }
        let first = share.waiting.pop_front()?;
        share.held += 1;
        self.claims.get_mut(&first)?.held += 1;
        self.advance(first).then_some(first)
    }
}

/// The domains that a name is below, the narrowest first and the root's, the empty one, last; whether or not the name is
/// written with the root's dot.
fn domains(name: &str) -> impl Iterator<Item = &str> {
    let name = name.trim_end_matches('.');
    let is_root = name.is_empty().then_some("");
    is_root.into_iter().chain(wider(name))
}

/// The domains that a domain is below.
fn wider(domain: &str) -> impl Iterator<Item = &str> {
    fn parent(domain: &str) -> Option<&str> {
        let parent = domain.split_once('.').map_or("", |(_, parent)| parent);
        (!domain.is_empty()).then_some(parent)
    }
    iter::successors(parent(domain), |domain| parent(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_domain_leaves_a_quarter_to_others_at_its_level() {
        let (mut places, mut ids) = (Places::new(64), 0..);
        let mut held = 0;
        let mut have = |name: String| {
            held += usize::from(ask(&mut places, ids.next().unwrap(), &name));
            held
        };
        // Deeper names do not evade the share of the domain above them.
        let lab = (0..40).map(|n| have(format!("x.{n}.lab.corp.local")));
        assert_eq!(lab.max(), Some(27));
        let corp = (0..40).map(|n| have(format!("{n}.corp.local")));
        assert_eq!(corp.max(), Some(36));
        let local = (0..40).map(|n| have(format!("{n}.local")));
        assert_eq!(local.max(), Some(48));
        let all = (0..40).map(|n| have(format!("n{n}")));
        assert_eq!(all.max(), Some(64));
    }

    #[test]
    fn the_dot_of_the_root_makes_no_other_domain() {
        let mut places = Places::new(128);
        let names = (0..200).flat_map(|n| [format!("{n}.local"), format!("{n}.local.")]);
        let has_place = |(id, name): &(u64, String)| ask(&mut places, *id, name);
        assert_eq!((0..).zip(names).filter(has_place).count(), 96);
        assert!(ask(&mut places, 1_000, "x.org"));
    }

    #[test]
    fn a_name_is_below_each_of_its_domains_once() {
        let of = |name| domains(name).collect::<Vec<_>>();
        assert_eq!(of("db.corp.local"), ["corp.local", "local", ""]);
        assert_eq!(of("db.corp.local."), ["corp.local", "local", ""]);
        assert_eq!(of("localhost"), [""]);
        // Nonsense takes a place too.
        for name in ["", ".", ".."] {
            assert_eq!(of(name), [""], "{name}");
        }
        assert_eq!(of("a..b.."), [".b", "b", ""]);
    }

    #[test]
    fn whoever_leaves_or_gives_up_is_forgotten() {
        let mut places = Places::new(1);
        assert!(ask(&mut places, 1, "a.corp.local"));
        // One that waits for the domain, and one that has its share of another and waits for the rest.
        assert!(!ask(&mut places, 2, "b.corp.local"));
        assert!(!ask(&mut places, 3, "c.example"));
        assert!(places.leave(2).is_empty());
        assert!(places.leave(3).is_empty());
        assert!(places.leave(1).is_empty());
        assert!(places.shares.is_empty() && places.claims.is_empty());
        assert!(ask(&mut places, 4, "d.example"));
        assert!(places.leave(4).is_empty());
        assert!(places.leave(4).is_empty());
        assert!(places.shares.is_empty() && places.claims.is_empty());
        // Where there are none at all, too.
        let mut none = Places::new(0);
        assert!(!ask(&mut none, 1, "a.local"));
        assert!(none.leave(1).is_empty());
        assert!(none.shares.is_empty() && none.claims.is_empty());
    }

    #[test]
    fn places_are_handed_on_in_turn() {
        let mut places = Places::new(2);
        assert!(ask(&mut places, 1, "a.local"));
        assert!(ask(&mut places, 2, "b.local"));
        for (id, name) in [(3, "c.local"), (4, "d.org"), (5, "e.local"), (6, "f")] {
            assert!(!ask(&mut places, id, name));
        }
        // The third had to wait for its domain, and is behind all who came to the root's share before it had that.
        assert_eq!(places.leave(1), [4]);
        assert_eq!(places.leave(2), [6]);
        assert_eq!(places.leave(4), [3]);
        assert!(!ask(&mut places, 7, "g.org"));
        // Who gives up leaves the turn to the next.
        assert!(places.leave(5).is_empty());
        assert_eq!(places.leave(3), [7]);
    }

    #[test]
    fn a_flood_of_one_domain_waits_behind_its_own_share() {
        let mut places = Places::new(4);
        // Three places are all that a domain of one label has; the others of the flood wait for one of these.
        for id in 0..100 {
            assert_eq!(ask(&mut places, id, &format!("{id}.local")), id < 3);
        }
        assert!(ask(&mut places, 100, "a.org"));
        assert!(!ask(&mut places, 101, "b.org"));
        assert!(!ask(&mut places, 102, "c"));
        // Whichever place is given back goes to them, and then to the flood.
        assert_eq!(places.leave(0), [101]);
        assert_eq!(places.leave(1), [102]);
        assert_eq!(places.leave(100), [3]);
        assert_eq!(places.shares["local"].held, 3);
    }

    fn ask(places: &mut Places, id: Id, name: &str) -> bool {
        places.ask(id, name.into())
    }
}
