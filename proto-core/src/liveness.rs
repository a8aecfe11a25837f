//! Whether the path of one connection carries data both ways (design 8.3).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::limits::{
    PATH_DEAD_AFTER, PATH_SUSPECT_AFTER, PING_BUSY, PING_IDLE_AGENT, PING_IDLE_GATEWAY,
};

/// Judges the path of one connection from the counters of its QUIC state, which works with peers that know nothing of
/// it: every QUIC implementation acknowledges a PING.
///
/// | Situation | Ping | Proof of life |
/// |---|---|---|
/// | sessions open, or data unacknowledged | every 300 ms | a packet of ours was acknowledged |
/// | idle agent | every 500 ms | the same |
/// | idle gateway | every 1 s in which nothing was received | a packet was received or acknowledged |
///
/// Silence runs from the latest datagram before the check that saw a proof. After 3 s the path is suspect until the next proof; after 4 s
/// it is dead, at an agent in any case and at a gateway with sessions open.
///
/// A process that was stopped must not take its own absence for the peer's. A check that comes more than one ping
/// interval after its deadline, and sees no proof, does not judge: it pings, takes its delay out of the silence, since
/// nobody read the socket through it, and lets at least one interval pass before the next judgement, so that a ping was
/// outstanding while the process ran. The next check judges even if it is late too, or a process that is late at every
/// check would never judge.
#[derive(Debug)]
pub struct Liveness {
    role: LivenessRole,
    acked: u64,
    received: u64,
    sessions: bool,
    unacked: bool,
    proof_at: Instant,
    ping_at: Instant,
    /// Start of the present ping interval.
    pinged_at: Instant,
    /// No judgement before; set by a late check.
    grace_until: Option<Instant>,
    state: State,
    steps: VecDeque<LivenessStep>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Alive,
    Suspect,
    Dead,
}

/// What a [`Liveness`] is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessConfig {
    /// Whose end of the connection it watches.
    pub role: LivenessRole,
}

/// An end of an agent's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessRole {
    /// The agent's end: it reconnects when the path is dead, so it always asks.
    Agent,
    /// The gateway's end: it may hold thousands, so it asks only where nothing is heard.
    Gateway,
}

/// What the connection counts at the time of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathSample {
    /// Packets of ours that the peer acknowledged, since the connection began.
    pub acked: u64,
    /// Packets received and authenticated, since the connection began.
    pub received: u64,
    /// Sessions are open or being opened.
    pub sessions_open: bool,
    /// Data of streams is unacknowledged; pings do not count.
    pub unacked: bool,
    /// When a datagram came last, if one did.
    pub heard_at: Option<Instant>,
}

/// What a [`Liveness`] asks for or finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessStep {
    /// Send a packet that the peer must acknowledge.
    Ping,
    /// Nothing came back for 3 s: route nothing there.
    Suspect,
    /// The path carries data again.
    Recovered,
    /// Close the connection with the reason `path dead`. The last step; the timer rests.
    Dead,
}

impl Liveness {
    /// Starts with an established connection, which counts as a proof, and with no session.
    #[must_use]
    pub fn new(now: Instant, config: LivenessConfig) -> Self {
        let mut liveness = Self {
            role: config.role,
            acked: 0,
            received: 0,
            sessions: false,
            unacked: false,
            proof_at: now,
            ping_at: now,
            pinged_at: now,
            grace_until: None,
            state: State::Alive,
            steps: VecDeque::new(),
        };
        liveness.ping_at = now + liveness.interval();
        liveness
    }

    /// Checks the path. Meant for when [`poll_timeout`](Self::poll_timeout) is due; harmless before.
    pub fn handle_tick(&mut self, now: Instant, sample: PathSample) {
        let Some(due) = self.poll_timeout() else {
            return;
        };
        let delay = now.saturating_duration_since(due);
        let is_late = delay > self.interval();
        // Of a late check nobody knows when what lay in the socket came.
        let heard_at = sample.heard_at.filter(|_| !is_late).unwrap_or(now);
        let is_heard = self.take(now, heard_at, sample);
        if is_late && !is_heard {
            self.proof_at = now.min(self.proof_at + delay);
            self.ping(now);
            if self.grace_until.is_none() {
                self.grace_until = Some(now + self.interval());
                return;
            }
        }
        if self.grace_until.is_none_or(|until| until <= now) {
            self.grace_until = None;
            self.judge(now);
        }
        if self.ping_at <= now && self.state != State::Dead {
            if is_heard && self.is_idle_gateway() {
                self.wait(heard_at);
            } else {
                self.ping(now);
            }
        }
    }

