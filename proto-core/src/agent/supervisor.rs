//! Connections to gateways over time: which one is tried when, and which connection is kept (design 8.1 and 8.4).

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rand_chacha::ChaCha12Rng;

use super::{
    backoff::{Backoff, BackoffCause},
    dial::ResolveError,
    race::Race,
};
use crate::{
    close::Closed,
    env::Seed,
    limits::{BACKOFF_STEADY_AFTER, CONNECT_TIMEOUT, DIAL_STAGGER, GATEWAYS_MAX},
    target::{Host, Target},
};

/// Keeps an agent connected to one of its gateways.
///
/// A *round* goes to one gateway: its name is resolved, its addresses are raced as RFC 8305 says, the first connection
/// to be established is kept and the others are closed; it ends after [`CONNECT_TIMEOUT`]. After a round that failed,
/// or a loss, the gateway waits as its own [`Backoff`] says, and the next round goes to the gateway that may be tried
/// first. Where several may be tried at once, they take turns in the order of the list; none is preferred.
///
/// Answers may come late: a connection that nobody wants is answered by [`SupervisorStep::Close`]. After every
/// `handle_*` call poll the steps until there is none.
#[derive(Debug)]
pub struct Supervisor {
    gateways: Vec<Gateway>,
    rng: ChaCha12Rng,
    next_dial: u64,
    /// The gateway of the latest round.
    current: usize,
    round_at: Instant,
    state: State,
    steps: VecDeque<SupervisorStep>,
}

#[derive(Debug)]
struct Gateway {
    target: Target,
    backoff: Backoff,
    ready_at: Instant,
    /// What it waits for; a network change ends only some waits.
    cause: BackoffCause,
}

#[derive(Debug)]
enum State {
    Waiting {
        until: Instant,
    },
    Resolving {
        until: Instant,
    },
    Racing {
        until: Instant,
        /// The dial of the race's first lane; the others follow.
        first: u64,
        race: Race<LossKind>,
    },
    Up {
        dial: DialId,
        since: Instant,
    },
    Stopped,
}

/// Names one connection attempt, and the connection that comes of it; never used twice by a [`Supervisor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// A gateway's place in the configured list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayIndex(pub usize);

/// What a [`Supervisor`] asks for or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupervisorStep {
    /// Resolve the name, IPv4 and IPv6, and answer by [`Supervisor::handle_resolved`].
    Resolve {
        /// Whose name it is.
        gateway: GatewayIndex,
        /// The name.
        host: Box<str>,
        /// The UDP port, for resolvers that want one.
        port: u16,
    },
    /// Start a QUIC connection and answer by [`Supervisor::handle_established`] or [`Supervisor::handle_closed`].
    Connect {
        /// Names the attempt.
        dial: DialId,
        /// Where it goes.
        gateway: GatewayIndex,
        /// Where it goes, resolved.
        addr: SocketAddr,
        /// What the certificate must be for: the host as configured (agent-tunnel 2.2).
        server_name: Box<str>,
    },
    /// Close this connection or attempt with code 0. No answer is needed. May come twice.
    Close {
        /// Which one.
        dial: DialId,
    },
    /// This connection is the agent's.
    Up {
        /// Which one.
        dial: DialId,
        /// Where it goes.
        gateway: GatewayIndex,
    },
    /// Nothing runs before `until`; for logs and status only.
    Waiting {
        /// When the next round starts.
        until: Instant,
        /// Where it goes.
        gateway: GatewayIndex,
        /// Why it does not start at once.
        cause: BackoffCause,
    },
}

/// Why an attempt failed or a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossKind {
    /// The network says that there is no way, or that nothing listens.
    Unreachable,
    /// No answer: handshake deadline, idle timeout or a dead path.
    TimedOut,
    /// A stateless reset: the gateway restarted.
    Reset,
    /// The gateway closed the connection by an application close.
    ClosedByPeer,
    /// The gateway refused the attempt for load (`CONNECTION_REFUSED`, RFC 9000 20.1).
    Refused,
    /// Either end refused the other's certificate.
    IdentityRefused,
    /// A fault of this machine, such as a socket that cannot be made.
    LocalError,
}

impl From<&Closed> for LossKind {
    /// Tells what the end of a connection means for reconnecting (design 8.4).
    fn from(closed: &Closed) -> Self {
        match closed {
            Closed::PeerRestarted => Self::Reset,
            // A gateway that stops says so (agent-tunnel 13); one that is back at once should have its agents at once.
            Closed::ByPeer(close) if close.code == 0 => Self::Reset,
            Closed::Overloaded => Self::Refused,
            Closed::ByPeer(_) => Self::ClosedByPeer,
            Closed::IdentityRefused { .. } | Closed::PeerNotTrusted { .. } => Self::IdentityRefused,
            Closed::TimedOut | Closed::PathDead | Closed::HandshakeTimedOut => Self::TimedOut,
            Closed::Local
            | Closed::Fault(_)
            | Closed::NoCommonVersion
            | Closed::Transport { .. } => Self::LocalError,
        }
    }
}

