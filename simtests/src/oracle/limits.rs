//! Every limit of a gateway holds, and holds no sooner than it should: sessions being opened, sessions of a connection,
//! connections, handshakes, connections of one agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use adit_proto_core::{
    endpoint::EndpointLimits,
    gateway::{
        OpenError,
        dispatch::{DispatchConfig, DispatchOutput},
    },
    id::{AgentId, AttemptId, ConnId, SessionId, Slot},
    output::Event,
};

use super::pulse::{Pulse, SLACK};
use crate::{
    At,
    facts::{Fact, NodeId, RegistryRow, Start},
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pulse: Pulse,
    gateways: BTreeMap<NodeId, Gateway>,
}

/// One process of a gateway.
#[derive(Debug)]
struct Gateway {
    dispatch: DispatchConfig,
    endpoint: EndpointLimits,
    lazy: bool,
    /// Sessions being opened when the bounds last changed: those before hold for them.
    former: BTreeSet<SessionId>,
    stopping: bool,
    /// Sessions being opened.
    opening: BTreeSet<SessionId>,
    /// Attempts without an answer.
    attempts: BTreeSet<(ConnId, AttemptId)>,
    /// Places of sessions that are open.
    carried: BTreeSet<(ConnId, Slot)>,
    /// Sessions open and being opened.
    loads: BTreeMap<ConnId, usize>,
    /// Connections that are up.
    up: BTreeSet<ConnId>,
    /// Handshakes in progress, and where they come from.
    handshakes: BTreeMap<ConnId, (IpAddr, bool)>,
    /// The datagram that came last carries what a Retry asked for.
    has_token: bool,
    /// Registered connections that were not told to retire, oldest first.
    agents: BTreeMap<AgentId, Vec<ConnId>>,
    retired: BTreeMap<ConnId, At>,
}

impl Limits {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        self.pulse.observe(at, node, fact);
        if let Fact::Started(Start::Gateway {
            dispatch,
            limits,
            lazy,
            ..
        }) = fact
        {
            let gateway = Gateway::new(dispatch.clone(), *limits, *lazy);
            self.gateways.insert(node, gateway);
        } else if let Fact::Gone = fact {
            self.gateways.remove(&node);
        }
        let gateway = self.gateways.get_mut(&node)?;
        let late = match self.pulse.steady_since(node) {
            Some(steady) => gateway.unretired(at, steady),
            None => None,
        };
        late.or_else(|| gateway.observe(at, fact))
            .map(|text| format!("{node}: {text}"))
    }
}

impl Gateway {
    fn new(dispatch: DispatchConfig, endpoint: EndpointLimits, lazy: bool) -> Self {
        Self {
            dispatch,
            endpoint,
            lazy,
            former: BTreeSet::new(),
            stopping: false,
            opening: BTreeSet::new(),
            attempts: BTreeSet::new(),
            carried: BTreeSet::new(),
            loads: BTreeMap::new(),
            up: BTreeSet::new(),
            handshakes: BTreeMap::new(),
            has_token: false,
            agents: BTreeMap::new(),
            retired: BTreeMap::new(),
        }
    }

