//! Whether a node is worth calling: a breaker per node (peer-rpc 9.3).

use std::time::{Duration, Instant};

use crate::limits::{BREAKER_COOLDOWN, BREAKER_THRESHOLD};

/// Opens after failures in a row, and lets a call try again after a pause.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    failures: u32,
    state: State,
    since: Instant,
    /// Probes that there were.
    probes: u64,
}

/// How a breaker behaves.
#[derive(Clone, Copy, Debug)]
pub struct BreakerSettings {
    /// Failures in a row that open it.
    pub threshold: u32,
    /// Pause before the first try.
    pub cooldown: Duration,
    /// Who passes while it is half-open.
    pub half_open: HalfOpen,
}

/// Who passes a half-open breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfOpen {
    /// One, until it has succeeded or failed, or for a pause has done neither.
    OneProbe,
    /// Everybody: the reference's behaviour.
    EveryCheck,
}

/// A breaker as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// None passes.
    Open,
    /// Whether it closes is being tried.
    HalfOpen,
}

#[derive(Clone, Debug)]
enum State {
    Closed,
    Open,
    /// The probe that is under way, and since when; none where it came to nothing, or the node has shown itself.
    HalfOpen {
        probing: Option<(ProbeId, Instant)>,
    },
}

/// How an attempt passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// As all do.
    Free,
    /// As the one that tries whether the node is back.
    Probe(ProbeId),
}

/// One probe of a breaker. A probe that is heard of late has lost its place to the next one, and must not give that up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeId(u64);

/// The breaker lets no call pass: nobody's fault; the node failed lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node failed {failures} times in a row; not called for now")]
pub struct CircuitOpen {
    /// Failures in a row.
    pub failures: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            threshold: BREAKER_THRESHOLD,
            cooldown: BREAKER_COOLDOWN,
            half_open: HalfOpen::OneProbe,
        }
    }
}

impl Breaker {
    /// Begins closed.
    #[must_use]
    pub fn new(now: Instant, settings: BreakerSettings) -> Self {
        Self {
            settings,
            failures: 0,
            state: State::Closed,
            since: now,
            probes: 0,
        }
    }

    /// Asks before each attempt. One that passes must report [`Breaker::succeeded`] or [`Breaker::failed`]; a probe of which
    /// neither is known reports [`Breaker::released`].
    ///
    /// # Errors
    /// [`CircuitOpen`]
    pub fn check(&mut self, now: Instant) -> Result<Pass, CircuitOpen> {
        let cooldown = self.settings.cooldown;
        let is_over = |since| now.saturating_duration_since(since) >= cooldown;
        let is_free = match self.state {
            State::Closed => return Ok(Pass::Free),
            State::Open => is_over(self.since),
            State::HalfOpen { .. } if self.settings.half_open == HalfOpen::EveryCheck => true,
            State::HalfOpen { probing } => probing.is_none_or(|(_, since)| is_over(since)),
        };
        if !is_free {
            return Err(CircuitOpen {
                failures: self.failures,
            });
        }
        self.probes = self.probes.wrapping_add(1);
        let probe = ProbeId(self.probes);
        let probing = Some((probe, now));
        match self.state {
            State::Open => self.enter(now, State::HalfOpen { probing }),
            State::Closed | State::HalfOpen { .. } => self.state = State::HalfOpen { probing },
        }
        Ok(Pass::Probe(probe))
    }

    /// An attempt came to nothing, and says nothing of the node. Where it is the probe that is under way, the next attempt
    /// may be one.
    pub fn released(&mut self, pass: Pass) {
        if let State::HalfOpen { probing } = &mut self.state
            && let Some((probe, _)) = probing
            && pass == Pass::Probe(*probe)
        {
            *probing = None;
        }
    }

    /// The node has shown by itself that it is there: where the breaker is open, the next attempt may try.
    pub fn shown(&mut self, now: Instant) {
        match self.state {
            State::Closed | State::HalfOpen { .. } => {}
            State::Open => self.enter(now, State::HalfOpen { probing: None }),
        }
    }

