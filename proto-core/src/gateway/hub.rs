//! The gateway's registry of agents (design 3.1, 8.7).

mod candidates;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Instant,
};

use ipnet::IpNet;
use smallvec::SmallVec;

pub use self::candidates::{Candidates, Choice};
use super::{
    info::{AgentCounts, AgentInfo, AgentStatus},
    record::{Advert, RouteRecord},
    routes::RouteTable,
};
use crate::{
    id::{AgentId, ConnId},
    identity::AgentIdentity,
    limits::{AGENT_SILENT, AGENTS_MAX, ROUTES_PER_AGENT_MAX},
    peer::catalogue::Holding,
    route::RouteSet,
};

/// All connections of agents, their routes and their load; says which of them a session may go through.
///
/// Everything is kept per connection, so that the late end of an old connection never touches the record of the
/// agent's next one. An agent id belongs to the key that it is connected with.
#[derive(Debug, Default)]
pub struct Hub {
    conns: BTreeMap<ConnId, Entered>,
    /// Connections of each agent that may take sessions, oldest first: one, or two while one replaces the other.
    agents: BTreeMap<AgentId, SmallVec<[ConnId; 2]>>,
    /// The key that each agent's id belongs to while the agent is connected.
    keys: BTreeMap<AgentId, [u8; 32]>,
    table: RouteTable,
    /// Agents that get no new sessions by routing, connected or not; the operator's, so no peer makes it grow.
    drained: BTreeSet<AgentId>,
    /// Counts accepted route sets, so that no two are equally new.
    accepted_count: u64,
}

/// One registered connection.
#[derive(Debug)]
struct Entered {
    identity: AgentIdentity,
    since: Instant,
    record: RouteRecord,
    /// Position of the present route set among all that were ever accepted; 0 before the first.
    accepted_nth: u64,
    suspect: bool,
    /// New sessions of this agent go through another connection.
    superseded: bool,
    /// Sessions open and being opened.
    load: usize,
}

/// A connection was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Registered {
    /// A connection of the same agent that is one too many and has to be closed. It stays listed, and keeps its
    /// load, until [`Hub::unregister`].
    pub retire: Option<ConnId>,
}

/// Why a connection was not entered. It has to be closed; the registry is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The agent is connected with another key (design 3.8).
    #[error("the agent is connected with another key")]
    OtherKey,
    /// [`AGENTS_MAX`] agents are connected and this is none of them.
    #[error("the gateway carries as many agents as it may")]
    TooMany,
    /// The connection is registered already: the caller's mistake.
    #[error("the connection is registered already")]
    Known,
}

