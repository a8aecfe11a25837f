//! The address translation before one host.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::At;

/// How a host's NAT behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// The addresses the world sees. The first of the family in question is used; each rebinding goes on to the next.
    pub outer: Vec<IpAddr>,
    /// How long a mapping lives without use.
    pub idle_timeout: Duration,
    /// Whether each remote address and port gets a mapping of its own, open for that remote only. Otherwise one
    /// mapping serves all remotes, and lets all in.
    pub endpoint_dependent: bool,
    /// Whether datagrams from outside count as use. Those from inside always do.
    pub inbound_refreshes: bool,
}

/// The NAT before one host.
#[derive(Clone, Debug)]
pub(super) struct Nat {
    config: NatConfig,
    mappings: BTreeMap<Inside, Mapping>,
    by_outer: BTreeMap<SocketAddr, Inside>,
    next_port: u16,
    rebinds: usize,
}

/// What a mapping stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Inside {
    inner: SocketAddr,
    /// The one remote, where mappings depend on it.
    remote: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    outer: SocketAddr,
    used_at: At,
}

impl Nat {
    pub(super) fn new(config: NatConfig) -> Self {
        Self {
            config,
            mappings: BTreeMap::new(),
            by_outer: BTreeMap::new(),
            next_port: PORT_MIN,
            rebinds: 0,
        }
    }

    /// Translates the source of a datagram going out. None: there is no outer address of that family.
    pub(super) fn outbound(
        &mut self,
        at: At,
        inner: SocketAddr,
        remote: SocketAddr,
    ) -> Option<SocketAddr> {
        let remote = self.config.endpoint_dependent.then_some(remote);
        let inside = Inside { inner, remote };
        if let Some(mapping) = self.mappings.get_mut(&inside) {
            if alive(&self.config, mapping, at) {
                mapping.used_at = at;
                return Some(mapping.outer);
            }
            self.by_outer.remove(&mapping.outer);
        }
        let outer = self.allocate(inner)?;
        // After a whole round of ports whoever held this one gives way, dead or alive.
        if let Some(evicted) = self.by_outer.insert(outer, inside) {
            self.mappings.remove(&evicted);
        }
        let used_at = at;
        self.mappings.insert(inside, Mapping { outer, used_at });
        Some(outer)
    }

    /// Translates the destination of a datagram coming in. None: nothing inside asked for it.
    pub(super) fn inbound(
        &mut self,
        at: At,
        outer: SocketAddr,
        remote: SocketAddr,
    ) -> Option<SocketAddr> {
        let inside = self.by_outer.get(&outer)?;
        if inside.remote.is_some_and(|allowed| allowed != remote) {
            return None;
        }
        let mapping = self.mappings.get_mut(inside)?;
        if !alive(&self.config, mapping, at) {
            return None;
        }
        if self.config.inbound_refreshes {
            mapping.used_at = at;
        }
        Some(inside.inner)
    }

    /// Forgets all mappings. Ports go on from where they were, so that no old one comes back soon.
    pub(super) fn rebind(&mut self) {
        self.mappings.clear();
        self.by_outer.clear();
        self.rebinds += 1;
    }

    fn allocate(&mut self, inner: SocketAddr) -> Option<SocketAddr> {
        let fits = |outer: &&IpAddr| outer.is_ipv4() == inner.is_ipv4();
        let count = self.config.outer.iter().filter(fits).count();
        let turn = self.rebinds.checked_rem(count)?;
        let ip = *self.config.outer.iter().filter(fits).nth(turn)?;
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(PORT_MIN);
        Some(SocketAddr::new(ip, port))
    }
}

fn alive(config: &NatConfig, mapping: &Mapping, at: At) -> bool {
    at.saturating_sub(mapping.used_at) < config.idle_timeout
}

