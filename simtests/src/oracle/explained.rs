//! A TCP connection that a node closes hard has a reason, and the hard end of one end's reaches the other end's.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    gateway::dispatch::DispatchOutput,
    id::{AttemptId, ConnId, SessionId, Slot},
    output::{Event, SessionEnd},
};

use super::pulse::Pulse;
use crate::{
    At,
    facts::{Fact, LegFact, NodeId},
    tcp::{LegId, Side},
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Explained {
    pulse: Pulse,
    sessions: BTreeMap<SessionId, Session>,
    attempts: BTreeMap<(NodeId, ConnId, AttemptId), SessionId>,
    places: BTreeMap<(NodeId, ConnId, Slot), SessionId>,
    closed: BTreeSet<(NodeId, ConnId)>,
    calm: Option<At>,
    judged: bool,
}

#[derive(Debug, Default)]
struct Session {
    /// What carries it, or was asked to, at either end.
    conns: BTreeSet<(NodeId, ConnId)>,
    /// The gateway gave up an attempt, or the whole session: agents that opened it close it.
    given_up: bool,
    /// It was ended because it was not read; another judge looks at that.
    not_read: bool,
    /// A process that carried it is gone.
    lost: bool,
    legs: BTreeMap<LegId, Leg>,
}

#[derive(Clone, Copy, Debug)]
struct Leg {
    side: Side,
    /// Its program closed it hard.
    reset: bool,
    /// It is over, whoever ended it.
    over: bool,
}

impl Explained {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        self.pulse.observe(at, node, fact);
        if let Fact::Leg {
            leg,
            side,
            session,
            what,
        } = fact
        {
            return self.leg(node, (*leg, *side), *session, what);
        } else if let Fact::Event(conn, event) = fact {
            self.event(node, *conn, event);
        } else if let Fact::Dispatch(output) = fact {
            self.output(node, output);
        } else if let Fact::Answered {
            conn,
            attempt,
            result: Err(_),
        } = fact
        {
            self.give_up(node, *conn, *attempt);
        } else if let Fact::GaveUp(session) = fact {
            self.sessions.entry(*session).or_default().given_up = true;
        } else if let Fact::Gone = fact {
            self.forget(node);
        } else if let Fact::Calm = fact {
            self.calm = Some(at);
        }
        let due = self.calm.is_some_and(|calm| calm + CALM_SETTLE <= at);
        if due && !self.judged {
            self.judged = true;
            return self.left();
        }
        None
    }

    fn leg(
        &mut self,
        node: NodeId,
        (id, side): (LegId, Side),
        session: SessionId,
        what: &LegFact<'_>,
    ) -> Option<String> {
        if matches!(what, LegFact::Got { .. } | LegFact::Wrote(_)) {
            return None;
        }
        let entry = self.sessions.entry(session).or_default();
        let leg = entry.legs.entry(id).or_insert(Leg {
            side,
            reset: false,
            over: false,
        });
        match what {
            LegFact::Reset => {
                leg.reset = true;
                leg.over = true;
            }
            LegFact::Done => leg.over = true,
            LegFact::GotReset => {
                leg.over = true;
                return self.unexplained(node, side, session);
            }
            LegFact::Attached
            | LegFact::Wrote(_)
            | LegFact::Fin
            | LegFact::Got { .. }
            | LegFact::GotFin => {}
        }
        None
    }

    fn unexplained(&self, node: NodeId, side: Side, session: SessionId) -> Option<String> {
        // A process that ends takes its connections with it.
        self.pulse.steady_since(node)?;
        let known = self.sessions.get(&session)?;
        let reset = known.legs.values().any(|leg| leg.side != side && leg.reset);
        let closed = known.lost || known.conns.iter().any(|conn| self.closed.contains(conn));
        let given_up = side == Side::Target && known.given_up;
        (!reset && !closed && !given_up && !known.not_read)
            .then(|| format!("{node} closed the {side:?} of {session} hard for no reason"))
    }

    /// The names of connections are given again by the next process; what this one carried is over with it.
    fn forget(&mut self, node: NodeId) {
        self.attempts.retain(|(of, ..), _| *of != node);
        self.places.retain(|(of, ..), _| *of != node);
        for session in self.sessions.values_mut() {
            session.lost |= session.conns.iter().any(|(of, _)| *of == node);
            session.conns.retain(|(of, _)| *of != node);
        }
        self.closed.retain(|(of, _)| *of != node);
    }

    fn event(&mut self, node: NodeId, conn: ConnId, event: &Event) {
        if let Event::Closed(_) = event {
            self.closed.insert((node, conn));
        } else if let Event::SessionRequested { slot, session, .. } = event {
            self.places.insert((node, conn, *slot), *session);
            let session = self.sessions.entry(*session).or_default();
            session.conns.insert((node, conn));
        } else if let Event::SessionOpened { attempt, slot } = event
            && let Some(session) = self.attempts.get(&(node, conn, *attempt))
        {
            self.places.insert((node, conn, *slot), *session);
        } else if let Event::SessionEnded {
            slot,
            how: SessionEnd::NotRead { .. },
        } = event
            && let Some(session) = self.places.get(&(node, conn, *slot))
        {
            self.sessions.entry(*session).or_default().not_read = true;
        }
    }

    fn output(&mut self, node: NodeId, output: &DispatchOutput) {
        match output {
            DispatchOutput::Open {
                conn,
                attempt,
                session,
                ..
            } => {
                self.attempts.insert((node, *conn, *attempt), *session);
                let session = self.sessions.entry(*session).or_default();
                session.conns.insert((node, *conn));
            }
            DispatchOutput::Cancel { conn, attempt } => self.give_up(node, *conn, *attempt),
            DispatchOutput::Discard { conn, slot } => {
                if let Some(session) = self.places.get(&(node, *conn, *slot)) {
                    self.sessions.entry(*session).or_default().given_up = true;
                }
            }
            DispatchOutput::Failed { session, .. } => {
                self.sessions.entry(*session).or_default().given_up = true;
            }
            DispatchOutput::DialDirect { .. }
            | DispatchOutput::AbortDirect { .. }
            | DispatchOutput::Committed { .. }
            | DispatchOutput::Retire { .. }
            | DispatchOutput::Refused { .. }
            | DispatchOutput::RoutesRefused { .. } => {}
        }
    }

    fn give_up(&mut self, node: NodeId, conn: ConnId, attempt: AttemptId) {
        if let Some(session) = self.attempts.get(&(node, conn, attempt)) {
            self.sessions.entry(*session).or_default().given_up = true;
        }
    }

    /// A program whose peer closed hard long ago must have heard of it. Where a race had losers, which target was the
    /// user's is not known here.
    fn left(&self) -> Option<String> {
        let is = |side| move |leg: &&Leg| leg.side == side;
        self.sessions.iter().find_map(|(id, session)| {
            let legs: Vec<Leg> = session.legs.values().copied().collect();
            let user = legs.iter().find(is(Side::User))?;
            let targets: Vec<&Leg> = legs.iter().filter(is(Side::Target)).collect();
            let target = *targets.first()?;
            let lost = (user.reset && targets.iter().any(|leg| !leg.over))
                || (target.reset && targets.len() == 1 && !user.over);
            lost.then(|| format!("one end of {id} closed hard, and the other was never told"))
        })
    }
}

/// Time after the calm in which every hard end has come through.
const CALM_SETTLE: At = At::from_secs(10);