impl Hub {
    /// Makes a registry without agents.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a connection whose certificate proved `identity`. It has no routes and epoch 0 until it advertises
    /// (agent-tunnel 9).
    ///
    /// The newest connection of an agent takes new sessions. The one before it keeps its own, and its routes go on
    /// to count until the newest has a route set, so that replacing a connection leaves no gap. A third makes the
    /// oldest retire.
    ///
    /// Another key than the agent's present one is taken only where `renewed` says that it was certified as that key's
    /// successor; from then on it is the agent's.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn register(
        &mut self,
        now: Instant,
        conn: ConnId,
        identity: AgentIdentity,
        renewed: bool,
    ) -> Result<Registered, RegisterError> {
        if self.conns.contains_key(&conn) {
            return Err(RegisterError::Known);
        }
        let id = identity.id;
        let full = self.agents.len() >= AGENTS_MAX;
        let retire = match self.agents.get_mut(&id) {
            Some(list) => {
                if !renewed && self.keys.get(&id) != Some(&identity.spki_sha256) {
                    return Err(RegisterError::OtherKey);
                }
                let retire = (list.len() >= CONNS_PER_AGENT_MAX).then(|| list.remove(0));
                list.push(conn);
                retire
            }
            None if full => return Err(RegisterError::TooMany),
            None => {
                self.agents.insert(id, SmallVec::from_slice(&[conn]));
                None
            }
        };
        self.keys.insert(id, identity.spki_sha256);
        let entered = Entered {
            identity,
            since: now,
            record: RouteRecord::new(now),
            accepted_nth: 0,
            suspect: false,
            superseded: false,
            load: 0,
        };
        self.conns.insert(conn, entered);
        if let Some(oldest) = retire {
            self.table.remove(oldest);
            self.entered_mut(oldest, |e| e.superseded = true);
        }
        self.choose_current(id);
        Ok(Registered { retire })
    }

    /// Takes a connection out and gives back whose it was; none where it is not registered. An older connection of
    /// the agent that is still there takes new sessions again.
    pub fn unregister(&mut self, conn: ConnId) -> Option<AgentIdentity> {
        let entered = self.conns.remove(&conn)?;
        self.table.remove(conn);
        let id = entered.identity.id;
        if let Entry::Occupied(mut list) = self.agents.entry(id) {
            list.get_mut().retain(|c| *c != conn);
            if list.get().is_empty() {
                list.remove();
                self.keys.remove(&id);
            }
        }
        self.choose_current(id);
        Some(entered.identity)
    }

    /// Takes a route advertisement by the epoch rule (agent-tunnel 9); none where the connection is not registered.
    /// A set of more than [`ROUTES_PER_AGENT_MAX`] routes is refused as a whole.
    pub fn set_routes(
        &mut self,
        now: Instant,
        conn: ConnId,
        epoch: u64,
        routes: RouteSet,
    ) -> Option<Advert> {
        let entered = self.conns.get_mut(&conn)?;
        if epoch > entered.record.epoch() && routes.len() > ROUTES_PER_AGENT_MAX {
            entered.record.handle_seen(now);
            return Some(Advert::TooMany);
        }
        let outcome = entered.record.handle_advertise(now, epoch);
        if outcome == Advert::Accepted {
            self.accepted_count += 1;
            entered.accepted_nth = self.accepted_count;
            let id = entered.identity.id;
            // A connection that retires is not routed to any more; its set would only cost time.
            if self
                .agents
                .get(&id)
                .is_some_and(|list| list.contains(&conn))
            {
                self.table.replace(conn, routes);
            }
            self.choose_current(id);
        }
        Some(outcome)
    }

    /// Notes that a control message came (agent-tunnel 9).
    pub fn seen(&mut self, now: Instant, conn: ConnId) {
        self.entered_mut(conn, |e| e.record.handle_seen(now));
    }

    /// Notes whether the path of a connection stalls (design 8.3).
    pub fn set_suspect(&mut self, conn: ConnId, suspect: bool) {
        self.entered_mut(conn, |e| e.suspect = suspect);
    }

    /// Says whether an agent is to get new sessions by routing, on all its connections and the later ones, too. What it
    /// carries or was asked for goes on, and a session for which a user names the agent still goes there.
    pub fn set_drained(&mut self, agent: AgentId, drained: bool) {
        if drained {
            self.drained.insert(agent);
        } else {
            self.drained.remove(&agent);
        }
    }

    /// Tells whether an agent gets no new sessions by routing.
    #[must_use]
    pub fn is_drained(&self, agent: AgentId) -> bool {
        self.drained.contains(&agent)
    }

    /// Counts one session more, open or being opened.
    pub fn add_load(&mut self, conn: ConnId) {
        self.entered_mut(conn, |e| e.load += 1);
    }

    /// Counts one session less.
    pub fn sub_load(&mut self, conn: ConnId) {
        self.entered_mut(conn, |e| {
            debug_assert!(e.load > 0, "a session ended that was not counted");
            e.load = e.load.saturating_sub(1);
        });
    }

    /// Sessions open and being opened through a connection; 0 where it is not registered.
    #[must_use]
    pub fn load(&self, conn: ConnId) -> usize {
        self.conns.get(&conn).map_or(0, |e| e.load)
    }

    /// Number of agents that are connected.
    #[must_use]
    pub fn agent_count(&self) -> usize {
        self.agents.len()
    }

    /// Who is at the other end of a connection.
    #[must_use]
    pub fn identity(&self, conn: ConnId) -> Option<&AgentIdentity> {
        self.conns.get(&conn).map(|e| &e.identity)
    }

    /// The newest connection of an agent, however its path is.
    #[must_use]
    pub fn newest(&self, agent: AgentId) -> Option<ConnId> {
        self.agents.get(&agent)?.last().copied()
    }

    /// All connections of an agent in the order of their ids, those that retire included. Looks at every connection.
    #[must_use]
    pub fn connections_of(&self, agent: AgentId) -> Vec<ConnId> {
        let own = self.conns.iter().filter(|(_, e)| e.identity.id == agent);
        own.map(|(&conn, _)| conn).collect()
    }

    /// Gives the older connections of the agent whose newest connection this is.
    pub(crate) fn superseded_by(&self, conn: ConnId) -> SmallVec<[ConnId; 2]> {
        let id = self.identity(conn).map(|identity| identity.id);
        let list = id.and_then(|id| self.agents.get(&id));
        match list.and_then(|list| list.split_last()) {
            Some((newest, older)) if *newest == conn => SmallVec::from_slice(older),
            Some(_) | None => SmallVec::new(),
        }
    }

    /// All connections in the order of their ids.
    #[must_use]
    pub fn list(&self, now: Instant) -> Vec<AgentInfo> {
        let info = |(&conn, entered)| self.info(now, conn, entered);
        self.conns.iter().map(info).collect()
    }

    /// Those of one agent, as in the list. Looks at every connection.
    #[must_use]
    pub fn list_of(&self, now: Instant, agent: AgentId) -> Vec<AgentInfo> {
        let own = self.conns.iter().filter(|(_, e)| e.identity.id == agent);
        own.map(|(&conn, entered)| self.info(now, conn, entered))
            .collect()
    }

    fn info(&self, now: Instant, conn: ConnId, entered: &Entered) -> AgentInfo {
        AgentInfo {
            identity: entered.identity.clone(),
            conn,
            routes: self.table.routes(conn).cloned().unwrap_or_default(),
            epoch: entered.record.epoch(),
            status: entered.status(now),
            drained: self.is_drained(entered.identity.id),
            sessions: entered.load,
            silent: entered.record.silent(now),
            connected: now.saturating_duration_since(entered.since),
        }
    }

    /// What this gateway holds, for its peers: every agent that is connected, as a user may ask for it by its id, and the
    /// routes of those that routing gives sessions to.
    #[must_use]
    pub fn holding(&self, now: Instant) -> Holding {
        // Thousands of agents may advertise one route.
        let (mut subnets, mut domains) = (BTreeSet::new(), BTreeSet::new());
        for (conn, entered) in &self.conns {
            let takes =
                entered.status(now) == AgentStatus::Online && !self.is_drained(entered.identity.id);
            if let Some(routes) = self.table.routes(*conn).filter(|_| takes) {
                subnets.extend(routes.subnets.iter().map(IpNet::trunc));
                domains.extend(routes.domains.iter().map(|route| &route.pattern));
            }
        }
        Holding {
            agents: self.agents.keys().copied().collect(),
            subnets: subnets.into_iter().collect(),
            domains: domains.into_iter().cloned().collect(),
        }
    }

    /// Tells whether nothing came from an agent on a connection for [`AGENT_SILENT`].
    #[must_use]
    pub fn is_silent(&self, now: Instant, conn: ConnId) -> bool {
        let entered = self.conns.get(&conn);
        entered.is_some_and(|entered| entered.record.silent(now) >= AGENT_SILENT)
    }

    /// When the next agent is silent unless something comes from it; none where all are. Looks at every connection.
    #[must_use]
    pub fn next_silence(&self, now: Instant) -> Option<Instant> {
        let left = |e: &Entered| AGENT_SILENT.checked_sub(e.record.silent(now));
        let left = self.conns.values().filter_map(left);
        now.checked_add(left.filter(|left| !left.is_zero()).min()?)
    }

    /// Counts the connected agents by how the best of their connections is, and tells of the fullest. Cheap: no route is
    /// looked at.
    #[must_use]
    pub fn counts(&self, now: Instant) -> AgentCounts {
        let is_online = |c: &ConnId| {
            let entered = self.conns.get(c);
            entered.is_some_and(|e| e.status(now) == AgentStatus::Online)
        };
        let online = self
            .agents
            .values()
            .filter(|conns| conns.iter().any(is_online))
            .count();
        let routes = self
            .conns
            .keys()
            .filter_map(|conn| self.table.routes(*conn));
        AgentCounts {
            online,
            suspect: self.agents.len() - online,
            sessions_max: self.conns.values().map(|e| e.load).max().unwrap_or(0),
            routes_max: routes.map(|r| r.len()).max().unwrap_or(0),
        }
    }

    /// Marks all connections of an agent but the one that new sessions go through: the newest that has a route set,
    /// or the newest of all. The newest is never marked, as a user may ask for the agent by its id.
    fn choose_current(&mut self, agent: AgentId) {
        let Some(list) = self.agents.get(&agent) else {
            return;
        };
        let has_routes = |c: &&ConnId| self.conns.get(c).is_some_and(|e| e.accepted_nth > 0);
        let newest = list.last().copied();
        let current = list.iter().rev().find(has_routes).copied();
        for &conn in list {
            if let Some(entered) = self.conns.get_mut(&conn) {
                entered.superseded = ![current, newest].contains(&Some(conn));
            }
        }
    }

    fn entered_mut(&mut self, conn: ConnId, change: impl FnOnce(&mut Entered)) {
        if let Some(entered) = self.conns.get_mut(&conn) {
            change(entered);
        }
    }
}

impl Entered {
    fn status(&self, now: Instant) -> AgentStatus {
        if self.superseded {
            AgentStatus::Superseded
        } else if self.suspect || self.record.silent(now) >= AGENT_SILENT {
            AgentStatus::Suspect
        } else {
            AgentStatus::Online
        }
    }
}

/// Connections of one agent that may take sessions: the present one and the one that it replaces (design 8.7).
const CONNS_PER_AGENT_MAX: usize = 2;
