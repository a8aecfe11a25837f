//! An agent says that it is alive as often as it should and no more often, and is answered: its gateway counts what
//! comes, and the round trip of its heartbeats is no longer than that of anything else, and changes where paths do. It
//! leaves a gateway that does not answer, and only such a one.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    agent::advertise::AdvertiserConfig,
    close::{Closed, PeerFault},
    id::ConnId,
    output::Event,
};

use super::{
    bounds::{HEARTBEAT_ACK_TIMEOUT, REPLACEMENT_INTERVAL, REPLACEMENTS_BURST},
    harm::Harm,
};
use crate::{
    At,
    facts::{Fact, NodeId, Start},
    faults::Fault,
    net::Path,
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    agents: BTreeMap<NodeId, Agent>,
    /// Agents' ends of connections that have not been told a round trip, and since when they are up.
    unanswered: BTreeMap<(NodeId, ConnId), At>,
    /// Agents' ends, and how often each was told another round trip.
    answers: BTreeMap<(NodeId, ConnId), Counted>,
    /// Ways of which no two trips take equally long.
    uneven: BTreeSet<(NodeId, NodeId)>,
    /// Gateways' ends.
    counted: BTreeMap<(NodeId, ConnId), Counted>,
    /// The same, and when they last read a message that may have been a heartbeat.
    read: BTreeMap<(NodeId, ConnId), At>,
    look_at: At,
}

#[derive(Debug)]
struct Agent {
    intervals: AdvertiserConfig,
    /// When its routes last changed since it started, and how often they did.
    changed: Option<At>,
    changes: u32,
}

/// Messages since a time after which nothing went wrong.
#[derive(Debug)]
struct Counted {
    since: At,
    messages: u32,
}

impl Heartbeat {
    pub(super) fn observe(
        &mut self,
        at: At,
        node: NodeId,
        fact: &Fact<'_>,
        harm: &Harm,
    ) -> Option<String> {
        match fact {
            Fact::Started(Start::Agent { intervals, .. }) => {
                let agent = Agent {
                    intervals: *intervals,
                    changed: None,
                    changes: 0,
                };
                self.agents.insert(node, agent);
            }
            Fact::Fault(Fault::SetRoutes(node, ..)) => {
                if let Some(agent) = self.agents.get_mut(node) {
                    agent.changed = Some(at);
                    agent.changes += 1;
                }
            }
            Fact::Path { from, to, path } => self.path(*from, *to, path),
            Fact::Fault(Fault::SetPath(from, to, path)) => self.path(*from, *to, path),
            Fact::Calm => self.uneven.clear(),
            Fact::Event(conn, event) => {
                self.event(at, (node, *conn), event);
                if let Event::Closed(Closed::Fault(PeerFault::HeartbeatsUnanswered)) = event {
                    return self.unjust(at, (node, *conn), harm);
                }
            }
            Fact::RoundTrip(conn, took) => {
                self.unanswered.remove(&(node, *conn));
                if let Some(counted) = self.answers.get_mut(&(node, *conn)) {
                    counted.count(at);
                }
                if let Some(text) = self.slow(at, (node, *conn), *took, harm) {
                    return Some(text);
                }
            }
            Fact::Gone => {
                self.unanswered.retain(|(of, _), _| *of != node);
                self.answers.retain(|(of, _), _| *of != node);
                self.counted.retain(|(of, _), _| *of != node);
                self.read.retain(|(of, _), _| *of != node);
            }
            _ => {}
        }
        self.look_around(at, harm)
    }

    fn path(&mut self, from: NodeId, to: NodeId, path: &Path) {
        if path.jitter.is_zero() {
            self.uneven.remove(&(from, to));
        } else {
            self.uneven.insert((from, to));
        }
    }

