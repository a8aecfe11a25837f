//! Verdicts in any order of acknowledgements, sessions and checks, against the rule as it is told to users.

use proptest::{collection::vec, prelude::*};

use super::{LivenessRole::*, LivenessStep::*, *};

#[derive(Clone, Copy, Debug)]
enum Op {
    /// A packet of ours is acknowledged; the next check sees it.
    Acked,
    Received,
    Sessions(bool),
    Unacked(bool),
    /// A check after so long, or at the deadline if that is sooner.
    Check(u64),
    CheckAtDeadline,
    /// The process stands still, for so long beyond the deadline.
    StandStill(u64),
}

fn op(still: u32) -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Acked),
        2 => Just(Op::Received),
        1 => any::<bool>().prop_map(Op::Sessions),
        1 => any::<bool>().prop_map(Op::Unacked),
        4 => (0..600u64).prop_map(Op::Check),
        12 => Just(Op::CheckAtDeadline),
        still => prop_oneof![0..1_500u64, 0..20_000u64].prop_map(Op::StandStill),
    ]
}

/// A path and what is known of it from outside; times in milliseconds.
struct Watch {
    live: Liveness,
    role: LivenessRole,
    origin: Instant,
    now: u64,
    sample: PathSample,
    /// What the latest check saw.
    seen: PathSample,
    proof: u64,
    /// Time since the proof in which nobody looked.
    absent: u64,
    /// No verdict before, for a session that was opened on a silent path.
    grace: u64,
    suspect: bool,
    dead: bool,
    pinged: Option<u64>,
}

impl Watch {
    fn new(role: LivenessRole) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
        let origin = Instant::now();
        Self {
            live: Liveness::new(origin, LivenessConfig { role }),
            role,
            origin,
            now: 0,
            sample: PathSample::default(),
            seen: PathSample::default(),
            proof: 0,
            absent: 0,
            grace: 0,
            suspect: false,
            dead: false,
            pinged: None,
        }
    }

    fn due(&self) -> Option<u64> {
        let due = self.live.poll_timeout()?;
        Some(u64::try_from((due - self.origin).as_millis()).unwrap())
    }

    fn interval(&self) -> u64 {
        match self.seen.sessions_open || self.seen.unacked {
            true => 300,
            false => self.idle_interval(),
        }
    }

    fn idle_interval(&self) -> u64 {
        match self.role {
            Agent => 500,
            Gateway => 1_000,
        }
    }

    fn may_die(&self) -> bool {
        self.role == Agent || self.seen.sessions_open
    }

    fn set_sessions(&mut self, open: bool) {
        let is_first = open && !self.seen.sessions_open;
        (self.sample.sessions_open, self.seen.sessions_open) = (open, open);
        let silent = self.proof + if self.suspect { 4_000 } else { 3_000 };
        if is_first && silent <= self.now {
            self.grace = self.now + 300;
            self.pinged = None;
        }
        let now = self.origin + Duration::from_millis(self.now);
        self.live.set_sessions(now, open);
    }

    /// Checks; gives the verdicts and whether the path was heard.
    fn check(&mut self, ms: u64) -> Result<(Vec<LivenessStep>, bool), TestCaseError> {
        self.now = ms;
        let idle = self.interval() == 1_000;
        let heard = self.sample.acked != self.seen.acked
            || (idle && self.sample.received != self.seen.received);
        self.seen = self.sample;
        let now = self.origin + Duration::from_millis(ms);
        self.live.handle_tick(now, self.sample);
        if heard {
            (self.proof, self.absent, self.grace) = (ms, 0, 0);
        }
        let mut verdicts = Vec::new();
        while let Some(step) = self.live.poll_step() {
            prop_assert!(!self.dead, "{step:?} after the end");
            match step {
                Ping => {
                    let apart = self.pinged.is_none_or(|before| ms >= before + 300);
                    prop_assert!(apart, "two pings in one interval");
                    self.pinged = Some(ms);
                    continue;
                }
                Suspect => prop_assert!(!self.suspect && !heard),
                Recovered => prop_assert!(self.suspect && heard),
                Dead => prop_assert!(self.suspect && !heard && self.may_die()),
            }
            self.suspect = step == Suspect;
            self.dead = step == Dead;
            verdicts.push(step);
        }
        prop_assert_eq!(self.live.is_suspect(), self.suspect || self.dead);
        prop_assert_eq!(self.due().is_none(), self.dead);
        prop_assert!(
            self.due().is_none_or(|due| due > ms),
            "a check that is due at once"
        );
        Ok((verdicts, heard))
    }
}

proptest! {
    #[test]
    fn verdicts_come_at_their_time_where_checks_do(
        role in prop_oneof![Just(Agent), Just(Gateway)],
        ops in vec(op(0), 0..200),
    ) {
        let mut watch = Watch::new(role);
        for op in ops {
            let Some(due) = watch.due() else { break };
            let at = match op {
                Op::Acked => { watch.sample.acked += 1; continue }
                Op::Received => { watch.sample.received += 1; continue }
                Op::Unacked(unacked) => { watch.sample.unacked = unacked; continue }
                Op::Sessions(open) => { watch.set_sessions(open); continue }
                Op::Check(ms) => due.min(watch.now + ms),
                Op::CheckAtDeadline | Op::StandStill(_) => due,
            };
            let was_suspect = watch.suspect;
            let (verdicts, heard) = watch.check(at)?;
            let (suspect_at, dead_at) = (watch.proof + 3_000, watch.proof + 4_000);
            let mut wanted = Vec::new();
            if heard && was_suspect {
                wanted.push(Recovered);
            }
            let may_judge = !heard && watch.grace <= at;
            if may_judge && !was_suspect && suspect_at <= at {
                wanted.push(Suspect);
            }
            if may_judge && dead_at <= at && watch.may_die() {
                wanted.push(Dead);
            }
            prop_assert_eq!(verdicts, wanted, "at {}", at);
            // With the deadline in time, so is the verdict.
            if let Some(due) = watch.due() {
                prop_assert!(due <= at + watch.idle_interval(), "no ping in an interval");
                prop_assert!(watch.suspect || due <= suspect_at.max(watch.grace));
                prop_assert!(!watch.may_die() || due <= dead_at.max(watch.grace));
            }
        }
    }

    #[test]
    fn time_in_which_nobody_looked_is_no_silence(
        role in prop_oneof![Just(Agent), Just(Gateway)],
        ops in vec(op(4), 0..200),
    ) {
        let mut watch = Watch::new(role);
        for op in ops {
            let Some(due) = watch.due() else { break };
            let at = match op {
                Op::Acked => { watch.sample.acked += 1; continue }
                Op::Received => { watch.sample.received += 1; continue }
                Op::Unacked(unacked) => { watch.sample.unacked = unacked; continue }
                Op::Sessions(open) => { watch.set_sessions(open); continue }
                Op::Check(ms) => due.max(watch.now).min(watch.now + ms),
                Op::CheckAtDeadline => due.max(watch.now),
                Op::StandStill(ms) => due.max(watch.now) + ms,
            };
            let late = at.saturating_sub(due);
            if late > watch.interval() {
                watch.absent += late;
            }
            let (verdicts, _) = watch.check(at)?;
            let silence = at - watch.proof - watch.absent;
            for (verdict, least) in [(Suspect, 3_000), (Dead, 4_000)] {
                prop_assert!(!verdicts.contains(&verdict) || silence >= least, "{}", silence);
            }
        }
    }
}
