//! Control is not starved: changed routes reach the gateway soon, whatever sessions do, and in the calm every gateway
//! knows what its agents advertise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use adit_proto_core::{domain::DomainPattern, id::ConnId, output::Event, route::RouteSet};
use ipnet::{IpNet, Ipv4Net};

use super::bounds::{REPLACEMENT_INTERVAL, REPLACEMENTS_BURST};
use super::harm::Harm;
use crate::{
    At,
    facts::{Fact, NodeId, RegistryRow, Start},
    faults::Fault,
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Control {
    agents: BTreeMap<NodeId, Agent>,
    /// Registered connections of gateways.
    listed: BTreeMap<(NodeId, ConnId), Listed>,
    /// Who sent the datagram that came last.
    from: Option<NodeId>,
    calm: Option<At>,
    look_at: At,
}

/// An agent's process.
#[derive(Debug)]
struct Agent {
    routes: Routes,
    /// Route sets so far: a gateway takes only so many at once.
    changes: u32,
    /// Connections that are not closed, and the gateways at their other ends.
    conns: BTreeMap<ConnId, Option<NodeId>>,
    /// Changed routes of which a gateway must hear.
    pending: Option<Pending>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    gateway: NodeId,
    since: At,
    /// The slowest datagram between the two since then.
    slowest: At,
}

/// A connection at a gateway.
#[derive(Debug)]
struct Listed {
    since: At,
    heard: At,
    agent: Option<NodeId>,
    /// When its latest route sets were taken over.
    taken: VecDeque<At>,
    /// What was advertised over it last.
    told: Option<(u64, Routes)>,
    /// The epoch in the registry.
    epoch: u64,
}

/// What the protocol carries of a route set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Routes {
    subnets: BTreeSet<Ipv4Net>,
    domains: BTreeSet<(DomainPattern, bool)>,
}

impl Routes {
    pub(super) fn of(set: &RouteSet) -> Self {
        let subnet = |net: &IpNet| match net {
            IpNet::V4(net) => Some(net.trunc()),
            IpNet::V6(_) => None,
        };
        let domains = set.domains.iter();
        Self {
            subnets: set.subnets.iter().filter_map(subnet).collect(),
            domains: domains
                .map(|route| (route.pattern.clone(), route.auto_detected))
                .collect(),
        }
    }
}

impl Control {
    pub(super) fn observe(
        &mut self,
        at: At,
        node: NodeId,
        fact: &Fact<'_>,
        harm: &Harm,
    ) -> Option<String> {
        if let Fact::Received { from, sent, .. } = fact {
            self.received(node, *from, at.saturating_sub(*sent));
        } else if let Fact::Routed(conn) = fact {
            self.routed(at, node, *conn);
        } else if let Fact::Event(conn, Event::RoutesAccepted { .. }) = fact {
            let listed = self.listed.get_mut(&(node, *conn));
            if let Some(text) = listed.and_then(|listed| listed.take(at)) {
                return Some(format!("{node} takes {text} of {conn}"));
            }
        } else if let Fact::Event(conn, event) = fact {
            self.event(node, *conn, event);
        } else if let Fact::Registering(conn, _) = fact {
            let listed = Listed {
                since: at,
                heard: at,
                agent: None,
                taken: VecDeque::new(),
                told: None,
                epoch: 0,
            };
            self.listed.insert((node, *conn), listed);
        } else if let Fact::RoutesTold {
            conn,
            epoch,
            routes,
        } = fact
        {
            if let Some(listed) = self.listed.get_mut(&(node, *conn)) {
                listed.told = Some((*epoch, Routes::of(routes)));
            }
        } else if let Fact::Registry(rows) = fact {
            self.list(node, rows);
        } else if let Fact::Started(Start::Agent { routes, .. }) = fact {
            let agent = Agent {
                routes: Routes::of(routes),
                changes: 0,
                conns: BTreeMap::new(),
                pending: None,
            };
            self.agents.insert(node, agent);
        } else if let Fact::Gone | Fact::Stopping = fact {
            self.agents.remove(&node);
            self.listed.retain(|(gateway, _), _| *gateway != node);
        } else if let Fact::Fault(Fault::SetRoutes(agent, routes, _)) = fact {
            self.change(at, *agent, routes);
        } else if let Fact::Calm = fact {
            self.calm = Some(at);
        }
        self.look_around(at, harm)
    }

    fn received(&mut self, node: NodeId, from: NodeId, delay: At) {
        self.from = Some(from);
        for (agent, peer) in [(node, from), (from, node)] {
            if let Some(agent) = self.agents.get_mut(&agent)
                && let Some(pending) = &mut agent.pending
                && pending.gateway == peer
            {
                pending.slowest = pending.slowest.max(delay);
            }
        }
    }

    fn routed(&mut self, at: At, node: NodeId, conn: ConnId) {
        if let Some(agent) = self.agents.get_mut(&node) {
            if let Some(peer) = agent.conns.get_mut(&conn) {
                *peer = self.from;
            }
        } else if let Some(listed) = self.listed.get_mut(&(node, conn)) {
            listed.heard = at;
            listed.agent = self.from;
        }
    }

