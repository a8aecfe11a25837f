//! Which addresses of a target may be dialled (agent-tunnel 11.1, design 3.10).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{domain::DomainPattern, route::RouteSet, target::Host};

/// Decides, after resolution, which addresses of a target may be dialled. This is the agent's security boundary: the
/// gateway is not trusted to ask only for what was advertised.
///
/// * An address literal must lie in a granted subnet.
/// * A name that matches a granted domain may lead to any address; any other name only to addresses in granted subnets.
/// * Either way an address in a [`SpecialRange`] is refused, unless it lies in a granted subnet that is itself within
///   that range: `0.0.0.0/0` does not open loopback, `127.0.0.0/8` and `127.0.0.1/32` do. Where ranges nest, each one
///   has to be opened: `169.254.0.0/16` opens link-local but not the metadata address in it.
///
/// IPv4-mapped IPv6 addresses are judged as the IPv4 addresses they stand for. Addresses below the well-known NAT64
/// prefix `64:ff9b::/96` (RFC 6052 2.1) and 6to4 addresses (`2002::/16`) are special where the embedded IPv4 address is.
/// Those of a local NAT64 (`64:ff9b:1::/48`, RFC 8215) are special as such, and once more where their last 32 bits are
/// a special IPv4 address: where else one may be embedded there is the network's choice. There is no port filter.
#[derive(Clone, Debug)]
pub struct Policy {
    subnets: Vec<IpNet>,
    domains: Vec<DomainPattern>,
    grant: Grant,
}

impl Policy {
    /// Grants what an agent advertises. Host bits of subnets are masked.
    #[must_use]
    pub fn new(routes: &RouteSet) -> Self {
        let domains = routes.domains.iter().map(|route| route.pattern.clone());
        Self::granted(Grant::Advertised, &routes.subnets, domains.collect())
    }

    /// Grants what the operator of a gateway lists for dialling without an agent (design 8.9). Empty lists refuse all.
    #[must_use]
    pub fn direct(subnets: &[IpNet], domains: Vec<DomainPattern>) -> Self {
        Self::granted(Grant::Direct, subnets, domains)
    }

    fn granted(grant: Grant, subnets: &[IpNet], domains: Vec<DomainPattern>) -> Self {
        Self {
            subnets: subnets.iter().map(canonical).collect(),
            domains,
            grant,
        }
    }

    /// Tells whether a target is worth resolving: refuses an address outside the policy and a name of which no address
    /// could be allowed, so that a gateway cannot use the agent to ask foreign names.
    ///
    /// # Errors
    /// [`PolicyError`], whose text is meant for the user and the operator.
    pub fn check(&self, host: &Host) -> Result<(), PolicyError> {
        match host {
            Host::Ip(ip) => self.permit(ip.to_canonical(), false),
            Host::Name(name) if self.subnets.is_empty() && !self.covers(name) => {
                Err(self.name_refused(name))
            }
            Host::Name(_) => Ok(()),
        }
    }

    /// Keeps the addresses of a host that may be dialled: canonical, in the given order, each once. For an address
    /// literal `resolved` is ignored.
    ///
    /// # Errors
    /// [`PolicyError`] where none is left, and thus also where `resolved` is empty.
    pub fn admit(&self, host: &Host, resolved: &[IpAddr]) -> Result<Vec<IpAddr>, PolicyError> {
        let name = match host {
            Host::Ip(ip) => {
                let ip = ip.to_canonical();
                return self.permit(ip, false).map(|()| vec![ip]);
            }
            Host::Name(name) => name,
        };
        let any = self.covers(name);
        let mut allowed: Vec<IpAddr> = Vec::new();
        let mut special = None;
        for ip in resolved.iter().map(IpAddr::to_canonical) {
            match self.permit(ip, any) {
                Ok(()) if allowed.contains(&ip) => {}
                Ok(()) => allowed.push(ip),
                Err(error @ PolicyError::Special { .. }) => special = special.or(Some(error)),
                Err(PolicyError::Address { .. } | PolicyError::Name { .. }) => {}
            }
        }
        match (allowed.is_empty(), special) {
            (false, _) => Ok(allowed),
            (true, Some(error)) => Err(error),
            (true, None) => Err(self.name_refused(name)),
        }
    }

    /// Judges one canonical address; `any` where its name is granted.
    fn permit(&self, ip: IpAddr, any: bool) -> Result<(), PolicyError> {
        let grant = self.grant;
        for (range, net) in special_ranges(ip) {
            let opens = |granted: &IpNet| net.contains(granted) && granted.contains(&ip);
            if net.contains(&ip) && !self.subnets.iter().any(opens) {
                return Err(PolicyError::Special {
                    ip,
                    range,
                    net,
                    grant,
                });
            }
        }
        if any || self.subnets.iter().any(|net| net.contains(&ip)) {
            Ok(())
        } else {
            Err(PolicyError::Address { ip, grant })
        }
    }

