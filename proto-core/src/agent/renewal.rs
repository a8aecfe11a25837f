//! When an agent asks for its next certificate, and how far that has come (design 8.6, agent-tunnel 12).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand_chacha::{ChaCha12Rng, rand_core::Rng};

use crate::{
    env::Seed,
    limits::{
        RENEWAL_ANSWER_TIMEOUT, RENEWAL_CHECK_INTERVAL, RENEWAL_RETRY_FIRST, RENEWAL_RETRY_MAX,
    },
    output::Renewed,
};

/// Times the renewals of one agent's certificate.
///
/// A certificate is renewed when a third of its life is left, by the wall clock, which may be wrong and may be set: it is
/// looked at every [`RENEWAL_CHECK_INTERVAL`], so that a step of it is noticed. The fleet that enrolled on one day is
/// spread over a tenth of that third. An expired certificate is renewed like any other while a connection made with it
/// lasts. What fails is tried again after two minutes, then four, and so on up to [`RENEWAL_RETRY_MAX`].
///
/// One renewal runs at a time: request, question, storage, and proof by a connection. The request, with its key, is kept
/// until it is answered, so that a late answer to an earlier question fits.
#[derive(Debug)]
pub struct Renewal {
    validity: Validity,
    rng: ChaCha12Rng,
    /// Part of the margin, in parts of 2^32, by which this agent comes earlier.
    share: u32,
    state: State,
    /// A connection is up.
    connected: bool,
    /// The request of this renewal, once it is made.
    request: Option<String>,
    failures: u32,
    steps: VecDeque<RenewalStep>,
}

#[derive(Debug)]
enum State {
    /// The wall clock is looked at then.
    Resting {
        until: Instant,
    },
    /// It is time, but there is no connection.
    Due,
    Requesting,
    Asking {
        until: Instant,
    },
    Storing,
    /// The next pair has to prove itself.
    Proving,
}

/// The life of a certificate; Unix times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: i64,
    /// Last second.
    pub not_after: i64,
}

/// What a [`Renewal`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewalStep {
    /// Make a certificate request, with a key of its own or the present one as the gateway can take it, and answer by
    /// [`Renewal::handle_request`].
    Request,
    /// Ask the gateway over the connection that is up; the answer goes to [`Renewal::handle_answer`].
    Ask {
        /// PKCS#10, PEM.
        csr_pem: String,
    },
    /// Check what the gateway issued, store it beside the present pair, and answer by [`Renewal::handle_stored`].
    Store(Renewed),
}

impl Renewal {
    /// Starts with the certificate in use. `has_next` tells of a next pair that was stored and has to prove itself. The
    /// spread and the waits are drawn from `seed`'s stream `renewal`.
    #[must_use]
    pub fn new(now: Instant, validity: Validity, has_next: bool, seed: &Seed) -> Self {
        let mut rng = seed.derive("renewal");
        Self {
            validity,
            share: rng.next_u32(),
            rng,
            state: if has_next {
                State::Proving
            } else {
                State::Resting { until: now }
            },
            connected: false,
            request: None,
            failures: 0,
            steps: VecDeque::new(),
        }
    }

    /// Takes the news that a connection is up.
    pub fn handle_up(&mut self, now: Instant, unix_s: i64) {
        self.connected = true;
        if matches!(self.state, State::Due) {
            self.begin(now);
        } else {
            self.handle_timeout(now, unix_s);
        }
    }

    /// Takes the news that no connection is up. A question that was not answered is asked again over the next one.
    pub fn handle_down(&mut self) {
        self.connected = false;
        if matches!(self.state, State::Asking { .. }) {
            self.state = State::Due;
        }
    }

    /// Takes the wish of an operator to renew now. Tells whether it is new; where no connection is up it waits for one.
    pub fn handle_wish(&mut self, now: Instant) -> bool {
        let idle = matches!(self.state, State::Resting { .. });
        if idle {
            self.begin(now);
        }
        idle
    }

    /// Takes the certificate request, or that none could be made.
    pub fn handle_request(&mut self, now: Instant, made: Option<String>) {
        if !matches!(self.state, State::Requesting) {
            return;
        }
        match made {
            Some(csr_pem) => {
                self.request = Some(csr_pem);
                self.ask(now);
            }
            None => self.failed(now),
        }
    }

    /// Takes the gateway's answer; none where it refused or could not be asked. One that nothing waits for is ignored.
    pub fn handle_answer(&mut self, now: Instant, answer: Option<Renewed>) {
        if !matches!(self.state, State::Asking { .. }) {
            return;
        }
        match answer {
            Some(renewed) => {
                self.state = State::Storing;
                self.steps.push_back(RenewalStep::Store(renewed));
            }
            None => {
                // A refusal is of this request; the next one is a fresh one.
                self.request = None;
                self.failed(now);
            }
        }
    }

