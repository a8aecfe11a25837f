//! A path is given up, or suspected, only after something went wrong with it, and not before its time.

use std::collections::BTreeSet;

use adit_proto_core::{close::Closed, id::ConnId, output::Event};

use super::harm::Harm;
use crate::{
    At,
    facts::{Fact, NodeId},
};

/// The judge.
///
/// What an end counts as a proof of life is not known here, so an end is early only where it comes sooner after the
/// first thing that went wrong than any silence could last that began with it.
#[derive(Debug, Default)]
pub(super) struct Sound {
    established: BTreeSet<(NodeId, ConnId)>,
}

impl Sound {
    pub(super) fn observe(
        &mut self,
        at: At,
        node: NodeId,
        fact: &Fact<'_>,
        harm: &Harm,
    ) -> Option<String> {
        let Fact::Event(conn, event) = fact else {
            if let Fact::Gone = fact {
                self.established.retain(|(of, _)| *of != node);
            }
            return None;
        };
        let place = (node, *conn);
        let silence = match event {
            Event::Established { .. } => {
                self.established.insert(place);
                return None;
            }
            Event::PathSuspect => SUSPECT_MIN,
            Event::Closed(why) => {
                if !self.established.remove(&place) {
                    return None;
                }
                match why {
                    Closed::PathDead => DEAD_MIN,
                    Closed::TimedOut => TIMED_OUT_MIN,
                    _ => return None,
                }
            }
            _ => return None,
        };
        let peer = harm.peer(node, *conn)?;
        // The cause may have gone long before: nobody asks for a peer that has left without being heard.
        let from = peer.heard.checked_sub(BEFORE)?;
        let runs = |node| harm.pulse.steady_since(node).is_some_and(|at| at <= from);
        let caused = harm.was_disturbed(node, peer.node, from, at.saturating_sub(silence));
        (!caused && runs(node) && runs(peer.node)).then(|| {
            format!(
                "{node} takes {conn} for {event:?}, and nothing went wrong {silence:?} or more before"
            )
        })
    }
}

/// The least time from what goes wrong to each of these: the silence that it takes (3 s, 4 s, 30 s), less what may have
/// passed since the last sign of life.
const SUSPECT_MIN: At = At::from_millis(1_400);
const DEAD_MIN: At = At::from_millis(2_400);
const TIMED_OUT_MIN: At = At::from_secs(20);
/// What went wrong may show so much later.
const BEFORE: At = At::from_secs(12);
