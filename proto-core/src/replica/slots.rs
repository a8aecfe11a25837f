//! Who may be in a handshake at a time. The places are taken before a byte is read, so they are shared by source.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use crate::limits::{REPLICA_HANDSHAKES_MAX, REPLICA_HANDSHAKES_PER_SOURCE_MAX};

/// The places of an acceptor's handshakes in progress. Whoever begins thousands from one address takes that address'
/// share, and nobody else is kept out.
#[derive(Debug)]
pub struct Slots {
    max: usize,
    max_per_source: usize,
    taken: usize,
    by_source: BTreeMap<Source, usize>,
}

/// One place. It is given back with [`Slots::release`] when its handshake is over, whatever came out of it.
#[derive(Debug)]
#[must_use = "a place that is not given back is lost"]
pub struct Place(Source);

/// No place is left: the connection is closed unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoPlace {
    /// The source has its share.
    #[error("{0} replica handshakes from one source are in progress")]
    Source(usize),
    /// All places are taken.
    #[error("{0} replica handshakes are in progress")]
    Full(usize),
}

/// What handshakes are counted by: an IPv4 address, or the /64 of an IPv6 one, all of which one host may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source(IpAddr);

impl Slots {
    /// So many places in all, and so many for one source.
    #[must_use]
    pub fn new(max: usize, max_per_source: usize) -> Self {
        Self {
            max,
            max_per_source,
            taken: 0,
            by_source: BTreeMap::new(),
        }
    }

    /// Takes a place for a connection from `ip`.
    ///
    /// # Errors
    /// If the source has its share, or all places are taken.
    pub fn take(&mut self, ip: IpAddr) -> Result<Place, NoPlace> {
        let source = Source::of(ip);
        let held = self.by_source.get(&source).copied().unwrap_or(0);
        if held >= self.max_per_source {
            return Err(NoPlace::Source(held));
        }
        if self.taken >= self.max {
            return Err(NoPlace::Full(self.taken));
        }
        self.taken = self.taken.saturating_add(1);
        self.by_source.insert(source, held.saturating_add(1));
        Ok(Place(source))
    }

    /// Takes a place back.
    pub fn release(&mut self, place: Place) {
        let Place(source) = place;
        self.taken = self.taken.saturating_sub(1);
        match self.by_source.get(&source) {
            Some(held @ 2..) => {
                let left = held.saturating_sub(1);
                self.by_source.insert(source, left);
            }
            Some(_) | None => {
                self.by_source.remove(&source);
            }
        }
    }

    /// Handshakes in progress.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::new(REPLICA_HANDSHAKES_MAX, REPLICA_HANDSHAKES_PER_SOURCE_MAX)
    }
}

impl Source {
    fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_keeps_nobody_out() {
        let mut slots = Slots::default();
        let flood: Vec<_> = (0..10_000).map(|_| slots.take(ip("192.0.2.1"))).collect();
        let held = flood.iter().filter(|place| place.is_ok()).count();
        assert_eq!(held, REPLICA_HANDSHAKES_PER_SOURCE_MAX);
        assert_eq!(flood[9_999].as_ref().unwrap_err(), &NoPlace::Source(held));
        assert!(slots.take(ip("192.0.2.2")).is_ok());
        // An address of the same host by another way.
        assert!(slots.take(ip("::ffff:192.0.2.1")).is_err());
    }

    #[test]
    fn a_host_of_many_addresses_is_one_source() {
        let mut slots = Slots::new(10, 1);
        let places =
            ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"].map(|a| slots.take(ip(a)));
        let held: Vec<bool> = places.iter().map(Result::is_ok).collect();
        assert_eq!(held, [true, false, true]);
    }

    #[test]
    fn all_places_together_are_bounded() {
        let mut slots = Slots::new(2, 2);
        let place = slots.take(ip("192.0.2.1")).unwrap();
        let other = slots.take(ip("192.0.2.2")).unwrap();
        assert_eq!(slots.take(ip("192.0.2.3")).unwrap_err(), NoPlace::Full(2));
        slots.release(place);
        assert!(slots.take(ip("192.0.2.3")).is_ok());
        slots.release(other);
        assert_eq!(slots.taken(), 1);
    }

    proptest! {
        #[test]
        fn what_is_taken_and_given_back_is_counted(script in proptest::collection::vec((any::<bool>(), 0..6_u8), 0..200)) {
            let mut slots = Slots::new(8, 3);
            let mut places: Vec<Place> = Vec::new();
            for (takes, host) in script {
                let source = Source::of([192, 0, 2, host].into());
                let held = places.iter().filter(|place| place.0 == source).count();
                if takes {
                    match slots.take(source.0) {
                        Ok(place) => {
                            prop_assert!(held < 3 && places.len() < 8);
                            places.push(place);
                        }
                        Err(NoPlace::Source(n)) => prop_assert_eq!((n, held), (3, 3)),
                        Err(NoPlace::Full(n)) => prop_assert_eq!((n, places.len()), (8, 8)),
                    }
                } else if !places.is_empty() {
                    slots.release(places.swap_remove(usize::from(host) % places.len()));
                }
                prop_assert_eq!(slots.taken(), places.len());
            }
            places.into_iter().for_each(|place| slots.release(place));
            prop_assert_eq!((slots.taken(), slots.by_source.len()), (0, 0));
        }
    }
}