    fn covers(&self, name: &str) -> bool {
        self.domains.iter().any(|pattern| pattern.matches(name))
    }

    fn name_refused(&self, name: &str) -> PolicyError {
        PolicyError::Name {
            name: name.into(),
            grant: self.grant,
        }
    }
}

/// Why no address of a target may be dialled. The text travels to the gateway as the reason of the refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The target is an address outside every granted subnet.
    #[error("not allowed: {ip} is in no subnet that is {grant}")]
    Address {
        /// The address.
        ip: IpAddr,
        /// Whose policy it is.
        grant: Grant,
    },
    /// The name matches no granted domain and none of its addresses lies in a granted subnet.
    #[error(
        "not allowed: {name} matches no domain that is {grant}, and none of its addresses is in such a subnet"
    )]
    Name {
        /// The name.
        name: Box<str>,
        /// Whose policy it is.
        grant: Grant,
    },
    /// The target, or every address of the name that would have been allowed, lies in a range that has to be opened
    /// explicitly.
    #[error(
        "not allowed: {ip} is {range}, which is refused unless a subnet within {net} that holds it is {grant}"
    )]
    Special {
        /// The first such address.
        ip: IpAddr,
        /// What it is.
        range: SpecialRange,
        /// The range within which a granted subnet must lie.
        net: IpNet,
        /// Whose policy it is.
        grant: Grant,
    },
}

/// Whose policy refuses, for the words of the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// An agent's, from its routes.
    Advertised,
    /// A gateway's, from its list of direct targets.
    Direct,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Advertised => "advertised by the agent",
            Self::Direct => "allowed for direct dialling",
        })
    }
}

/// What an address is that no network operator means by a wide subnet or by a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialRange {
    /// The machine itself: `127.0.0.0/8`, `::1`.
    Loopback,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// Where clouds hand out credentials: `169.254.169.254`, `100.100.100.200`, `192.0.0.192`, `fd00:ec2::254`,
    /// `fd20:ce::254`.
    Metadata,
    /// `64:ff9b:1::/48`: leads to an IPv4 address that cannot be told from it.
    LocalNat64,
    /// `0.0.0.0/8`, `::`; connecting there reaches the machine itself.
    Unspecified,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
}

impl fmt::Display for SpecialRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud metadata address",
            Self::LocalNat64 => "an address of a local NAT64",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
        })
    }
}

/// A subnet without host bits, and as IPv4 where it is one below `::ffff:0:0/96`.
fn canonical(net: &IpNet) -> IpNet {
    match net.trunc() {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => {
            let mapped = v6.addr().to_ipv4_mapped();
            let v4 = mapped.and_then(|ip| Ipv4Net::new(ip, v6.prefix_len() - 96).ok());
            v4.map_or(IpNet::V6(v6), IpNet::V4)
        }
        other @ (IpNet::V4(_) | IpNet::V6(_)) => other,
    }
}

