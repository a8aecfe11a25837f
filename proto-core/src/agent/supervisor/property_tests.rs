//! Whatever gateways and networks do: the agent comes back in time, and storms nobody.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*, sample::select};

use super::{LossKind::*, SupervisorStep::*, *};

/// What becomes of one attempt; times in milliseconds.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Silent,
    Fails(u64, LossKind),
    Up {
        after: u64,
        lasts: u64,
        why: LossKind,
    },
}

/// What a resolver says, and after how long.
#[derive(Clone, Debug)]
struct Answer {
    after: Option<u64>,
    found: Result<Vec<IpAddr>, ResolveError>,
}

#[derive(Clone, Debug)]
enum Event {
    Resolved(GatewayIndex, Result<Vec<IpAddr>, ResolveError>),
    Established(DialId),
    Closed(DialId, LossKind),
    NetworkChange,
}

fn fate(kinds: &[LossKind]) -> impl Strategy<Value = Fate> + use<> {
    let why = || select(kinds.to_vec());
    let ms = || prop_oneof![0..700u64, 0..12_000u64];
    prop_oneof![
        1 => Just(Fate::Silent),
        4 => (ms(), why()).prop_map(|(after, why)| Fate::Fails(after, why)),
        2 => (ms(), 0..40_000u64, why())
            .prop_map(|(after, lasts, why)| Fate::Up { after, lasts, why }),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let found = prop_oneof![
        4 => vec((0..9u32).prop_map(|n| IpAddr::V4(n.into())), 0..6).prop_map(Ok),
        1 => Just(Err(ResolveError::Unavailable)),
    ];
    let after = prop::option::weighted(0.9, prop_oneof![0..100u64, 0..12_000u64]);
    (after, found).prop_map(|(after, found)| Answer { after, found })
}

fn run() -> impl Strategy<Value = (Vec<Fate>, Vec<Answer>, Vec<u64>)> {
    let gentle = vec![Unreachable, TimedOut, Reset, LocalError];
    let all = [&gentle[..], &[ClosedByPeer, Refused, IdentityRefused]].concat();
    let fates = prop_oneof![vec(fate(&gentle), 1..12), vec(fate(&all), 1..12)];
    (fates, vec(answer(), 1..5), vec(0..200_000u64, 0..6))
}

/// The least and the most that a gateway waits, in milliseconds, after a connection that was up for `up`.
fn bounds(why: LossKind, up: Duration) -> (u64, u64) {
    match why {
        IdentityRefused => (60_000, 75_000),
        Refused => (500, 60_000),
        Unreachable | TimedOut | Reset | ClosedByPeer | LocalError if up.as_secs() >= 5 => (0, 0),
        ClosedByPeer => (500, 60_000),
        Unreachable | TimedOut | Reset | PairUnusable | LocalError => (25, 4_000),
    }
}

enum Doing {
    Waiting { until: Instant },
    Trying { since: Instant },
    Up { since: Instant },
}

struct World {
    sup: Supervisor,
    fates: Vec<Fate>,
    answers: Vec<Answer>,
    events: BTreeMap<(Instant, usize), Event>,
    counter: usize,
    doing: Doing,
    current: GatewayIndex,
    /// Attempts of the present round; what is older has no say.
    dials: Vec<DialId>,
    /// The strictest bounds of what the present round or connection met.
    worst: (u64, u64),
    /// When each gateway may be tried again, and whether a network change ends that wait.
    closed_until: [Option<(Instant, bool)>; 3],
}

impl World {
    fn post(&mut self, at: Instant, event: Event) {
        self.counter += 1;
        self.events.insert((at, self.counter), event);
    }

    /// Lets one thing happen, the timer first.
    fn turn(&mut self) -> Result<Instant, TestCaseError> {
        let due = self.sup.poll_timeout();
        let first = self.events.first_key_value().map(|((at, _), _)| *at);
        let now = due.into_iter().chain(first).min().unwrap();
        let mut changed = false;
        if due == Some(now) {
            if let Doing::Trying { .. } = self.doing {
                self.worst = self.worst.max((25, 4_000));
            }
            self.sup.handle_timeout(now);
        } else {
            let (_, event) = self.events.pop_first().unwrap();
            match event {
                Event::Resolved(gateway, found) => {
                    self.worst = self.worst.max((25, 4_000));
                    self.sup.handle_resolved(now, gateway, found);
                }
                Event::Established(dial) => self.sup.handle_established(now, dial),
                Event::Closed(dial, why) => self.closed(now, dial, why),
                Event::NetworkChange => {
                    changed = true;
                    for (until, waives) in self.closed_until.iter_mut().flatten() {
                        *until = if *waives { now } else { *until };
                    }
                    self.sup.handle_network_change(now);
                }
            }
        }
        self.follow(now, changed)?;
        let due = self.sup.poll_timeout();
        let is_up = matches!(self.doing, Doing::Up { .. });
        prop_assert_eq!(due.is_none(), is_up);
        prop_assert!(due.is_none_or(|due| due > now), "a deadline in the past");
        if let (Doing::Trying { since }, Some(due)) = (&self.doing, due) {
            prop_assert!(
                due <= *since + Duration::from_secs(10),
                "a round without end"
            );
        }
        Ok(now)
    }

    fn closed(&mut self, now: Instant, dial: DialId, why: LossKind) {
        match self.doing {
            Doing::Up { since } if self.sup.connection() == Some(dial) => {
                self.worst = bounds(why, now - since);
            }
            Doing::Trying { .. } if self.dials.contains(&dial) => {
                self.worst = self.worst.max(bounds(why, Duration::ZERO));
            }
            Doing::Trying { .. } | Doing::Up { .. } | Doing::Waiting { .. } => {}
        }
        self.sup.handle_closed(now, dial, why);
    }

    fn follow(&mut self, now: Instant, changed: bool) -> Result<(), TestCaseError> {
        while let Some(step) = self.sup.poll_step() {
            match step {
                Resolve { gateway, .. } => {
                    self.started(now, gateway, changed)?;
                    self.counter += 1;
                    let answer = self.answers[self.counter % self.answers.len()].clone();
                    if let Some(ms) = answer.after {
                        let event = Event::Resolved(gateway, answer.found);
                        self.post(now + Duration::from_millis(ms), event);
                    }
                }
                Connect { dial, gateway, .. } => {
                    // The second gateway is a literal: its one address is its whole round.
                    if gateway.0 == 1 {
                        self.started(now, gateway, changed)?;
                    }
                    self.connect(now, dial);
                }
                Up { .. } => self.doing = Doing::Up { since: now },
                Waiting { until, .. } => self.waits(now, until, changed)?,
                Close { .. } => {}
                Drain { .. } | Adopt | Discard | Revert => {
                    prop_assert!(false, "there is one pair only")
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, now: Instant, dial: DialId) {
        self.dials.push(dial);
        let at = |ms| now + Duration::from_millis(ms);
        match self.fates[self.counter % self.fates.len()] {
            Fate::Silent => self.counter += 1,
            Fate::Fails(after, why) => self.post(at(after), Event::Closed(dial, why)),
            Fate::Up { after, lasts, why } => {
                self.post(at(after), Event::Established(dial));
                self.post(at(after + lasts), Event::Closed(dial, why));
            }
        }
    }

    /// A round begins: when it has to, and not before its gateway wants it.
    fn started(
        &mut self,
        now: Instant,
        gateway: GatewayIndex,
        changed: bool,
    ) -> Result<(), TestCaseError> {
        self.ended(now, changed);
        if let Doing::Waiting { until } = self.doing {
            prop_assert!(
                now == until || (changed && now < until),
                "not when it was said"
            );
        }
        let closed = self.closed_until[gateway.0];
        prop_assert!(closed.is_none_or(|(until, _)| until <= now), "a storm");
        self.closed_until[gateway.0] = None;
        self.doing = Doing::Trying { since: now };
        self.current = gateway;
        self.dials.clear();
        self.worst = (0, 0);
        Ok(())
    }

    fn waits(&mut self, now: Instant, until: Instant, changed: bool) -> Result<(), TestCaseError> {
        self.ended(now, changed);
        let most = Duration::from_millis(self.worst.1);
        prop_assert!(until > now);
        match self.doing {
            Doing::Waiting { until: before } => prop_assert!(until <= before),
            Doing::Trying { .. } | Doing::Up { .. } => prop_assert!(until <= now + most),
        }
        self.doing = Doing::Waiting { until };
        Ok(())
    }

    /// Notes the end of a round or a connection, if it is one: a network change only starts a round again.
    fn ended(&mut self, now: Instant, changed: bool) {
        if !changed && !matches!(self.doing, Doing::Waiting { .. }) {
            let (least, most) = self.worst;
            // The time that a round waited for an answer counts.
            let from = match self.doing {
                Doing::Trying { since } if most <= 4_000 => since,
                Doing::Trying { .. } | Doing::Up { .. } | Doing::Waiting { .. } => now,
            };
            let until = now.max(from + Duration::from_millis(least));
            self.closed_until[self.current.0] = Some((until, most <= 4_000));
        }
    }
}

proptest! {
    #[test]
    fn the_agent_comes_back_in_time_and_storms_nobody(
        gateways in 1..=3usize,
        (fates, answers, changes) in run(),
    ) {
        #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
        let origin = Instant::now();
        let targets = ["a.example:1", "192.0.2.1:2", "c.example:3"];
        let targets = targets[..gateways].iter().map(|text| text.parse().unwrap());
        let sup = Supervisor::new(origin, targets.collect(), KeptPairs::default(), &Seed::new([7; 32])).unwrap();
        let mut world = World {
            sup,
            fates,
            answers,
            events: BTreeMap::new(),
            counter: 0,
            doing: Doing::Waiting { until: origin },
            current: GatewayIndex(0),
            dials: Vec::new(),
            worst: (0, 0),
            closed_until: [None; 3],
        };
        for ms in changes {
            world.post(origin + Duration::from_millis(ms), Event::NetworkChange);
        }
        world.follow(origin, false)?;
        for _ in 0..150 {
            world.turn()?;
        }
    }

    #[test]
    fn agents_with_other_seeds_wait_otherwise(one: [u8; 32], other: [u8; 32]) {
        let waits = |seed| {
            #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
            let mut now = Instant::now();
            let target: Target = "192.0.2.1:4433".parse().unwrap();
            let mut sup = Supervisor::new(now, vec![target], KeptPairs::default(), &Seed::new(seed)).unwrap();
            let waits = (0..6).map(|dial| {
                sup.handle_closed(now, DialId(dial), Unreachable);
                let wait = sup.poll_timeout().unwrap() - now;
                now += wait;
                sup.handle_timeout(now);
                wait
            });
            waits.collect::<Vec<_>>()
        };
        prop_assert_eq!(waits(one), waits(one));
        if one != other {
            prop_assert_ne!(waits(one), waits(other));
        }
    }
}
