//! What other gateways hold, and on which connections sessions are forwarded to them (design 8.8, 8.15).

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use super::{
    AttemptError, OpenCause,
    hub::Choice,
    routes::{Matched, RouteTable},
};
use crate::{
    id::{AgentId, ConnId},
    peer::{
        NodeId,
        catalogue::Holding,
        forward::{Answer, Status},
    },
    target::{Host, Target},
};

/// The peers of a gateway, as far as routing is concerned.
#[derive(Debug, Default)]
pub struct Peers {
    nodes: BTreeMap<NodeId, Arc<Holding>>,
    conns: BTreeMap<ConnId, Forwarding>,
    /// A routing table names by a number whose a route is; here it is the node's.
    table: RouteTable,
}

/// One connection to a peer that sessions may be forwarded on.
#[derive(Debug)]
struct Forwarding {
    node: NodeId,
    suspect: bool,
    /// Sessions open and being opened.
    load: usize,
}

/// One way for a session, through a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerChoice {
    /// The peer.
    pub node: NodeId,
    /// The connection to it.
    pub conn: ConnId,
    /// The peer's route that matched; none where the user named an agent.
    pub route: Option<Matched>,
}

impl Peers {
    /// Takes what a peer holds in the place of what it held; an empty holding forgets the peer.
    pub(super) fn set_holding(&mut self, node: NodeId, holding: Arc<Holding>) {
        let key = ConnId(node.0);
        if holding.is_empty() {
            self.nodes.remove(&node);
            self.table.remove(key);
            return;
        }
        self.table.replace(key, holding.routes());
        self.nodes.insert(node, holding);
    }

    /// Takes a connection that sessions may be forwarded on.
    pub(super) fn connect(&mut self, conn: ConnId, node: NodeId) {
        self.conns.entry(conn).or_insert(Forwarding {
            node,
            suspect: false,
            load: 0,
        });
    }

