//! What gateways say of what they hold (docs/protocol-peer.md, "Catalogue").

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    domain::DomainPattern,
    id::AgentId,
    limits::{AGENTS_MAX, CATALOGUE_ANSWER_LEN_MAX, CATALOGUE_LEN_MAX, CATALOGUE_ROUTES_MAX},
    peer::{
        NodeId,
        body::{Body, Call},
        rpc_type::RpcType,
    },
    route::{DomainRoute, RouteSet},
};

/// Agents and routes that one gateway holds itself. What it knows of other gateways' is no part of it, so that nothing
/// goes further than one hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Agents that are connected, in ascending order.
    pub agents: Vec<AgentId>,
    /// Subnets that at least one of them takes sessions for, host bits masked, in ascending order.
    pub subnets: Vec<IpNet>,
    /// Names likewise.
    pub domains: Vec<DomainPattern>,
}

/// How recent a gateway's announcement is: its start, then its change within that.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Stamp {
    /// Counts the starts of the gateway (peer-rpc 7.3).
    pub epoch: u64,
    /// Counts the changes since then.
    pub version: u64,
}

/// What a gateway tells a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Who holds it. It has to be the sender: a gateway speaks for itself only.
    pub node: NodeId,
    /// How recent it is.
    pub stamp: Stamp,
    /// What it says.
    pub news: News,
}

/// What an [`Announcement`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// Everything that the gateway holds.
    Whole(Holding),
    /// It holds what it told with the same stamp.
    Unchanged,
    /// It is stopping, and takes no sessions.
    Goodbye,
}

/// What the peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// What it holds of the sender now; none where that ran out, or was never told.
    pub held: Option<Stamp>,
    /// The highest stamp that it ever saw of the sender.
    pub highest: Stamp,
}

impl Holding {
    /// Puts everything in order, each once, and leaves out names that no target can have, and what is beyond
    /// [`AGENTS_MAX`] agents, [`CATALOGUE_ROUTES_MAX`] routes or [`CATALOGUE_LEN_MAX`] bytes. Tells how much was beyond.
    pub fn tidy(&mut self) -> usize {
        self.agents.sort_unstable();
        self.agents.dedup();
        self.subnets.iter_mut().for_each(|net| *net = net.trunc());
        self.subnets.sort_unstable();
        self.subnets.dedup();
        self.domains.retain(|d| d.as_str().len() <= DOMAIN_LEN_MAX);
        self.domains.sort_unstable();
        self.domains.dedup();
        let before = self.len();
        self.agents.truncate(AGENTS_MAX);
        self.subnets.truncate(CATALOGUE_ROUTES_MAX);
        let left = CATALOGUE_ROUTES_MAX.saturating_sub(self.subnets.len());
        self.domains.truncate(left);
        let mut size = 0_usize;
        let fit = self.domains.iter().take_while(|domain| {
            size = size.saturating_add(domain.as_str().len()).saturating_add(2);
            size <= DOMAINS_SIZE_MAX
        });
        self.domains.truncate(fit.count());
        before.saturating_sub(self.len())
    }

    /// Agents and routes together.
    #[must_use]
    pub fn len(&self) -> usize {
        let routes = self.subnets.len().saturating_add(self.domains.len());
        self.agents.len().saturating_add(routes)
    }

    /// Tells whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether an agent is held.
    #[must_use]
    pub fn has_agent(&self, agent: AgentId) -> bool {
        self.agents.binary_search(&agent).is_ok()
    }

    /// The routes as a routing table takes them.
    #[must_use]
    pub fn routes(&self) -> RouteSet {
        let domain = |pattern: &DomainPattern| DomainRoute {
            pattern: pattern.clone(),
            auto_detected: false,
        };
        RouteSet {
            subnets: self.subnets.clone(),
            domains: self.domains.iter().map(domain).collect(),
        }
    }

    /// Tells whether it is what [`Holding::tidy`] leaves: a peer's that is not is refused.
    pub(super) fn is_tidy(&self) -> bool {
        let routes = self.subnets.len().saturating_add(self.domains.len());
        let bounded = self.agents.len() <= AGENTS_MAX && routes <= CATALOGUE_ROUTES_MAX;
        let masked = self.subnets.iter().all(|net| *net == net.trunc());
        let short = |d: &DomainPattern| d.as_str().len() <= DOMAIN_LEN_MAX;
        bounded
            && masked
            && self.domains.iter().all(short)
            && self.agents.is_sorted_by(|a, b| a < b)
            && self.subnets.is_sorted_by(|a, b| a < b)
            && self.domains.is_sorted_by(|a, b| a < b)
    }
}

impl Announcement {
    /// Tells whether a payload begins as a whole announcement, of which nothing further is read.
    pub(super) fn is_whole(payload: &[u8]) -> bool {
        let head = postcard::take_from_bytes::<(NodeId, Stamp, u32)>(payload);
        head.is_ok_and(|((_, _, news), _)| news == WHOLE)
    }
}

