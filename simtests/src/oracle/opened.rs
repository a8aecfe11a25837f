//! A session opens only on a matching request, at an agent that may reach the target: what the gateway says is open
//! was dialled there, for that session, and every address dialled is one that the agent advertises and may dial.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use adit_proto_core::{
    agent::{dial::DialStep, policy::Restrictions},
    gateway::dispatch::DispatchOutput,
    id::{AgentId, AttemptId, ConnId, SessionId, Slot},
    output::Event,
    route::RouteSet,
    target::{Host, Target},
};

use crate::{
    facts::{Fact, LegFact, NodeId, Start},
    faults::Fault,
    model::router,
    tcp::Side,
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Opened {
    agents: BTreeMap<NodeId, (AgentId, Arc<RouteSet>)>,
    forbidden: BTreeMap<NodeId, Restrictions>,
    /// Who is at the other end of a gateway's connection.
    conns: BTreeMap<(NodeId, ConnId), AgentId>,
    /// Requests that gateways made.
    asked: BTreeSet<(SessionId, AgentId)>,
    targets: BTreeMap<SessionId, Target>,
    attempts: BTreeMap<(NodeId, AttemptId), (SessionId, ConnId)>,
    /// Requests that agents received, with what they advertised then.
    requests: BTreeMap<(NodeId, ConnId, Slot), Request>,
    /// Sessions that agents opened.
    reached: BTreeSet<(SessionId, AgentId)>,
}

#[derive(Debug)]
struct Request {
    target: Target,
    routes: Arc<RouteSet>,
}

impl Opened {
    pub(super) fn observe(&mut self, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Started(Start::Agent {
                id,
                routes,
                restrictions,
                ..
            }) => {
                self.forbidden.insert(node, restrictions.clone());
                self.agents.insert(node, (*id, Arc::clone(routes)));
            }
            Fact::Fault(Fault::SetRoutes(_, routes, _)) => {
                if let Some((_, present)) = self.agents.get_mut(&node) {
                    *present = Arc::clone(routes);
                }
            }
            Fact::Registering(conn, identity) => {
                self.conns.insert((node, *conn), identity.id);
            }
            Fact::Wish {
                session, target, ..
            } => drop(self.targets.insert(*session, (*target).clone())),
            Fact::Dispatch(DispatchOutput::Open {
                conn,
                attempt,
                session,
                target,
            }) => return self.open(node, (*conn, *attempt), *session, target),
            Fact::Event(
                conn,
                Event::SessionRequested {
                    slot,
                    session,
                    target,
                },
            ) => return self.request(node, (*conn, *slot), *session, target),
            Fact::Dial {
                place: Some((conn, slot)),
                step: DialStep::Connect(_, addr),
                ..
            } => return self.connect(node, (*conn, *slot), *addr),
            Fact::Leg {
                side: Side::Target,
                session,
                what: LegFact::Attached,
                ..
            } => {
                let (id, _) = self.agents.get(&node)?;
                self.reached.insert((*session, *id));
            }
            Fact::Event(conn, Event::SessionOpened { attempt, .. }) => {
                return self.opened(node, *conn, *attempt);
            }
            _ => {}
        }
        None
    }

    fn open(
        &mut self,
        node: NodeId,
        (conn, attempt): (ConnId, AttemptId),
        session: SessionId,
        target: &Target,
    ) -> Option<String> {
        let Some(agent) = self.conns.get(&(node, conn)) else {
            return Some(format!(
                "{session} is asked for over {conn}, which is not registered"
            ));
        };
        self.asked.insert((session, *agent));
        self.attempts.insert((node, attempt), (session, conn));
        (self.targets.get(&session) != Some(target))
            .then(|| format!("{session} is asked for with another target, {target}"))
    }

    fn request(
        &mut self,
        node: NodeId,
        place: (ConnId, Slot),
        session: SessionId,
        target: &Target,
    ) -> Option<String> {
        let (id, routes) = self.agents.get(&node)?;
        let request = Request {
            target: target.clone(),
            routes: Arc::clone(routes),
        };
        self.requests.insert((node, place.0, place.1), request);
        if !self.asked.contains(&(session, *id)) || self.targets.get(&session) != Some(target) {
            return Some(format!("nobody asked this agent for {session} to {target}"));
        }
        None
    }

    fn connect(&self, node: NodeId, place: (ConnId, Slot), addr: SocketAddr) -> Option<String> {
        let ip = addr.ip();
        if self.forbidden.get(&node).is_some_and(|r| forbids(r, addr)) {
            return Some(format!("{addr} is dialled, which the operator forbids"));
        }
        let Some(request) = self.requests.get(&(node, place.0, place.1)) else {
            return Some(format!("{ip} is dialled without a request"));
        };
        (!may_dial(&request.routes, &request.target.host, ip)).then(|| {
            format!(
                "{ip} is dialled for {}, which is not advertised",
                request.target
            )
        })
    }

    fn opened(&self, node: NodeId, conn: ConnId, attempt: AttemptId) -> Option<String> {
        let Some((session, asked)) = self.attempts.get(&(node, attempt)) else {
            return Some(format!("{attempt} was opened and never asked for"));
        };
        let agent = self.conns.get(&(node, conn))?;
        if *asked != conn {
            return Some(format!(
                "{attempt} was asked for over {asked} and opened over {conn}"
            ));
        }
        (!self.reached.contains(&(*session, *agent)))
            .then(|| format!("{session} is open, but agent {agent} has not connected its target"))
    }
}

/// What an agent may dial, said simply: the address, or the name, is advertised, and a special address only by a
/// subnet within its range.
fn may_dial(routes: &RouteSet, host: &Host, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let special = match ip {
        IpAddr::V4(v4) if v4.is_loopback() => Some("127.0.0.0/8"),
        IpAddr::V4(v4) if v4.octets() == [169, 254, 169, 254] => Some("169.254.169.254/32"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("169.254.0.0/16"),
        IpAddr::V6(v6) if v6.is_loopback() => Some("::1/128"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("fe80::/10"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    let within = |range: &str| {
        let range: Option<ipnet::IpNet> = range.parse().ok();
        range.is_some_and(|range| routes.subnets.iter().any(|net| range.contains(net)))
    };
    let name = match host {
        Host::Ip(wanted) => {
            return *wanted == ip && covers(routes, ip) && special.is_none_or(within);
        }
        Host::Name(_) => router::specificity(routes, host).is_some(),
    };
    (name || covers(routes, ip)) && special.is_none_or(within)
}

fn forbids(restrictions: &Restrictions, addr: SocketAddr) -> bool {
    let ip = addr.ip().to_canonical();
    let ports = &restrictions.ports;
    let port = ports.is_empty() || ports.iter().any(|range| range.contains(&addr.port()));
    !port || restrictions.deny.iter().any(|net| net.contains(&ip))
}

fn covers(routes: &RouteSet, ip: IpAddr) -> bool {
    router::specificity(routes, &Host::Ip(ip)).is_some()
}