    /// An attempt reached the node.
    pub fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        if !matches!(self.state, State::Closed) {
            self.enter(now, State::Closed);
        }
    }

    /// An attempt failed. While the breaker is open that starts its pause again.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Closed if self.failures < self.settings.threshold => {}
            State::Closed | State::Open | State::HalfOpen { .. } => self.enter(now, State::Open),
        }
    }

    /// The state, without asking to pass.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Since when it is in its state; for an open one since the last failure.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    fn enter(&mut self, now: Instant, state: State) {
        self.state = state;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::bed;

    const COOLDOWN: Duration = Duration::from_secs(10);

    fn open(half_open: HalfOpen) -> (Breaker, Instant) {
        let start = bed::start();
        let settings = BreakerSettings {
            half_open,
            ..BreakerSettings::default()
        };
        let mut b = Breaker::new(start, settings);
        for failure in 1..=5 {
            assert_eq!(b.check(start), Ok(Pass::Free));
            b.failed(start);
            assert_eq!(b.state() == BreakerState::Open, failure == 5);
        }
        (b, start)
    }

    #[test]
    fn a_success_starts_the_count_again() {
        let now = bed::start();
        let mut b = Breaker::new(now, BreakerSettings::default());
        for _ in 0..4 {
            b.failed(now);
        }
        b.succeeded(now);
        assert_eq!(b.failures(), 0);
        for _ in 0..4 {
            b.failed(now);
        }
        assert_eq!(b.state(), BreakerState::Closed);
    }

    #[test]
    fn exactly_one_probe_passes_after_the_pause() {
        let (mut b, start) = open(HalfOpen::OneProbe);
        let before = start + COOLDOWN - Duration::from_nanos(1);
        assert_eq!(b.check(before), Err(CircuitOpen { failures: 5 }));
        let at = start + COOLDOWN;
        assert!(matches!(b.check(at), Ok(Pass::Probe(_))));
        assert_eq!(b.state(), BreakerState::HalfOpen);
        assert!(b.check(at).is_err());
        b.succeeded(at);
        assert_eq!(b.check(at), Ok(Pass::Free));
        assert_eq!(b.state(), BreakerState::Closed);
    }

    #[test]
    fn a_probe_that_fails_opens_again_for_a_whole_pause() {
        let (mut b, start) = open(HalfOpen::OneProbe);
        let at = start + COOLDOWN;
        b.check(at).unwrap();
        b.failed(at);
        assert_eq!(b.state(), BreakerState::Open);
        assert!(b.check(at + COOLDOWN - Duration::from_nanos(1)).is_err());
        assert!(b.check(at + COOLDOWN).is_ok());
    }

    #[test]
    fn a_probe_that_is_never_heard_of_again_makes_room() {
        let (mut b, start) = open(HalfOpen::OneProbe);
        let at = start + COOLDOWN;
        b.check(at).unwrap();
        assert!(b.check(at + COOLDOWN - Duration::from_nanos(1)).is_err());
        assert!(b.check(at + COOLDOWN).is_ok());
        assert!(b.check(at + COOLDOWN).is_err());
    }

    #[test]
    fn a_probe_that_says_nothing_makes_room_at_once() {
        let (mut b, start) = open(HalfOpen::OneProbe);
        let at = start + COOLDOWN;
        let probe = b.check(at).unwrap();
        b.released(probe);
        assert_eq!(b.state(), BreakerState::HalfOpen);
        assert!(matches!(b.check(at), Ok(Pass::Probe(_))));
        assert!(b.check(at).is_err());
        let (mut b, _) = open(HalfOpen::OneProbe);
        b.released(probe);
        assert!(b.check(start).is_err(), "there was none");
    }

    #[test]
    fn a_probe_that_is_heard_of_late_does_not_free_the_place_of_the_next() {
        let (mut b, start) = open(HalfOpen::OneProbe);
        let at = start + COOLDOWN;
        let first = b.check(at).unwrap();
        // It is given up, as nothing was heard of it for a pause; another one goes.
        let late = at + COOLDOWN;
        let second = b.check(late).unwrap();
        b.released(first);
        assert!(b.check(late).is_err(), "the second one is under way");
        b.released(Pass::Free);
        assert!(b.check(late).is_err(), "the second one is under way");
        b.released(second);
        assert!(b.check(late).is_ok());
    }

    #[test]
    fn a_node_that_shows_itself_is_tried_at_once_and_once() {
        let (mut b, start) = open(HalfOpen::OneProbe);
        b.shown(start);
        assert!(matches!(b.check(start), Ok(Pass::Probe(_))));
        assert!(b.check(start).is_err());
        b.shown(start);
        assert!(b.check(start).is_err(), "one is under way");
        b.failed(start);
        assert_eq!(b.state(), BreakerState::Open);
    }

    #[test]
    fn the_reference_lets_everybody_probe() {
        let (mut b, start) = open(HalfOpen::EveryCheck);
        for _ in 0..3 {
            assert!(matches!(b.check(start + COOLDOWN), Ok(Pass::Probe(_))));
        }
    }

    #[test]
    fn a_late_failure_prolongs_the_pause() {
        let (mut b, start) = open(HalfOpen::OneProbe);
        let late = start + Duration::from_secs(9);
        b.failed(late);
        assert!(b.check(start + COOLDOWN).is_err());
        assert_eq!(b.since(), late);
        assert!(b.check(late + COOLDOWN).is_ok());
    }
}
