//! What an experiment measures: the moments of a few kinds of facts, in order and in bounded number.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    gateway::dispatch::DispatchOutput,
    id::{AgentId, ConnId, SessionId},
};

use crate::{
    At,
    facts::{Fact, LegFact, NodeId},
    tcp::Side,
};

/// Keeps the moments of sessions and of agents as gateways and users see them.
#[derive(Debug)]
pub struct Observer {
    room: usize,
    /// Who is at the other end of a gateway's connections.
    agents: BTreeMap<(NodeId, ConnId), AgentId>,
    /// Connections whose routes are known, so that repetitions are not kept.
    routed: BTreeSet<(NodeId, ConnId)>,
    sightings: Vec<Sighting>,
    missed: u64,
}

/// One moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When.
    pub at: At,
    /// What.
    pub what: Sight,
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// A user came, and asked for this agent if for any.
    Wished(SessionId, Option<AgentId>),
    /// An agent was asked for the session.
    Asked(SessionId, AgentId),
    /// The session is open, through this agent.
    Committed(SessionId, Option<AgentId>),
    /// The session was not opened.
    Refused(SessionId),
    /// The user got the first byte from the target.
    FirstByte(SessionId),
    /// The user's TCP connection was closed hard by the gateway.
    Lost(SessionId),
    /// The user has seen the clean end of both directions.
    Completed(SessionId),
    /// An agent's connection came to a gateway's registry.
    Registered(AgentId),
    /// The first routes came on that connection.
    Routed(AgentId),
}

impl Observer {
    /// Makes one that keeps so many moments and counts the rest.
    #[must_use]
    pub const fn with_room(room: usize) -> Self {
        Self {
            room,
            agents: BTreeMap::new(),
            routed: BTreeSet::new(),
            sightings: Vec::new(),
            missed: 0,
        }
    }

    /// All moments in order.
    #[must_use]
    pub fn sightings(&self) -> &[Sighting] {
        &self.sightings
    }

    /// How many moments there was no room for.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    pub(crate) fn note(&mut self, at: At, node: NodeId, fact: &Fact<'_>) {
        let Some(what) = self.see(node, fact) else {
            return;
        };
        if self.sightings.len() < self.room {
            self.sightings.push(Sighting { at, what });
        } else {
            self.missed += 1;
        }
    }

    fn see(&mut self, node: NodeId, fact: &Fact<'_>) -> Option<Sight> {
        if let Fact::Wish {
            session, pinned, ..
        } = fact
        {
            return Some(Sight::Wished(*session, *pinned));
        }
        if let Fact::Registering(conn, identity) = fact {
            // A gateway that restarts counts its connections from the beginning.
            self.agents.insert((node, *conn), identity.id);
            self.routed.remove(&(node, *conn));
            return Some(Sight::Registered(identity.id));
        }
        if let Fact::RoutesTold { conn, .. } = fact {
            let agent = self.agents.get(&(node, *conn))?;
            let first = self.routed.insert((node, *conn));
            return first.then_some(Sight::Routed(*agent));
        }
        if let Fact::Dispatch(output) = fact {
            return self.see_dispatch(node, output);
        }
        if let Fact::Leg {
            side: Side::User,
            session,
            what,
            ..
        } = fact
        {
            return see_user(*session, what);
        }
        None
    }

    fn see_dispatch(&self, node: NodeId, output: &DispatchOutput) -> Option<Sight> {
        match output {
            DispatchOutput::Open { conn, session, .. } => {
                let agent = self.agents.get(&(node, *conn))?;
                Some(Sight::Asked(*session, *agent))
            }
            DispatchOutput::Committed { session, agent, .. } => {
                Some(Sight::Committed(*session, *agent))
            }
            DispatchOutput::Failed { session, .. } => Some(Sight::Refused(*session)),
            DispatchOutput::Cancel { .. }
            | DispatchOutput::Discard { .. }
            | DispatchOutput::DialDirect { .. }
            | DispatchOutput::AbortDirect { .. }
            | DispatchOutput::Retire { .. }
            | DispatchOutput::Refused { .. }
            | DispatchOutput::RoutesRefused { .. } => None,
        }
    }
}

fn see_user(session: SessionId, what: &LegFact<'_>) -> Option<Sight> {
    match what {
        LegFact::Got { offset: 0, .. } => Some(Sight::FirstByte(session)),
        LegFact::GotReset => Some(Sight::Lost(session)),
        LegFact::Done => Some(Sight::Completed(session)),
        LegFact::Attached
        | LegFact::Wrote(_)
        | LegFact::Fin
        | LegFact::Reset
        | LegFact::Got { .. }
        | LegFact::GotFin => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::tcp::LegId;

    fn byte(offset: u64) -> (SessionId, LegFact<'static>) {
        let session = SessionId(Uuid::from_u128(1));
        (
            session,
            LegFact::Got {
                offset,
                bytes: b"x",
            },
        )
    }

    fn show(observer: &mut Observer, side: Side, offset: u64) {
        let (session, what) = byte(offset);
        let leg = LegId(0);
        let fact = Fact::Leg {
            leg,
            side,
            session,
            what,
        };
        observer.note(Duration::from_secs(offset), NodeId(0), &fact);
    }

    #[test]
    fn only_the_users_first_byte_is_kept() {
        let mut observer = Observer::with_room(9);
        show(&mut observer, Side::Target, 0);
        show(&mut observer, Side::User, 0);
        show(&mut observer, Side::User, 1);
        let first = Sighting {
            at: At::ZERO,
            what: Sight::FirstByte(byte(0).0),
        };
        assert_eq!(observer.sightings(), [first]);
        assert_eq!(observer.missed(), 0);
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let mut observer = Observer::with_room(1);
        show(&mut observer, Side::User, 0);
        show(&mut observer, Side::User, 0);
        assert_eq!((observer.sightings().len(), observer.missed()), (1, 1));
    }
}
