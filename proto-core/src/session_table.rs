//! Which connection carries a session now (design 8.2).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use crate::{
    gateway::info::SessionInfo,
    id::{AgentId, ConnId, SessionId, Slot},
    peer::NodeId,
    target::Target,
};

/// What carries a session's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// A place on a connection to an agent.
    Agent {
        /// The connection.
        conn: ConnId,
        /// The place on it.
        slot: Slot,
    },
    /// A place on a connection to a peer, which has it carried by an agent of its own.
    Peer {
        /// The peer.
        node: NodeId,
        /// The connection.
        conn: ConnId,
        /// The place on it.
        slot: Slot,
    },
    /// A TCP connection of the gateway itself.
    Direct,
}

impl Carrier {
    /// The place on a connection; none for a direct one.
    #[must_use]
    pub fn place(&self) -> Option<(ConnId, Slot)> {
        match *self {
            Self::Agent { conn, slot } | Self::Peer { conn, slot, .. } => Some((conn, slot)),
            Self::Direct => None,
        }
    }

    /// The peer; none where this gateway carries it itself.
    #[must_use]
    pub fn peer(&self) -> Option<NodeId> {
        match *self {
            Self::Peer { node, .. } => Some(node),
            Self::Agent { .. } | Self::Direct => None,
        }
    }
}

/// One session that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEntry {
    /// What carries it.
    pub carrier: Carrier,
    /// Where it goes.
    pub target: Target,
    /// The agent that carries it; none for a direct one, and for one that a peer carries.
    pub agent: Option<AgentId>,
    /// When it was committed.
    pub since: Instant,
}

/// All open sessions of a node.
///
/// Pumps and listings name a session by its id alone; only this table knows where it runs, so that another carrier can
/// take over. Not bounded by itself: what opens sessions is.
#[derive(Debug, Default)]
pub struct SessionTable {
    sessions: BTreeMap<SessionId, SessionEntry>,
    places: BTreeMap<(ConnId, Slot), SessionId>,
    ages: BTreeSet<(Instant, SessionId)>,
}

/// Why a session was not entered; the table is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionTableError {
    /// A session of that id is open.
    #[error("the session is open already")]
    Known,
    /// Another session is carried by that place.
    #[error("the place on the connection is taken")]
    Taken,
}

impl SessionTable {
    /// Makes a table without sessions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a session that was committed at `now`.
    ///
    /// # Errors
    /// See [`SessionTableError`]; each is the caller's mistake.
    pub fn insert(
        &mut self,
        now: Instant,
        id: SessionId,
        carrier: Carrier,
        target: Target,
        agent: Option<AgentId>,
    ) -> Result<(), SessionTableError> {
        if self.sessions.contains_key(&id) {
            return Err(SessionTableError::Known);
        }
        if let Some(place) = carrier.place() {
            if self.places.contains_key(&place) {
                return Err(SessionTableError::Taken);
            }
            self.places.insert(place, id);
        }
        self.ages.insert((now, id));
        let entry = SessionEntry {
            carrier,
            target,
            agent,
            since: now,
        };
        self.sessions.insert(id, entry);
        Ok(())
    }

    /// Takes a session out.
    pub fn remove(&mut self, id: SessionId) -> Option<SessionEntry> {
        let entry = self.sessions.remove(&id)?;
        self.ages.remove(&(entry.since, id));
        if let Some(place) = entry.carrier.place() {
            self.places.remove(&place);
        }
        Some(entry)
    }

    /// Takes out all sessions that a connection carries, in the order of their slots.
    pub fn remove_conn(&mut self, conn: ConnId) -> Vec<(SessionId, SessionEntry)> {
        let places = self.places.range((conn, Slot(0))..=(conn, Slot(u64::MAX)));
        let ids: Vec<SessionId> = places.map(|(_, id)| *id).collect();
        let taken = ids.into_iter().map(|id| (id, self.remove(id)));
        taken.filter_map(|(id, entry)| Some((id, entry?))).collect()
    }

