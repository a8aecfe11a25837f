//! Which addresses of a target may be dialled (agent-tunnel 11.1, design 3.10).

mod special;

use std::{fmt, net::IpAddr, ops::RangeInclusive};

use ipnet::{IpNet, Ipv4Net};

pub use self::special::SpecialRange;
use self::special::{special_ranges, stands_for};
use crate::{
    domain::DomainPattern,
    route::RouteSet,
    target::{Host, Target},
};

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
/// a special IPv4 address: where else one may be embedded there is the network's choice.
///
/// [`Restrictions`] stand above all of that: they only forbid.
#[derive(Clone, Debug)]
pub struct Policy {
    subnets: Vec<IpNet>,
    domains: Vec<DomainPattern>,
    grant: Grant,
    restrictions: Restrictions,
}

/// What an operator forbids, whatever is granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// The ports that may be dialled; empty means all.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Addresses that are never dialled, also where IPv6 addresses of NAT64 and 6to4 lead to them.
    pub deny: Vec<IpNet>,
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
            restrictions: Restrictions::default(),
        }
    }

    /// The same with restrictions. Host bits of subnets are masked.
    #[must_use]
    pub fn restricted(self, restrictions: &Restrictions) -> Self {
        Self {
            restrictions: Restrictions {
                ports: restrictions.ports.clone(),
                deny: restrictions.deny.iter().map(canonical).collect(),
            },
            ..self
        }
    }

    /// Tells whether a target is worth resolving: refuses an address outside the policy and a name of which no address
    /// could be allowed, so that a gateway cannot use the agent to ask foreign names.
    ///
    /// # Errors
    /// [`PolicyError`], whose text is meant for the user and the operator.
    pub fn check(&self, target: &Target) -> Result<(), PolicyError> {
        let ports = &self.restrictions.ports;
        if !ports.is_empty() && !ports.iter().any(|range| range.contains(&target.port)) {
            return Err(PolicyError::Port { port: target.port });
        }
        match &target.host {
            Host::Ip(ip) => self.permit(ip.to_canonical(), false),
            Host::Name(name) if self.subnets.is_empty() && !self.covers(name) => {
                Err(self.name_refused(name))
            }
            Host::Name(_) => Ok(()),
        }
    }

    /// Keeps the addresses of a target that may be dialled: canonical, in the given order, each once. For an address
    /// literal `resolved` is ignored. The port was looked at by [`check`](Self::check).
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
                Err(error @ (PolicyError::Special { .. } | PolicyError::Denied { .. })) => {
                    special = special.or(Some(error));
                }
                Err(
                    PolicyError::Address { .. }
                    | PolicyError::Name { .. }
                    | PolicyError::Port { .. },
                ) => {}
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
        let denied = |net: &&IpNet| {
            net.contains(&ip) || stands_for(ip).any(|v4| net.contains(&IpAddr::V4(v4)))
        };
        if let Some(&net) = self.restrictions.deny.iter().find(denied) {
            return Err(PolicyError::Denied { ip, net });
        }
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
    /// The operator keeps this port closed.
    #[error("not allowed: port {port} is not among the ports that the operator allows")]
    Port {
        /// The port.
        port: u16,
    },
    /// The operator keeps this address out of reach.
    #[error("not allowed: {ip} is in {net}, which the operator denies")]
    Denied {
        /// The address, or the first such address of the name.
        ip: IpAddr,
        /// What denies it.
        net: IpNet,
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

#[cfg(test)]
mod tests;
