//! An orderly end loses nothing: a session that was over at the end which closed its connection ends cleanly at the other
//! one, too, however slowly its program reads.

use std::collections::BTreeMap;

use adit_proto_core::{close::Closed, id::SessionId, output::Event};

use super::{bounds::STOP_PATIENCE, harm::Harm};
use crate::{
    At,
    facts::{Fact, LegFact, NodeId},
    tcp::{LegId, Side},
};

#[derive(Debug)]
struct Leg {
    node: NodeId,
    side: Side,
    session: SessionId,
    /// When the process that carries it was started.
    process: At,
    /// The program closed it hard.
    reset: bool,
    /// Both directions had ended cleanly.
    done: bool,
}

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Rest {
    legs: BTreeMap<LegId, Leg>,
    sessions: BTreeMap<SessionId, Vec<LegId>>,
    started: BTreeMap<NodeId, At>,
    /// When each node was last told to stop; the close that follows may be heard after its next start.
    stopped: BTreeMap<NodeId, At>,
    /// The connection that was lost last, if its peer had closed it orderly: where, when and with which words.
    closed: Option<(NodeId, At, String)>,
}

impl Rest {
    pub(super) fn observe(
        &mut self,
        at: At,
        node: NodeId,
        fact: &Fact<'_>,
        harm: &Harm,
    ) -> Option<String> {
        match fact {
            Fact::Started(_) => drop(self.started.insert(node, at)),
            Fact::Stopping => drop(self.stopped.insert(node, at)),
            Fact::Event(_, Event::Closed(why)) => {
                self.closed = match why {
                    Closed::ByPeer(close) if close.code == 0 => {
                        Some((node, at, close.reason.clone()))
                    }
                    _ => None,
                };
            }
            Fact::Leg {
                leg,
                side,
                session,
                what,
            } => return self.leg((at, node), *leg, (*side, *session), what, harm),
            _ => {}
        }
        None
    }

    fn leg(
        &mut self,
        (at, node): (At, NodeId),
        id: LegId,
        (side, session): (Side, SessionId),
        what: &LegFact<'_>,
        harm: &Harm,
    ) -> Option<String> {
        if let LegFact::Attached = what {
            self.sessions.entry(session).or_default().push(id);
            let leg = Leg {
                node,
                side,
                session,
                process: self.started.get(&node).copied().unwrap_or_default(),
                reset: false,
                done: false,
            };
            self.legs.insert(id, leg);
            return None;
        }
        let leg = self.legs.get_mut(&id)?;
        match what {
            LegFact::Reset => leg.reset = true,
            LegFact::Done => leg.done = true,
            LegFact::GotReset if !leg.reset => return self.cut(at, id, harm),
            _ => {}
        }
        None
    }

    fn cut(&self, at: At, id: LegId, harm: &Harm) -> Option<String> {
        let leg = self.legs.get(&id)?;
        let (_, _, words) = (self.closed.as_ref())
            .filter(|(node, closed_at, _)| (*node, *closed_at) == (leg.node, at))?;
        let mut others = (self.sessions.get(&leg.session)?.iter())
            .filter_map(|id| self.legs.get(id))
            .filter(|other| other.side != leg.side);
        let (Some(other), None) = (others.next(), others.next()) else {
            // Who of several carried it is not seen here.
            return None;
        };
        if !other.done || self.gave_up(at, other, leg.node, harm) {
            return None;
        }
        Some(format!(
            "{:?} of {} cut by a connection that its peer had closed ({words:?}) when the session was over there",
            leg.side, leg.session
        ))
    }

    /// One that stops waits for a while only.
    fn gave_up(&self, at: At, by: &Leg, told: NodeId, harm: &Harm) -> bool {
        let since = self
            .stopped
            .get(&by.node)
            .filter(|since| **since >= by.process);
        since.is_some_and(|since| {
            *since + STOP_PATIENCE <= at || !harm.was_delivering(by.node, told, *since)
        })
    }
}
