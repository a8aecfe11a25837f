//! A dial to a target ends once and in time, and what it gave up never wins.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    agent::dial::DialStep,
    id::{ConnId, SessionId, Slot},
};

use super::bounds::{DIAL_ADDRESS_TIMEOUT, DIAL_STAGGER, DIAL_TIMEOUT};
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
    over: BTreeSet<Key>,
}

/// A dial's node, the place on a connection that wants it, and its session.
type Key = (NodeId, Option<(ConnId, Slot)>, SessionId);

#[derive(Debug)]
struct Steps {
    since: At,
    connecting: BTreeMap<usize, At>,
    /// When the latest address was begun with, while no other was given up since.
    begun: Option<At>,
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
                let wrong = self.take(at, key, step);
                wrong.map(|wrong| format!("the dial for {session}: {step:?} {wrong}"))
            }
            Fact::DialTold {
                place,
                session,
                index,
                made: false,
            } => {
                let steps = self.dials.get_mut(&(node, *place, *session))?;
                steps.connecting.remove(index);
                steps.begun = None;
                None
            }
            Fact::MachineWaits { .. } => {
                // A process that stood still ends what is overdue before it rests again.
                let late = |((of, ..), steps): &(&Key, &Steps)| {
                    *of == node && at > steps.since + DIAL_TIMEOUT + SLACK
                };
                if let Some(((_, _, session), _)) = self.dials.iter().find(late) {
                    return Some(format!("the dial for {session} is not over in time"));
                }
                let patient =
                    |((of, ..), steps): &(&Key, &Steps)| *of == node && steps.is_held_up(at);
                let ((_, _, session), _) = self.dials.iter().find(patient)?;
                Some(format!(
                    "the dial for {session} waits too long for one address"
                ))
            }
            Fact::Gone => {
                self.dials.retain(|(of, ..), _| *of != node);
                self.over.retain(|(of, ..)| *of != node);
                None
            }
            _ => None,
        }
    }
}

impl Dial {
    fn take(&mut self, at: At, key: Key, step: &DialStep) -> Option<&'static str> {
        if self.over.contains(&key) {
            // What comes too late is given up once more.
            let wrong = !matches!(step, DialStep::Abort(_));
            return wrong.then_some("after the end");
        }
        let steps = self.dials.entry(key).or_insert(Steps {
            since: at,
            connecting: BTreeMap::new(),
            begun: None,
        });
        let wrong = steps.take(at, step);
        if let DialStep::Won(_) | DialStep::Failed(_) = step {
            self.dials.remove(&key);
            self.over.insert(key);
        }
        wrong
    }
}

impl Steps {
    fn is_held_up(&self, at: At) -> bool {
        let late = |since: &At| at > *since + DIAL_ADDRESS_TIMEOUT + SLACK;
        // The last one has whatever is left of the dial's own time.
        self.connecting.len() > 1 && self.connecting.values().any(late)
    }

    fn take(&mut self, at: At, step: &DialStep) -> Option<&'static str> {
        match step {
            DialStep::Abort(index) => {
                self.connecting.remove(index);
                self.begun = None;
                None
            }
            DialStep::Resolve(_) | DialStep::Failed(_) => None,
            DialStep::Connect(index, _) => {
                let hasty = self.begun.is_some_and(|begun| at < begun + DIAL_STAGGER);
                self.begun = Some(at);
                if self.connecting.insert(*index, at).is_some() {
                    return Some("twice");
                }
                hasty.then_some("right after the one before")
            }
            DialStep::Won(index) => {
                let given_up = !self.connecting.contains_key(index);
                given_up.then_some("although it was given up")
            }
        }
    }
}
