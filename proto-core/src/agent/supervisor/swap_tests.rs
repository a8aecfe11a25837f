//! A renewed key pair comes into use: what is kept until it has proved itself, and what a refusal goes back to.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*, sample::select};

use super::{Credentials::*, LossKind::*, SupervisorStep::*, *};

#[test]
fn the_new_connection_serves_before_the_old_one_drains() {
    let mut run = Run::up();
    run.sup.handle_renewed(run.at(60_000), Swap::Overlap);
    assert_eq!(run.steps(), [connect(1, Next)]);
    run.sup.handle_established(run.at(60_100), DialId(1));
    assert_eq!(run.steps(), [up(1)]);
    assert_eq!(run.sup.connection(), Some(DialId(1)));
    run.sup.handle_timeout(run.at(63_099));
    assert_eq!(run.steps(), [], "it has to prove itself first");
    run.sup.handle_timeout(run.at(63_100));
    assert_eq!(run.steps(), [Adopt, Drain { dial: DialId(0) }]);
    run.sup.handle_adopted(run.at(63_101), true);
    assert_eq!(run.sup.poll_timeout(), None);
    run.sup.handle_closed(run.at(64_000), DialId(0), LocalError);
    assert_eq!(
        (run.steps(), run.sup.connection()),
        (vec![], Some(DialId(1)))
    );
    run.sup.handle_closed(run.at(100_000), DialId(1), Reset);
    assert_eq!(
        run.steps(),
        [connect(2, Current)],
        "which is the renewed one"
    );
}

#[test]
fn a_refused_pair_is_discarded_and_the_old_connection_stays() {
    // Some gateways look at the certificate only after the agent's handshake.
    for early in [true, false] {
        for why in [IdentityRefused, ClosedByPeer] {
            let mut run = Run::up();
            run.sup.handle_renewed(run.at(60_000), Swap::Overlap);
            if early && why == IdentityRefused {
                run.sup.handle_closed(run.at(60_100), DialId(1), why);
                assert_eq!(run.steps(), [connect(1, Next), Discard]);
            } else {
                run.sup.handle_established(run.at(60_050), DialId(1));
                run.sup.handle_closed(run.at(60_100), DialId(1), why);
                assert_eq!(run.steps(), [connect(1, Next), up(1), up(0), Discard]);
            }
            assert_eq!(run.sup.connection(), Some(DialId(0)));
            assert_eq!(run.sup.poll_timeout(), None, "nothing is left to be tried");
            run.sup.handle_closed(run.at(90_000), DialId(0), Reset);
            assert_eq!(run.steps(), [connect(2, Current)]);
        }
    }
}

#[test]
fn a_replacement_that_gets_no_answer_is_tried_again_beside_the_old_connection() {
    let mut run = Run::up();
    run.sup.handle_renewed(run.at(60_000), Swap::Overlap);
    run.sup.handle_closed(run.at(60_010), DialId(1), TimedOut);
    let steps = run.steps();
    assert!(
        matches!(
            &steps[..],
            [
                _,
                Waiting {
                    cause: BackoffCause::Unreachable,
                    ..
                }
            ]
        ),
        "{steps:?}"
    );
    assert_eq!(run.sup.connection(), Some(DialId(0)));
    run.sup.handle_timeout(run.at(70_000));
    assert_eq!(run.steps(), [connect(2, Next)]);
    run.sup.handle_established(run.at(70_100), DialId(2));
    run.sup.handle_closed(run.at(70_200), DialId(2), TimedOut);
    let steps = run.steps();
    assert!(
        matches!(
            &steps[..],
            [
                Up { .. },
                Up {
                    dial: DialId(0),
                    ..
                },
                Waiting { .. }
            ]
        ),
        "{steps:?}"
    );
    run.sup.handle_timeout(run.at(90_000));
    assert_eq!(run.steps(), [connect(3, Next)], "nobody has refused it");
}

#[test]
fn the_loss_of_the_old_connection_does_not_stop_the_replacement() {
    let mut run = Run::up();
    run.sup.handle_renewed(run.at(60_000), Swap::Overlap);
    run.sup.handle_closed(run.at(60_010), DialId(0), Reset);
    assert_eq!(run.steps(), [connect(1, Next)], "it is the next connection");
    run.sup.handle_established(run.at(60_100), DialId(1));
    run.sup.handle_timeout(run.at(63_100));
    assert_eq!(run.steps(), [up(1), Adopt]);
}

#[test]
fn a_gateway_that_confuses_connections_gets_one_after_the_other() {
    let mut run = Run::up();
    run.sup.handle_renewed(run.at(60_000), Swap::WhenIdle);
    assert_eq!(run.steps(), [Drain { dial: DialId(0) }]);
    assert_eq!(run.sup.connection(), Some(DialId(0)), "it goes on to serve");
    run.sup.handle_closed(run.at(80_000), DialId(0), LocalError);
    assert_eq!(run.steps(), [connect(1, Next)], "at once");
}