/// Why a list of gateways is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// The list is empty.
    #[error("no gateway is configured")]
    NoGateway,
    /// The list is longer than [`GATEWAYS_MAX`].
    #[error("more than {GATEWAYS_MAX} gateways are configured")]
    TooManyGateways,
}

impl Supervisor {
    /// Starts the first round at once. `gateways` are `host:port` in the order in which they are tried; the jitter is
    /// drawn from `seed`'s stream `backoff`.
    ///
    /// # Errors
    /// [`SupervisorError`] where the list is empty or too long.
    pub fn new(now: Instant, gateways: Vec<Target>, seed: &Seed) -> Result<Self, SupervisorError> {
        if gateways.is_empty() {
            return Err(SupervisorError::NoGateway);
        }
        if gateways.len() > GATEWAYS_MAX {
            return Err(SupervisorError::TooManyGateways);
        }
        let gateway = |target| Gateway {
            target,
            backoff: Backoff::after_first(),
            ready_at: now,
            cause: BackoffCause::Unreachable,
        };
        let mut supervisor = Self {
            gateways: gateways.into_iter().map(gateway).collect(),
            rng: seed.derive("backoff"),
            next_dial: 0,
            current: 0,
            round_at: now,
            state: State::Waiting { until: now },
            steps: VecDeque::new(),
        };
        supervisor.begin(now, 0);
        Ok(supervisor)
    }

