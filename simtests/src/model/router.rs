//! Which connections a session may go through, best first, by looking at every route (agent-tunnel 10, design 3.4).

use std::{cmp::Reverse, net::IpAddr};

use adit_proto_core::{
    domain::DomainPattern,
    id::{AgentId, ConnId},
    route::RouteSet,
    target::Host,
};
use ipnet::IpNet;

/// One connection that new sessions may go through: neither suspect, silent nor superseded.
#[derive(Clone, Debug)]
pub struct Way {
    /// The connection.
    pub conn: ConnId,
    /// The agent at its other end.
    pub agent: AgentId,
    /// Its accepted routes.
    pub routes: RouteSet,
    /// Sessions open and being opened.
    pub load: usize,
    /// Position of its route set among all accepted ones, so that a greater one is newer.
    pub accepted_nth: u64,
}

/// How closely a route fits a host; greater is closer. Only values for the same host can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Specificity {
    /// A subnet with a prefix of so many bits.
    Prefix(u8),
    /// A wildcard with a suffix of so many bytes, without `*.`.
    Suffix(usize),
    /// The name itself.
    Exact,
}

/// Gives the specificity of the closest of a set's routes; none where no route covers the host.
#[must_use]
pub fn specificity(routes: &RouteSet, host: &Host) -> Option<Specificity> {
    match host {
        Host::Ip(ip) => routes.subnets.iter().filter_map(|n| subnet(n, *ip)).max(),
        Host::Name(name) => {
            let patterns = routes.domains.iter().map(|route| &route.pattern);
            patterns.filter_map(|p| domain(p, name)).max()
        }
    }
}

/// Puts the ways that cover a host in the order in which they are to be tried: the most specific first, then the
/// fewest sessions, then the newest route set.
#[must_use]
pub fn order<'a>(ways: &'a [Way], host: &Host) -> Vec<(&'a Way, Specificity)> {
    let fit = |way: &'a Way| Some((way, specificity(&way.routes, host)?));
    let mut fitting: Vec<_> = ways.iter().filter_map(fit).collect();
    fitting.sort_by_key(|(way, fit)| (Reverse(*fit), way.load, Reverse(way.accepted_nth)));
    fitting
}

/// Compares the first bits: a shorter prefix leaves fewer of them, and bits of the host part do not count.
fn subnet(net: &IpNet, ip: IpAddr) -> Option<Specificity> {
    let (net_bits, ip_bits, width) = match (net.addr(), ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => (net.to_bits().into(), ip.to_bits().into(), 32),
        (IpAddr::V6(net), IpAddr::V6(ip)) => (net.to_bits(), ip.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let prefix_len = net.prefix_len();
    let differing = u128::checked_shr(net_bits ^ ip_bits, width - u32::from(prefix_len));
    (differing.unwrap_or(0) == 0).then_some(Specificity::Prefix(prefix_len))
}

/// A plain route is the name itself; a wildcard ends it after a dot with something before.
fn domain(pattern: &DomainPattern, name: &str) -> Option<Specificity> {
    let (pattern, name) = (pattern.as_str(), name.to_ascii_lowercase());
    match pattern.strip_prefix("*.") {
        None => (pattern == name).then_some(Specificity::Exact),
        Some(suffix) => {
            let below = name.strip_suffix(suffix)?.strip_suffix('.')?;
            (!below.is_empty()).then_some(Specificity::Suffix(suffix.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_proto_core::route::DomainRoute;

    use super::*;

    #[test]
    fn the_closest_route_of_a_set_counts() {
        let routes = RouteSet {
            subnets: ["0.0.0.0/0", "10.1.2.3/8", "2001:db8::/32", "::/0"]
                .map(|net| net.parse().unwrap())
                .into(),
            domains: ["*.x", "*.b.x", "b.x"]
                .map(|text| DomainRoute {
                    pattern: DomainPattern::parse(text).unwrap(),
                    auto_detected: false,
                })
                .into(),
        };
        for (host, wanted) in [
            ("10.9.9.9", Some(Specificity::Prefix(8))),
            ("11.0.0.1", Some(Specificity::Prefix(0))),
            ("2001:db8::1", Some(Specificity::Prefix(32))),
            ("fe80::1", Some(Specificity::Prefix(0))),
            ("B.x", Some(Specificity::Exact)),
            ("a.b.x", Some(Specificity::Suffix(3))),
            ("ab.x", Some(Specificity::Suffix(1))),
            ("x", None),
            ("b.x.", None),
        ] {
            assert_eq!(
                specificity(&routes, &host.parse().unwrap()),
                wanted,
                "{host}"
            );
        }
    }
}