/// The first port after the well-known ones.
const PORT_MIN: u16 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn nat(endpoint_dependent: bool, inbound_refreshes: bool) -> Nat {
        Nat::new(NatConfig {
            outer: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()],
            idle_timeout: Duration::from_secs(30),
            endpoint_dependent,
            inbound_refreshes,
        })
    }

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::new([10, 0, 0, last].into(), 4_433)
    }

    const fn secs(secs: u64) -> At {
        At::from_secs(secs)
    }

    #[test]
    fn a_mapping_serves_every_remote_and_lets_every_remote_in() {
        let mut nat = nat(false, false);
        let outer = nat.outbound(secs(0), addr(1), addr(8)).unwrap();
        assert_eq!(nat.outbound(secs(0), addr(1), addr(9)), Some(outer));
        assert_eq!(nat.inbound(secs(1), outer, addr(7)), Some(addr(1)));
        assert_ne!(nat.outbound(secs(0), addr(2), addr(8)), Some(outer));
    }

    #[test]
    fn an_endpoint_dependent_mapping_lets_only_its_remote_in() {
        let mut nat = nat(true, false);
        let outer = nat.outbound(secs(0), addr(1), addr(8)).unwrap();
        assert_ne!(nat.outbound(secs(0), addr(1), addr(9)), Some(outer));
        assert_eq!(nat.inbound(secs(1), outer, addr(9)), None);
        let mut other_port = addr(8);
        other_port.set_port(1);
        assert_eq!(nat.inbound(secs(1), outer, other_port), None);
        assert_eq!(nat.inbound(secs(1), outer, addr(8)), Some(addr(1)));
    }

    #[test]
    fn a_mapping_ends_when_idle_and_the_next_has_another_port() {
        let mut nat = nat(false, false);
        let first = nat.outbound(secs(0), addr(1), addr(8)).unwrap();
        assert_eq!(nat.outbound(secs(29), addr(1), addr(8)), Some(first));
        assert_eq!(nat.inbound(secs(58), first, addr(8)), Some(addr(1)));
        assert_eq!(nat.inbound(secs(59), first, addr(8)), None);
        let second = nat.outbound(secs(59), addr(1), addr(8)).unwrap();
        assert_ne!(first, second);
        assert_eq!(nat.inbound(secs(60), first, addr(8)), None);
        assert_eq!(nat.inbound(secs(60), second, addr(8)), Some(addr(1)));
    }

    #[test]
    fn inbound_use_counts_where_the_nat_says_so() {
        let mut nat = nat(false, true);
        let outer = nat.outbound(secs(0), addr(1), addr(8)).unwrap();
        assert_eq!(nat.inbound(secs(29), outer, addr(8)), Some(addr(1)));
        assert_eq!(nat.inbound(secs(58), outer, addr(8)), Some(addr(1)));
        assert_eq!(nat.inbound(secs(88), outer, addr(8)), None);
    }

    #[test]
    fn rebinding_goes_on_to_the_next_port_and_outer_address() {
        let mut nat = nat(false, false);
        let first = nat.outbound(secs(0), addr(1), addr(8)).unwrap();
        nat.rebind();
        assert_eq!(nat.inbound(secs(0), first, addr(8)), None);
        let second = nat.outbound(secs(0), addr(1), addr(8)).unwrap();
        assert_ne!(first.ip(), second.ip());
        assert_ne!(first.port(), second.port());
        nat.rebind();
        let third = nat.outbound(secs(0), addr(1), addr(8)).unwrap();
        assert_eq!(first.ip(), third.ip());
        assert_ne!(first.port(), third.port());
    }

    #[test]
    fn a_full_nat_takes_the_port_whose_turn_it_is() {
        let mut nat = nat(true, false);
        let remote = |n: u16| SocketAddr::new([8, 8, 8, 8].into(), n);
        let first = nat.outbound(secs(0), addr(1), remote(0)).unwrap();
        for n in 1..=u16::MAX - PORT_MIN {
            assert_ne!(nat.outbound(secs(0), addr(1), remote(n)), Some(first));
        }
        let late = remote(u16::MAX);
        assert_eq!(nat.outbound(secs(0), addr(1), late), Some(first));
        assert_eq!(nat.inbound(secs(0), first, remote(0)), None);
        assert_eq!(nat.inbound(secs(0), first, late), Some(addr(1)));
        assert_eq!(nat.mappings.len(), nat.by_outer.len());
    }

    #[test]
    fn a_family_without_an_outer_address_does_not_get_out() {
        let mut nat = nat(false, false);
        let inner = "[fd00::1]:1".parse().unwrap();
        let remote = "[2001:db8::1]:1".parse().unwrap();
        assert_eq!(nat.outbound(secs(0), inner, remote), None);
    }
}
