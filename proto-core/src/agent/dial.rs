//! One target's policy, addresses and race (RFC 8305, design 8.1).

mod error;

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

pub use error::{ConnectErrorKind, DialError, DialErrorKind, DialStage, ResolveError};

use super::{policy::Policy, race::Race};
use crate::{
    limits::DIAL_TIMEOUT,
    target::{Host, Target},
};

/// Reaches one target: resolves, asks the [`Policy`], and races the allowed addresses.
///
/// Addresses are tried IPv6 first and then the families in turn, each [`DIAL_STAGGER`](crate::limits::DIAL_STAGGER)
/// after the one before or as soon as one fails; the first to connect wins. One that has not answered for
/// [`DIAL_ADDRESS_TIMEOUT`](crate::limits::DIAL_ADDRESS_TIMEOUT) is given up while another is in the race. The whole
/// ends after [`DIAL_TIMEOUT`]. Exactly one of [`DialStep::Won`] and [`DialStep::Failed`] comes, and no `Connect`
/// after it.
///
/// Answers may come late, twice or for what was aborted: a connection that nobody wants is answered by
/// [`DialStep::Abort`], everything else is ignored. After every `handle_*` call poll the steps until there is none.
#[derive(Debug)]
pub struct Dial {
    target: Target,
    policy: Arc<Policy>,
    deadline: Instant,
    phase: Phase,
    /// Without lanes until the addresses are known; kept after the end, to tell late answers of what was started.
    race: Race<ConnectErrorKind>,
    steps: VecDeque<DialStep>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Resolving,
    Racing,
    Won(usize),
    Failed,
}

/// What a [`Dial`] asks for. An index names one address for the life of the `Dial`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialStep {
    /// Resolve the name, IPv4 and IPv6, and answer by [`Dial::handle_resolved`]. At most once, and first.
    Resolve(Box<str>),
    /// Connect and answer by [`Dial::handle_connected`] or [`Dial::handle_failed`]. The policy allows the address.
    Connect(usize, SocketAddr),
    /// Stop connecting, or close the connection if there is one. May come twice for an index.
    Abort(usize),
    /// The connection of this index is the session's.
    Won(usize),
    /// The target is not reached; nothing is left open once the aborts before this are done.
    Failed(DialError),
}

impl Dial {
    /// Starts at once; the deadline of [`DIAL_TIMEOUT`] runs from here. A refusal by the policy is a step too.
    #[must_use]
    pub fn new(now: Instant, target: Target, policy: Arc<Policy>) -> Self {
        let mut dial = Self {
            target,
            policy,
            deadline: now + DIAL_TIMEOUT,
            phase: Phase::Resolving,
            race: Race::new(&[], 0),
            steps: VecDeque::new(),
        };
        match (dial.policy.check(&dial.target), &dial.target.host) {
            (Err(refused), _) => dial.fail(refused.into()),
            (Ok(()), Host::Name(name)) => dial.steps.push_back(DialStep::Resolve(name.clone())),
            (Ok(()), Host::Ip(_)) => dial.race(now, &[]),
        }
        dial
    }

    /// Takes the resolver's answer. An empty list counts as [`ResolveError::NoAddress`].
    pub fn handle_resolved(&mut self, now: Instant, answer: Result<Vec<IpAddr>, ResolveError>) {
        self.expire(now);
        let (Phase::Resolving, Host::Name(name)) = (self.phase, &self.target.host) else {
            return;
        };
        let name = name.clone();
        match answer {
            Ok(found) if found.is_empty() => {
                let cause = ResolveError::NoAddress;
                self.fail(DialError::Resolve { name, cause });
            }
            Ok(found) => self.race(now, &found),
            Err(cause) => self.fail(DialError::Resolve { name, cause }),
        }
    }

    /// Takes a connection that was made. The first one before the deadline wins.
    pub fn handle_connected(&mut self, now: Instant, index: usize) {
        self.expire(now);
        if self.phase == Phase::Racing && self.race.is_connecting(index) {
            let losers = self.race.connecting().filter(|&other| other != index);
            self.steps.extend(losers.map(DialStep::Abort));
            self.steps.push_back(DialStep::Won(index));
            self.phase = Phase::Won(index);
        } else if self.phase != Phase::Won(index) && self.race.is_started(index) {
            self.steps.push_back(DialStep::Abort(index));
        }
    }

    /// Takes a connection that was not made; the next address starts at once.
    pub fn handle_failed(&mut self, now: Instant, index: usize, kind: ConnectErrorKind) {
        self.expire(now);
        if self.phase == Phase::Racing && self.race.fail(index, kind) {
            self.start_next(now);
        }
    }

    /// Ends the dial because nobody waits for it: aborts what runs and fails with [`DialError::Cancelled`]. Without
    /// effect after the end; a connection that has won is the caller's to close.
    pub fn cancel(&mut self) {
        self.fail(DialError::Cancelled);
    }

    /// Starts the next address, gives up slow ones, or ends the dial; whatever is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
        while self.phase == Phase::Racing
            && let Some(index) = self.race.overdue(now)
        {
            self.race.fail(index, ConnectErrorKind::TimedOut);
            self.steps.push_back(DialStep::Abort(index));
            self.start_next(now);
        }
        if self.phase == Phase::Racing && self.race.is_due(now) {
            self.start_next(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; none after the end.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Resolving => Some(self.deadline),
            Phase::Racing => self
                .race
                .poll_timeout()
                .into_iter()
                .chain([self.deadline])
                .min(),
            Phase::Won(_) | Phase::Failed => None,
        }
    }

    /// The next thing to do.
    pub fn poll_step(&mut self) -> Option<DialStep> {
        self.steps.pop_front()
    }

    /// The address of an index, for logs.
    #[must_use]
    pub fn addr(&self, index: usize) -> Option<SocketAddr> {
        self.race.addr(index)
    }

    fn race(&mut self, now: Instant, found: &[IpAddr]) {
        match self.policy.admit(&self.target.host, found) {
            Ok(allowed) => {
                self.phase = Phase::Racing;
                self.race = Race::new(&allowed, self.target.port);
                self.start_next(now);
            }
            Err(refused) => self.fail(refused.into()),
        }
    }

    fn start_next(&mut self, now: Instant) {
        if let Some((index, addr)) = self.race.start_next(now) {
            self.steps.push_back(DialStep::Connect(index, addr));
        } else if self.race.is_lost() {
            self.fail(DialError::Connect {
                target: self.target.clone(),
                failures: self.race.failures().collect(),
            });
        }
    }

    fn expire(&mut self, now: Instant) {
        if now < self.deadline {
            return;
        }
        let stage = match self.phase {
            Phase::Resolving => DialStage::Resolving,
            Phase::Racing => DialStage::Connecting,
            Phase::Won(_) | Phase::Failed => return,
        };
        let target = self.target.clone();
        self.fail(DialError::TimedOut { target, stage });
    }

    fn fail(&mut self, error: DialError) {
        match self.phase {
            Phase::Resolving | Phase::Racing => {}
            Phase::Won(_) | Phase::Failed => return,
        }
        self.phase = Phase::Failed;
        self.steps
            .extend(self.race.connecting().map(DialStep::Abort));
        self.steps.push_back(DialStep::Failed(error));
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