    fn observe(&mut self, at: At, fact: &Fact<'_>) -> Option<String> {
        if let Fact::Dispatch(output) = fact {
            return self.output(at, output);
        } else if let Fact::Event(conn, event) = fact {
            if let Event::Established { .. } | Event::Closed(_) = event {
                self.handshakes.remove(conn);
            }
            if let Event::Established { .. } = event {
                self.up.insert(*conn);
            } else if let Event::Closed(_) = event {
                self.up.remove(conn);
                self.retired.remove(conn);
            }
        } else if let Fact::Begun {
            conn,
            remote,
            connections,
            ..
        } = fact
        {
            return self.begun(*conn, *remote, *connections);
        } else if let Fact::Received { data, .. } = fact {
            self.has_token = has_token(data).unwrap_or(false);
        } else if let Fact::Wish {
            session,
            open_before,
            ..
        } = fact
        {
            let known = self.opening.len();
            self.opening.insert(*session);
            return (known != *open_before)
                .then(|| format!("{open_before} sessions are being opened, {known} is right"));
        } else if let Fact::GaveUp(session) = fact {
            self.opening.remove(session);
        } else if let Fact::Answered {
            conn,
            attempt,
            result,
        } = fact
        {
            self.answered(*conn, *attempt, result.ok());
        } else if let Fact::EndTold(conn, slot) = fact {
            if self.carried.remove(&(*conn, *slot)) {
                self.unload(*conn);
            }
        } else if let Fact::Registering(conn, identity) = fact {
            self.agents.entry(identity.id).or_default().push(*conn);
        } else if let Fact::Configured { limits, dispatch } = fact {
            (self.endpoint, self.dispatch) = (*limits, (*dispatch).clone());
            self.former = self.opening.clone();
        } else if let Fact::Deleted(agent) = fact {
            for conn in self.agents.get(agent).cloned().unwrap_or_default() {
                self.forget(conn);
            }
        } else if let Fact::ClosedTold(conn) = fact {
            self.forget(*conn);
        } else if let Fact::MachineWaits {
            machine: "dispatch",
            ..
        } = fact
        {
            return self.rests();
        } else if let Fact::Registry(rows) = fact {
            return self.compare(rows);
        } else if let Fact::Stopping = fact {
            self.stopping = true;
        }
        None
    }

    fn begun(&mut self, conn: ConnId, remote: SocketAddr, connections: usize) -> Option<String> {
        let source = source(remote.ip());
        let is_proven = std::mem::take(&mut self.has_token);
        let limits = self.endpoint;
        let up = self.up.len();
        if up >= limits.connections || connections > limits.connections + limits.handshakes {
            return Some(format!("{connections} connections, {up} up, {limits:?}"));
        }
        let all = self.handshakes.len();
        let here = |proven: bool| {
            let same = |(s, p): &&(IpAddr, bool)| *s == source && *p == proven;
            self.handshakes.values().filter(same).count()
        };
        let (proven, unproven) = (here(true), here(false));
        let over = all >= limits.handshakes
            || match is_proven {
                true => proven >= limits.handshakes_per_source,
                false => {
                    let mark = UNPROVEN_MAX.min(limits.handshakes_per_source);
                    all >= limits.handshakes_retry || proven + unproven >= mark
                }
            };
        self.handshakes.insert(conn, (source, is_proven));
        // A driver that breaks polls off hears of the end of a handshake later than the endpoint does.
        (over && !self.lazy).then(|| {
            format!(
                "one more handshake (proven: {is_proven}) beside {all}, {proven} proven and {unproven} not from \
                 {source}, {limits:?}"
            )
        })
    }

    fn answered(&mut self, conn: ConnId, attempt: AttemptId, slot: Option<Slot>) {
        if self.attempts.remove(&(conn, attempt)) {
            match slot {
                Some(slot) => drop(self.carried.insert((conn, slot))),
                None => self.unload(conn),
            }
        }
    }

