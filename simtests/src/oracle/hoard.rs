//! A session ends because it is not read only where much of it is unread, for long, and where the connection's budget for
//! that is used up: users who pause in front of a page are left alone.

use std::collections::BTreeMap;

use adit_proto_core::{
    gateway::dispatch::DispatchOutput,
    id::{AttemptId, ConnId, SessionId, Slot},
    limits::{STREAM_WINDOW, UNREAD_BUDGET, UNREAD_PATIENCE, UNREAD_SAMPLE, UNREAD_SHARE},
    output::{Event, SessionEnd},
};

use crate::{
    At,
    facts::{Fact, LegFact, NodeId, Start},
    tcp::Side,
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Hoard {
    /// What gateways allow; agents have the usual budget.
    budgets: BTreeMap<NodeId, u64>,
    attempts: BTreeMap<(NodeId, ConnId, AttemptId), SessionId>,
    places: BTreeMap<(NodeId, ConnId, Slot), (SessionId, Side)>,
    /// Bytes written to a side and not yet taken by it, those under way included.
    unread: BTreeMap<(SessionId, Side), u64>,
}

impl Hoard {
    pub(super) fn observe(&mut self, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Started(Start::Gateway { limits, .. }) => {
                self.budgets.insert(node, limits.unread);
            }
            Fact::Gone => {
                self.attempts.retain(|(of, ..), _| *of != node);
                self.places.retain(|(of, ..), _| *of != node);
            }
            Fact::Dispatch(DispatchOutput::Open {
                conn,
                attempt,
                session,
                ..
            }) => drop(self.attempts.insert((node, *conn, *attempt), *session)),
            Fact::Event(conn, event) => return self.event(node, *conn, event),
            Fact::Leg {
                side,
                session,
                what,
                ..
            } => self.leg(*side, *session, what),
            _ => {}
        }
        None
    }

    fn leg(&mut self, side: Side, session: SessionId, what: &LegFact<'_>) {
        if let LegFact::Wrote(len) = what {
            let to = match side {
                Side::User => Side::Target,
                Side::Target => Side::User,
            };
            *self.unread.entry((session, to)).or_default() += len;
        } else if let LegFact::Got { bytes, .. } = what {
            let unread = self.unread.entry((session, side)).or_default();
            *unread = unread.saturating_sub(bytes.len() as u64);
        }
    }

    fn event(&mut self, node: NodeId, conn: ConnId, event: &Event) -> Option<String> {
        match event {
            Event::SessionRequested { slot, session, .. } => {
                let place = (*session, Side::Target);
                self.places.insert((node, conn, *slot), place);
            }
            Event::SessionOpened { attempt, slot } => {
                if let Some(session) = self.attempts.get(&(node, conn, *attempt)) {
                    let place = (*session, Side::User);
                    self.places.insert((node, conn, *slot), place);
                }
            }
            Event::SessionEnded {
                slot,
                how: SessionEnd::NotRead { unread_for },
            } => {
                let verdict = self.judge(node, conn, *slot, *unread_for);
                self.places.remove(&(node, conn, *slot));
                return verdict;
            }
            Event::SessionEnded { slot, .. } => drop(self.places.remove(&(node, conn, *slot))),
            Event::Closed(_) => {
                self.places
                    .retain(|(of, at, _), _| (*of, *at) != (node, conn));
            }
            _ => {}
        }
        None
    }

    fn judge(&self, node: NodeId, conn: ConnId, slot: Slot, unread_for: At) -> Option<String> {
        let place = self.places.get(&(node, conn, slot))?;
        let unread = |place| self.unread.get(place).copied().unwrap_or_default();
        let beyond = unread(place).saturating_sub(UNREAD_SHARE as u64);
        let here = |(of, at, _): &(NodeId, ConnId, Slot)| (*of, *at) == (node, conn);
        let places = self.places.iter().filter(|(key, _)| here(key));
        let charged: u64 = places
            .map(|(_, place)| match unread(place) {
                much if much > UNREAD_SAMPLE as u64 => STREAM_WINDOW.into(),
                little => little.saturating_sub(UNREAD_SHARE as u64),
            })
            .sum();
        let budget = self.budgets.get(&node).copied().unwrap_or(UNREAD_BUDGET);
        let wrong = beyond == 0 || unread_for < UNREAD_PATIENCE || charged <= budget;
        wrong.then(|| {
            let (session, _) = place;
            format!(
                "{node} ended {session}, not read for {unread_for:?}, {} bytes unread, {charged} of {budget} on {conn}",
                unread(place)
            )
        })
    }
}
