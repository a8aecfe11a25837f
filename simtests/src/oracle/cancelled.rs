//! An agent that was asked for a session learns soon that the gateway has given that up; and is not asked for one that
//! was given up before, nor for a later one first.

use std::collections::BTreeMap;

use adit_proto_core::{
    agent::dial::DialStep,
    gateway::dispatch::DispatchOutput,
    id::{AgentId, AttemptId, ConnId, SessionId, Slot},
    output::Event,
};

use super::{bounds::REQUESTS_FIRST, harm::Harm};
use crate::{
    At,
    facts::{Fact, NodeId, Start},
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Cancelled {
    agents: BTreeMap<NodeId, AgentId>,
    /// Registered connections of gateways.
    conns: BTreeMap<(NodeId, ConnId), AgentId>,
    attempts: BTreeMap<(NodeId, ConnId, AttemptId), SessionId>,
    asked: BTreeMap<(SessionId, AgentId), Asked>,
    /// What agents were asked for and have neither refused nor ended.
    requests: BTreeMap<(NodeId, ConnId, Slot), Request>,
    /// Agents' ends of connections that were asked for something.
    ends: BTreeMap<(NodeId, ConnId), End>,
    look_at: At,
}

/// What a gateway wants of an agent for a session.
#[derive(Debug)]
struct Asked {
    gateway: NodeId,
    /// The latest attempt, and how many there were: more than one where a newer connection of the agent's came.
    attempt: AttemptId,
    attempts: u32,
    /// Attempts without an outcome.
    waiting: u32,
    /// When the last one was given up.
    given_up: Option<At>,
}

#[derive(Debug)]
struct Request {
    session: SessionId,
    /// Its target is connected, so that the next word is an acceptance.
    connected: bool,
}

#[derive(Debug)]
struct End {
    /// When the first request came: until then it grants no more streams.
    since: At,
    /// The request that the gateway began last, of those that came.
    latest: Option<(Slot, AttemptId)>,
}

impl Cancelled {
    pub(super) fn observe(
        &mut self,
        at: At,
        node: NodeId,
        fact: &Fact<'_>,
        harm: &Harm,
    ) -> Option<String> {
        match fact {
            Fact::Started(Start::Agent { id, .. }) => drop(self.agents.insert(node, *id)),
            Fact::Registering(conn, identity) => {
                self.conns.insert((node, *conn), identity.id);
            }
            Fact::Dispatch(output) => self.output(at, node, output),
            Fact::Answered {
                conn,
                attempt,
                result,
            } => {
                let given_up = result.is_err().then_some(at);
                self.ended(node, *conn, *attempt, given_up);
            }
            Fact::ClosedTold(conn) => self.closed(node, *conn),
            Fact::Event(conn, Event::SessionRequested { slot, session, .. }) => {
                let text = self.requested(at, (node, *conn), *slot, *session);
                if text.is_some() {
                    return text;
                }
            }
            Fact::Event(conn, event) => self.event(node, *conn, event),
            Fact::Dial {
                place: Some((conn, slot)),
                step: DialStep::Won(_),
                ..
            } => {
                if let Some(request) = self.requests.get_mut(&(node, *conn, *slot)) {
                    request.connected = true;
                }
            }
            Fact::Decided(conn, slot) => {
                let place = (node, *conn, *slot);
                if self.requests.get(&place).is_some_and(|r| !r.connected) {
                    self.requests.remove(&place);
                }
            }
            Fact::Gone => {
                self.requests.retain(|(of, ..), _| *of != node);
                self.ends.retain(|(of, _), _| *of != node);
                self.conns.retain(|(of, _), _| *of != node);
                self.attempts.retain(|(of, ..), _| *of != node);
                self.asked.retain(|_, asked| asked.gateway != node);
            }
            _ => {}
        }
        self.look_around(at, harm)
    }

    fn output(&mut self, at: At, node: NodeId, output: &DispatchOutput) {
        match output {
            DispatchOutput::Open {
                conn,
                attempt,
                session,
                ..
            } => {
                let Some(agent) = self.conns.get(&(node, *conn)) else {
                    return;
                };
                self.attempts.insert((node, *conn, *attempt), *session);
                let asked = self.asked.entry((*session, *agent)).or_insert(Asked {
                    gateway: node,
                    attempt: *attempt,
                    attempts: 0,
                    waiting: 0,
                    given_up: None,
                });
                asked.attempt = *attempt;
                asked.attempts += 1;
                asked.waiting += 1;
                asked.given_up = None;
            }
            DispatchOutput::Cancel { conn, attempt } => {
                self.ended(node, *conn, *attempt, Some(at));
            }
            _ => {}
        }
    }

    /// An attempt has an outcome; what was opened is not this judge's.
    fn ended(&mut self, node: NodeId, conn: ConnId, attempt: AttemptId, given_up: Option<At>) {
        let session = self.attempts.remove(&(node, conn, attempt));
        let (Some(session), Some(agent)) = (session, self.conns.get(&(node, conn))) else {
            return;
        };
        let key = (session, *agent);
        if given_up.is_none() {
            self.asked.remove(&key);
        } else if let Some(asked) = self.asked.get_mut(&key) {
            asked.waiting -= 1;
            asked.given_up = given_up.filter(|_| asked.waiting == 0);
        }
    }

    fn closed(&mut self, node: NodeId, conn: ConnId) {
        let range = (node, conn, AttemptId(0))..=(node, conn, AttemptId(u64::MAX));
        let gone: Vec<AttemptId> = self
            .attempts
            .range(range)
            .map(|((.., attempt), _)| *attempt)
            .collect();
        let agent = self.conns.remove(&(node, conn));
        for attempt in gone {
            let session = self.attempts.remove(&(node, conn, attempt));
            // The entry stays: where another connection is asked, too, this was not the only attempt.
            if let (Some(session), Some(agent)) = (session, agent)
                && let Some(asked) = self.asked.get_mut(&(session, agent))
            {
                asked.waiting -= 1;
            }
        }
    }

    fn requested(
        &mut self,
        at: At,
        (node, conn): (NodeId, ConnId),
        slot: Slot,
        session: SessionId,
    ) -> Option<String> {
        let request = Request {
            session,
            connected: false,
        };
        self.requests.insert((node, conn, slot), request);
        let end = self.ends.entry((node, conn)).or_insert(End {
            since: at,
            latest: None,
        });
        let agent = self.agents.get(&node)?;
        let asked = self.asked.get(&(session, *agent))?;
        if slot.0 >= REQUESTS_FIRST && asked.given_up.is_some_and(|at| at < end.since) {
            return Some(format!(
                "{node} is asked for {session} on {conn}, which was given up while it waited"
            ));
        }
        if asked.attempts > 1 {
            return None;
        }
        let (last, attempt) = end.latest.unwrap_or((slot, asked.attempt));
        if slot >= last {
            end.latest = Some((slot, asked.attempt));
        }
        (slot.cmp(&last) != asked.attempt.cmp(&attempt))
            .then(|| format!("{node} is asked for {session} on {conn} out of turn"))
    }

    fn event(&mut self, node: NodeId, conn: ConnId, event: &Event) {
        match event {
            Event::SessionEnded { slot, .. } => drop(self.requests.remove(&(node, conn, *slot))),
            Event::Closed(_) => {
                self.requests
                    .retain(|(of, on, _), _| *of != node || *on != conn);
                self.ends.remove(&(node, conn));
            }
            _ => {}
        }
    }

    fn look_around(&mut self, at: At, harm: &Harm) -> Option<String> {
        if at < self.look_at {
            return None;
        }
        self.look_at = at + LOOK_EVERY;
        self.requests.iter().find_map(|((node, conn, _), request)| {
            let agent = self.agents.get(node)?;
            let asked = self.asked.get(&(request.session, *agent))?;
            let given_up = asked.given_up?;
            let late = at > given_up + harm.within(*node, asked.gateway);
            let since = given_up.checked_sub(QUIET)?;
            (late && harm.is_sound(*node, asked.gateway, since)).then(|| {
                format!(
                    "{node} keeps {} on {conn}, which {} gave up at {given_up:?}",
                    request.session, asked.gateway
                )
            })
        })
    }
}

/// Nothing may have gone wrong for so long before an end that is judged.
const QUIET: At = At::from_secs(5);
const LOOK_EVERY: At = At::from_millis(500);
