//! Places for look-ups, shared out by domain.

use std::{
    collections::BTreeMap,
    iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded number of places. Names below one domain hold at most three quarters of those that names below its parent
/// may: whoever asks for any number of names below a domain whose servers hang leaves places to others at each level.
#[derive(Debug)]
pub(super) struct Places {
    total: usize,
    all: Arc<Semaphore>,
    /// Of domains whose names hold places or wait for them.
    below: Mutex<BTreeMap<Box<str>, Arc<Semaphore>>>,
}

/// The place of one name; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    name: Box<str>,
    permits: Vec<OwnedSemaphorePermit>,
    home: Arc<Places>,
}

impl Places {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            all: Arc::new(Semaphore::new(total)),
            below: Mutex::default(),
        })
    }

    /// Waits for a place, in turn with other names of the same domain. Dropping the future gives up.
    pub(super) async fn take(self: &Arc<Self>, name: &str) -> Place {
        let mut place = Place {
            name: name.into(),
            permits: Vec::new(),
            home: Arc::clone(self),
        };
        // The narrowest domain first: of those that wait for a wider one, only as many are of one domain as may be.
        let shares = parents(name).map(|domain| self.share(domain));
        for share in shares.chain(iter::once(Arc::clone(&self.all))) {
            // It is never closed.
            if let Ok(permit) = share.acquire_owned().await {
                place.permits.push(permit);
            }
        }
        place
    }

    fn share(&self, domain: &str) -> Arc<Semaphore> {
        let mut below = self.lock();
        if let Some(share) = below.get(domain) {
            return Arc::clone(share);
        }
        let part = |share: usize, _label| share - share / 4;
        let places = domain.split('.').fold(self.total, part);
        let share = Arc::new(Semaphore::new(places));
        below.insert(domain.into(), Arc::clone(&share));
        share
    }

    /// A panic elsewhere leaves the map as it was: every change of it is a single step.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Arc<Semaphore>>> {
        self.below.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.permits.clear();
        let mut below = self.home.lock();
        for domain in parents(&self.name) {
            // Who holds a place of a share, or waits for one, holds the share.
            let is_idle = |share: &Arc<Semaphore>| Arc::strong_count(share) == 1;
            if below.get(domain).is_some_and(is_idle) {
                below.remove(domain);
            }
        }
    }
}

/// The domains that a name is below, the narrowest first, whether or not it is written with the root's dot.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    fn parent(name: &str) -> Option<&str> {
        name.split_once('.').map(|(_, parent)| parent)
    }
    iter::successors(parent(name), |name| parent(name))
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use super::*;

    #[test]
    fn each_domain_leaves_a_quarter_to_others_at_its_level() {
        let places = Places::new(64);
        let mut held = Vec::new();
        // Deeper names do not evade the share of the domain above them.
        for n in 0..40 {
            held.extend(now(&places, &format!("x.{n}.lab.corp.local")));
        }
        assert_eq!(held.len(), 27);
        for n in 0..40 {
            held.extend(now(&places, &format!("{n}.corp.local")));
        }
        assert_eq!(held.len(), 36);
        for n in 0..40 {
            held.extend(now(&places, &format!("{n}.local")));
        }
        assert_eq!(held.len(), 48);
        for n in 0..40 {
            held.extend(now(&places, &format!("n{n}")));
        }
        assert_eq!(held.len(), 64);
    }

    #[test]
    fn the_dot_of_the_root_makes_no_other_domain() {
        let places = Places::new(128);
        let held: Vec<_> = (0..200)
            .flat_map(|n| [format!("{n}.local"), format!("{n}.local.")])
            .filter_map(|name| now(&places, &name))
            .collect();
        assert_eq!(held.len(), 96);
        assert!(now(&places, "x.org").is_some());
    }

    #[test]
    fn whoever_leaves_or_gives_up_is_forgotten() {
        let places = Places::new(1);
        let place = now(&places, "a.corp.local").unwrap();
        // One that waits for the domain, and one that has its share of another and waits for the rest.
        assert!(now(&places, "b.corp.local").is_none());
        assert!(now(&places, "c.example").is_none());
        drop(place);
        assert!(places.lock().is_empty());
        assert!(now(&places, "d.example").is_some());
        assert!(places.lock().is_empty());
    }

    /// A place that is to be had without waiting.
    fn now(places: &Arc<Places>, name: &str) -> Option<Place> {
        let taking = pin!(places.take(name));
        match taking.poll(&mut Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(place) => Some(place),
            std::task::Poll::Pending => None,
        }
    }
}