    fn output(&mut self, at: At, output: &DispatchOutput) -> Option<String> {
        match output {
            DispatchOutput::Open {
                conn,
                attempt,
                session,
                ..
            } => {
                self.attempts.insert((*conn, *attempt));
                let load = self.loads.entry(*conn).or_default();
                *load += 1;
                if *load > self.dispatch.sessions_per_agent {
                    return Some(format!("{conn} has {load} sessions, {:?}", self.dispatch));
                }
                return self.admitted(*session);
            }
            DispatchOutput::Cancel { conn, attempt } => {
                if self.attempts.remove(&(*conn, *attempt)) {
                    self.unload(*conn);
                }
            }
            DispatchOutput::DialDirect { session, .. } => return self.admitted(*session),
            DispatchOutput::Committed { session, .. } => {
                let objection = self.admitted(*session);
                self.opening.remove(session);
                return objection;
            }
            DispatchOutput::Failed { session, error } => {
                let full = self.opening.len() > self.dispatch.opens_max && !self.stopping;
                let refused = *error == OpenError::TooMany;
                self.opening.remove(session);
                return (full != refused && !self.former.contains(session)).then(|| {
                    let open = self.opening.len();
                    format!(
                        "{session} failed as {error:?} beside {open}, {:?}",
                        self.dispatch
                    )
                });
            }
            DispatchOutput::Retire { conn } => return self.retire(at, *conn),
            DispatchOutput::Refused { conn, .. } => self.unlist(*conn),
            DispatchOutput::Discard { .. }
            | DispatchOutput::AbortDirect { .. }
            | DispatchOutput::RoutesRefused { .. } => {}
        }
        None
    }

    /// A session gets an agent, so it is not one too many.
    fn admitted(&self, session: SessionId) -> Option<String> {
        let open = self.opening.len();
        (open > self.dispatch.opens_max && !self.former.contains(&session)).then(|| {
            format!(
                "{session} makes {open} sessions being opened, {:?}",
                self.dispatch
            )
        })
    }

    fn retire(&mut self, at: At, conn: ConnId) -> Option<String> {
        let list = self.agents.values().find(|list| list.contains(&conn));
        let due = list.is_some_and(|list| list.len() > CONNS_PER_AGENT && list[0] == conn);
        self.retired.insert(conn, at);
        self.unlist(conn);
        (!due).then(|| format!("{conn} has to retire, though it is not the oldest of three"))
    }

    fn rests(&self) -> Option<String> {
        let crowd = self
            .agents
            .iter()
            .find(|(_, list)| list.len() > CONNS_PER_AGENT)?;
        Some(format!(
            "agent {} has the connections {:?}",
            crowd.0, crowd.1
        ))
    }

    /// The registry's own counts.
    fn compare(&self, rows: &[RegistryRow]) -> Option<String> {
        rows.iter().find_map(|row| {
            let known = self.loads.get(&row.conn).copied().unwrap_or(0);
            let (conn, sessions) = (row.conn, row.sessions);
            (known != sessions)
                .then(|| format!("{conn} is listed with {sessions} sessions, {known} is right"))
        })
    }

    /// A connection that was to retire is still there.
    fn unretired(&self, at: At, steady: At) -> Option<String> {
        let late = |since: &At| at > *since.max(&steady) + SLACK;
        let (conn, _) = self.retired.iter().find(|(_, since)| late(since))?;
        Some(format!("{conn} was to retire and is not closed"))
    }

    fn forget(&mut self, conn: ConnId) {
        self.attempts.retain(|(of, _)| *of != conn);
        self.carried.retain(|(of, _)| *of != conn);
        self.loads.remove(&conn);
        self.retired.remove(&conn);
        self.unlist(conn);
    }

    fn unlist(&mut self, conn: ConnId) {
        for list in self.agents.values_mut() {
            list.retain(|of| *of != conn);
        }
    }

    fn unload(&mut self, conn: ConnId) {
        if let Some(load) = self.loads.get_mut(&conn) {
            *load = load.saturating_sub(1);
        }
    }
}

/// What handshakes are counted by: one host may use every address of its IPv6 /64.
fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

/// Whether an Initial has a token: type, version, two connection ids, then the token's length (RFC 9000, 17.2.2).
fn has_token(data: &[u8]) -> Option<bool> {
    let id = |at: usize| Some(at + 1 + usize::from(*data.get(at)?));
    let token_at = id(id(5)?)?;
    Some(*data.get(token_at)? != 0)
}

/// Handshakes of one source that has not proven its address.
const UNPROVEN_MAX: usize = 16;
/// Connections of one agent beside each other.
const CONNS_PER_AGENT: usize = 2;