    fn event(&mut self, node: NodeId, conn: ConnId, event: &Event) {
        if let Event::Closed(_) = event {
            self.listed.remove(&(node, conn));
            if let Some(agent) = self.agents.get_mut(&node) {
                agent.conns.remove(&conn);
                agent.pending = None;
            }
        } else if let Event::Established { .. } = event
            && let Some(agent) = self.agents.get_mut(&node)
        {
            agent.conns.insert(conn, None);
            agent.pending = None;
        }
    }

    fn list(&mut self, node: NodeId, rows: &[RegistryRow]) {
        for row in rows {
            if let Some(listed) = self.listed.get_mut(&(node, row.conn)) {
                listed.epoch = row.epoch;
            }
        }
    }

    fn change(&mut self, at: At, node: NodeId, routes: &RouteSet) {
        if let Some(agent) = self.agents.get_mut(&node) {
            agent.routes = Routes::of(routes);
            agent.changes += 1;
            agent.pending = agent.only_gateway().map(|gateway| Pending {
                gateway,
                since: at,
                slowest: At::ZERO,
            });
        }
    }

    fn look_around(&mut self, at: At, harm: &Harm) -> Option<String> {
        if at < self.look_at {
            return None;
        }
        self.look_at = at + LOOK_EVERY;
        let nodes: Vec<NodeId> = self.agents.keys().copied().collect();
        nodes
            .into_iter()
            .find_map(|node| self.starved(at, node, harm))
            .or_else(|| self.unknown(at, harm))
    }

    /// An agent's changed routes that did not arrive, though nothing was in their way.
    fn starved(&mut self, at: At, node: NodeId, harm: &Harm) -> Option<String> {
        let agent = self.agents.get_mut(&node)?;
        let pending = agent.pending?;
        if at < pending.since + WITHIN + pending.slowest * TRIPS + agent.held_back() {
            return None;
        }
        agent.pending = None;
        let before = pending.since.checked_sub(QUIET)?;
        let gateway = pending.gateway;
        if !harm.is_sound(node, gateway, before) {
            return None;
        }
        let mut listed = self.listed.iter().filter(|((at_node, _), listed)| {
            *at_node == gateway && listed.agent == Some(node) && listed.since <= before
        });
        let (_, newest) = listed.next_back()?;
        let is_told = newest
            .told
            .as_ref()
            .is_some_and(|(_, r)| *r == agent.routes);
        (!is_told).then(|| {
            format!(
                "{gateway} does not know the routes that {node} changed at {:?}",
                pending.since
            )
        })
    }

    /// A connection over which the gateway knows other routes than its agent advertises, long after the calm began.
    fn unknown(&self, at: At, harm: &Harm) -> Option<String> {
        let settled = self.calm? + CALM_SETTLE;
        self.listed.iter().find_map(|((gateway, conn), listed)| {
            let node = listed.agent?;
            let agent = self.agents.get(&node)?;
            let late = at > settled.max(listed.since + CALM_SETTLE) + agent.held_back();
            let alive = at < listed.heard + ALIVE && agent.only_gateway() == Some(*gateway);
            if !late || !alive || harm.pulse.steady_since(*gateway).is_none() {
                return None;
            }
            let told = listed.told.as_ref();
            let known = told.is_some_and(|(epoch, routes)| {
                *routes == agent.routes && (*epoch == listed.epoch || listed.epoch == 0)
            });
            (!known).then(|| format!("{gateway} knows other routes of {node} on {conn}"))
        })
    }
}

impl Listed {
    /// Notes one more route set; tells where there are more than a gateway takes.
    fn take(&mut self, at: At) -> Option<String> {
        self.taken.push_back(at);
        if self.taken.len() <= PACED {
            return None;
        }
        let since = self.taken.pop_front()?;
        let spared = u32::try_from(PACED).ok()? - REPLACEMENTS_BURST - 1;
        let fast = at + PACE_SLACK < since + REPLACEMENT_INTERVAL * spared;
        fast.then(|| format!("{} route sets in {:?}", PACED + 1, at - since))
    }
}

impl Agent {
    /// The gateway of the only connection.
    fn only_gateway(&self) -> Option<NodeId> {
        let mut conns = self.conns.values();
        let first = conns.next()?;
        if conns.next().is_some() { None } else { *first }
    }

    /// How long a gateway may leave route sets unread that come too fast.
    fn held_back(&self) -> At {
        REPLACEMENT_INTERVAL * self.changes.saturating_sub(REPLACEMENTS_BURST - 1)
    }
}

/// Time for changed routes to arrive, beside so many trips of the slowest datagram.
const WITHIN: At = At::from_secs(3);
const TRIPS: u32 = 20;
/// Route sets of one connection that are looked at together, and what a driver's delays may take from their time.
const PACED: usize = 14;
const PACE_SLACK: At = At::from_millis(200);
/// Nothing may have gone wrong for so long before a change that is judged.
const QUIET: At = At::from_secs(5);
/// Time in the calm in which everything advertised is known.
const CALM_SETTLE: At = At::from_secs(8);
/// An agent that is there speaks several times in this time.
const ALIVE: At = At::from_secs(2);
const LOOK_EVERY: At = At::from_millis(500);