#[test]
fn a_pair_that_came_during_a_round_is_shown_after_it() {
    for (swap, wanted) in [
        (Swap::Overlap, connect(1, Next)),
        (Swap::WhenIdle, Drain { dial: DialId(0) }),
    ] {
        let mut run = Run::new(false);
        run.steps();
        run.sup.handle_renewed(run.at(10), swap);
        assert_eq!(run.steps(), [], "one round at a time");
        run.sup.handle_established(run.at(50), DialId(0));
        assert_eq!(run.steps(), [up(0), wanted]);
    }
}

#[test]
fn a_start_with_two_pairs_finds_the_good_one_without_waiting() {
    let mut run = Run::new(true);
    assert_eq!(run.steps(), [connect(0, Next)]);
    run.sup.handle_established(run.at(10), DialId(0));
    run.sup
        .handle_closed(run.at(20), DialId(0), IdentityRefused);
    assert_eq!(run.steps(), [up(0), connect(1, Current)]);
    run.sup.handle_established(run.at(30), DialId(1));
    run.sup.handle_timeout(run.at(3_030));
    assert_eq!(run.steps(), [up(1), Discard]);
    assert_eq!(run.sup.poll_timeout(), None);
}

#[test]
fn two_refused_pairs_take_turns_a_minute_apart() {
    let mut run = Run::new(true);
    let mut at = 0;
    for shown in [Next, Current, Next, Current, Next] {
        let dial = run.dial(shown);
        run.sup.handle_closed(run.at(at), dial, IdentityRefused);
        if shown == Current {
            run.steps();
            let until = run.sup.poll_timeout().unwrap();
            let wait = until - run.at(at);
            assert!((60..=75).contains(&wait.as_secs()), "{wait:?}");
            at += 75_001;
            run.sup.handle_timeout(run.at(at));
        }
    }
}

#[test]
fn a_pair_that_could_not_be_adopted_is_shown_again() {
    let mut run = Run::new(true);
    run.steps();
    run.sup.handle_established(run.at(0), DialId(0));
    run.sup.handle_timeout(run.at(3_000));
    assert_eq!(run.steps(), [up(0), Adopt]);
    run.sup.handle_adopted(run.at(3_010), false);
    run.sup.handle_closed(run.at(9_000), DialId(0), Reset);
    assert_eq!(run.steps(), [connect(1, Next)]);
    run.sup.handle_established(run.at(9_010), DialId(1));
    run.sup.handle_timeout(run.at(12_010));
    assert_eq!(run.steps(), [up(1), Adopt]);
    run.sup.handle_adopted(run.at(12_020), false);
    run.sup.handle_timeout(run.at(72_020));
    assert_eq!(run.steps(), [Adopt], "within the same connection, too");
}

#[test]
fn a_pair_that_is_of_no_use_here_does_not_stand_in_the_way_of_one_that_is() {
    let mut run = Run::up();
    run.sup.handle_renewed(run.at(60_000), Swap::Overlap);
    run.sup
        .handle_closed(run.at(60_001), DialId(1), PairUnusable);
    assert_eq!(run.steps(), [connect(1, Next), Discard]);
    let mut run = Run::new(true);
    run.sup.handle_closed(run.at(1), DialId(0), PairUnusable);
    assert_eq!(run.steps(), [connect(0, Next), connect(1, Current)]);
    run.sup.handle_closed(run.at(2), DialId(1), PairUnusable);
    let wait = run.sup.poll_timeout().unwrap() - run.at(2);
    assert!(wait < Duration::from_secs(5), "as after any local fault");
}

#[test]
fn a_gateway_that_knows_the_former_pair_only_is_shown_that() {
    let mut run = Run::up();
    run.sup.handle_renewed(run.at(60_000), Swap::Overlap);
    run.sup.handle_established(run.at(60_000), DialId(1));
    run.sup.handle_timeout(run.at(63_000));
    run.sup.handle_adopted(run.at(63_000), true);
    run.sup.handle_closed(run.at(63_001), DialId(0), LocalError);
    run.steps();
    // It was restored from a backup.
    run.sup.handle_closed(run.at(90_000), DialId(1), Reset);
    assert_eq!(run.steps(), [connect(2, Current)]);
    run.sup
        .handle_closed(run.at(90_010), DialId(2), IdentityRefused);
    assert_eq!(run.steps(), [connect(3, Previous)], "at once");
    run.sup.handle_established(run.at(90_020), DialId(3));
    assert!(run.sup.is_renewing(), "nothing is renewed meanwhile");
    run.sup.handle_timeout(run.at(93_020));
    assert_eq!(run.steps(), [up(3), Revert]);
    run.sup.handle_adopted(run.at(93_030), true);
    assert!(!run.sup.is_renewing());
    run.sup.handle_closed(run.at(99_000), DialId(3), Reset);
    assert_eq!(run.steps(), [connect(4, Current)]);
}

