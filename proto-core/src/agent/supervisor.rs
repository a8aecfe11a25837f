//! Connections to gateways over time: which one is tried when, and which connection is kept (design 8.1 and 8.4).

mod call;
mod credentials;
mod loss;
mod round;
mod state;
mod step;
mod swap;

use std::{collections::VecDeque, net::IpAddr, time::Instant};

use rand_chacha::ChaCha12Rng;

pub(crate) use self::call::{Call, describe};
use self::{
    credentials::Pairs,
    loss::cause,
    round::{Round, Turn},
    state::{Gateway, Live, Phase},
};
pub use self::{
    credentials::{Credentials, KeptPairs, Swap},
    loss::LossKind,
    state::SupervisorError,
    step::{DialId, GatewayIndex, SupervisorStep},
};
use super::{
    backoff::{Backoff, BackoffCause},
    dial::ResolveError,
};
use crate::{
    env::Seed,
    journal::Recording,
    limits::{CREDENTIALS_PROOF_AFTER, DIAL_STAGGER, GATEWAYS_MAX},
    target::{Host, Target},
};

/// Keeps an agent connected to one of its gateways.
///
/// A *round* goes to one gateway: its name is resolved, its addresses are raced as RFC 8305 says, the first connection
/// to be established is kept and the others are closed; it ends after
/// [`CONNECT_TIMEOUT`](crate::limits::CONNECT_TIMEOUT). After a round that failed, or a loss, the gateway waits as its own
/// [`Backoff`] says, and the next round goes to the gateway that may be tried first. Where several may be tried at once,
/// they take turns in the order of the list; none is preferred.
///
/// A renewed key pair is told by [`handle_renewed`](Self::handle_renewed). The connection that shows it replaces the one
/// in use, which drains; until the new one has lasted [`CREDENTIALS_PROOF_AFTER`], the old pair and the old connection
/// stay, and a refusal goes back to them (design 8.6). A pair that was put aside is kept, and shown again where the
/// current one is refused.
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
    phase: Phase,
    /// The connection in use.
    up: Option<Live>,
    /// The one that it replaces, until it has proved itself.
    former: Option<Live>,
    /// Connections that were replaced and still have sessions, at most [`DRAINING_MAX`](crate::limits::DRAINING_MAX).
    draining: VecDeque<DialId>,
    pairs: Pairs,
    swap: Swap,
    /// When a connection that only drains is closed whatever it carries, so that its successor shows the next pair.
    close_by: Option<(Instant, DialId)>,
    steps: VecDeque<SupervisorStep>,
    /// When it was made, and what with: for a journal.
    begun: (Instant, KeptPairs),
    recording: Recording,
}

impl Supervisor {
    /// Starts the first round at once. `gateways` are `host:port` in the order in which they are tried; the jitter is
    /// drawn from `seed`'s stream `backoff`. `kept` are the key pairs beside the current one.
    ///
    /// # Errors
    /// [`SupervisorError`] where the list is empty or too long.
    pub fn new(
        now: Instant,
        gateways: Vec<Target>,
        kept: KeptPairs,
        seed: &Seed,
    ) -> Result<Self, SupervisorError> {
        Self::begun(now, gateways, kept, seed.derive("backoff"))
    }

    fn begun(
        now: Instant,
        gateways: Vec<Target>,
        kept: KeptPairs,
        rng: ChaCha12Rng,
    ) -> Result<Self, SupervisorError> {
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
            rng,
            next_dial: 0,
            current: 0,
            round_at: now,
            phase: Phase::Waiting { until: now },
            up: None,
            former: None,
            draining: VecDeque::new(),
            pairs: Pairs::new(kept),
            swap: Swap::Overlap,
            close_by: None,
            steps: VecDeque::new(),
            begun: (now, kept),
            recording: Recording::default(),
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
        let call = || Call::Resolved(gateway, answer.clone());
        self.called(Some(now), call);
        let Phase::Round(round) = &self.phase else {
            return;
        };
        if !round.is_resolving() {
            return;
        }
        if gateway.0 != self.current {
            return;
        }
        match answer {
            Ok(found) if !found.is_empty() => self.race(now, &found),
            Ok(_) | Err(_) => self.round_failed(now, BackoffCause::Unreachable),
        }
    }

    /// Takes a connection of which the handshake is complete. The first of a round is kept.
    pub fn handle_established(&mut self, now: Instant, dial: DialId) {
        self.called(Some(now), || Call::Established(dial));
        if self.is_kept(dial) {
            return;
        }
        let wins = matches!(&self.phase, Phase::Round(round) if round.is_connecting(dial));
        if !wins {
            let known = dial.0 < self.next_dial;
            self.steps
                .extend(known.then_some(SupervisorStep::Close { dial }));
            return;
        }
        let credentials = self.end_round(Some(dial));
        let live = Live {
            dial,
            gateway: self.current,
            since: now,
            credentials,
            proof_at: self
                .pairs
                .are_in_doubt()
                .then(|| now + CREDENTIALS_PROOF_AFTER),
        };
        if let Some(replaced) = self.up.replace(live)
            && let Some(older) = self.former.replace(replaced)
        {
            self.drain(older.dial);
        }
        self.tell_up();
        // The pair came while the round was under way.
        if credentials != self.pairs.shown() {
            self.replace(now);
        }
    }