    fn event(&mut self, at: At, place: (NodeId, ConnId), event: &Event) {
        match event {
            Event::Established { identity: None } => {
                self.unanswered.insert(place, at);
                self.answers.insert(place, Counted::new(at));
            }
            Event::Established { identity: Some(_) } => {
                self.counted.insert(place, Counted::new(at));
                self.read.insert(place, at);
            }
            Event::Seen | Event::RoutesAccepted { .. } => {
                if let Some(counted) = self.counted.get_mut(&place) {
                    counted.count(at);
                }
                // A set that is taken over is none, and has no answer.
                if let (Event::Seen, Some(read)) = (event, self.read.get_mut(&place)) {
                    *read = at;
                }
            }
            Event::Closed(_) => {
                self.unanswered.remove(&place);
                self.answers.remove(&place);
                self.counted.remove(&place);
                self.read.remove(&place);
            }
            _ => {}
        }
    }

    fn look_around(&mut self, at: At, harm: &Harm) -> Option<String> {
        if at < self.look_at {
            return None;
        }
        self.look_at = at + LOOK_EVERY;
        let text = self
            .unanswered
            .iter()
            .find_map(|(place, since)| self.ignored(at, *place, *since, harm));
        text.or_else(|| self.stale(at, harm))
            .or_else(|| self.miscounted(at, harm))
            .or_else(|| self.put_up_with(at, harm))
    }

    /// An agent stays with a gateway that has answered nothing for too long.
    fn put_up_with(&self, at: At, harm: &Harm) -> Option<String> {
        self.read.iter().find_map(|((gateway, conn), since)| {
            let peer = harm.peer(*gateway, *conn)?;
            let agent = self.agents.get(&peer.node)?;
            // Sets of routes that a gateway puts off are before the heartbeat.
            let put_off = (REPLACEMENT_INTERVAL * (agent.changes + 1)).min(HEARTBEAT_ACK_TIMEOUT);
            let patience = agent.intervals.heartbeat_interval + HEARTBEAT_ACK_TIMEOUT + put_off;
            let judged = at > *since + patience + harm.within(*gateway, peer.node)
                && at < peer.heard + ALIVE
                && harm.is_sound(*gateway, peer.node, *since);
            judged.then(|| {
                let agent = peer.node;
                format!("{agent} stays on {conn}, of which {gateway} has read no heartbeat since {since:?}")
            })
        })
    }

    /// An agent leaves a gateway that reads what it says.
    fn unjust(&self, at: At, (node, conn): (NodeId, ConnId), harm: &Harm) -> Option<String> {
        let (agent, gateway) = (self.agents.get(&node)?, harm.peer(node, conn)?.node);
        let since = at.checked_sub(HEARTBEAT_ACK_TIMEOUT + QUIET)?;
        let unjust = agent.is_read() && harm.is_sound(node, gateway, since);
        unjust.then(|| format!("{node} closes {conn} for want of answers, and nothing was wrong"))
    }

    /// The first heartbeat of a connection has no answer.
    fn ignored(
        &self,
        at: At,
        (node, conn): (NodeId, ConnId),
        since: At,
        harm: &Harm,
    ) -> Option<String> {
        let (agent, gateway) = (self.agents.get(&node)?, harm.peer(node, conn)?.node);
        let due = since + agent.intervals.heartbeat_interval + harm.within(node, gateway);
        let judged = at > due && agent.is_read() && harm.is_sound(node, gateway, since);
        judged.then(|| format!("no heartbeat of {node} on {conn} is answered since {since:?}"))
    }

    fn slow(
        &self,
        at: At,
        (node, conn): (NodeId, ConnId),
        took: At,
        harm: &Harm,
    ) -> Option<String> {
        let (agent, gateway) = (self.agents.get(&node)?, harm.peer(node, conn)?.node);
        let slow = took > harm.within(node, gateway) && agent.is_read();
        let since = at.checked_sub(took + QUIET)?;
        (slow && harm.is_sound(node, gateway, since))
            .then(|| format!("{took:?} pass until {node} has an answer on {conn}"))
    }

