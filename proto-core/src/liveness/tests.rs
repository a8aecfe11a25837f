//! Both roles against paths that answer, fall silent and come back, and against a process that stands still.

use proptest::{collection::vec, prelude::*};

use super::{LivenessRole::*, LivenessStep::*, *};

#[test]
fn pings_keep_their_intervals() {
    for (role, sessions, unacked, interval) in [
        (Agent, false, false, 500),
        (Agent, true, false, 300),
        (Agent, false, true, 300),
        (Gateway, false, false, 1_000),
        (Gateway, true, false, 300),
    ] {
        let mut path = Path::new(role);
        path.sample.sessions_open = sessions;
        path.sample.unacked = unacked;
        path.live.set_sessions(path.at(0), sessions);
        path.tick();
        path.sample.acked += 1;
        let before = path.now;
        path.log.clear();
        path.tick();
        let first = path.now;
        path.sample.acked += u64::from(!path.live.is_idle_gateway());
        path.tick();
        assert_eq!(path.now - first, interval, "{role:?} {sessions}");
        assert!(first > before);
        assert_eq!(path.log.last(), Some(&(path.now, Ping)));
    }
}

#[test]
fn an_idle_gateway_that_hears_its_agent_stays_quiet() {
    let mut path = Path::new(Gateway);
    for _ in 0..20 {
        path.sample.received += 2;
        path.tick();
    }
    assert_eq!(path.log, []);
    path.tick();
    assert_eq!(path.log, [(21_000, Ping)]);
}

#[test]
fn silence_is_suspect_after_three_seconds_and_dead_after_four() {
    for (role, sessions) in [(Agent, false), (Agent, true), (Gateway, true)] {
        let mut path = Path::new(role);
        path.sample.sessions_open = sessions;
        path.live.set_sessions(path.at(0), sessions);
        path.tick_until(10_000);
        assert_eq!(
            path.verdicts(),
            [(3_000, Suspect), (4_000, Dead)],
            "{role:?}"
        );
        assert_eq!(path.live.poll_timeout(), None);
        assert!(path.live.is_suspect());
        let at = path.at(11_000);
        path.live.handle_tick(at, path.sample);
        assert_eq!(path.live.poll_step(), None, "nothing follows the end");
    }
}

#[test]
fn silence_runs_from_what_was_heard_and_not_from_when_it_was_seen() {
    let mut path = Path::new(Gateway);
    path.sample.received += 1;
    path.sample.heard_at = Some(path.at(400));
    path.tick_at(1_000);
    path.tick_until(10_000);
    assert_eq!(path.verdicts(), [(3_400, Suspect)]);
    // Nobody read the socket before a late check.
    let mut path = Path::new(Gateway);
    path.sample.received += 1;
    path.sample.heard_at = Some(path.at(400));
    path.tick_at(6_000);
    path.tick_until(20_000);
    assert_eq!(path.verdicts(), [(9_000, Suspect)]);
}

#[test]
fn an_idle_gateway_never_closes() {
    let mut path = Path::new(Gateway);
    path.tick_until(60_000);
    assert_eq!(path.verdicts(), [(3_000, Suspect)]);
    assert_eq!(path.log.iter().filter(|step| step.1 == Ping).count(), 60);
}

#[test]
fn a_proof_before_the_limit_recovers_the_path() {
    let mut path = Path::new(Agent);
    path.tick_until(3_900);
    assert_eq!(path.verdicts(), [(3_000, Suspect)]);
    path.sample.acked += 1;
    path.tick();
    assert_eq!(path.verdicts(), [(3_000, Suspect), (4_000, Recovered)]);
    path.tick_until(6_999);
    assert_eq!(path.verdicts().len(), 2);
    path.tick_until(8_000);
    assert_eq!(path.verdicts()[2..], [(7_000, Suspect), (8_000, Dead)]);
}

#[test]
fn packets_received_prove_nothing_about_the_way_out() {
    let mut path = Path::new(Agent);
    while path.live.poll_timeout().is_some() {
        path.sample.received += 1;
        path.tick();
    }
    assert_eq!(path.now, 4_000);
}

#[test]
fn opening_a_session_brings_the_next_check_forward() {
    let mut path = Path::new(Gateway);
    let at = path.at(100);
    path.live.set_sessions(at, true);
    assert_eq!(path.live.poll_timeout(), Some(path.at(300)));
    let at = path.at(150);
    path.live.set_sessions(at, false);
    assert_eq!(path.live.poll_timeout(), Some(path.at(1_000)));
    let at = path.at(900);
    path.live.set_sessions(at, true);
    assert_eq!(path.live.poll_timeout(), Some(path.at(900)));
}