    /// Looks a session up.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&SessionEntry> {
        self.sessions.get(&id)
    }

    /// The session that a place on a connection carries.
    #[must_use]
    pub fn at(&self, conn: ConnId, slot: Slot) -> Option<SessionId> {
        self.places.get(&(conn, slot)).copied()
    }

    /// All sessions, the oldest first; equally old ones in the order of their ids.
    #[must_use]
    pub fn list(&self, now: Instant) -> Vec<SessionInfo> {
        let info = |&(since, id): &(Instant, SessionId)| {
            let entry = self.sessions.get(&id)?;
            Some(SessionInfo {
                id,
                target: entry.target.clone(),
                agent: entry.agent,
                peer: entry.carrier.peer(),
                age: now.saturating_duration_since(since),
            })
        };
        self.ages.iter().filter_map(info).collect()
    }

    /// Number of open sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Tells whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn sessions_are_found_by_id_and_by_place() {
        let (mut table, now) = (SessionTable::new(), start());
        enter(&mut table, now, 1, on(1, 4)).unwrap();
        enter(&mut table, now, 2, on(2, 4)).unwrap();
        enter(&mut table, now, 3, Carrier::Direct).unwrap();
        enter(&mut table, now, 4, Carrier::Direct).unwrap();
        assert_eq!(
            enter(&mut table, now, 1, on(3, 1)),
            Err(SessionTableError::Known)
        );
        assert_eq!(
            enter(&mut table, now, 9, on(2, 4)),
            Err(SessionTableError::Taken)
        );
        assert_eq!(table.at(ConnId(2), Slot(4)), Some(id(2)));
        assert_eq!(table.at(ConnId(3), Slot(1)), None);
        assert_eq!(table.get(id(1)).unwrap().carrier, on(1, 4));
        assert_eq!(table.remove(id(1)).unwrap().carrier, on(1, 4));
        assert_eq!(table.remove(id(1)), None);
        assert_eq!(table.at(ConnId(1), Slot(4)), None);
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn the_oldest_is_listed_first() {
        let (mut table, start) = (SessionTable::new(), start());
        let at = |s| start + Duration::from_secs(s);
        for (nth, second) in [(1, 3), (2, 1), (4, 2), (3, 2)] {
            enter(&mut table, at(second), nth, on(1, nth)).unwrap();
        }
        table.remove(id(2));
        let listed: Vec<_> = table
            .list(at(5))
            .iter()
            .map(|s| (s.id, s.age.as_secs()))
            .collect();
        assert_eq!(listed, [(id(3), 3), (id(4), 3), (id(1), 2)]);
    }

    #[test]
    fn the_end_of_a_connection_takes_its_sessions_only() {
        let (mut table, now) = (SessionTable::new(), start());
        for (nth, carrier) in [
            on(1, 0),
            on(2, u64::MAX),
            on(2, 0),
            on(3, 0),
            Carrier::Direct,
        ]
        .into_iter()
        .enumerate()
        {
            enter(&mut table, now, nth as u64, carrier).unwrap();
        }
        let gone: Vec<_> = table
            .remove_conn(ConnId(2))
            .iter()
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(gone, [id(2), id(1)]);
        assert!(table.remove_conn(ConnId(2)).is_empty());
        assert_eq!(table.len(), 3);
        [0, 3, 4]
            .iter()
            .for_each(|n| assert!(table.remove(id(*n)).is_some()));
        assert!(table.is_empty() && table.places.is_empty() && table.ages.is_empty());
    }

    fn enter(
        table: &mut SessionTable,
        now: Instant,
        nth: u64,
        carrier: Carrier,
    ) -> Result<(), SessionTableError> {
        table.insert(now, id(nth), carrier, "a.b:1".parse().unwrap(), None)
    }

    fn on(conn: u64, slot: u64) -> Carrier {
        Carrier::Agent {
            conn: ConnId(conn),
            slot: Slot(slot),
        }
    }

    fn id(n: u64) -> SessionId {
        SessionId(Uuid::from_u64_pair(0, n))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the base of a test's virtual time"
    )]
    fn start() -> Instant {
        Instant::now()
    }
}
