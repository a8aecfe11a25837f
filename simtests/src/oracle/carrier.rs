//! At most one candidate of a session ever carries a byte: the one that the gateway committed to.

use std::collections::BTreeMap;

use adit_proto_core::{
    gateway::dispatch::DispatchOutput,
    id::{AgentId, SessionId},
};

use crate::{
    facts::{Fact, LegFact, NodeId, Start},
    tcp::{LegId, Side},
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Carrier {
    agents: BTreeMap<NodeId, AgentId>,
    committed: BTreeMap<SessionId, Option<AgentId>>,
    /// The TCP connection to a target that got a byte of the user's.
    carrying: BTreeMap<SessionId, LegId>,
    users: BTreeMap<SessionId, LegId>,
}

impl Carrier {
    pub(super) fn observe(&mut self, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Started(Start::Agent { id, .. }) => drop(self.agents.insert(node, *id)),
            Fact::Dispatch(DispatchOutput::Committed { session, agent, .. }) => {
                let before = self.committed.insert(*session, *agent);
                return before.map(|_| format!("{session} is committed twice"));
            }
            Fact::Leg {
                leg,
                side: Side::User,
                session,
                what: LegFact::Attached,
            } => {
                let before = self.users.insert(*session, *leg);
                return before.map(|_| format!("{session} is given two users"));
            }
            Fact::Leg {
                leg,
                side: Side::Target,
                session,
                what: LegFact::Got { .. } | LegFact::GotFin,
            } => return self.carry(node, *leg, *session),
            _ => {}
        }
        None
    }

    fn carry(&mut self, node: NodeId, leg: LegId, session: SessionId) -> Option<String> {
        let first = *self.carrying.entry(session).or_insert(leg);
        if first != leg {
            return Some(format!(
                "two targets of {session} got bytes or an end of the user's"
            ));
        }
        let agent = self.agents.get(&node)?;
        match self.committed.get(&session) {
            Some(Some(committed)) if committed == agent => None,
            Some(_) => Some(format!(
                "agent {agent} carries {session}, which is another's"
            )),
            None => Some(format!(
                "agent {agent} carries {session} before it is committed"
            )),
        }
    }
}
