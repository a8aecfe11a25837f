use ipnet::IpNet;

use crate::{
    domain::DomainPattern,
    target::{Host, Target},
};
use serde::{Deserialize, Serialize};

/// Targets that a gateway may dial itself (design 8.9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectRule {
    /// Which hosts.
    pub range: DirectRange,
    /// Which port; none means all.
    pub port: Option<u16>,
}

/// The hosts of one [`DirectRule`]. A name is not resolved for this: it matches names only, an address only subnets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectRange {
    /// Addresses, host bits masked.
    Subnet(IpNet),
    /// A name, or all names below a suffix.
    Domain(DomainPattern),
}

impl DirectRule {
    /// Tells whether a target falls under the rule.
    #[must_use]
    pub fn allows(&self, target: &Target) -> bool {
        let host = match (&self.range, &target.host) {
            (DirectRange::Subnet(net), Host::Ip(ip)) => net.contains(ip),
            // The root's dot makes another name for routes (agent-tunnel 10), but not another host.
            (DirectRange::Domain(pattern), Host::Name(name)) => {
                pattern.matches(name.strip_suffix('.').unwrap_or(name))
            }
            (DirectRange::Subnet(_), Host::Name(_)) | (DirectRange::Domain(_), Host::Ip(_)) => {
                false
            }
        };
        host && self.port.is_none_or(|port| port == target.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_their_own_kind_and_port() {
        let subnet = |text: &str| DirectRange::Subnet(text.parse().unwrap());
        let domain = |text| DirectRange::Domain(DomainPattern::parse(text).unwrap());
        for (range, port, target, allowed) in [
            (subnet("10.0.0.1/8"), None, "10.9.9.9:1", true),
            (subnet("10.0.0.0/8"), Some(443), "10.9.9.9:443", true),
            (subnet("10.0.0.0/8"), Some(443), "10.9.9.9:444", false),
            (subnet("10.0.0.0/8"), None, "11.9.9.9:1", false),
            (subnet("0.0.0.0/0"), None, "a.b:1", false),
            (subnet("::/0"), None, "[2001:db8::1]:1", true),
            (subnet("::/0"), None, "1.1.1.1:1", false),
            (domain("*.b"), None, "a.b:1", true),
            (domain("a.b"), Some(1), "a.b:2", false),
            (domain("a.b"), None, "x.a.b:1", false),
        ] {
            let rule = DirectRule { range, port };
            assert_eq!(
                rule.allows(&target.parse().unwrap()),
                allowed,
                "{rule:?} {target}"
            );
        }
    }
}
