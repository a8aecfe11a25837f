//! Agents wait as long as they should and no longer, try their gateways in turn, and keep one connection.

mod series;

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    agent::{
        backoff::BackoffCause,
        supervisor::{DialId, GatewayIndex, LossKind, SupervisorStep},
    },
    id::ConnId,
    output::Event,
};

use self::series::{Series, cause_of, meaning};
use super::pulse::{Pulse, SLACK};
use crate::{
    At,
    facts::{Fact, NodeId, Start},
    faults::Fault,
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    pulse: Pulse,
    agents: BTreeMap<NodeId, Agent>,
    /// Waits of the run that were exactly their nominal value.
    exact: u32,
    look_at: At,
}

/// One process of an agent.
#[derive(Debug)]
struct Agent {
    gateways: Vec<Series>,
    /// Place of the gateway of the latest round.
    current: usize,
    state: State,
    /// Attempts and connections that were begun and neither closed nor told to be over.
    live: BTreeSet<DialId>,
    next_dial: u64,
    established: BTreeSet<ConnId>,
    /// Since when there has been more than one.
    many: Option<At>,
    network_changed: Option<At>,
    /// When the supervisor was told so last.
    network_told: Option<At>,
    /// When the latest round began.
    round_at: At,
    /// The attempts' connections, and what their ends mean.
    conns: BTreeMap<ConnId, DialId>,
    ends: BTreeMap<DialId, LossKind>,
}

#[derive(Debug)]
enum State {
    /// Just started.
    Fresh,
    Waiting {
        since: At,
        until: At,
    },
    Round(Round),
    Up {
        dial: DialId,
        since: At,
    },
    /// The connection is lost; what comes next must come at once.
    Lost,
}

#[derive(Debug)]
struct Round {
    since: At,
    /// The gateway's name was resolved in it.
    named: bool,
    /// The resolver found nothing.
    nowhere: bool,
    worst: Option<BackoffCause>,
    /// A live attempt was told to be established.
    won: Option<DialId>,
}

impl Round {
    /// An attempt or the resolver failed, or its time is over.
    fn may_be_over(&self, at: At) -> bool {
        self.nowhere || self.worst.is_some() || at >= self.since + CONNECT_TIMEOUT
    }
}

impl Backoff {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        self.pulse.observe(at, node, fact);
        if let Fact::Started(Start::Agent {
            gateways, renews, ..
        }) = fact
        {
            // Those that replace one connection by another have judges of their own.
            if !renews {
                self.agents.insert(node, Agent::new(at, gateways.len()));
            }
        } else if let Fact::Gone | Fact::Stopping = fact {
            self.agents.remove(&node);
        } else if let Fact::Fault(Fault::ChangeNetwork(node)) = fact
            && let Some(agent) = self.agents.get_mut(node)
        {
            agent.network_changed = Some(at);
            for gateway in &mut agent.gateways {
                gateway.network_changed(at);
            }
        }
        let objection = match self.agents.get_mut(&node) {
            Some(agent) => agent.observe(at, fact, &mut self.exact),
            None => None,
        };
        objection
            .map(|text| format!("{node}: {text}"))
            .or_else(|| self.look_around(at))
    }

    fn look_around(&mut self, at: At) -> Option<String> {
        if at < self.look_at {
            return None;
        }
        self.look_at = at + LOOK_EVERY;
        self.agents.iter().find_map(|(node, agent)| {
            let steady = self.pulse.steady_since(*node)?;
            let text = agent.overdue(at, steady)?;
            Some(format!("{node}: {text}"))
        })
    }
}