    /// Takes the end of an attempt or a connection, whoever caused it. Ends of connections that were closed from here
    /// are ignored.
    pub fn handle_closed(&mut self, now: Instant, dial: DialId, why: LossKind) {
        self.called(Some(now), || Call::Closed(dial, why));
        self.close_by.take_if(|(_, by)| *by == dial);
        if let Phase::Round(round) = &mut self.phase
            && round.fail(dial, why)
        {
            self.start_next(now);
        } else if let Some(live) = self.up.take_if(|live| live.dial == dial) {
            self.lost(now, &live, why);
        } else {
            self.former.take_if(|live| live.dial == dial);
            self.draining.retain(|draining| *draining != dial);
        }
    }

    /// Takes the news that this machine's addresses or routes changed: gateways that were merely unreachable are tried
    /// at once, and a round under way is started again, but rounds stay [`DIAL_STAGGER`] apart. A connection that is up
    /// is left alone: its own path check decides.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.called(Some(now), || Call::NetworkChange);
        let at = now.max(self.round_at + DIAL_STAGGER);
        for gateway in &mut self.gateways {
            if gateway.cause == BackoffCause::Unreachable {
                gateway.ready_at = gateway.ready_at.min(at);
            }
        }
        match self.phase {
            Phase::Waiting { .. } => self.schedule(now),
            Phase::Round(_) if at == now => {
                self.end_round(None);
                self.begin(now, self.current);
            }
            Phase::Round(_) | Phase::Idle | Phase::Stopped => {}
        }
    }

    /// Starts a round or the next address of one, or ends one; whatever is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.called(Some(now), || Call::Timeout);
        match &self.phase {
            Phase::Waiting { until } if *until <= now => self.schedule(now),
            Phase::Round(round) => match round.turn(now) {
                Turn::Over(cause) => self.round_failed(now, cause),
                Turn::Next => self.start_next(now),
                Turn::Goes => {}
            },
            Phase::Waiting { .. } | Phase::Idle | Phase::Stopped => {}
        }
        if let Some((_, dial)) = self.close_by.take_if(|(at, _)| *at <= now) {
            self.close_all(Some(dial).filter(|dial| self.connection() == Some(*dial)));
        }
        self.prove(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; none while a connection is up that has nothing to
    /// prove, and after the end.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Round(round) => Some(round.poll_timeout()),
            Phase::Idle => None,
            Phase::Stopped => return None,
        };
        let proof = self.up.as_ref().and_then(|live| live.proof_at);
        let close = self.close_by.map(|(at, _)| at);
        [phase, proof, close].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll_step(&mut self) -> Option<SupervisorStep> {
        let step = self.steps.pop_front();
        match &step {
            Some(step) => self.recording.output(|now| describe(step, now)),
            None => self.recording.flush(),
        }
        step
    }

    /// Closes what runs and ends for good. Drain the sessions first.
    pub fn shutdown(&mut self) {
        self.called(None, || Call::Shutdown);
        self.end_round(None);
        let kept = [self.up.take(), self.former.take()];
        let kept = kept.into_iter().flatten().map(|live| live.dial);
        let dials: Vec<DialId> = kept.chain(self.draining.drain(..)).collect();
        self.close_all(dials);
        self.phase = Phase::Stopped;
    }

    /// The connection that is up.
    #[must_use]
    pub fn connection(&self) -> Option<DialId> {
        self.up.as_ref().map(|live| live.dial)
    }

    fn begin(&mut self, now: Instant, index: usize) {
        self.current = index;
        self.round_at = now;
        self.phase = Phase::Round(Round::new(now, self.pairs.shown()));
        match self.gateways[index].target.host.clone() {
            Host::Ip(ip) => self.race(now, &[ip]),
            Host::Name(host) => self.steps.push_back(SupervisorStep::Resolve {
                gateway: GatewayIndex(index),
                host,
                port: self.gateways[index].target.port,
            }),
        }
    }

    fn race(&mut self, now: Instant, found: &[IpAddr]) {
        if let Phase::Round(round) = &mut self.phase {
            let port = self.gateways[self.current].target.port;
            round.race(found, port, self.next_dial);
            self.start_next(now);
        }
    }

    fn start_next(&mut self, now: Instant) {
        let Phase::Round(round) = &mut self.phase else {
            return;
        };
        if let Some((dial, addr)) = round.start_next(now) {
            self.next_dial = dial.0 + 1;
            self.steps.push_back(SupervisorStep::Connect {
                dial,
                gateway: GatewayIndex(self.current),
                addr,
                server_name: self.gateways[self.current].target.host.to_string().into(),
                credentials: round.credentials(),
            });
        } else if round.is_lost() {
            let cause = round.worst();
            self.round_failed(now, cause);
        }
    }

    /// Ends a round that came to nothing.
    fn round_failed(&mut self, now: Instant, cause: BackoffCause) {
        let refused = matches!(&self.phase, Phase::Round(round) if round.was_refused());
        let shown = self.end_round(None);
        if refused && self.pairs.refused(shown) && self.up.is_none() {
            return self.begin(now, self.current);
        }
        let gateway = &mut self.gateways[self.current];
        let wait = gateway.backoff.next(cause, &mut self.rng);
        // A round that waited for an answer in vain has spared the gateway for that long: its first packets are soon over.
        let from = match cause {
            BackoffCause::Unreachable => self.round_at,
            BackoffCause::Refused | BackoffCause::IdentityRefused => now,
        };
        gateway.ready_at = now.max(from + wait);
        gateway.cause = cause;
        self.go_on(now, refused);
    }

    /// The connection in use is lost.
    fn lost(&mut self, now: Instant, live: &Live, why: LossKind) {
        let up = now.saturating_duration_since(live.since);
        let cause = cause(why, up);
        // A gateway may look at the certificate only after the agent's handshake is complete.
        let in_doubt = live.proof_at.is_some() && why == LossKind::ClosedByPeer;
        let refused = why.is_of_the_pair() || in_doubt;
        let other = refused && self.pairs.refused(live.credentials);
        if let Some(former) = self.former.take() {
            self.up = Some(former);
            self.tell_up();
        } else if other && !matches!(self.phase, Phase::Round(_)) {
            return self.begin(now, live.gateway);
        }
        let gateway = &mut self.gateways[live.gateway];
        gateway.ready_at = now + gateway.backoff.next_after(up, cause, &mut self.rng);
        gateway.cause = cause;
        self.go_on(now, refused);
    }

    /// After a failure: the next round in time, unless one is under way or would only be refused again.
    fn go_on(&mut self, now: Instant, refused: bool) {
        if matches!(self.phase, Phase::Round(_)) {
            return;
        }
        match &mut self.up {
            Some(live) if refused || live.credentials == self.pairs.shown() => {
                // What is up is what is left to prove.
                self.phase = Phase::Idle;
                live.proof_at = Some(live.since + CREDENTIALS_PROOF_AFTER);
                self.prove(now);
            }
            Some(_) | None => self.schedule(now),
        }
    }

    /// Starts the next round or waits for it: the gateway that is ready first, the one after the current one first
    /// among equals. While a connection is up it is only about replacing it, at the same gateway.
    fn schedule(&mut self, now: Instant) {
        let count = self.gateways.len();
        let turns = (1..=count).map(|turn| (self.current + turn) % count);
        let next = turns.min_by_key(|&index| self.gateways[index].ready_at.max(now));
        let index = match &self.up {
            Some(live) => live.gateway,
            None => next.unwrap_or(self.current),
        };
        let gateway = &self.gateways[index];
        if gateway.ready_at <= now {
            self.begin(now, index);
            return;
        }
        let until = gateway.ready_at;
        self.phase = Phase::Waiting { until };
        self.steps.push_back(SupervisorStep::Waiting {
            until,
            gateway: GatewayIndex(index),
            cause: gateway.cause,
        });
    }

    fn tell_up(&mut self) {
        if let Some(live) = &self.up {
            let (dial, gateway) = (live.dial, GatewayIndex(live.gateway));
            self.steps.push_back(SupervisorStep::Up { dial, gateway });
        }
    }

    /// Ends the round, if there is one, and closes its attempts but the one that is kept; gives what it showed.
    fn end_round(&mut self, kept: Option<DialId>) -> Credentials {
        let Phase::Round(round) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return self.pairs.shown();
        };
        let mut losers = round.connecting();
        losers.retain(|dial| Some(*dial) != kept);
        self.close_all(losers);
        round.credentials()
    }

    fn close_all(&mut self, dials: impl IntoIterator<Item = DialId>) {
        let close = |dial| SupervisorStep::Close { dial };
        self.steps.extend(dials.into_iter().map(close));
    }

    fn is_kept(&self, dial: DialId) -> bool {
        let mut kept = [&self.up, &self.former].into_iter().flatten();
        kept.any(|live| live.dial == dial) || self.draining.contains(&dial)
    }
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod swap_tests;
#[cfg(test)]
mod tests;
