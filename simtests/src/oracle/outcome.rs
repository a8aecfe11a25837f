//! Every wish for a session has exactly one outcome, in time, unless its user goes away first; and every attempt at
//! most one.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    gateway::{OpenError, dispatch::DispatchOutput},
    id::{AttemptId, ConnId, SessionId},
};

use super::bounds::DISPATCH_TIMEOUT;
use crate::{
    At,
    facts::{Fact, NodeId},
};

/// What the timers and queues of a driver may add.
const SLACK: At = At::from_millis(20);

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    open: BTreeMap<(NodeId, SessionId), At>,
    /// Attempts that were asked for and have no answer.
    asked: BTreeMap<(NodeId, AttemptId), ConnId>,
    answered: BTreeSet<(NodeId, AttemptId)>,
}

impl Outcome {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Wish { session, .. } => {
                self.open.insert((node, *session), at);
                None
            }
            Fact::GaveUp(session) => {
                self.open.remove(&(node, *session));
                None
            }
            Fact::Dispatch(DispatchOutput::Committed { session, .. }) => {
                self.end(at, node, *session, None)
            }
            Fact::Dispatch(DispatchOutput::Failed { session, error }) => {
                self.end(at, node, *session, Some(error))
            }
            Fact::Dispatch(DispatchOutput::Open { conn, attempt, .. }) => {
                self.asked.insert((node, *attempt), *conn);
                None
            }
            Fact::Dispatch(DispatchOutput::Cancel { attempt, .. }) => {
                self.asked.remove(&(node, *attempt));
                None
            }
            Fact::Answered { conn, attempt, .. } => self.answer(node, *conn, *attempt),
            Fact::ClosedTold(conn) => {
                self.asked.retain(|(of, _), on| *of != node || on != conn);
                None
            }
            Fact::MachineWaits { .. } => self.overdue(at, node),
            Fact::Gone => {
                self.open.retain(|(of, _), _| *of != node);
                self.asked.retain(|(of, _), _| *of != node);
                self.answered.retain(|(of, _)| *of != node);
                None
            }
            _ => None,
        }
    }

    fn end(
        &mut self,
        at: At,
        node: NodeId,
        session: SessionId,
        error: Option<&OpenError>,
    ) -> Option<String> {
        let Some(since) = self.open.remove(&(node, session)) else {
            return Some(format!("{session} has an outcome that nobody waits for"));
        };
        (error == Some(&OpenError::TimedOut) && at < since + DISPATCH_TIMEOUT)
            .then(|| format!("{session} timed out after {:?}", at - since))
    }

    fn answer(&mut self, node: NodeId, conn: ConnId, attempt: AttemptId) -> Option<String> {
        if !self.answered.insert((node, attempt)) {
            return Some(format!("{attempt} is answered twice"));
        }
        let asked = self.asked.remove(&(node, attempt))?;
        if asked != conn {
            return Some(format!(
                "{attempt} was asked over {asked} and answered by {conn}"
            ));
        }
        None
    }

    /// A process that stood still ends what is overdue before it rests again.
    fn overdue(&self, at: At, node: NodeId) -> Option<String> {
        let late = |((of, _), since): &(&(NodeId, SessionId), &At)| {
            *of == node && at > **since + DISPATCH_TIMEOUT + SLACK
        };
        let ((_, session), since) = self.open.iter().find(late)?;
        Some(format!(
            "{session} has no outcome {:?} after the wish",
            at - *since
        ))
    }
}