    /// Takes the opening of the first session or the end of the last one, so that the next check comes in time for it.
    pub fn set_sessions(&mut self, now: Instant, open: bool) {
        if self.sessions == open {
            return;
        }
        self.sessions = open;
        let next = (self.pinged_at + self.interval()).max(now);
        self.ping_at = if open { self.ping_at.min(next) } else { next };
        // A silence that mattered to nobody is not held against the first session at once: it gets one ping.
        if open && self.verdict_at().is_some_and(|at| at <= now) {
            self.ping_at = now;
            self.grace_until = Some(now + self.interval());
        }
    }

    /// When [`handle_tick`](Self::handle_tick) is to be called; none after [`LivenessStep::Dead`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let verdict = self.verdict_at()?;
        let verdict = self.grace_until.map_or(verdict, |until| until.max(verdict));
        Some(verdict.min(self.ping_at))
    }

    /// The next thing to do or to know.
    pub fn poll_step(&mut self) -> Option<LivenessStep> {
        self.steps.pop_front()
    }

    /// Tells whether the path is suspect or dead.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.state != State::Alive
    }

    /// Takes the counters; tells whether they prove life, which then was there at `heard_at`.
    fn take(&mut self, now: Instant, heard_at: Instant, sample: PathSample) -> bool {
        let is_acked = self.acked != sample.acked;
        let is_received = self.received != sample.received;
        let is_heard = is_acked || (is_received && self.is_idle_gateway());
        self.acked = sample.acked;
        self.received = sample.received;
        self.unacked = sample.unacked;
        self.set_sessions(now, sample.sessions_open);
        if is_heard {
            self.proof_at = self.proof_at.max(heard_at);
            self.grace_until = None;
            if self.state == State::Suspect {
                self.state = State::Alive;
                self.steps.push_back(LivenessStep::Recovered);
            }
        }
        is_heard
    }

    fn judge(&mut self, now: Instant) {
        let silence = now.saturating_duration_since(self.proof_at);
        if silence >= PATH_SUSPECT_AFTER && self.state == State::Alive {
            self.state = State::Suspect;
            self.steps.push_back(LivenessStep::Suspect);
        }
        if silence >= PATH_DEAD_AFTER && self.may_die() {
            self.state = State::Dead;
            self.steps.push_back(LivenessStep::Dead);
        }
    }

    fn ping(&mut self, now: Instant) {
        self.steps.push_back(LivenessStep::Ping);
        self.wait(now);
    }

    /// The next ping is due one interval from this.
    fn wait(&mut self, from: Instant) {
        self.pinged_at = from;
        self.ping_at = from + self.interval();
    }

    /// When silence changes the state; the next ping where it cannot.
    fn verdict_at(&self) -> Option<Instant> {
        match self.state {
            State::Alive => Some(self.proof_at + PATH_SUSPECT_AFTER),
            State::Suspect if self.may_die() => Some(self.proof_at + PATH_DEAD_AFTER),
            State::Suspect => Some(self.ping_at),
            State::Dead => None,
        }
    }

    fn may_die(&self) -> bool {
        self.sessions || self.role == LivenessRole::Agent
    }

    fn is_idle_gateway(&self) -> bool {
        !self.sessions && !self.unacked && self.role == LivenessRole::Gateway
    }

    fn interval(&self) -> Duration {
        if self.sessions || self.unacked {
            return PING_BUSY;
        }
        match self.role {
            LivenessRole::Agent => PING_IDLE_AGENT,
            LivenessRole::Gateway => PING_IDLE_GATEWAY,
        }
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