#[test]
fn a_connection_that_is_never_idle_is_closed_for_its_successor_in_the_end() {
    let mut run = Run::up();
    run.sup.handle_renewed(run.at(60_000), Swap::WhenIdle);
    run.steps();
    let due = run.due().unwrap();
    assert_eq!(due, 60_000 + 24 * 3_600_000);
    run.sup.handle_timeout(run.at(due));
    assert_eq!(run.steps(), [Close { dial: DialId(0) }]);
    assert_eq!(run.sup.poll_timeout(), None);
    run.sup
        .handle_closed(run.at(due + 1), DialId(0), LocalError);
    assert_eq!(run.steps(), [connect(1, Next)]);
}

#[test]
fn connections_that_drain_are_bounded_and_closed_at_the_end() {
    let mut run = Run::up();
    for n in 0..4 {
        let at = 60_000 * (n + 1);
        run.sup.handle_renewed(run.at(at), Swap::Overlap);
        run.sup.handle_established(run.at(at), DialId(n + 1));
        run.sup.handle_timeout(run.at(at + 3_000));
        run.sup.handle_adopted(run.at(at + 3_000), true);
        let steps = run.steps();
        let closed = steps.iter().filter(|step| matches!(step, Close { .. }));
        assert_eq!(closed.count(), usize::from(n >= 2), "{steps:?}");
    }
    run.sup.shutdown();
    let closed = [4, 2, 3].map(|n| Close { dial: DialId(n) });
    assert_eq!(run.steps(), closed);
}

/// What a network and a gateway do with the attempts of one agent.
#[derive(Clone, Debug)]
enum Op {
    Wait(u64),
    /// A renewed pair is stored; the gateway knows its key.
    Renew(Swap),
    /// The newest connection ends.
    Lose(LossKind),
    /// The gateway is restored from a backup of before the latest renewal, unless a later one has been confirmed.
    Restore,
}

fn op() -> impl Strategy<Value = Op> {
    let swap = prop_oneof![Just(Swap::Overlap), Just(Swap::WhenIdle)];
    prop_oneof![
        6 => (1..20_000u64).prop_map(Op::Wait),
        2 => swap.prop_map(Op::Renew),
        2 => select(vec![TimedOut, Reset, ClosedByPeer, IdentityRefused, PairUnusable])
            .prop_map(Op::Lose),
        1 => Just(Op::Restore),
    ]
}

proptest! {
    /// Keys are numbers. The gateway admits the current key and the renewed one until the renewed one has connected,
    /// and only that from then on. Connections end for any reason at any time, disks are full, and the gateway may fall
    /// back to what it knew one renewal ago.
    #[test]
    fn nothing_locks_the_agent_out(ops in vec(op(), 0..60)) {
        let mut run = Run::new(false);
        let mut world = World::default();
        world.drain(&mut run);
        for op in ops {
            match op {
                Op::Wait(ms) => world.pass(&mut run, ms),
                // Never a third pair in doubt: the gateway may know the second one only.
                Op::Renew(_) if run.sup.is_renewing() => {}
                // Nor is a key renewed that counts no more at the gateway.
                Op::Renew(_) if !world.counts(&run) => {}
                Op::Renew(swap) => {
                    world.keys += 1;
                    world.next = Some(world.keys);
                    world.backup = world.admitted.0;
                    world.admitted.1 = Some(world.keys);
                    run.sup.handle_renewed(run.at(world.now), swap);
                }
                Op::Lose(why) => if let Some((&dial, _)) = world.live.last_key_value() {
                    world.live.remove(&dial);
                    run.sup.handle_closed(run.at(world.now), dial, why);
                }
                Op::Restore => {
                    world.admitted = (world.backup, None);
                    for (dial, _) in std::mem::take(&mut world.live) {
                        run.sup.handle_closed(run.at(world.now), dial, Reset);
                    }
                }
            }
            world.drain(&mut run);
            // The agent never throws the last good key away.
            let kept = [Some(world.current), world.next, world.previous];
            prop_assert!(kept.contains(&Some(world.admitted.0)), "{world:?}");
        }
        world.pass(&mut run, 400_000);
        let up = run.sup.connection();
        prop_assert!(up.is_some_and(|dial| world.live.contains_key(&dial)), "{world:?}");
    }
}

