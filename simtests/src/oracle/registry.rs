//! A gateway's registry holds exactly the connections that were registered and have not ended, each with the newest
//! epoch that it was told: the late end of an old connection takes no newer one with it, epochs only grow, and an
//! agent's id belongs to one key at a time.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    gateway::{dispatch::DispatchOutput, hub::RegisterError, info::AgentStatus},
    id::{AgentId, ConnId},
    output::Event,
};

use super::bounds::ROUTES_PER_AGENT_MAX;
use crate::facts::{Fact, NodeId, RegistryRow};

#[derive(Debug)]
struct Entry {
    agent: AgentId,
    key: [u8; 32],
    epoch: u64,
    retired: bool,
}

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: BTreeMap<NodeId, BTreeMap<ConnId, Entry>>,
    accepted: BTreeMap<(NodeId, ConnId), u64>,
    /// Keys that were certified as the successors of others.
    renewed: BTreeSet<(NodeId, AgentId, [u8; 32])>,
}

impl Registry {
    pub(super) fn observe(&mut self, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        let entries = self.entries.entry(node).or_default();
        match fact {
            Fact::Registering(conn, identity) => {
                let (agent, key) = (identity.id, identity.spki_sha256);
                let entry = Entry {
                    agent,
                    key,
                    epoch: 0,
                    retired: false,
                };
                entries.insert(*conn, entry);
                None
            }
            Fact::Dispatch(DispatchOutput::Refused { conn, error }) => {
                let refused = entries.remove(conn)?;
                let other = |entry: &Entry| {
                    entry.agent == refused.agent && entry.key != refused.key && !entry.retired
                };
                let agent = refused.agent;
                (*error == RegisterError::OtherKey && !entries.values().any(other))
                    .then(|| format!("{conn} of agent {agent} is refused for a key that is gone"))
            }
            Fact::Deleted(agent) => {
                entries.retain(|_, entry| entry.agent != *agent);
                None
            }
            Fact::Dispatch(DispatchOutput::Retire { conn }) => {
                if let Some(entry) = entries.get_mut(conn) {
                    entry.retired = true;
                }
                None
            }
            Fact::ClosedTold(conn) => {
                entries.remove(conn);
                None
            }
            Fact::RoutesTold {
                conn,
                epoch,
                routes,
            } => {
                if let Some(entry) = entries.get_mut(conn)
                    && routes.len() <= ROUTES_PER_AGENT_MAX
                {
                    entry.epoch = entry.epoch.max(*epoch);
                }
                None
            }
            Fact::Event(conn, Event::RoutesAccepted { epoch, .. }) => {
                let before = self.accepted.insert((node, *conn), *epoch).unwrap_or(0);
                (*epoch <= before).then(|| format!("{conn} accepted epoch {epoch} after {before}"))
            }
            Fact::Certified { agent, key } => {
                self.renewed.insert((node, *agent, *key));
                None
            }
            Fact::Registry(rows) => differs(entries, rows).or_else(|| {
                let renewed = |id, key| self.renewed.contains(&(node, id, key));
                two_keys(entries, renewed)
            }),
            Fact::Gone => {
                entries.clear();
                self.accepted.retain(|(of, _), _| *of != node);
                None
            }
            _ => None,
        }
    }
}

fn differs(entries: &BTreeMap<ConnId, Entry>, rows: &[RegistryRow]) -> Option<String> {
    for (conn, entry) in entries {
        let Some(row) = rows.iter().find(|row| row.conn == *conn) else {
            return Some(format!(
                "{conn} of agent {} is not listed any more",
                entry.agent
            ));
        };
        if (row.agent, row.key) != (entry.agent, entry.key) {
            return Some(format!("{conn} is listed as agent {}", row.agent));
        }
        if row.epoch != entry.epoch {
            return Some(format!(
                "{conn} is at epoch {}, not {}",
                row.epoch, entry.epoch
            ));
        }
    }
    if let Some(row) = rows.iter().find(|row| !entries.contains_key(&row.conn)) {
        return Some(format!(
            "{} of agent {} is still listed",
            row.conn, row.agent
        ));
    }
    let is_wrong = |row: &&RegistryRow| {
        let retired = entries.get(&row.conn).is_some_and(|entry| entry.retired);
        retired && row.status == AgentStatus::Online
    };
    if let Some(row) = rows.iter().find(is_wrong) {
        return Some(format!("{} is retired and called online", row.conn));
    }
    None
}

/// Two connections of one agent with different keys, of which neither is the other's successor.
fn two_keys(
    entries: &BTreeMap<ConnId, Entry>,
    renewed: impl Fn(AgentId, [u8; 32]) -> bool,
) -> Option<String> {
    let live: Vec<_> = entries.values().filter(|entry| !entry.retired).collect();
    let other = |a: &Entry| {
        let differs = |b: &&&Entry| b.agent == a.agent && b.key != a.key;
        let stranger = |b: &&Entry| !renewed(b.agent, b.key);
        !renewed(a.agent, a.key) && live.iter().filter(differs).any(stranger)
    };
    live.iter()
        .find(|entry| other(entry))
        .map(|entry| format!("agent {} is connected with two keys", entry.agent))
}