    /// Takes the resolver's answer. One of an earlier round is as good, since it is of the same name; one that comes
    /// when no round to this gateway waits for it is ignored.
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        gateway: GatewayIndex,
        answer: Result<Vec<IpAddr>, ResolveError>,
    ) {
        let State::Resolving { until } = self.state else {
            return;
        };
        if gateway.0 != self.current {
            return;
        }
        match answer {
            Ok(found) if !found.is_empty() => self.race(now, until, &found),
            Ok(_) | Err(_) => self.round_failed(now, BackoffCause::Unreachable),
        }
    }

    /// Takes a connection of which the handshake is complete. The first of a round is kept.
    pub fn handle_established(&mut self, now: Instant, dial: DialId) {
        let wins = match &self.state {
            State::Up { dial: kept, .. } if *kept == dial => return,
            State::Racing { first, race, .. } => race.is_connecting(lane(*first, dial)),
            State::Waiting { .. } | State::Resolving { .. } | State::Up { .. } | State::Stopped => {
                false
            }
        };
        if !wins {
            let known = dial.0 < self.next_dial;
            self.steps
                .extend(known.then_some(SupervisorStep::Close { dial }));
            return;
        }
        self.close_running(Some(dial));
        self.state = State::Up { dial, since: now };
        let gateway = GatewayIndex(self.current);
        self.steps.push_back(SupervisorStep::Up { dial, gateway });
    }

    /// Takes the end of an attempt or a connection, whoever caused it. Ends of connections that were closed from here
    /// are ignored.
    pub fn handle_closed(&mut self, now: Instant, dial: DialId, why: LossKind) {
        match &mut self.state {
            State::Racing { first, race, .. } => {
                if race.fail(lane(*first, dial), why) {
                    self.start_next(now);
                }
            }
            State::Up { dial: kept, since } if *kept == dial => {
                let up = now.saturating_duration_since(*since);
                self.lost(now, up, why);
            }
            State::Waiting { .. } | State::Resolving { .. } | State::Up { .. } | State::Stopped => {
            }
        }
    }

    /// Takes the news that this machine's addresses or routes changed: gateways that were merely unreachable are tried
    /// at once, and a round under way is started again, but rounds stay [`DIAL_STAGGER`] apart. A connection that is up
    /// is left alone: its own path check decides.
    pub fn handle_network_change(&mut self, now: Instant) {
        let at = now.max(self.round_at + DIAL_STAGGER);
        for gateway in &mut self.gateways {
            if gateway.cause == BackoffCause::Unreachable {
                gateway.ready_at = gateway.ready_at.min(at);
            }
        }
        match self.state {
            State::Waiting { .. } => self.schedule(now),
            State::Resolving { .. } | State::Racing { .. } if at == now => {
                self.close_running(None);
                self.begin(now, self.current);
            }
            State::Resolving { .. } | State::Racing { .. } | State::Up { .. } | State::Stopped => {}
        }
    }

    /// Starts a round or the next address of one, or ends one; whatever is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.state {
            State::Waiting { until } if *until <= now => self.schedule(now),
            State::Resolving { until } if *until <= now => {
                self.round_failed(now, BackoffCause::Unreachable);
            }
            State::Racing { until, race, .. } if *until <= now => {
                let cause = worst(race);
                self.close_running(None);
                self.round_failed(now, cause);
            }
            State::Racing { race, .. } if race.is_due(now) => self.start_next(now),
            State::Waiting { .. }
            | State::Resolving { .. }
            | State::Racing { .. }
            | State::Up { .. }
            | State::Stopped => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; none while a connection is up and after the end.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } | State::Resolving { until } => Some(*until),
            State::Racing { until, race, .. } => race.next_at().into_iter().chain([*until]).min(),
            State::Up { .. } | State::Stopped => None,
        }
    }

    /// The next thing to do.
    pub fn poll_step(&mut self) -> Option<SupervisorStep> {
        self.steps.pop_front()
    }

    /// Closes what runs and ends for good. Drain the sessions first.
    pub fn shutdown(&mut self) {
        self.close_running(None);
        self.state = State::Stopped;
    }

    /// The connection that is up.
    #[must_use]
    pub fn connection(&self) -> Option<DialId> {
        match self.state {
            State::Up { dial, .. } => Some(dial),
            State::Waiting { .. }
            | State::Resolving { .. }
            | State::Racing { .. }
            | State::Stopped => None,
        }
    }

    fn begin(&mut self, now: Instant, index: usize) {
        self.current = index;
        self.round_at = now;
        let until = now + CONNECT_TIMEOUT;
        match self.gateways[index].target.host.clone() {
            Host::Ip(ip) => self.race(now, until, &[ip]),
            Host::Name(host) => {
                self.state = State::Resolving { until };
                self.steps.push_back(SupervisorStep::Resolve {
                    gateway: GatewayIndex(index),
                    host,
                    port: self.gateways[index].target.port,
                });
            }
        }
    }

    fn race(&mut self, now: Instant, until: Instant, found: &[IpAddr]) {
        let race = Race::new(found, self.gateways[self.current].target.port);
        let first = self.next_dial;
        self.state = State::Racing { until, first, race };
        self.start_next(now);
    }

    fn start_next(&mut self, now: Instant) {
        let State::Racing { first, race, .. } = &mut self.state else {
            return;
        };
        if let Some((index, addr)) = race.start_next(now) {
            let dial = DialId(*first + index as u64);
            self.next_dial = dial.0 + 1;
            self.steps.push_back(SupervisorStep::Connect {
                dial,
                gateway: GatewayIndex(self.current),
                addr,
                server_name: self.gateways[self.current].target.host.to_string().into(),
            });
        } else if race.is_lost() {
            let cause = worst(race);
            self.round_failed(now, cause);
        }
    }

    fn round_failed(&mut self, now: Instant, cause: BackoffCause) {
        let gateway = &mut self.gateways[self.current];
        gateway.ready_at = now + gateway.backoff.next(cause, &mut self.rng);
        gateway.cause = cause;
        self.schedule(now);
    }

    fn lost(&mut self, now: Instant, up: Duration, why: LossKind) {
        let gateway = &mut self.gateways[self.current];
        let cause = cause(why, up);
        gateway.ready_at = now + gateway.backoff.next_after(up, cause, &mut self.rng);
        gateway.cause = cause;
        self.schedule(now);
    }

    /// Starts the next round or waits for it: the gateway that is ready first, the one after the current one first
    /// among equals.
    fn schedule(&mut self, now: Instant) {
        let count = self.gateways.len();
        let turns = (1..=count).map(|turn| (self.current + turn) % count);
        let next = turns.min_by_key(|&index| self.gateways[index].ready_at.max(now));
        let index = next.unwrap_or(self.current);
        let gateway = &self.gateways[index];
        if gateway.ready_at <= now {
            self.begin(now, index);
            return;
        }
        let until = gateway.ready_at;
        self.state = State::Waiting { until };
        self.steps.push_back(SupervisorStep::Waiting {
            until,
            gateway: GatewayIndex(index),
            cause: gateway.cause,
        });
    }

    /// Closes every attempt and connection but one.
    fn close_running(&mut self, kept: Option<DialId>) {
        let close = |dial| SupervisorStep::Close { dial };
        match &self.state {
            State::Racing { first, race, .. } => {
                let dials = race.connecting().map(|index| DialId(*first + index as u64));
                let dials = dials.filter(|&dial| Some(dial) != kept);
                self.steps.extend(dials.map(close));
            }
            State::Up { dial, .. } => self.steps.push_back(close(*dial)),
            State::Waiting { .. } | State::Resolving { .. } | State::Stopped => {}
        }
    }
}

/// The lane of a dial, or one that no race has.
fn lane(first: u64, dial: DialId) -> usize {
    let lane = dial.0.checked_sub(first);
    lane.and_then(|lane| usize::try_from(lane).ok())
        .unwrap_or(usize::MAX)
}

/// The strictest of what the addresses of one gateway said: an address that is merely unreachable does not excuse
/// storming one that refuses.
fn worst(race: &Race<LossKind>) -> BackoffCause {
    let causes = race.failures().map(|(_, why)| cause(why, Duration::ZERO));
    causes.max().unwrap_or(BackoffCause::Unreachable)
}

fn cause(why: LossKind, up: Duration) -> BackoffCause {
    match why {
        LossKind::Unreachable | LossKind::TimedOut | LossKind::Reset | LossKind::LocalError => {
            BackoffCause::Unreachable
        }
        // A gateway that lets an agent in only to close at once wants to be left alone; a later close is a restart.
        LossKind::ClosedByPeer if up >= BACKOFF_STEADY_AFTER => BackoffCause::Unreachable,
        LossKind::ClosedByPeer | LossKind::Refused => BackoffCause::Refused,
        LossKind::IdentityRefused => BackoffCause::IdentityRefused,
    }
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
