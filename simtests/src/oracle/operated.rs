//! What an operator orders is done, and no more than that: a deleted agent is cut off at once and told why, and no key of
//! its former life comes back; a drained one gets no session that does not name it; new settings and certificates touch
//! no connection.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    close::Closed,
    gateway::dispatch::DispatchOutput,
    id::{AgentId, ConnId, SessionId},
    output::Event,
};

use super::harm::Harm;
use crate::{
    At,
    facts::{Fact, NodeId},
    faults::Fault,
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Operated {
    gateways: BTreeMap<NodeId, Gateway>,
    /// Agents' ends of connections that are up.
    up: BTreeMap<NodeId, BTreeMap<ConnId, At>>,
    look_at: At,
}

#[derive(Debug, Default)]
struct Gateway {
    /// Connections whose handshake is over and that have not ended. The process hears of both later than the judge.
    up: BTreeMap<ConnId, (AgentId, [u8; 32])>,
    /// Those that its process knows of.
    conns: BTreeMap<ConnId, (AgentId, [u8; 32])>,
    /// When an agent was deleted, and with which key it enrolled after that.
    deleted: BTreeMap<AgentId, (At, Option<[u8; 32]>)>,
    /// Connections that go for that.
    revoked: BTreeMap<ConnId, At>,
    /// When an agent's connection was last closed for that.
    farewells: BTreeMap<NodeId, At>,
    drained: BTreeSet<AgentId>,
    /// Sessions, and whether they name an agent.
    wishes: BTreeMap<SessionId, bool>,
    /// When its settings or its certificate were last exchanged.
    exchanged: Option<At>,
}

impl Operated {
    pub(super) fn observe(
        &mut self,
        at: At,
        node: NodeId,
        fact: &Fact<'_>,
        harm: &Harm,
    ) -> Option<String> {
        match fact {
            Fact::Fault(Fault::Restore(_)) => {
                self.gateways.entry(node).or_default().deleted.clear();
            }
            Fact::Gone => {
                self.up.remove(&node);
                if let Some(gateway) = self.gateways.get_mut(&node) {
                    gateway.forget();
                }
            }
            Fact::Event(conn, Event::Established { identity: None }) => {
                self.up.entry(node).or_default().insert(*conn, at);
            }
            Fact::Event(conn, Event::Closed(why)) => {
                let up = self.up.get_mut(&node).and_then(|up| up.remove(conn));
                if let Some(since) = up {
                    return self.told(since, (node, *conn), why, harm);
                }
                self.bid_farewell(at, (node, *conn), harm);
            }
            _ => {}
        }
        let gateway = self.gateways.entry(node).or_default();
        let objection = gateway
            .observe(at, fact)
            .map(|text| format!("{node}: {text}"));
        objection.or_else(|| self.look_around(at, harm))
    }

    /// An agent that a gateway has deleted hears so, where the path carries that.
    fn told(
        &self,
        up: At,
        (node, conn): (NodeId, ConnId),
        why: &Closed,
        harm: &Harm,
    ) -> Option<String> {
        let gateway = harm.peer(node, conn)?.node;
        let since = *self.gateways.get(&gateway)?.farewells.get(&node)?;
        // Where it is closed for something else at the same time, that may be first.
        let fits = match why {
            Closed::ByPeer(close) => [SUPERSEDED, REVOKED].contains(&close.code),
            Closed::Local | Closed::Fault(_) => true,
            _ => false,
        };
        (up < since && !fits && harm.was_delivering(gateway, node, since))
            .then(|| format!("{node} is deleted, and {conn} is closed by {why:?}"))
    }

    fn bid_farewell(&mut self, at: At, (gateway, conn): (NodeId, ConnId), harm: &Harm) {
        if let Some(known) = self.gateways.get_mut(&gateway)
            && known.revoked.contains_key(&conn)
            && let Some(peer) = harm.peer(gateway, conn)
        {
            known.farewells.insert(peer.node, at);
        }
    }

    fn look_around(&mut self, at: At, harm: &Harm) -> Option<String> {
        if at < self.look_at {
            return None;
        }
        self.look_at = at + LOOK_EVERY;
        self.gateways.iter().find_map(|(node, gateway)| {
            let (conn, since) = gateway.revoked.iter().next()?;
            let steady = harm.pulse.steady_since(*node)?;
            (at > steady.max(*since) + REVOKED_WITHIN)
                .then(|| format!("{node} has revoked {conn} at {since:?}, and it is not closed"))
        })
    }
}

impl Gateway {
    fn observe(&mut self, at: At, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Registering(conn, identity) => {
                let (agent, key) = (identity.id, identity.spki_sha256);
                self.conns.insert(*conn, (agent, key));
                return self
                    .is_barred(agent, key)
                    .then(|| format!("{conn} is registered for agent {agent}, which is deleted"));
            }
            Fact::Event(
                conn,
                Event::Established {
                    identity: Some(identity),
                },
            ) => {
                let (agent, key) = (identity.id, identity.spki_sha256);
                self.up.insert(*conn, (agent, key));
                // It was let in before the agent was deleted.
                if self.is_barred(agent, key) {
                    self.revoked.insert(*conn, at);
                }
            }
            Fact::Event(conn, Event::Closed(why)) => {
                self.up.remove(conn);
                let revoked = self.revoked.remove(conn).is_some();
                let touched = self.exchanged == Some(at) && *why == Closed::Local && !revoked;
                let listed = self.conns.contains_key(conn);
                return (touched && listed)
                    .then(|| format!("{conn} is closed by an exchange of settings"));
            }
            Fact::ClosedTold(conn) => drop(self.conns.remove(conn)),
            Fact::Deleted(agent) => {
                self.deleted.insert(*agent, (at, None));
                let theirs = self.up.iter().filter(|(_, (of, _))| of == agent);
                self.revoked.extend(theirs.map(|(conn, _)| (*conn, at)));
            }
            Fact::Enrolled { agent, key } => {
                if let Some((_, next)) = self.deleted.get_mut(agent) {
                    *next = Some(*key);
                }
            }
            Fact::DrainTold { agent, drained } => {
                match drained {
                    true => self.drained.insert(*agent),
                    false => self.drained.remove(agent),
                };
            }
            Fact::Configured { .. } | Fact::Recertified => self.exchanged = Some(at),
            Fact::Wish {
                session, pinned, ..
            } => drop(self.wishes.insert(*session, pinned.is_some())),
            Fact::Dispatch(DispatchOutput::Open { conn, session, .. }) => {
                return self.asked(*conn, *session);
            }
            Fact::Registry(rows) => {
                let barred = rows.iter().find(|row| self.is_barred(row.agent, row.key))?;
                return Some(format!("agent {} is deleted and listed", barred.agent));
            }
            _ => {}
        }
        None
    }

    fn is_barred(&self, agent: AgentId, key: [u8; 32]) -> bool {
        let next = self.deleted.get(&agent).map(|(_, next)| *next);
        next.is_some_and(|next| next != Some(key))
    }

    fn asked(&self, conn: ConnId, session: SessionId) -> Option<String> {
        let (agent, key) = self.conns.get(&conn)?;
        if self.is_barred(*agent, *key) {
            return Some(format!(
                "{session} is asked of agent {agent}, which is deleted"
            ));
        }
        let named = self.wishes.get(&session) == Some(&true);
        (self.drained.contains(agent) && !named)
            .then(|| format!("{session} is asked of agent {agent}, which is drained"))
    }

    /// Its process is gone; what it made durable is not.
    fn forget(&mut self) {
        let deleted = std::mem::take(&mut self.deleted);
        *self = Self {
            deleted,
            ..Self::default()
        };
    }
}

/// The close code that says so.
const REVOKED: u64 = 6;
/// And the one of a connection that was too many.
const SUPERSEDED: u64 = 1;
/// A gateway that runs closes a connection within this time.
const REVOKED_WITHIN: At = At::from_secs(1);
const LOOK_EVERY: At = At::from_millis(500);
