//! The routing table: the routes of many connections, searched from the most specific down (design 3.4).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use smallvec::SmallVec;

use super::domain_table::{ConnList, DomainMatches, DomainTable};
use crate::{id::ConnId, route::RouteSet, target::Host};

/// The route sets of all connections.
///
/// Addresses match the subnets that contain them, host bits masked; names match exact routes and wildcards; a name
/// never matches a subnet and an address never a name (agent-tunnel 10). The table knows nothing of agents, load or
/// liveness.
#[derive(Debug, Default)]
pub struct RouteTable {
    sets: BTreeMap<ConnId, Arc<RouteSet>>,
    v4: PrefixMap<Ipv4Net, ConnList>,
    v6: PrefixMap<Ipv6Net, ConnList>,
    domains: DomainTable,
}

/// All connections that advertise one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung<'a> {
    /// The route.
    pub route: Matched,
    /// Who advertises it, in ascending order, at least one, each once.
    pub conns: &'a [ConnId],
}

/// What matched a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// A subnet, host bits masked.
    Subnet(IpNet),
    /// The exact name.
    Exact,
    /// A wildcard.
    Wildcard {
        /// Length of its suffix in bytes, without `*.`.
        suffix_len: usize,
    },
}

impl RouteTable {
    /// Makes a table without routes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a connection's routes in the place of those it had. Takes time in proportion to both sets, not to the
    /// table. Routes written twice count once.
    pub fn replace(&mut self, conn: ConnId, routes: RouteSet) {
        self.remove(conn);
        for net in &routes.subnets {
            match net {
                IpNet::V4(net) => self.v4.entry(net.trunc()).or_default().insert(conn),
                IpNet::V6(net) => self.v6.entry(net.trunc()).or_default().insert(conn),
            }
        }
        for route in &routes.domains {
            self.domains.insert(conn, &route.pattern);
        }
        self.sets.insert(conn, Arc::new(routes));
    }

    /// Takes a connection's routes out and gives them back; none where it had none.
    pub fn remove(&mut self, conn: ConnId) -> Option<Arc<RouteSet>> {
        let routes = self.sets.remove(&conn)?;
        for net in &routes.subnets {
            match net {
                IpNet::V4(net) => take_out(&mut self.v4, net.trunc(), conn),
                IpNet::V6(net) => take_out(&mut self.v6, net.trunc(), conn),
            }
        }
        for route in &routes.domains {
            self.domains.remove(conn, &route.pattern);
        }
        Some(routes)
    }

    /// The routes of a connection, as it advertised them.
    #[must_use]
    pub fn routes(&self, conn: ConnId) -> Option<&Arc<RouteSet>> {
        self.sets.get(&conn)
    }

    /// Walks the ladder of specificity for a host, the most specific rung first: longest prefix for an address; the
    /// exact name, then the longest suffix, for a name. Rungs nobody asks for are not searched for names.
    #[must_use]
    pub fn lookup(&self, host: &Host) -> Rungs<'_> {
        Rungs(match host {
            Host::Ip(IpAddr::V4(ip)) => {
                let cover = self.v4.cover(&(*ip).into());
                Ladder::Subnets(cover.map(|(net, l)| (net.into(), l.as_slice())).collect())
            }
            Host::Ip(IpAddr::V6(ip)) => {
                let cover = self.v6.cover(&(*ip).into());
                Ladder::Subnets(cover.map(|(net, l)| (net.into(), l.as_slice())).collect())
            }
            Host::Name(name) => Ladder::Names {
                name_len: name.len(),
                matches: self.domains.lookup(name),
            },
        })
    }
}

/// The rungs that match one host, best first; see [`RouteTable::lookup`].
#[derive(Clone, Debug)]
pub struct Rungs<'a>(Ladder<'a>);