impl Agent {
    fn new(at: At, gateways: usize) -> Self {
        Self {
            gateways: (0..gateways).map(|_| Series::new(at)).collect(),
            current: 0,
            state: State::Fresh,
            live: BTreeSet::new(),
            next_dial: 0,
            established: BTreeSet::new(),
            many: None,
            network_changed: None,
            network_told: None,
            round_at: at,
            conns: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    fn observe(&mut self, at: At, fact: &Fact<'_>, exact: &mut u32) -> Option<String> {
        if let Fact::Supervisor(step) = fact {
            return self.step(at, step);
        } else if let Fact::SupervisorWaits {
            until,
            gateway,
            cause,
        } = fact
        {
            return self.waits(at, *until, *gateway, *cause, exact);
        } else if let Fact::NetworkTold = fact {
            self.network_told = Some(at);
        } else if let Fact::GatewayFound { answer, .. } = fact {
            if let State::Round(round) = &mut self.state {
                round.nowhere |= answer.as_ref().is_ok_and(Vec::is_empty) || answer.is_err();
            }
        } else if let Fact::SupervisorTold { dial, why } = fact {
            if let (Some(told), Some(end)) = (why, self.ends.get(dial))
                && told != end
            {
                return Some(format!("the end of {dial:?} is {end:?}, not {told:?}"));
            }
            self.told(at, *dial, *why);
        } else if let Fact::Begun {
            conn,
            dial: Some(dial),
            ..
        } = fact
        {
            self.conns.insert(*conn, *dial);
        } else if let Fact::MachineWaits {
            machine: "supervisor",
            until,
            ..
        } = fact
        {
            return self.rests(*until);
        } else if let Fact::Event(conn, Event::Established { .. }) = fact {
            self.established.insert(*conn);
            self.count(at);
        } else if let Fact::Event(conn, Event::Closed(why)) = fact {
            if let Some(dial) = self.conns.remove(conn) {
                self.ends.insert(dial, meaning(why));
            }
            self.established.remove(conn);
            self.count(at);
        }
        None
    }

    fn count(&mut self, at: At) {
        let many = self.established.len() > 1;
        self.many = many.then(|| self.many.unwrap_or(at));
    }

    fn told(&mut self, at: At, dial: DialId, why: Option<LossKind>) {
        let is_live = self.live.contains(&dial);
        if why.is_some() {
            self.live.remove(&dial);
        }
        match (&mut self.state, why) {
            (State::Round(round), None) if is_live => {
                round.won.get_or_insert(dial);
            }
            (State::Round(round), Some(why)) if is_live => {
                round.worst = round.worst.max(Some(cause_of(why, At::ZERO)));
            }
            (State::Up { dial: kept, since }, Some(why)) if *kept == dial => {
                let up = at - *since;
                self.gateways[self.current].failed(at, cause_of(why, up), up);
                self.state = State::Lost;
            }
            (
                State::Fresh
                | State::Waiting { .. }
                | State::Round(_)
                | State::Up { .. }
                | State::Lost,
                _,
            ) => {}
        }
    }

    fn step(&mut self, at: At, step: &SupervisorStep) -> Option<String> {
        match step {
            SupervisorStep::Resolve { gateway, .. } => self.begin(at, *gateway, true),
            SupervisorStep::Connect { dial, gateway, .. } => {
                if dial.0 < self.next_dial {
                    return Some(format!("{dial:?} is used twice"));
                }
                self.next_dial = dial.0 + 1;
                let goes_on = matches!(&self.state, State::Round(round) if round.named)
                    && gateway.0 == self.current;
                let objection = if goes_on {
                    None
                } else {
                    self.begin(at, *gateway, false)
                };
                self.live.insert(*dial);
                objection
            }
            SupervisorStep::Close { dial } => {
                self.live.remove(dial);
                None
            }
            SupervisorStep::Up { dial, gateway } => {
                let won = matches!(&self.state, State::Round(round) if round.won == Some(*dial));
                self.state = State::Up {
                    dial: *dial,
                    since: at,
                };
                (!won || gateway.0 != self.current)
                    .then(|| format!("{dial:?} is up, but did not win"))
            }
            SupervisorStep::Drain { .. }
            | SupervisorStep::Adopt
            | SupervisorStep::Discard
            | SupervisorStep::Revert => {
                Some(format!("{step:?}, though there is one key pair only"))
            }
            SupervisorStep::Waiting { .. } => None,
        }
    }

    /// A round begins.
    fn begin(&mut self, at: At, gateway: GatewayIndex, named: bool) -> Option<String> {
        let objection = if let State::Round(round) = &self.state
            && gateway.0 == self.current
            && (self.network_told == Some(at) || !round.may_be_over(at))
        {
            // Nothing failed: the network changed, and the round starts once more.
            let changed = self.network_told == Some(at);
            (!changed).then(|| "a round begins twice".to_owned())
        } else if matches!(self.state, State::Fresh) {
            (gateway.0 != 0).then(|| "the first round is not to the first gateway".to_owned())
        } else {
            self.end_round(at);
            let early = self.gateways.get(gateway.0)?.ready.0 > at;
            let early = early.then(|| format!("{gateway:?} is tried before its wait is over"));
            early
                .or_else(|| self.passed_over(at, gateway))
                .or_else(|| self.out_of_turn(at, gateway))
        };
        self.current = gateway.0;
        self.round_at = at;
        self.state = State::Round(Round {
            since: at,
            named,
            nowhere: false,
            worst: None,
            won: None,
        });
        objection
    }

    fn end_round(&mut self, at: At) {
        if let State::Round(round) = &self.state {
            let cause = round.worst.unwrap_or(BackoffCause::Unreachable);
            let since = round.since;
            let series = &mut self.gateways[self.current];
            series.failed(at, cause, At::ZERO);
            if cause == BackoffCause::Unreachable {
                series.begun(at, since);
            }
        }
    }

    fn waits(
        &mut self,
        at: At,
        until: At,
        gateway: GatewayIndex,
        cause: BackoffCause,
        exact: &mut u32,
    ) -> Option<String> {
        self.end_round(at);
        self.state = State::Waiting { since: at, until };
        let chosen = self.gateways.get_mut(gateway.0)?;
        let (low, high) = chosen.ready;
        if until < low || until > high.max(at) || cause != chosen.cause {
            return Some(format!(
                "{gateway:?} waits until {until:?} for {cause:?}; {low:?} to {high:?} for {:?} is right",
                chosen.cause
            ));
        }
        chosen.ready = (until, until);
        *exact += u32::from(std::mem::take(&mut chosen.drawn) && (until == low || until == high));
        if *exact > 1 {
            return Some(format!(
                "waits are not drawn: again one ends exactly at {until:?}"
            ));
        }
        self.passed_over(at, gateway)
    }

    /// Another gateway could surely have been tried sooner.
    fn passed_over(&self, at: At, gateway: GatewayIndex) -> Option<String> {
        let chosen = self.gateways.get(gateway.0)?.ready.0.max(at);
        let sooner = self
            .gateways
            .iter()
            .position(|g| g.ready.1.max(at) < chosen)?;
        Some(format!(
            "{gateway:?} is next, though {sooner} was ready sooner"
        ))
    }

    /// Another gateway was ready as well, and it was its turn.
    fn out_of_turn(&self, at: At, gateway: GatewayIndex) -> Option<String> {
        let count = self.gateways.len();
        let turns = (1..=count).map(|turn| (self.current + turn) % count);
        let ready = |index: &usize| self.gateways[*index].ready.1 <= at;
        let first = turns.take_while(|index| *index != gateway.0).find(ready)?;
        Some(format!("{gateway:?} is next, though it was {first}'s turn"))
    }

    /// The supervisor has nothing more to say for now.
    fn rests(&self, until: Option<At>) -> Option<String> {
        let kept = |dial: &DialId| match &self.state {
            State::Up { dial: up, .. } => dial == up,
            State::Round(_) => true,
            State::Fresh | State::Waiting { .. } | State::Lost => false,
        };
        if let Some(dial) = self.live.iter().find(|dial| !kept(dial)) {
            return Some(format!("{dial:?} is neither kept nor closed"));
        }
        let sound = match &self.state {
            State::Waiting { until: told, .. } => until == Some(*told),
            State::Round(round) => {
                let last = round.since + CONNECT_TIMEOUT;
                round.won.is_none() && until.is_some_and(|until| until <= last)
            }
            State::Up { .. } => until.is_none(),
            State::Fresh | State::Lost => false,
        };
        (!sound).then(|| format!("rests until {until:?} in {:?}", self.state))
    }

    /// The network changed while it waited for a gateway that did not answer.
    fn is_deaf(&self, since: At, late: impl Fn(At) -> bool) -> bool {
        let hopeful = |g: &Series| g.cause == BackoffCause::Unreachable;
        self.network_changed.is_some_and(|changed| {
            changed >= since
                && self.gateways.iter().any(hopeful)
                && late(changed.max(self.round_at + ROUNDS_APART))
        })
    }

    fn overdue(&self, at: At, steady: At) -> Option<String> {
        let late = |due: At| at > due.max(steady) + SLACK;
        match &self.state {
            State::Waiting { since, .. } if self.is_deaf(*since, late) => {
                return Some("no round begins, though the network changed".to_owned());
            }
            State::Waiting { until, .. } if late(*until) => {
                return Some(format!(
                    "no round begins, though it waited until {until:?} only"
                ));
            }
            State::Round(round) if late(round.since + CONNECT_TIMEOUT) => {
                return Some(format!("the round of {:?} does not end", round.since));
            }
            State::Fresh
            | State::Waiting { .. }
            | State::Round(_)
            | State::Up { .. }
            | State::Lost => {}
        }
        let many = self.many.is_some_and(late);
        many.then(|| format!("{} connections are established", self.established.len()))
    }
}

/// Rounds stay so far apart.
const ROUNDS_APART: At = At::from_millis(250);
/// Time for one round to a gateway.
const CONNECT_TIMEOUT: At = At::from_secs(10);
const LOOK_EVERY: At = At::from_millis(500);