#[derive(Debug, Default)]
struct World {
    /// The key that the gateway admits, and the renewed one beside it.
    admitted: (u64, Option<u64>),
    /// The one that it admitted when the latest renewal began.
    backup: u64,
    current: u64,
    next: Option<u64>,
    previous: Option<u64>,
    live: BTreeMap<DialId, u64>,
    now: u64,
    keys: u64,
    adopted: u64,
}

impl World {
    /// The connection in use shows a key that the gateway admits.
    fn counts(&self, run: &Run) -> bool {
        let shown = run.sup.connection().and_then(|dial| self.live.get(&dial));
        let (current, renewed) = self.admitted;
        shown.is_some_and(|key| *key == current || Some(*key) == renewed)
    }

    fn pass(&mut self, run: &mut Run, ms: u64) {
        let end = self.now + ms;
        while let Some(due) = run.due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            run.sup.handle_timeout(run.at(self.now));
            self.drain(run);
        }
        self.now = end;
    }

    fn drain(&mut self, run: &mut Run) {
        while let Some(step) = run.sup.poll_step() {
            match step {
                Connect {
                    dial, credentials, ..
                } => self.connect(run, dial, credentials),
                Drain { dial } | Close { dial } => {
                    let drained = self.live.remove(&dial).is_some();
                    if drained && run.sup.connection() == Some(dial) {
                        run.sup.handle_closed(run.at(self.now), dial, LocalError);
                    }
                }
                Adopt | Revert => {
                    self.adopted += 1;
                    // Every fourth time the disk is full.
                    let fits = !self.adopted.is_multiple_of(4);
                    if fits && step == Adopt {
                        self.previous = Some(self.current);
                        self.current = self.next.take().unwrap();
                    } else if fits {
                        let current = self.previous.replace(self.current);
                        self.current = current.unwrap();
                        self.next = None;
                    }
                    run.sup.handle_adopted(run.at(self.now), fits);
                }
                Discard => self.previous = self.next.take(),
                Resolve { .. } | Up { .. } | Waiting { .. } => {}
            }
        }
    }

    fn connect(&mut self, run: &mut Run, dial: DialId, credentials: Credentials) {
        let key = match credentials {
            Current => self.current,
            Next => self.next.unwrap(),
            Previous => self.previous.unwrap(),
        };
        run.sup.handle_established(run.at(self.now), dial);
        if self.admitted.1 == Some(key) {
            self.admitted = (key, None);
        }
        if self.admitted.0 == key {
            self.live.insert(dial, key);
        } else {
            run.sup
                .handle_closed(run.at(self.now), dial, IdentityRefused);
        }
    }
}

struct Run {
    sup: Supervisor,
    origin: Instant,
}

impl Run {
    fn new(has_next: bool) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
        let origin = Instant::now();
        let gateways = vec!["192.0.2.1:4433".parse().unwrap()];
        let kept = KeptPairs {
            next: has_next,
            previous: false,
        };
        let sup = Supervisor::new(origin, gateways, kept, &Seed::new([7; 32])).unwrap();
        Self { sup, origin }
    }

    /// Connected since the beginning.
    fn up() -> Self {
        let mut run = Self::new(false);
        run.sup.handle_established(run.origin, DialId(0));
        run.steps();
        run
    }

    fn at(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    fn due(&self) -> Option<u64> {
        let nanos = (self.sup.poll_timeout()? - self.origin).as_nanos();
        Some(u64::try_from(nanos.div_ceil(1_000_000)).unwrap())
    }

    fn steps(&mut self) -> Vec<SupervisorStep> {
        std::iter::from_fn(|| self.sup.poll_step()).collect()
    }

    /// The one attempt that the steps ask for.
    fn dial(&mut self, shown: Credentials) -> DialId {
        let steps = self.steps();
        let attempts = steps.iter().filter_map(|step| match step {
            Connect {
                dial, credentials, ..
            } => Some((*dial, *credentials)),
            Resolve { .. }
            | Close { .. }
            | Drain { .. }
            | Adopt
            | Discard
            | Revert
            | Up { .. }
            | Waiting { .. } => None,
        });
        let attempts: Vec<_> = attempts.collect();
        assert_eq!(attempts.len(), 1, "{steps:?}");
        assert_eq!(attempts[0].1, shown);
        attempts[0].0
    }
}

fn connect(dial: u64, credentials: Credentials) -> SupervisorStep {
    Connect {
        dial: DialId(dial),
        gateway: GatewayIndex(0),
        addr: "192.0.2.1:4433".parse().unwrap(),
        server_name: "192.0.2.1".into(),
        credentials,
    }
}

fn up(dial: u64) -> SupervisorStep {
    Up {
        dial: DialId(dial),
        gateway: GatewayIndex(0),
    }
}
