//! A dial to a target ends once and in time, and what it gave up never wins.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    agent::dial::DialStep,
    id::{ConnId, SessionId, Slot},
    limits::DIAL_TIMEOUT,
};

use crate::{
    At,
    facts::{Fact, NodeId},
};

/// What the timers of a driver may add.
const SLACK: At = At::from_millis(20);

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Dial {
    dials: BTreeMap<Key, Steps>,
}

/// A dial's node, the place on a connection that wants it, and its session.
type Key = (NodeId, Option<(ConnId, Slot)>, SessionId);

#[derive(Debug)]
struct Steps {
    since: At,
    connecting: BTreeSet<usize>,
    over: bool,
}

impl Dial {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Dial {
                place,
                session,
                step,
            } => {
                let key = (node, *place, *session);
                let steps = self.dials.entry(key).or_insert(Steps {
                    since: at,
                    connecting: BTreeSet::new(),
                    over: false,
                });
                let wrong = steps.take(step);
                wrong.map(|wrong| format!("the dial for {session}: {step:?} {wrong}"))
            }
            Fact::MachineWaits { .. } => {
                // A process that stood still ends what is overdue before it rests again.
                let late = |((of, ..), steps): &(&Key, &Steps)| {
                    *of == node && !steps.over && at > steps.since + DIAL_TIMEOUT + SLACK
                };
                let ((_, _, session), _) = self.dials.iter().find(late)?;
                Some(format!("the dial for {session} is not over in time"))
            }
            Fact::Gone => {
                self.dials.retain(|(of, ..), _| *of != node);
                None
            }
            _ => None,
        }
    }
}

impl Steps {
    fn take(&mut self, step: &DialStep) -> Option<&'static str> {
        match step {
            // What comes too late is given up once more.
            DialStep::Abort(index) => {
                self.connecting.remove(index);
                None
            }
            _ if self.over => Some("after the end"),
            DialStep::Resolve(_) => None,
            DialStep::Connect(index, _) => (!self.connecting.insert(*index)).then_some("twice"),
            DialStep::Won(index) => {
                self.over = true;
                let given_up = !self.connecting.contains(index);
                given_up.then_some("although it was given up")
            }
            DialStep::Failed(_) => {
                self.over = true;
                None
            }
        }
    }
}
