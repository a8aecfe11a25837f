//! Nobody is connected whose certificate, key, pin or date does not allow it, at either end.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use adit_proto_core::{
    id::{AgentId, ConnId},
    output::Event,
};

use crate::{
    At,
    facts::{Fact, NodeId, Start},
    faults::Fault,
    plan::Roster,
};

/// What a node may believe.
#[derive(Debug, Default)]
struct Known {
    roster: Option<Arc<Roster>>,
    trusts: bool,
    wall_off_ms: i64,
    /// When the clock was set; none where it was so from the start.
    wall_since: Option<At>,
    /// Renewed keys, each with its agent.
    renewed: BTreeSet<(AgentId, [u8; 32])>,
    /// The one key of an agent that has shown its renewed one, and since when that is so.
    only: BTreeMap<AgentId, ([u8; 32], At)>,
    /// When an agent was deleted; its former keys are of no use since then.
    deleted: BTreeMap<AgentId, At>,
}

impl Known {
    /// Tells whether a key may be an agent's now, or might a handshake ago.
    fn admits(&self, at: At, id: AgentId, key: [u8; 32]) -> bool {
        let enrolled = self
            .roster
            .as_ref()
            .is_some_and(|roster| roster.0.contains(&(id, key)));
        let replaced = |(only, since): &([u8; 32], At)| {
            *only != key && !self.renewed.contains(&(id, key)) && at > *since + HANDSHAKE
        };
        let deleted = self
            .deleted
            .get(&id)
            .is_some_and(|since| at > *since + HANDSHAKE);
        let is_next = self.only.get(&id).is_some_and(|(only, _)| *only == key);
        (enrolled && !deleted || is_next || self.renewed.contains(&(id, key)))
            && !self.only.get(&id).is_some_and(replaced)
    }

    /// The gateway's store has changed.
    fn stored(&mut self, at: At, fact: &Fact<'_>) {
        match fact {
            Fact::Fault(Fault::Restore(_)) => {
                self.renewed.clear();
                self.only.clear();
                self.deleted.clear();
            }
            Fact::Deleted(agent) => {
                self.deleted.insert(*agent, at);
                self.renewed.retain(|(id, _)| id != agent);
                self.only.remove(agent);
            }
            Fact::Enrolled { agent, key } => {
                self.only.insert(*agent, (*key, at));
            }
            Fact::Certified { agent, key } => {
                self.renewed.insert((*agent, *key));
            }
            Fact::Confirmed { agent, key } => {
                self.renewed
                    .retain(|(id, other)| id != agent || other == key);
                self.only.insert(*agent, (*key, at));
            }
            _ => {}
        }
    }
}

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Identity {
    nodes: BTreeMap<NodeId, Known>,
    impostors: BTreeSet<NodeId>,
    /// Who sent the datagram that came last, and for which connection it was.
    from: Option<NodeId>,
    peers: BTreeMap<(NodeId, ConnId), NodeId>,
    calm: bool,
}

impl Identity {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Started(start) => self.start(at, node, start),
            Fact::Fault(Fault::WallClock(_, off_ms)) => {
                let known = self.nodes.entry(node).or_default();
                (known.wall_off_ms, known.wall_since) = (*off_ms, Some(at));
            }
            Fact::Fault(Fault::Restore(_))
            | Fact::Deleted(_)
            | Fact::Enrolled { .. }
            | Fact::Certified { .. }
            | Fact::Confirmed { .. } => self.nodes.entry(node).or_default().stored(at, fact),
            Fact::Calm => self.calm = true,
            Fact::Received { from, .. } => self.from = Some(*from),
            Fact::Routed(conn) => {
                let from = self.from?;
                self.peers.insert((node, *conn), from);
            }
            Fact::Gone => self.peers.retain(|(of, _), _| *of != node),
            Fact::Event(conn, Event::Established { identity }) => {
                let known = self.nodes.get(&node)?;
                let out_of_date = !VALID_MS.contains(&known.wall_off_ms);
                if out_of_date
                    && known.wall_since.is_none_or(|since| at > since + HANDSHAKE)
                    && !self.calm
                {
                    return Some(format!(
                        "{conn} is established by a certificate out of date"
                    ));
                }
                let peer = self.peers.get(&(node, *conn));
                if identity.is_none()
                    && let Some(peer) = peer.filter(|peer| self.impostors.contains(*peer))
                {
                    return Some(format!("{conn} is to {peer}, which is not what it seems"));
                }
                return match (identity, &known.roster) {
                    (Some(identity), Some(_)) => {
                        let may = known.admits(at, identity.id, identity.spki_sha256);
                        (!may).then(|| format!("{conn} let agent {} in", identity.id))
                    }
                    (None, None) if !known.trusts => {
                        Some(format!("{conn} is to a gateway that the pin is not of"))
                    }
                    (None, None) => None,
                    (Some(_), None) | (None, Some(_)) => {
                        Some(format!("{conn} has the other role's identity"))
                    }
                };
            }
            _ => {}
        }
        None
    }

    fn start(&mut self, at: At, node: NodeId, start: &Start) {
        let known = self.nodes.entry(node).or_default();
        let off_ms = match start {
            Start::Gateway {
                roster,
                wall_off_ms,
                impostor,
                ..
            } => {
                self.impostors.extend(impostor.then_some(node));
                known.roster = Some(Arc::clone(roster));
                *wall_off_ms
            }
            Start::Agent {
                trusts,
                wall_off_ms,
                ..
            } => {
                known.trusts = *trusts;
                *wall_off_ms
            }
        };
        if at.is_zero() {
            known.wall_off_ms = off_ms;
        }
    }
}

/// The certificates have been good for a year at the start of a run, and will be for two more; with some days to spare.
const VALID_MS: RangeInclusive<i64> = -370 * DAY_MS..=740 * DAY_MS;
const DAY_MS: i64 = 86_400_000;
/// The date is looked at within a handshake.
const HANDSHAKE: At = Duration::from_secs(10);