#[test]
fn a_session_on_a_silent_path_gets_one_ping_before_it_is_judged() {
    let mut path = Path::new(Gateway);
    path.tick_until(10_000);
    path.log.clear();
    let at = path.at(10_100);
    path.sample.sessions_open = true;
    path.live.set_sessions(at, true);
    path.tick_until(12_000);
    assert_eq!(path.log, [(10_100, Ping), (10_400, Dead)]);
}

#[test]
fn a_process_that_stood_still_asks_before_it_judges() {
    let mut path = Path::new(Agent);
    path.sample.acked += 1;
    path.tick();
    path.tick_at(10_500);
    assert_eq!(path.log, [(500, Ping), (10_500, Ping)]);
    path.sample.acked += 1;
    path.tick();
    assert_eq!(path.verdicts(), [], "the answer came in the interval");
    assert_eq!(path.now, 11_000);

    path.tick_at(30_000);
    path.tick_until(60_000);
    // Of the silence half a second lay before the stop, so the rest of three and of four follow it.
    assert_eq!(path.verdicts(), [(32_500, Suspect), (33_500, Dead)]);
}

#[test]
fn a_stop_close_to_the_end_leaves_one_interval() {
    let mut path = Path::new(Agent);
    path.tick_until(3_900);
    path.tick_at(20_000);
    assert_eq!(path.verdicts(), [(3_000, Suspect)]);
    assert_eq!(path.live.poll_timeout(), Some(path.at(20_500)));
    path.tick();
    assert_eq!(path.verdicts(), [(3_000, Suspect), (20_500, Dead)]);
}

#[test]
fn a_process_that_is_always_late_still_judges() {
    let mut path = Path::new(Agent);
    let mut now = 0;
    while path.live.poll_timeout().is_some() {
        now += 1_200;
        path.tick_at(now);
        assert!(now < 60_000);
    }
    assert!(path.verdicts().iter().any(|step| step.1 == Dead));
}

proptest! {
    #[test]
    fn a_path_that_answers_is_never_suspect_whatever_the_scheduler_does(
        role in prop_oneof![Just(Agent), Just(Gateway)],
        delays in vec(prop_oneof![9 => 0..100u64, 1 => 0..20_000u64], 1..100),
        toggles in vec(any::<bool>(), 100),
    ) {
        let mut path = Path::new(role);
        for (delay, open) in delays.into_iter().zip(toggles) {
            path.sample.sessions_open = open;
            let due = path.due().unwrap();
            path.tick_at(due + delay);
            // Every ping is acknowledged before the next check.
            let pinged = path.log.last().is_some_and(|step| *step == (path.now, Ping));
            path.sample.acked += u64::from(pinged);
            path.sample.received += u64::from(pinged);
            prop_assert!(path.due().unwrap() >= path.now);
            prop_assert_eq!(path.verdicts(), []);
        }
    }

    #[test]
    fn a_silent_path_with_sessions_ends_once_and_in_time(
        role in prop_oneof![Just(Agent), Just(Gateway)],
        delays in vec(0..100u64, 100),
    ) {
        let mut path = Path::new(role);
        path.sample.sessions_open = true;
        path.live.set_sessions(path.at(0), true);
        for delay in delays {
            let Some(due) = path.due() else { break };
            path.tick_at(due + delay);
        }
        let verdicts = path.verdicts();
        prop_assert_eq!(verdicts.iter().map(|step| step.1).collect::<Vec<_>>(), [Suspect, Dead]);
        prop_assert!((3_000..3_100).contains(&verdicts[0].0), "{:?}", verdicts);
        prop_assert!((4_000..4_100).contains(&verdicts[1].0), "{:?}", verdicts);
    }
}

struct Path {
    live: Liveness,
    sample: PathSample,
    origin: Instant,
    now: u64,
    log: Vec<(u64, LivenessStep)>,
}

impl Path {
    fn new(role: LivenessRole) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
        let origin = Instant::now();
        Self {
            live: Liveness::new(origin, LivenessConfig { role }),
            sample: PathSample::default(),
            origin,
            now: 0,
            log: Vec::new(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    fn due(&self) -> Option<u64> {
        let due = self.live.poll_timeout()?;
        Some(u64::try_from((due - self.origin).as_millis()).unwrap())
    }

    /// Checks at the deadline.
    fn tick(&mut self) {
        self.tick_at(self.due().unwrap());
    }

    fn tick_at(&mut self, ms: u64) {
        self.now = ms;
        self.live.handle_tick(self.at(ms), self.sample);
        while let Some(step) = self.live.poll_step() {
            self.log.push((ms, step));
        }
    }

    /// Checks at every deadline up to and at the given time.
    fn tick_until(&mut self, ms: u64) {
        while self.due().is_some_and(|due| due <= ms) {
            self.tick();
        }
    }

    fn verdicts(&self) -> Vec<(u64, LivenessStep)> {
        let verdicts = self.log.iter().filter(|step| step.1 != Ping);
        verdicts.copied().collect()
    }
}
