//! The part of RFC 8305 that knows no policy: which address is tried when. Shared by [`Dial`](super::dial::Dial) and
//! [`Supervisor`](super::supervisor::Supervisor).

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::limits::{DIAL_ADDRESS_TIMEOUT, DIAL_ADDRESSES_MAX, DIAL_STAGGER};

/// Addresses in the order in which they are tried, and how far each has come. `K` says why one failed.
///
/// Lanes are named by their place in the order, and are started in that order.
#[derive(Debug)]
pub(super) struct Race<K> {
    lanes: Vec<Lane<K>>,
    started: usize,
    next_at: Option<Instant>,
}

#[derive(Debug)]
struct Lane<K> {
    addr: SocketAddr,
    state: LaneState<K>,
}

#[derive(Debug)]
enum LaneState<K> {
    Waiting,
    Connecting { until: Instant },
    Failed(K),
}

impl<K: Copy> Race<K> {
    /// Orders the addresses; nothing is started yet.
    pub(super) fn new(addresses: &[IpAddr], port: u16) -> Self {
        let lane = |ip| Lane {
            addr: SocketAddr::new(ip, port),
            state: LaneState::Waiting,
        };
        Self {
            lanes: interleave(addresses).into_iter().map(lane).collect(),
            started: 0,
            next_at: None,
        }
    }

    /// Starts the next lane, if one is left, and sets the stagger for the one after it.
    pub(super) fn start_next(&mut self, now: Instant) -> Option<(usize, SocketAddr)> {
        let index = self.started;
        let count = self.lanes.len();
        let lane = self.lanes.get_mut(index)?;
        lane.state = LaneState::Connecting {
            until: now + DIAL_ADDRESS_TIMEOUT,
        };
        self.started += 1;
        self.next_at = (self.started < count).then(|| now + DIAL_STAGGER);
        Some((index, lane.addr))
    }

    /// Takes a lane out; tells whether it was running.
    pub(super) fn fail(&mut self, index: usize, kind: K) -> bool {
        let running = self.is_connecting(index);
        if running && let Some(lane) = self.lanes.get_mut(index) {
            lane.state = LaneState::Failed(kind);
        }
        running
    }

    pub(super) fn is_connecting(&self, index: usize) -> bool {
        let lane = self.lanes.get(index);
        lane.is_some_and(|lane| matches!(lane.state, LaneState::Connecting { .. }))
    }

    /// Tells whether the lane was ever started.
    pub(super) fn is_started(&self, index: usize) -> bool {
        index < self.started
    }

    /// The address of a lane.
    pub(super) fn addr(&self, index: usize) -> Option<SocketAddr> {
        self.lanes.get(index).map(|lane| lane.addr)
    }

    /// Running lanes in the order of their start.
    pub(super) fn connecting(&self) -> impl Iterator<Item = usize> {
        (0..self.started).filter(|&index| self.is_connecting(index))
    }

    /// Tells whether every lane has failed.
    pub(super) fn is_lost(&self) -> bool {
        self.started == self.lanes.len() && self.connecting().next().is_none()
    }

    /// Addresses that failed, with the reason.
    pub(super) fn failures(&self) -> impl Iterator<Item = (SocketAddr, K)> {
        self.lanes.iter().filter_map(|lane| match lane.state {
            LaneState::Failed(kind) => Some((lane.addr, kind)),
            LaneState::Waiting | LaneState::Connecting { .. } => None,
        })
    }

