//! A session ends because it is not read only where much of it is unread, for long, and where the connection's budget for
//! that is used up: users who pause in front of a page are left alone.

use std::collections::BTreeMap;

use adit_proto_core::{
    gateway::dispatch::DispatchOutput,
    id::{AttemptId, ConnId, SessionId, Slot},
    limits::{
        STREAM_WINDOW, UNREAD_BUDGET, UNREAD_IN_ALL, UNREAD_PATIENCE, UNREAD_SAMPLE, UNREAD_SHARE,
    },
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
    /// What gateways allow, on a connection and in all; agents have the usual budgets.
    budgets: BTreeMap<NodeId, (u64, u64)>,
    /// When more than that was last held in all.
    exceeded: BTreeMap<NodeId, At>,
    attempts: BTreeMap<(NodeId, ConnId, AttemptId), SessionId>,
    places: BTreeMap<(NodeId, ConnId, Slot), (SessionId, Side)>,
    /// Bytes written to a side and not yet taken by it, those under way included.
    unread: BTreeMap<(SessionId, Side), u64>,
}

impl Hoard {
    pub(super) fn observe(&mut self, now: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Started(Start::Gateway { limits, .. }) => {
                let budgets = (limits.unread, limits.unread_in_all);
                self.budgets.insert(node, budgets);
                self.exceeded.remove(&node);
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
            Fact::Event(conn, event) => return self.event(now, node, *conn, event),
            Fact::Leg {
                side,
                session,
                what,
                ..
            } => self.leg(now, *side, *session, what),
            _ => {}
        }
        None
    }

    fn leg(&mut self, now: At, side: Side, session: SessionId, what: &LegFact<'_>) {
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
        for (node, (_, in_all)) in &self.budgets {
            // Sums are made where a gateway is short of room only.
            if *in_all < UNREAD_IN_ALL && self.charged(|(of, ..)| of == node) > *in_all {
                self.exceeded.insert(*node, now);
            }
        }
    }

    fn event(&mut self, now: At, node: NodeId, conn: ConnId, event: &Event) -> Option<String> {
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
                let verdict = self.judge(now, node, conn, *slot, *unread_for);
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

    /// What is charged to these places.
    fn charged(&self, is: impl Fn(&(NodeId, ConnId, Slot)) -> bool) -> u64 {
        let places = self.places.iter().filter(|(key, _)| is(key));
        let charges = places.map(|(_, place)| match self.unread_of(place) {
            much if much > UNREAD_SAMPLE as u64 => STREAM_WINDOW.into(),
            little => little.saturating_sub(UNREAD_SHARE as u64),
        });
        charges.sum()
    }

    fn unread_of(&self, place: &(SessionId, Side)) -> u64 {
        self.unread.get(place).copied().unwrap_or_default()
    }

    fn judge(
        &self,
        now: At,
        node: NodeId,
        conn: ConnId,
        slot: Slot,
        unread_for: At,
    ) -> Option<String> {
        let place = self.places.get(&(node, conn, slot))?;
        let unread = self.unread_of(place);
        let charged = self.charged(|(of, at, _)| (*of, *at) == (node, conn));
        let usual = (UNREAD_BUDGET, UNREAD_IN_ALL);
        let (budget, in_all) = self.budgets.get(&node).copied().unwrap_or(usual);
        let exceeded = self.exceeded.get(&node);
        let lately = exceeded.is_some_and(|at| now.saturating_sub(*at) <= TOLD_WITHIN);
        let within = charged <= budget && !lately && self.charged(|(of, ..)| *of == node) <= in_all;
        let wrong = unread <= UNREAD_SHARE as u64 || unread_for < UNREAD_PATIENCE || within;
        wrong.then(|| {
            let (session, _) = place;
            format!(
                "{node} ended {session}, not read for {unread_for:?}, {unread} bytes unread, {charged} of {budget} on {conn}"
            )
        })
    }
}

/// A connection knows by then that all together hold less again.
const TOLD_WITHIN: At = At::from_secs(1);