    /// An agent is told of few of its heartbeats' answers. Where trips differ in length, so do round trips.
    fn stale(&mut self, at: At, harm: &Harm) -> Option<String> {
        let (agents, uneven) = (&self.agents, &self.uneven);
        self.answers.iter_mut().find_map(|((node, conn), counted)| {
            let (agent, peer) = (agents.get(node)?, harm.peer(*node, *conn)?);
            let differ =
                uneven.contains(&(*node, peer.node)) || uneven.contains(&(peer.node, *node));
            let sound = differ
                && harm.is_sound(*node, peer.node, counted.since)
                && agent.is_read()
                && at < peer.heard + ALIVE;
            if at < counted.since {
                return None;
            } else if !sound {
                counted.restart(at);
                return None;
            }
            let late = harm.within(*node, peer.node);
            let least = agent.beats(at - counted.since, late) / 2;
            (u128::from(counted.messages) < least).then(|| {
                format!(
                    "{node} was told {} round trips on {conn} since {:?}, not {least}",
                    counted.messages, counted.since
                )
            })
        })
    }

    /// A gateway hears more or less of an agent than it should.
    fn miscounted(&mut self, at: At, harm: &Harm) -> Option<String> {
        let agents = &self.agents;
        self.counted
            .iter_mut()
            .find_map(|((gateway, conn), counted)| {
                let peer = harm.peer(*gateway, *conn)?;
                let agent = agents.get(&peer.node)?;
                let sound = harm.is_sound(*gateway, peer.node, counted.since)
                    && agent.changed.is_none_or(|at| at + UNDER_WAY <= counted.since)
                    && agent.is_read()
                    && at < peer.heard + ALIVE;
                if at < counted.since {
                    return None;
                } else if !sound {
                    counted.restart(at);
                    return None;
                }
                let late = harm.within(*gateway, peer.node);
                let (least, most) = agent.messages(at - counted.since, late);
                let messages = u128::from(counted.messages);
                (messages < least || messages > most).then(|| {
                    format!(
                        "{gateway} heard {messages} messages on {conn} since {:?}, not {least} to {most}",
                        counted.since
                    )
                })
            })
    }
}

impl Counted {
    fn new(since: At) -> Self {
        Self { since, messages: 0 }
    }

    fn count(&mut self, at: At) {
        self.messages += u32::from(at >= self.since);
    }

    /// What waits meanwhile comes before the count begins.
    fn restart(&mut self, at: At) {
        *self = Self::new(at + QUIET);
    }
}

impl Agent {
    /// A gateway leaves an agent unread whose routes change too fast.
    fn is_read(&self) -> bool {
        self.changes + 1 < REPLACEMENTS_BURST
    }

    /// How many heartbeats at least.
    fn beats(&self, time: At, late: At) -> u128 {
        least(time, late, self.intervals.heartbeat_interval)
    }

    /// How many messages at least and at most come in a time, where each may take so long.
    fn messages(&self, time: At, late: At) -> (u128, u128) {
        let intervals = [
            self.intervals.heartbeat_interval,
            self.intervals.advertise_interval,
        ];
        let least = |interval| least(time, late, interval);
        // The first advertisement needs no timer.
        let most = |interval: At| (time + late).as_nanos() / interval.as_nanos() + 2;
        (
            intervals.into_iter().map(least).sum(),
            intervals.into_iter().map(most).sum(),
        )
    }
}

/// How often something comes at least in a time, where it may take so long.
fn least(time: At, late: At, interval: At) -> u128 {
    time.saturating_sub(late).as_nanos() / (interval + TIMER_SLACK).as_nanos()
}

/// What a driver may add to each interval.
const TIMER_SLACK: At = At::from_millis(10);
/// An agent that is there sends several datagrams in this time.
const ALIVE: At = At::from_secs(2);
/// Changed routes are at the gateway within this time, as no trip takes longer than 1.2 s.
const UNDER_WAY: At = At::from_secs(2);
/// Nothing may have gone wrong for so long before what is judged.
const QUIET: At = At::from_secs(5);
const LOOK_EVERY: At = At::from_secs(1);