    /// When the next lane starts by itself.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// Tells whether the stagger of the next lane is over.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next_at.is_some_and(|at| at <= now)
    }

    /// A lane that has used up its time. The last one in the race is never named: nothing is gained by giving it up
    /// before the whole race ends.
    pub(super) fn overdue(&self, now: Instant) -> Option<usize> {
        let (index, until) = self.first_deadline()?;
        (until <= now).then_some(index)
    }

    /// When the next lane starts or one has used up its time.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.first_deadline().map(|(_, until)| until);
        self.next_at.into_iter().chain(deadline).min()
    }

    fn first_deadline(&self) -> Option<(usize, Instant)> {
        let alone = self.started == self.lanes.len() && self.connecting().count() < 2;
        let deadline = |(index, lane): (usize, &Lane<K>)| match lane.state {
            LaneState::Connecting { until } => Some((index, until)),
            LaneState::Waiting | LaneState::Failed(_) => None,
        };
        // Lanes start in order, so the first running one has the earliest deadline.
        let mut deadlines = self.lanes.iter().enumerate().filter_map(deadline);
        deadlines.next().filter(|_| !alone)
    }
}

/// IPv6 first, then the families in turn, each in the resolver's order (RFC 8305 4); IPv4-mapped addresses as IPv4,
/// each address once, at most [`DIAL_ADDRESSES_MAX`]. The bound is applied last, so that both families keep places.
fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut seen = Vec::new();
    for ip in addresses.iter().map(IpAddr::to_canonical) {
        if !seen.contains(&ip) {
            seen.push(ip);
        }
    }
    let mut v6 = seen.iter().filter(|ip| ip.is_ipv6());
    let mut v4 = seen.iter().filter(|ip| ip.is_ipv4());
    let mut order = Vec::with_capacity(seen.len());
    while order.len() < seen.len() {
        order.extend(v6.next().into_iter().chain(v4.next()));
    }
    order.truncate(DIAL_ADDRESSES_MAX);
    order
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn families_take_turns_ipv6_first() {
        for (given, order) in [
            (
                vec!["1.1.1.1", "2.2.2.2", "::a", "::b", "3.3.3.3"],
                vec!["::a", "1.1.1.1", "::b", "2.2.2.2", "3.3.3.3"],
            ),
            (
                vec!["1.1.1.1", "::ffff:1.1.1.1", "1.1.1.1"],
                vec!["1.1.1.1"],
            ),
            (vec!["::b", "::a"], vec!["::b", "::a"]),
            (vec![], vec![]),
        ] {
            assert_eq!(interleave(&ips(&given)), ips(&order));
        }
    }

    #[test]
    fn the_bound_leaves_places_for_both_families() {
        let mut given: Vec<IpAddr> = (1..=40u32)
            .map(|n| IpAddr::V6(u128::from(n).into()))
            .collect();
        given.push("10.0.0.1".parse().unwrap());
        let order = interleave(&given);
        assert_eq!(order.len(), DIAL_ADDRESSES_MAX);
        assert_eq!(order[1], given[40]);
    }

    proptest! {
        #[test]
        fn families_alternate_and_keep_the_resolvers_order(given in vec(address(), 0..40)) {
            let mut canonical: Vec<_> = given.iter().map(IpAddr::to_canonical).collect();
            let mut seen = std::collections::BTreeSet::new();
            canonical.retain(|ip| seen.insert(*ip));
            let (v6, v4): (Vec<_>, Vec<_>) = canonical.iter().partition(|ip| ip.is_ipv6());
            let order = interleave(&given);
            prop_assert_eq!(order.len(), canonical.len().min(DIAL_ADDRESSES_MAX));
            let paired = 2 * v6.len().min(v4.len());
            for (at, ip) in order.iter().enumerate() {
                let (half, rest) = (at / 2, at.saturating_sub(paired / 2));
                let wanted: IpAddr = match (at < paired, at % 2) {
                    (true, 0) => v6[half],
                    (true, _) => v4[half],
                    (false, _) if v6.len() > v4.len() => v6[rest],
                    (false, _) => v4[rest],
                };
                prop_assert_eq!(*ip, wanted);
            }
        }
    }

    /// Few addresses, so that some come twice, also as IPv4-mapped ones.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0..20u32).prop_map(|n| IpAddr::V4(n.into())),
            (0..20u32).prop_map(|n| std::net::Ipv4Addr::from(n).to_ipv6_mapped().into()),
            (1..20u128).prop_map(|n| IpAddr::V6((n << 64).into())),
        ]
    }

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }
}