impl Body for Announcement {
    const KIND: RpcType = RpcType::Catalogue;
    const LEN_MAX: usize = CATALOGUE_LEN_MAX;
}

impl Call for Announcement {
    type Answer = Received;
}

impl Body for Received {
    const KIND: RpcType = RpcType::CatalogueAnswer;
    const LEN_MAX: usize = CATALOGUE_ANSWER_LEN_MAX;
}

/// The number of [`News::Whole`] in its payload.
const WHOLE: u32 = 0;

/// Longest route for a name, in bytes: a name of 255 behind `*.`. No target matches a longer one.
const DOMAIN_LEN_MAX: usize = 257;

/// Bytes of names in one announcement, so that agents and subnets have room beside them.
const DOMAINS_SIZE_MAX: usize = CATALOGUE_LEN_MAX - (2 << 20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::body::BodyError;
    use uuid::Uuid;

    fn domain(text: &str) -> DomainPattern {
        DomainPattern::parse(text).unwrap()
    }

    fn agent(n: usize) -> AgentId {
        AgentId(Uuid::from_u128(n as u128))
    }

    #[test]
    fn a_holding_is_put_in_order() {
        let mut holding = Holding {
            agents: [3, 1, 3].map(agent).to_vec(),
            subnets: ["10.1.2.3/8", "::1/64", "10.0.0.0/8"]
                .map(|net| net.parse().unwrap())
                .to_vec(),
            domains: vec![
                domain("b.x"),
                domain("*.x"),
                domain(&"a".repeat(258)),
                domain("B.x"),
            ],
        };
        assert!(!holding.is_tidy());
        assert_eq!(holding.tidy(), 0);
        assert!(holding.is_tidy());
        assert_eq!(holding.agents, [1, 3].map(agent));
        let subnets: Vec<String> = holding.subnets.iter().map(ToString::to_string).collect();
        assert_eq!(subnets, ["10.0.0.0/8", "::/64"]);
        assert_eq!(holding.domains, [domain("*.x"), domain("b.x")]);
        assert!(holding.has_agent(agent(3)) && !holding.has_agent(agent(2)));
        assert_eq!(holding.routes().len(), 4);
    }

    #[test]
    fn an_announcement_is_these_bytes() {
        let told = Announcement {
            node: NodeId(300),
            stamp: Stamp {
                epoch: 1,
                version: 128,
            },
            news: News::Whole(Holding {
                agents: vec![agent(5)],
                subnets: vec![
                    "10.1.0.0/16".parse().unwrap(),
                    "2001:db8::/32".parse().unwrap(),
                ],
                domains: vec![domain("*.x")],
            }),
        };
        let uuid = [&[16][..], &[0; 15], &[5]].concat();
        let v6 = [&[1, 0x20, 0x01, 0x0d, 0xb8][..], &[0; 12], &[32]].concat();
        let expected = [
            &[0xac, 2, 1, 0x80, 1, 0, 1][..],
            &uuid,
            &[2, 0, 10, 1, 0, 0, 16],
            &v6,
            b"\x01\x03*.x",
        ];
        assert_eq!(told.encode().unwrap(), expected.concat());
        assert!(Announcement::is_whole(&expected.concat()));
        let same = Announcement {
            news: News::Unchanged,
            ..told
        };
        let unchanged = [0xac, 2, 1, 0x80, 1, 1];
        assert_eq!(same.encode().unwrap(), unchanged.as_slice());
        assert!(!Announcement::is_whole(&unchanged) && !Announcement::is_whole(&unchanged[..5]));
    }

    #[test]
    fn the_largest_holding_can_be_told() {
        let name = |n: usize| domain(&format!("{n:06}.{}", "a".repeat(250)));
        let mut holding = Holding {
            agents: (0..AGENTS_MAX + 1).map(agent).collect(),
            subnets: (0..1_000_u128)
                .map(|n| ipnet::Ipv6Net::new_assert((u128::MAX - n).into(), 128).into())
                .collect(),
            domains: (0..CATALOGUE_ROUTES_MAX).map(name).collect(),
        };
        assert!(holding.tidy() > 1_001);
        assert!(holding.is_tidy());
        let stamp = Stamp {
            epoch: u64::MAX,
            version: u64::MAX,
        };
        let told = Announcement {
            node: NodeId(u64::MAX),
            stamp,
            news: News::Whole(holding),
        };
        let payload = told.encode().unwrap();
        assert_eq!(Announcement::decode(&payload), Ok(told));
        let answer = Received {
            held: Some(stamp),
            highest: stamp,
        };
        let payload = answer.encode().unwrap();
        assert_eq!(Received::decode(&payload), Ok(answer));
        let longer = [&payload[..], &[0]].concat();
        let trailing = Err(BodyError::Trailing { len: 1 });
        assert_eq!(Received::decode(&longer), trailing);
    }
}