#[derive(Clone, Debug)]
enum Ladder<'a> {
    /// From the shortest prefix to the longest, so that the end is the best.
    Subnets(SmallVec<[(IpNet, &'a [ConnId]); 4]>),
    Names {
        name_len: usize,
        matches: DomainMatches<'a>,
    },
}

impl<'a> Iterator for Rungs<'a> {
    type Item = Rung<'a>;

    fn next(&mut self) -> Option<Rung<'a>> {
        match &mut self.0 {
            Ladder::Subnets(nets) => nets.pop().map(|(net, conns)| Rung {
                route: Matched::Subnet(net),
                conns,
            }),
            Ladder::Names { name_len, matches } => {
                let (len, conns) = matches.next_list()?;
                let route = if len == *name_len {
                    Matched::Exact
                } else {
                    Matched::Wildcard { suffix_len: len }
                };
                Some(Rung { route, conns })
            }
        }
    }
}

impl Matched {
    /// Orders routes that match one host: of two, the more specific one has the greater value.
    #[must_use]
    pub fn specificity(&self) -> usize {
        match self {
            Self::Subnet(net) => net.prefix_len().into(),
            Self::Exact => usize::MAX,
            Self::Wildcard { suffix_len } => *suffix_len,
        }
    }

    /// Writes the route as an agent would advertise it; `host` is the one that was looked up.
    #[must_use]
    pub fn text(&self, host: &Host) -> String {
        match (self, host) {
            (Self::Subnet(net), _) => net.to_string(),
            (Self::Wildcard { suffix_len }, Host::Name(name)) => {
                let suffix = name.len().checked_sub(*suffix_len);
                format!("*.{}", suffix.and_then(|at| name.get(at..)).unwrap_or(name))
            }
            (Self::Exact | Self::Wildcard { .. }, _) => host.to_string(),
        }
    }
}

fn take_out<P: prefix_trie::Prefix>(map: &mut PrefixMap<P, ConnList>, net: P, conn: ConnId) {
    if map.get_mut(&net).is_some_and(|list| list.remove(conn)) {
        map.remove(&net);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::{domain::DomainPattern, route::DomainRoute};

    #[test]
    fn longest_prefix_comes_first_and_host_bits_do_not_count() {
        let mut table = RouteTable::new();
        table.replace(ConnId(1), set(&["10.0.0.0/8", "::/0"], &[]));
        table.replace(ConnId(2), set(&["10.1.9.32/16", "10.1.0.0/16"], &["*.x"]));
        table.replace(
            ConnId(3),
            set(&["10.1.2.3/32", "2001:db8::7/32"], &["10.1.2.3"]),
        );
        table.replace(ConnId(4), set(&["0.0.0.0/0"], &[]));
        for (host, wanted) in [
            ("10.1.2.3", "10.1.2.3/32 10.1.0.0/16 10.0.0.0/8 0.0.0.0/0"),
            ("10.1.2.4", "10.1.0.0/16 10.0.0.0/8 0.0.0.0/0"),
            ("11.1.2.4", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::/32 ::/0"),
            ("::ffff:10.9.2.4", "10.0.0.0/8 0.0.0.0/0"),
            ("fe80::1", "::/0"),
            ("a.b.X", "*.x"),
            ("x", ""),
        ] {
            let host: Host = host.parse().unwrap();
            let texts: Vec<_> = table.lookup(&host).map(|r| r.route.text(&host)).collect();
            assert_eq!(texts.join(" "), wanted, "{host}");
        }
        assert_eq!(table.routes(ConnId(2)).unwrap().subnets.len(), 2);
        for conn in 1..=4 {
            assert!(table.remove(ConnId(conn)).is_some());
            assert!(table.remove(ConnId(conn)).is_none());
        }
        assert!(table.v4.is_empty() && table.v6.is_empty() && table.domains.is_empty());
    }

    fn set(subnets: &[&str], domains: &[&str]) -> RouteSet {
        RouteSet {
            subnets: subnets.iter().map(|s| s.parse().unwrap()).collect(),
            domains: domains.iter().map(|d| domain(d)).collect(),
        }
    }

    fn domain(text: &str) -> DomainRoute {
        DomainRoute {
            pattern: DomainPattern::parse(text).unwrap(),
            auto_detected: false,
        }
    }

    /// The model: every route of every connection is asked, then sorted by its weight.
    fn naive(sets: &BTreeMap<ConnId, RouteSet>, host: &Host) -> Vec<(String, Vec<ConnId>)> {
        let mut rungs = BTreeMap::<(usize, String), Vec<ConnId>>::new();
        for (&conn, routes) in sets {
            let hits: Vec<(usize, String)> = match host {
                Host::Ip(ip) => {
                    let hits = routes.subnets.iter().filter(|net| net.contains(ip));
                    hits.map(|net| (net.prefix_len().into(), net.trunc().to_string()))
                        .collect()
                }
                Host::Name(name) => {
                    let hits = routes.domains.iter().map(|d| &d.pattern);
                    let weight = |p: &DomainPattern| p.suffix().map_or(usize::MAX, str::len);
                    hits.filter(|p| p.matches(name))
                        .map(|p| (weight(p), p.to_string()))
                        .collect()
                }
            };
            for hit in hits {
                let conns = rungs.entry(hit).or_default();
                if conns.last() != Some(&conn) {
                    conns.push(conn);
                }
            }
        }
        let rungs = rungs.into_iter().rev();
        rungs.map(|((_, text), conns)| (text, conns)).collect()
    }

    fn nets() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (0u8..=32, select(vec![0u32, 1, 2, 0x0100_0000, 0x0101_0000])).prop_map(|(len, ip)| {
                IpNet::new(IpAddr::V4((0x0a00_0000 + ip).into()), len).unwrap()
            }),
            (0u8..=128, 0u128..4).prop_map(|(len, ip)| {
                IpNet::new(IpAddr::V6(((0x2001 << 112) + ip).into()), len).unwrap()
            }),
        ]
    }

    fn hosts() -> impl Strategy<Value = Host> {
        let names = vec(select(vec!["a", "b", "A-", "a0"]), 1..5);
        prop_oneof![
            select(vec![0u32, 1, 3, 0x0101_0001, 0xf000_0000])
                .prop_map(|ip| Host::Ip(IpAddr::V4(ip.wrapping_add(0x0a00_0000).into()))),
            (0u128..5).prop_map(|ip| Host::Ip(IpAddr::V6(((0x2001 << 112) + ip).into()))),
            names.prop_map(|labels| labels.join(".").parse().unwrap()),
        ]
    }

    fn sets() -> impl Strategy<Value = RouteSet> {
        let name = vec(select(vec!["a", "b", "a-", "A0"]), 1..5);
        let domains = (any::<bool>(), name).prop_map(|(wildcard, labels)| {
            domain(&format!(
                "{}{}",
                if wildcard { "*." } else { "" },
                labels.join(".")
            ))
        });
        (vec(nets(), 0..6), vec(domains, 0..8))
            .prop_map(|(subnets, domains)| RouteSet { subnets, domains })
    }

    proptest! {
        #[test]
        fn table_agrees_with_asking_every_route(
            steps in vec((0u64..6, prop::option::weighted(0.7, sets())), 1..20),
            hosts in vec(hosts(), 1..20),
        ) {
            let (mut table, mut model) = (RouteTable::new(), BTreeMap::new());
            for (conn, change) in steps {
                let conn = ConnId(conn);
                if let Some(routes) = change {
                    model.insert(conn, routes.clone());
                    table.replace(conn, routes);
                } else {
                    prop_assert_eq!(table.remove(conn), model.remove(&conn).map(Arc::new));
                }
                for host in &hosts {
                    let found = table.lookup(host).map(|r| (r.route.text(host), r.conns.to_vec()));
                    prop_assert_eq!(found.collect::<Vec<_>>(), naive(&model, host), "{}", host);
                }
                prop_assert_eq!(table.routes(conn).map(|r| &**r), model.get(&conn));
            }
            for conn in 0..6 {
                table.remove(ConnId(conn));
            }
            prop_assert!(table.v4.is_empty() && table.v6.is_empty() && table.domains.is_empty());
        }
    }
}
