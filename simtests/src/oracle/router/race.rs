//! When another candidate is asked beside one that has not answered: not before its time, and not after it.

use adit_proto_core::id::{AgentId, ConnId, SessionId};

use super::{
    Gateway,
    opening::{Area, Opening},
};
use crate::{
    At,
    oracle::bounds::{DISPATCH_STAGGER, FAILURE_MEMORY},
};

impl Gateway {
    /// Something speaks against the one who was asked last: it failed lately, its path stalls, or a newer connection of
    /// its agent's is there.
    pub(super) fn is_in_doubt(&self, at: At, opening: &Opening) -> bool {
        let waiting = || opening.tried.iter().filter(|t| t.attempt.is_some());
        let stalls = |conn| {
            let known = self.conns.iter().find(|known| known.way.conn == conn);
            known.is_none_or(|known| known.suspect)
        };
        // One is asked beside who failed lately, in the same instant.
        let turn = opening.tried.iter().skip(opening.turn_from);
        let mut now = turn.filter(|t| t.attempt.is_some() && t.since == at);
        let failed_lately = now.next().filter(|_| now.next().is_none());
        failed_lately.is_some_and(|t| self.failed_lately(at, t.agent, opening))
            || waiting().any(|t| t.outdated || stalls(t.conn))
    }

    pub(super) fn failed_lately(&self, at: At, agent: AgentId, opening: &Opening) -> bool {
        let failed = self.failed.get(&(agent, Area::of(&opening.target)));
        failed.is_some_and(|failed| at < *failed + FAILURE_MEMORY)
    }

    /// A candidate that does not answer is overtaken.
    pub(super) fn raced(&mut self, at: At) -> Option<String> {
        let late = |opening: &Opening| {
            opening
                .waiting_since
                .is_some_and(|since| at > since + DISPATCH_STAGGER + SLACK)
        };
        let sessions: Vec<SessionId> = self
            .openings
            .iter()
            .filter(|(_, opening)| opening.must_go_on || late(opening))
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            if let Some(text) = self.stopped_short(at, session) {
                return Some(text);
            }
            if !self.openings.get(&session).is_some_and(late) {
                continue;
            }
            let mut opening = self.openings.remove(&session)?;
            // Only candidates that were there when it was their turn; later ones have to wait for a failure.
            let since = opening.waiting_since.take();
            let next = self.best(at, &mut opening);
            let was_there = next.as_ref().and_then(|way| self.since(way.conn));
            let target = opening.target.clone();
            self.openings.insert(session, opening);
            let due = since.map(|since| since + DISPATCH_STAGGER);
            if let (Some(way), Some(there), Some(due)) = (next, was_there, due)
                && there < due
            {
                return Some(format!(
                    "{session} to {target} waits for one agent; {} of {} could be asked",
                    way.conn, way.agent
                ));
            }
        }
        None
    }

    /// Nobody was asked beside one who is in doubt, though there is somebody.
    fn stopped_short(&mut self, at: At, session: SessionId) -> Option<String> {
        let opening = self.openings.get_mut(&session)?;
        if !std::mem::take(&mut opening.must_go_on) {
            return None;
        }
        let mut opening = self.openings.remove(&session)?;
        let mut next = self.best(at, &mut opening);
        while let Some(way) = next.as_ref()
            && self.was_full(way.agent, opening.since)
        {
            opening.pass_over(way);
            next = self.best(at, &mut opening);
        }
        if next.is_none() {
            // It was its turn: whoever comes later has to wait for a failure.
            opening.waiting_since = None;
        }
        let target = opening.target.clone();
        self.openings.insert(session, opening);
        let way = next?;
        Some(format!(
            "{session} to {target} waits for one that is in doubt; {} of {} could be asked",
            way.conn, way.agent
        ))
    }

    /// Since when a connection is as it is.
    fn since(&self, conn: ConnId) -> Option<At> {
        let known = self.conns.iter().find(|known| known.way.conn == conn)?;
        Some(known.changed)
    }
}

/// What the timers of a driver may add to the stagger.
const SLACK: At = At::from_millis(20);