    /// Takes a connection out.
    pub(super) fn disconnect(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    pub(super) fn set_suspect(&mut self, conn: ConnId, suspect: bool) {
        if let Some(forwarding) = self.conns.get_mut(&conn) {
            forwarding.suspect = suspect;
        }
    }

    pub(super) fn add_load(&mut self, conn: ConnId) {
        if let Some(forwarding) = self.conns.get_mut(&conn) {
            forwarding.load += 1;
        }
    }

    pub(super) fn sub_load(&mut self, conn: ConnId) {
        if let Some(forwarding) = self.conns.get_mut(&conn) {
            debug_assert!(forwarding.load > 0, "a session ended that was not counted");
            forwarding.load = forwarding.load.saturating_sub(1);
        }
    }

    /// The peer at the other end of a connection; none where it is an agent's.
    #[must_use]
    pub fn node_of(&self, conn: ConnId) -> Option<NodeId> {
        self.conns.get(&conn).map(|forwarding| forwarding.node)
    }

    /// What a peer holds.
    #[must_use]
    pub fn held_by(&self, node: NodeId) -> Option<&Holding> {
        self.nodes.get(&node).map(Arc::as_ref)
    }

    /// Sessions that are carried by a peer, or being opened through it.
    #[must_use]
    pub fn load(&self, node: NodeId) -> usize {
        let of_it = self.conns.values().filter(|f| f.node == node);
        of_it.map(|f| f.load).sum()
    }

    /// Tells whether a peer that can be reached holds an agent.
    #[must_use]
    pub fn has_agent(&self, agent: AgentId) -> bool {
        self.with_agent(agent).next().is_some()
    }

    /// Tells whether any peer holds a route for the host, however it is reached.
    #[must_use]
    pub fn is_advertised(&self, host: &Host) -> bool {
        self.table.lookup(host).next().is_some()
    }

    /// The peers that a session may be forwarded to, best first: the most specific route, then the fewest sessions, then
    /// the lower id. Each comes once. Those without a connection that works are left out.
    #[must_use]
    pub fn candidates(&self, target: &Target, agent: Option<AgentId>) -> Vec<PeerChoice> {
        if let Some(agent) = agent {
            let mut found: Vec<_> = self.with_agent(agent).collect();
            found.sort_by_key(|choice| self.rank(choice));
            return found;
        }
        let mut found: Vec<PeerChoice> = Vec::new();
        for rung in self.table.lookup(&target.host) {
            let nodes = rung.conns.iter().map(|key| NodeId(key.0));
            let way = |node| self.choice(node, Some(rung.route));
            let mut fresh: Vec<_> = nodes.filter_map(way).collect();
            fresh.retain(|choice| found.iter().all(|known| known.node != choice.node));
            fresh.sort_by_key(|choice| self.rank(choice));
            found.append(&mut fresh);
        }
        found
    }

    /// The first of [`Peers::candidates`] that is not skipped.
    pub(super) fn best(
        &self,
        target: &Target,
        agent: Option<AgentId>,
        skip: impl Fn(NodeId) -> bool,
    ) -> Option<PeerChoice> {
        if self.nodes.is_empty() {
            return None;
        }
        let mut found = self.candidates(target, agent).into_iter();
        found.find(|choice| !skip(choice.node))
    }

    fn with_agent(&self, agent: AgentId) -> impl Iterator<Item = PeerChoice> {
        let holders = self.nodes.iter().filter(move |(_, h)| h.has_agent(agent));
        holders.filter_map(|(node, _)| self.choice(*node, None))
    }

    /// The newest connection to a peer that works.
    fn choice(&self, node: NodeId, route: Option<Matched>) -> Option<PeerChoice> {
        let mut newest_first = self.conns.iter().rev();
        let (&conn, _) = newest_first.find(|(_, f)| f.node == node && !f.suspect)?;
        Some(PeerChoice { node, conn, route })
    }

    fn rank(&self, choice: &PeerChoice) -> (usize, NodeId) {
        (self.load(choice.node), choice.node)
    }
}

impl PeerChoice {
    /// Tells whether it comes before an agent of this gateway: only where its route is the more specific one.
    #[must_use]
    pub fn is_before(&self, local: &Choice) -> bool {
        let rung = |route: Option<Matched>| route.map(|route| Reverse(route.specificity()));
        rung(self.route) < rung(local.route)
    }
}

impl From<OpenCause> for Status {
    /// What a peer is told whose session was not opened here.
    fn from(cause: OpenCause) -> Self {
        match cause {
            OpenCause::Refused | OpenCause::Dial => Self::Refused,
            OpenCause::TimedOut => Self::TimedOut,
            OpenCause::NoCredit | OpenCause::TooMany => Self::Overload,
            OpenCause::ConnectionLost | OpenCause::Malformed | OpenCause::PeerLost => Self::Lost,
            OpenCause::NoRoute | OpenCause::NoneOnline | OpenCause::AgentUnknown => Self::NoRoute,
            OpenCause::Stopping => Self::Stopping,
        }
    }
}

impl AttemptError {
    /// What a peer's answer means for the session that was to go there; none where it is open.
    #[must_use]
    pub fn of_peer(answer: &Answer) -> Option<Self> {
        Some(match answer.status {
            Status::Open => return None,
            Status::TimedOut => Self::TimedOut,
            Status::Overload => Self::NoCredit,
            Status::Lost => Self::ConnectionLost,
            Status::Refused | Status::NoRoute | Status::Denied | Status::Stopping => {
                Self::Refused(answer.reason.to_string())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use uuid::Uuid;

    use super::*;
    use crate::domain::DomainPattern;

    fn holding(agents: &[u128], subnets: &[&str], domains: &[&str]) -> Holding {
        let mut holding = Holding {
            agents: agents
                .iter()
                .map(|n| AgentId(Uuid::from_u128(*n)))
                .collect(),
            subnets: subnets.iter().map(|s| s.parse().unwrap()).collect(),
            domains: domains
                .iter()
                .map(|d| DomainPattern::parse(d).unwrap())
                .collect(),
        };
        holding.tidy();
        holding
    }

    fn nodes(peers: &Peers, target: &str) -> Vec<u64> {
        let found = peers.candidates(&target.parse().unwrap(), None);
        found.iter().map(|choice| choice.node.0).collect()
    }

    /// Node n is connected by connection 10 n.
    fn peers(holdings: &[(u64, Holding)]) -> Peers {
        let mut peers = Peers::default();
        for (n, holding) in holdings {
            peers.set_holding(NodeId(*n), Arc::new(holding.clone()));
            peers.connect(ConnId(10 * n), NodeId(*n));
        }
        peers
    }

    #[test]
    fn the_most_specific_route_comes_first_then_the_least_load() {
        let mut peers = peers(&[
            (1, holding(&[], &["10.0.0.0/8"], &["*.x"])),
            (2, holding(&[], &["10.1.0.0/16", "10.0.0.0/8"], &["*.a.x"])),
            (3, holding(&[], &["10.0.0.0/8"], &["b.a.x"])),
        ]);
        assert_eq!(nodes(&peers, "10.1.1.1:1"), [2, 1, 3]);
        assert_eq!(nodes(&peers, "b.a.x:1"), [3, 2, 1]);
        assert!(nodes(&peers, "11.1.1.1:1").is_empty());
        peers.add_load(ConnId(10));
        assert_eq!(nodes(&peers, "10.2.1.1:1"), [2, 3, 1]);
        peers.sub_load(ConnId(10));
        assert_eq!(nodes(&peers, "10.2.1.1:1"), [1, 2, 3]);
    }

    #[test]
    fn only_a_peer_with_a_connection_that_works_is_a_way() {
        let mut peers = peers(&[(1, holding(&[7], &["10.0.0.0/8"], &[]))]);
        let (agent, target) = (AgentId(Uuid::from_u128(7)), "10.1.1.1:1");
        assert!(peers.has_agent(agent));
        peers.set_suspect(ConnId(10), true);
        assert!(nodes(&peers, target).is_empty() && !peers.has_agent(agent));
        peers.connect(ConnId(11), NodeId(1));
        let found = peers.candidates(&target.parse().unwrap(), Some(agent));
        assert_eq!((found[0].conn, found[0].route), (ConnId(11), None));
        peers.disconnect(ConnId(11));
        assert!(peers.is_advertised(&"10.1.1.1".parse().unwrap()));
        peers.set_holding(NodeId(1), Arc::default());
        assert!(!peers.is_advertised(&"10.1.1.1".parse().unwrap()));
        assert!(peers.held_by(NodeId(1)).is_none());
    }

    #[test]
    fn a_cause_goes_there_and_back() {
        let back = |cause: OpenCause| {
            let (status, reason) = (Status::from(cause), "why".into());
            AttemptError::of_peer(&Answer { status, reason })
        };
        for cause in OpenCause::ALL {
            assert!(back(cause).is_some(), "{cause:?}");
        }
        assert_eq!(back(OpenCause::TimedOut), Some(AttemptError::TimedOut));
        assert_eq!(back(OpenCause::TooMany), Some(AttemptError::NoCredit));
        let lost = back(OpenCause::ConnectionLost);
        assert_eq!(lost, Some(AttemptError::ConnectionLost));
        let refused = AttemptError::Refused("why".into());
        assert_eq!(back(OpenCause::NoRoute), Some(refused));
        let (status, reason) = (Status::Open, "".into());
        assert_eq!(AttemptError::of_peer(&Answer { status, reason }), None);
    }

    #[test]
    fn a_peer_stands_behind_the_agents_of_its_rung() {
        let net = |text: &str| Some(Matched::Subnet(text.parse::<IpNet>().unwrap()));
        let before = |peer, local| {
            let (node, conn) = (NodeId(1), ConnId(1));
            let choice = PeerChoice {
                node,
                conn,
                route: peer,
            };
            choice.is_before(&Choice {
                conn,
                agent: AgentId(Uuid::nil()),
                rung: 0,
                route: local,
            })
        };
        assert!(!before(net("10.0.0.0/8"), net("10.0.0.0/8")));
        assert!(before(net("10.1.0.0/16"), net("10.0.0.0/8")));
        assert!(!before(net("10.0.0.0/8"), net("10.1.0.0/16")));
        assert!(!before(None, None), "both hold the agent that was named");
        let (exact, suffix) = (Matched::Exact, |suffix_len| Matched::Wildcard {
            suffix_len,
        });
        assert!(before(Some(exact), Some(suffix(9))) && !before(Some(exact), Some(exact)));
        assert!(before(Some(suffix(5)), Some(suffix(2))));
    }
}
