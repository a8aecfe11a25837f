//! How many places one source may hold, so that nobody holds all of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Counts the places of each source: an IPv4 address, or the /64 of an IPv6 one.
#[derive(Debug)]
pub(crate) struct Shares {
    held: Held,
    max: usize,
}

impl Shares {
    /// Lets one source hold a quarter of `places`, and always one.
    pub(crate) fn of(places: usize) -> Self {
        Self {
            held: Arc::default(),
            max: (places / 4).max(1),
        }
    }

    /// Takes one place for a source; none where it holds its share. On loopback all users have one address, so there
    /// is no share to keep to.
    pub(crate) fn take(&self, ip: IpAddr) -> Option<Share> {
        let ip = ip.to_canonical();
        if ip.is_loopback() {
            return Some(Share(None));
        }
        let source = match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(source).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Share(Some((Arc::clone(&self.held), source))))
    }
}

type Held = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// One place; it is given back when dropped.
#[derive(Debug)]
pub(crate) struct Share(Option<(Held, IpAddr)>);

impl Drop for Share {
    fn drop(&mut self) {
        let Some((held, source)) = self.0.take() else {
            return;
        };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                held.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_share_and_leaves_the_rest() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let shares = Shares::of(8);
        let first = shares.take(ip("192.0.2.1")).unwrap();
        let _second = shares.take(ip("::ffff:192.0.2.1")).unwrap();
        assert!(shares.take(ip("192.0.2.1")).is_none());
        assert!(shares.take(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(shares.take(ip("192.0.2.1")).is_some());
        let _network = [1, 2].map(|n| shares.take(ip(&format!("2001:db8::{n}"))).unwrap());
        assert!(shares.take(ip("2001:db8::3")).is_none());
        assert!(shares.take(ip("2001:db8:0:1::3")).is_some());
        let users: Vec<_> = (0..9).map(|_| shares.take(ip("127.0.0.1"))).collect();
        assert!(users.iter().all(Option::is_some));
        assert!(Shares::of(1).take(ip("192.0.2.1")).is_some());
    }
}