/// The special ranges that `ip` may lie in; those of IPv4 also where they are embedded.
fn special_ranges(ip: IpAddr) -> impl Iterator<Item = (SpecialRange, IpNet)> {
    let v4 = SPECIAL_V4.iter().map(|&(range, net)| (range, net.into()));
    let embedded = move |prefix: Ipv6Net| {
        let shift = 96 - prefix.prefix_len();
        SPECIAL_V4.iter().filter_map(move |&(range, net)| {
            let bits = prefix.addr().to_bits() | u128::from(net.addr().to_bits()) << shift;
            let len = prefix.prefix_len() + net.prefix_len();
            Some((range, Ipv6Net::new(bits.into(), len).ok()?.into()))
        })
    };
    let local = match ip {
        // Last bits of zero belong to a prefix that embeds the address further up.
        IpAddr::V6(ip) if LOCAL_NAT64.contains(&ip) && ip.to_bits() << 96 != 0 => {
            Ipv6Net::new(ip, 96).ok().map(|net| net.trunc())
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    let prefixes = [NAT64, SIX_TO_FOUR].into_iter().chain(local);
    let v6 = SPECIAL_V6.iter().map(|&(range, net)| (range, net.into()));
    v4.chain(prefixes.flat_map(embedded)).chain(v6)
}

/// RFC 6052 2.1.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
/// RFC 8215.
const LOCAL_NAT64: Ipv6Net = v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
/// RFC 3056 2.
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

/// The narrower range of a nested pair first, so that a refusal names it.
const SPECIAL_V4: [(SpecialRange, Ipv4Net); 8] = [
    (SpecialRange::Metadata, v4([169, 254, 169, 254], 32)),
    (SpecialRange::Metadata, v4([100, 100, 100, 200], 32)),
    (SpecialRange::Metadata, v4([192, 0, 0, 192], 32)),
    (SpecialRange::LinkLocal, v4([169, 254, 0, 0], 16)),
    (SpecialRange::Loopback, v4([127, 0, 0, 0], 8)),
    (SpecialRange::Unspecified, v4([0, 0, 0, 0], 8)),
    (SpecialRange::Multicast, v4([224, 0, 0, 0], 4)),
    (SpecialRange::Broadcast, v4([255, 255, 255, 255], 32)),
];

const SPECIAL_V6: [(SpecialRange, Ipv6Net); 7] = [
    (
        SpecialRange::Metadata,
        v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    ),
    (
        SpecialRange::Metadata,
        v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
    ),
    (SpecialRange::LocalNat64, LOCAL_NAT64),
    (
        SpecialRange::LinkLocal,
        v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    ),
    (SpecialRange::Loopback, v6([0, 0, 0, 0, 0, 0, 0, 1], 128)),
    (SpecialRange::Unspecified, v6([0; 8], 128)),
    (
        SpecialRange::Multicast,
        v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    ),
];

const fn v4(ip: [u8; 4], prefix_len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from_octets(ip), prefix_len)
}

const fn v6(ip: [u16; 8], prefix_len: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = ip;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::DomainRoute;

    #[test]
    fn literals_must_lie_in_a_subnet() {
        let nets = ["10.1.9.32/16", "2001:db8::/32", "::ffff:192.168.0.0/112"];
        for (ip, allowed) in [
            ("10.1.0.1", true),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("::ffff:10.1.0.1", true),
            ("::ffff:10.2.0.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("192.168.7.7", true),
            ("192.169.0.1", false),
        ] {
            assert_eq!(literal(&nets, ip).is_ok(), allowed, "{ip}");
        }
        assert_eq!(literal(&nets, "::ffff:10.1.0.1"), Ok(ips(&["10.1.0.1"])));
    }

    #[test]
    fn special_ranges_need_a_subnet_within_them() {
        let all = ["0.0.0.0/0", "::/0"];
        for (ip, range, opener) in [
            ("127.0.0.1", SpecialRange::Loopback, "127.0.0.0/8"),
            ("127.0.0.1", SpecialRange::Loopback, "127.0.0.1/32"),
            ("::ffff:127.0.0.1", SpecialRange::Loopback, "127.0.0.1/32"),
            ("::1", SpecialRange::Loopback, "::1/128"),
            (
                "64:ff9b::7f00:1",
                SpecialRange::Loopback,
                "64:ff9b::7f00:0/104",
            ),
            ("169.254.1.1", SpecialRange::LinkLocal, "169.254.0.0/16"),
            ("fe80::1", SpecialRange::LinkLocal, "fe80::/10"),
            ("febf::1", SpecialRange::LinkLocal, "febf::/16"),
            (
                "169.254.169.254",
                SpecialRange::Metadata,
                "169.254.169.254/32",
            ),
            ("fd00:ec2::254", SpecialRange::Metadata, "fd00:ec2::254/128"),
            ("fd20:ce::254", SpecialRange::Metadata, "fd20:ce::254/128"),
            (
                "100.100.100.200",
                SpecialRange::Metadata,
                "100.100.100.200/32",
            ),
            ("192.0.0.192", SpecialRange::Metadata, "192.0.0.192/32"),
            ("2002:7f00:1::1", SpecialRange::Loopback, "2002:7f00::/24"),
            (
                "64:ff9b:1::a00:1",
                SpecialRange::LocalNat64,
                "64:ff9b:1::/96",
            ),
            (
                "64:ff9b:1:a00:0:100::",
                SpecialRange::LocalNat64,
                "64:ff9b:1::/48",
            ),
            ("0.0.0.0", SpecialRange::Unspecified, "0.0.0.0/32"),
            ("0.1.2.3", SpecialRange::Unspecified, "0.0.0.0/8"),
            ("::", SpecialRange::Unspecified, "::/128"),
            ("239.1.1.1", SpecialRange::Multicast, "224.0.0.0/4"),
            ("ff02::1", SpecialRange::Multicast, "ff00::/8"),
            (
                "255.255.255.255",
                SpecialRange::Broadcast,
                "255.255.255.255/32",
            ),
        ] {
            match literal(&all, ip) {
                Err(PolicyError::Special { range: found, .. }) => assert_eq!(found, range, "{ip}"),
                other => panic!("{ip}: {other:?}"),
            }
            assert!(literal(&["0.0.0.0/0", opener], ip).is_ok(), "{ip}");
        }
    }

    #[test]
    fn wider_subnets_do_not_open_what_is_nested() {
        for (nets, ip) in [
            (["169.254.0.0/16"], "169.254.169.254"),
            (["100.64.0.0/10"], "100.100.100.200"),
            (["fd20::/16"], "fd20:ce::254"),
            (["2002::/16"], "2002:a9fe:a9fe::1"),
            (["64:ff9b:1::/48"], "64:ff9b:1:2::7f00:1"),
            (["64:ff9b:1:2::/96"], "64:ff9b:1:2::a9fe:a9fe"),
            (["fd00::/8"], "fd00:ec2::254"),
            (["126.0.0.0/7"], "127.0.0.1"),
            (["127.0.0.2/32"], "127.0.0.1"),
        ] {
            let refused = literal(&nets, ip).unwrap_err();
            assert!(matches!(refused, PolicyError::Special { .. }), "{ip}");
        }
    }

    #[test]
    fn advertised_names_lead_anywhere_but_to_special_ranges() {
        let policy = policy(&["10.0.0.0/8"], &["*.corp.local", "db.other"]);
        let found = ips(&["8.8.8.8", "127.0.0.1", "::ffff:8.8.8.8", "2001:db8::1"]);
        for name in ["a.corp.local", "a.b.corp.local", "db.other"] {
            let allowed = policy.admit(&host(name), &found);
            assert_eq!(allowed, Ok(ips(&["8.8.8.8", "2001:db8::1"])), "{name}");
        }
        let loopback = policy.admit(&host("db.other"), &ips(&["127.0.0.1"]));
        assert!(matches!(loopback, Err(PolicyError::Special { .. })));
    }

    #[test]
    fn other_names_lead_into_subnets_only() {
        let policy = policy(&["10.0.0.0/8", "fd12::/16"], &["*.corp.local"]);
        let found = ips(&["8.8.8.8", "10.1.1.1", "fd12::1", "fd13::1", "10.1.1.1"]);
        let allowed = policy.admit(&host("corp.local"), &found);
        assert_eq!(allowed, Ok(ips(&["10.1.1.1", "fd12::1"])));
        let refused = policy.admit(&host("corp.local"), &ips(&["8.8.8.8"]));
        assert!(matches!(refused, Err(PolicyError::Name { .. })));
        assert!(policy.admit(&host("a.corp.local"), &[]).is_err());
    }

    #[test]
    fn names_that_cannot_be_allowed_are_not_worth_resolving() {
        let names_only = policy(&[], &["*.corp.local"]);
        assert!(names_only.check(&host("a.corp.local")).is_ok());
        assert!(names_only.check(&host("elsewhere.org")).is_err());
        assert!(names_only.check(&host("10.0.0.1")).is_err());
        let with_subnet = policy(&["10.0.0.0/8"], &[]);
        assert!(with_subnet.check(&host("elsewhere.org")).is_ok());
        assert!(with_subnet.check(&host("10.0.0.1")).is_ok());
    }

    #[test]
    fn refusals_say_what_would_help() {
        let agent = policy(&["0.0.0.0/0"], &[]);
        assert_eq!(
            agent.check(&host("127.0.0.1")).unwrap_err().to_string(),
            "not allowed: 127.0.0.1 is a loopback address, which is refused unless a subnet within 127.0.0.0/8 \
             that holds it is advertised by the agent"
        );
        let direct = Policy::direct(&[], Vec::new());
        assert_eq!(
            direct.check(&host("10.0.0.1")).unwrap_err().to_string(),
            "not allowed: 10.0.0.1 is in no subnet that is allowed for direct dialling"
        );
        assert_eq!(
            direct.check(&host("db.local")).unwrap_err().to_string(),
            "not allowed: db.local matches no domain that is allowed for direct dialling, and none of its \
             addresses is in such a subnet"
        );
    }

    fn policy(nets: &[&str], names: &[&str]) -> Policy {
        let route = |name: &&str| DomainRoute {
            pattern: DomainPattern::parse(name).unwrap(),
            auto_detected: false,
        };
        Policy::new(&RouteSet {
            subnets: nets.iter().map(|net| net.parse().unwrap()).collect(),
            domains: names.iter().map(route).collect(),
        })
    }

    /// Judges a literal, also one that `Host` would not hold in this form.
    fn literal(nets: &[&str], ip: &str) -> Result<Vec<IpAddr>, PolicyError> {
        policy(nets, &[]).admit(&Host::Ip(ip.parse().unwrap()), &[])
    }

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }
}
