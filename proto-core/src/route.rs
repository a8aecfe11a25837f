//! What an agent says it reaches.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::domain::DomainPattern;

/// Subnets and domains that an agent reaches. Host bits of subnets are kept; matching masks them (agent-tunnel 6.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSet {
    /// Address ranges.
    pub subnets: Vec<IpNet>,
    /// Names.
    pub domains: Vec<DomainRoute>,
}

/// One advertised name or suffix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DomainRoute {
    /// Exact name or wildcard.
    pub pattern: DomainPattern,
    /// Found by the agent itself, not written by its operator.
    pub auto_detected: bool,
}

impl RouteSet {
    /// Subnets and domains together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subnets.len() + self.domains.len()
    }

    /// Tells whether nothing is advertised.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subnets.is_empty() && self.domains.is_empty()
    }
}