    /// Takes whether the issued certificate is good and stored. If it is, tell the supervisor.
    pub fn handle_stored(&mut self, now: Instant, stored: bool) {
        if matches!(self.state, State::Storing) {
            self.request = None;
            if stored {
                self.state = State::Proving;
            } else {
                self.failed(now);
            }
        }
    }

    /// Takes that another pair is the current one, with the life of its certificate. Where that is due as it comes, the
    /// clocks of agent and gateway are far apart, and renewing again helps as little as after a failure. Gives whether
    /// that is so.
    pub fn handle_adopted(&mut self, now: Instant, unix_s: i64, validity: Validity) -> bool {
        self.validity = validity;
        self.share = self.rng.next_u32();
        let is_due = self.due_at() <= unix_s;
        if matches!(self.state, State::Proving | State::Resting { .. }) {
            self.failed(now);
        }
        if !is_due {
            self.failures = 0;
        }
        is_due
    }

    /// Takes that the next pair was refused and is gone.
    pub fn handle_discarded(&mut self, now: Instant) {
        if matches!(self.state, State::Proving) {
            self.failed(now);
        }
    }

    /// Looks at the wall clock where it is time to, and gives up waiting for an answer.
    pub fn handle_timeout(&mut self, now: Instant, unix_s: i64) {
        match self.state {
            State::Resting { until } if until <= now => {
                let left = self.due_at().saturating_sub(unix_s);
                if left <= 0 {
                    self.begin(now);
                } else {
                    let left = Duration::from_secs(left.unsigned_abs());
                    let until = now + left.min(RENEWAL_CHECK_INTERVAL);
                    self.state = State::Resting { until };
                }
            }
            State::Asking { until } if until <= now => self.failed(now),
            State::Resting { .. }
            | State::Due
            | State::Requesting
            | State::Asking { .. }
            | State::Storing
            | State::Proving => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Resting { until } | State::Asking { until } => Some(until),
            State::Due | State::Requesting | State::Storing | State::Proving => None,
        }
    }

    /// When the next renewal begins by itself as things are, in Unix seconds: after a failure, or when the certificate
    /// is due. None while one is under way.
    #[must_use]
    pub fn next_attempt(&self, now: Instant, unix_s: i64) -> Option<i64> {
        match self.state {
            State::Resting { until } => {
                let wait = until.saturating_duration_since(now).as_secs();
                let rested = unix_s.saturating_add_unsigned(wait);
                Some(rested.max(self.due_at()))
            }
            State::Due
            | State::Requesting
            | State::Asking { .. }
            | State::Storing
            | State::Proving => None,
        }
    }

    /// The next thing to do.
    pub fn poll_step(&mut self) -> Option<RenewalStep> {
        self.steps.pop_front()
    }

    fn begin(&mut self, now: Instant) {
        if !self.connected {
            self.state = State::Due;
        } else if self.request.is_some() {
            // It was not answered, so it is still good.
            self.ask(now);
        } else {
            self.state = State::Requesting;
            self.steps.push_back(RenewalStep::Request);
        }
    }

    fn ask(&mut self, now: Instant) {
        let Some(csr_pem) = self.request.clone().filter(|_| self.connected) else {
            self.state = State::Due;
            return;
        };
        let until = now + RENEWAL_ANSWER_TIMEOUT;
        self.state = State::Asking { until };
        self.steps.push_back(RenewalStep::Ask { csr_pem });
    }

    /// Waits two minutes, four, and so on; the upper half of that is drawn.
    fn failed(&mut self, now: Instant) {
        let doubled = RENEWAL_RETRY_FIRST * (1 << self.failures.min(DOUBLINGS_MAX));
        let full = doubled.min(RENEWAL_RETRY_MAX);
        let drawn = full / 2 * (self.rng.next_u32() >> 16) / (1 << 16);
        self.failures += 1;
        let until = now + full / 2 + drawn;
        self.state = State::Resting { until };
    }

    /// Unix second from which on the certificate is to be renewed.
    fn due_at(&self) -> i64 {
        let Validity {
            not_before,
            not_after,
        } = self.validity;
        let margin = not_after.saturating_sub(not_before).max(0) / 3;
        let spread = i128::from(margin / 10) * i128::from(self.share) / i128::from(u32::MAX);
        let spread = i64::try_from(spread).unwrap_or(0);
        not_after.saturating_sub(margin).saturating_sub(spread)
    }
}

/// Two minutes doubled eight times are above the longest wait.
const DOUBLINGS_MAX: u32 = 8;

#[cfg(test)]
mod tests;
