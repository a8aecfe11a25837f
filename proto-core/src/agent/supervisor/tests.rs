//! Tables of (time, input) and the steps that they give.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};

use super::{LossKind::*, SupervisorStep::*, *};
use crate::close::{CloseReason, Closed, PeerClose};

#[test]
fn a_literal_is_connected_at_once_and_kept() {
    let mut run = Run::new(&["192.0.2.1:4433"]);
    assert_eq!(run.steps(), [connect(0, 0, "192.0.2.1:4433", "192.0.2.1")]);
    assert_eq!(run.due(), Some(10_000));
    run.sup.handle_established(run.at(50), DialId(0));
    assert_eq!(run.steps(), [up(0, 0)]);
    assert_eq!((run.due(), run.sup.connection()), (None, Some(DialId(0))));
}

#[test]
fn all_addresses_of_a_name_are_raced_and_one_is_kept() {
    let mut run = Run::new(&["gw.example:4433"]);
    assert_eq!(run.steps(), [resolve(0, "gw.example")]);
    run.resolved(10, 0, &["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
    assert_eq!(
        run.steps(),
        [connect(0, 0, "[2001:db8::1]:4433", "gw.example")]
    );
    assert_eq!(run.due(), Some(260));
    run.sup.handle_timeout(run.at(259));
    assert_eq!(run.steps(), []);
    run.sup.handle_timeout(run.at(260));
    assert_eq!(run.steps(), [connect(1, 0, "192.0.2.1:4433", "gw.example")]);
    run.sup.handle_closed(run.at(270), DialId(1), Unreachable);
    assert_eq!(run.steps(), [connect(2, 0, "192.0.2.2:4433", "gw.example")]);
    run.sup.handle_established(run.at(280), DialId(2));
    assert_eq!(run.steps(), [close(0), up(2, 0)]);
    run.sup.handle_established(run.at(281), DialId(0));
    assert_eq!(run.steps(), [close(0)], "late ones are closed");
    run.sup.handle_closed(run.at(282), DialId(0), TimedOut);
    run.sup.handle_established(run.at(283), DialId(2));
    run.sup.handle_established(run.at(284), DialId(77));
    assert_eq!(run.steps(), []);
}

#[test]
fn a_round_ends_at_its_deadline() {
    let mut run = Run::new(&["gw.example:4433"]);
    run.steps();
    run.resolved(4_000, 0, &["192.0.2.1"]);
    run.steps();
    run.sup.handle_timeout(run.at(9_999));
    assert_eq!(run.steps(), []);
    run.sup.handle_timeout(run.at(10_000));
    // Nobody was asked anything since the first packets, which is as good as a wait.
    let steps = run.steps();
    assert!(
        matches!(&steps[..], [Close { dial: DialId(0) }, Resolve { .. }]),
        "{steps:?}"
    );
    // Nor is a resolver that does not answer waited for any longer.
    run.sup.handle_timeout(run.at(20_000));
    let steps = run.steps();
    assert!(matches!(&steps[..], [Resolve { .. }]), "{steps:?}");
    run.resolved(20_001, 0, &["192.0.2.1"]);
    assert!(
        matches!(run.steps()[..], [Connect { .. }]),
        "late, and good"
    );
    run.sup
        .handle_closed(run.at(20_010), DialId(1), Unreachable);
    let wait = run.due().unwrap() - 20_000;
    assert!((500..=1_000).contains(&wait), "the third: {wait}");
}

#[test]
fn waits_follow_the_series_of_the_cause() {
    for (why, nominals) in [
        (Unreachable, [50, 200, 1_000, 2_000, 4_000, 4_000]),
        (TimedOut, [50, 200, 1_000, 2_000, 4_000, 4_000]),
        (LocalError, [50, 200, 1_000, 2_000, 4_000, 4_000]),
        (Refused, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000]),
        (ClosedByPeer, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000]),
    ] {
        let mut run = Run::new(&["192.0.2.1:4433"]);
        let mut now = 0;
        for nominal in nominals {
            run.fail_all(now, why);
            let wait = run.due().unwrap() - now;
            assert!(
                (nominal / 2..=nominal).contains(&wait),
                "{why:?} {nominal}: {wait}"
            );
            now += wait;
            run.sup.handle_timeout(run.at(now - 1));
            assert_eq!(run.steps(), []);
            run.sup.handle_timeout(run.at(now));
        }
    }
}

#[test]
fn a_refused_identity_waits_a_minute_even_after_the_handshake() {
    // With TLS 1.3 the agent's handshake is complete before the gateway has looked at its certificate.
    let mut run = Run::new(&["192.0.2.1:4433"]);
    run.steps();
    run.sup.handle_established(run.at(50), DialId(0));
    run.sup
        .handle_closed(run.at(100), DialId(0), IdentityRefused);
    assert!((60_100..=75_100).contains(&run.due().unwrap()));
    run.steps();
    run.sup.handle_network_change(run.at(1_000));
    assert!(run.due().unwrap() >= 60_100, "no network change helps");
}

#[test]
fn a_revocation_is_a_refusal_of_identity() {
    let close = |reason: CloseReason| {
        let (code, reason) = (reason.code().into(), reason.text().to_owned());
        LossKind::from(&Closed::ByPeer(PeerClose { code, reason }))
    };
    assert_eq!(close(CloseReason::Revoked), IdentityRefused);
    assert_eq!(close(CloseReason::Superseded), ClosedByPeer);
    assert_eq!(close(CloseReason::NotAdmitted(String::new())), ClosedByPeer);
    assert_eq!(close(CloseReason::GatewayStopping), Reset);
}

#[test]
fn a_steady_connection_is_replaced_at_once() {
    for (why, up_ms) in [(Reset, 5_000), (ClosedByPeer, 5_000), (TimedOut, 40_000)] {
        let mut run = Run::new(&["192.0.2.1:4433"]);
        run.steps();
        run.sup.handle_established(run.at(0), DialId(0));
        run.steps();
        run.sup.handle_closed(run.at(up_ms), DialId(0), why);
        assert_eq!(run.steps(), [connect(1, 0, "192.0.2.1:4433", "192.0.2.1")]);
    }
}

#[test]
fn connections_that_die_young_do_not_make_a_tight_loop() {
    let mut run = Run::new(&["192.0.2.1:4433"]);
    let (mut now, mut attempts) = (0, 0);
    while now < 60_000 {
        for dial in run.dials() {
            attempts += 1;
            run.sup.handle_established(run.at(now), dial);
            run.sup.handle_closed(run.at(now), dial, Reset);
        }
        now = run.due().unwrap();
        run.sup.handle_timeout(run.at(now));
    }
    assert!(attempts < 40, "{attempts}");
}

#[test]
fn gateways_take_turns_and_wait_each_for_itself() {
    let mut run = Run::new(&["192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:3"]);
    assert_eq!(run.steps(), [connect(0, 0, "192.0.2.1:1", "192.0.2.1")]);
    run.sup.handle_closed(run.at(5), DialId(0), IdentityRefused);
    assert_eq!(run.steps(), [connect(1, 1, "192.0.2.2:2", "192.0.2.2")]);
    run.sup.handle_closed(run.at(6), DialId(1), Unreachable);
    assert_eq!(run.steps(), [connect(2, 2, "192.0.2.3:3", "192.0.2.3")]);
    run.sup.handle_closed(run.at(7), DialId(2), Refused);
    assert!(
        (31..=56).contains(&run.due().unwrap()),
        "the second is ready first"
    );
    run.steps();
    run.sup.handle_timeout(run.at(56));
    assert_eq!(run.steps(), [connect(3, 1, "192.0.2.2:2", "192.0.2.2")]);
    run.sup.handle_established(run.at(60), DialId(3));
    run.steps();
    run.sup.handle_closed(run.at(50_000), DialId(3), TimedOut);
    assert_eq!(
        run.steps(),
        [connect(4, 2, "192.0.2.3:3", "192.0.2.3")],
        "the next in turn"
    );
}

#[test]
fn the_strictest_address_decides_the_wait() {
    let mut run = Run::new(&["gw.example:4433"]);
    run.steps();
    run.resolved(0, 0, &["192.0.2.1", "192.0.2.2"]);
    run.sup.handle_closed(run.at(1), DialId(0), IdentityRefused);
    run.sup.handle_closed(run.at(2), DialId(1), Unreachable);
    assert!(run.due().unwrap() >= 60_000);
}

#[test]
fn a_network_change_ends_a_wait_for_an_unreachable_gateway() {
    let mut run = Run::new(&["192.0.2.1:4433"]);
    let mut now = 0;
    for _ in 0..5 {
        run.fail_all(now, Unreachable);
        now = run.due().unwrap();
        run.sup.handle_timeout(run.at(now));
    }
    run.fail_all(now, Unreachable);
    assert!(run.due().unwrap() >= now + 2_000);
    run.sup.handle_network_change(run.at(now + 100));
    assert!(
        run.steps()
            .iter()
            .all(|step| matches!(step, Waiting { .. }))
    );
    assert_eq!(run.due(), Some(now + 250), "rounds stay a stagger apart");
    run.sup.handle_network_change(run.at(now + 300));
    assert_eq!(run.dials(), [DialId(6)]);
    run.sup.handle_network_change(run.at(now + 400));
    assert_eq!(run.steps(), [], "the round is young");
    run.sup.handle_network_change(run.at(now + 550));
    assert_eq!(
        run.steps(),
        [close(6), connect(7, 0, "192.0.2.1:4433", "192.0.2.1")]
    );
    run.sup.handle_established(run.at(now + 560), DialId(7));
    run.steps();
    run.sup.handle_network_change(run.at(now + 9_000));
    assert_eq!(run.steps(), [], "a connection that is up is left alone");
}

#[test]
fn shutdown_closes_what_runs_and_nothing_follows() {
    let mut run = Run::new(&["192.0.2.1:4433"]);
    run.steps();
    run.sup.shutdown();
    assert_eq!((run.steps(), run.due()), (vec![close(0)], None));
    run.sup.handle_established(run.at(1), DialId(0));
    assert_eq!(run.steps(), [close(0)]);
    run.sup.handle_closed(run.at(2), DialId(0), Reset);
    run.sup.handle_network_change(run.at(3));
    run.sup.handle_timeout(run.at(60_000));
    run.sup.shutdown();
    assert_eq!(run.steps(), []);

    let mut run = Run::new(&["192.0.2.1:4433"]);
    run.steps();
    run.sup.handle_established(run.at(1), DialId(0));
    run.steps();
    run.sup.shutdown();
    assert_eq!((run.steps(), run.sup.connection()), (vec![close(0)], None));
}

#[test]
fn lists_that_are_empty_or_too_long_are_refused() {
    let target: Target = "192.0.2.1:1".parse().unwrap();
    let seed = Seed::new([1; 32]);
    for (count, error) in [
        (0, SupervisorError::NoGateway),
        (GATEWAYS_MAX + 1, SupervisorError::TooManyGateways),
    ] {
        let refused = Supervisor::new(
            origin(),
            vec![target.clone(); count],
            KeptPairs::default(),
            &seed,
        );
        assert_eq!(refused.unwrap_err(), error);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Resolved(usize, Vec<u32>),
    Established(u64),
    Closed(u64, LossKind),
    NetworkChange,
    Wait(u64),
    UntilTimeout,
}

fn op() -> impl Strategy<Value = Op> {
    let why = prop::sample::select(vec![
        Unreachable,
        TimedOut,
        Reset,
        ClosedByPeer,
        Refused,
        IdentityRefused,
        LocalError,
    ]);
    prop_oneof![
        6 => (0..3usize, vec(any::<u32>(), 0..6)).prop_map(|(gateway, ips)| Op::Resolved(gateway, ips)),
        3 => (0..8u64).prop_map(Op::Established),
        6 => (0..8u64, why).prop_map(|(back, why)| Op::Closed(back, why)),
        1 => Just(Op::NetworkChange),
        3 => (0..8_000u64).prop_map(Op::Wait),
        8 => Just(Op::UntilTimeout),
    ]
}

proptest! {
    #[test]
    fn never_two_connections_are_kept(ops in vec(op(), 0..200)) {
        let mut run = Run::new(&["a.example:1", "192.0.2.1:2", "c.example:3"]);
        let (mut now, mut last, mut kept) = (0, 0, None);
        // Attempts as a driver sees them: false while connecting, true once established.
        let mut open = BTreeMap::new();
        let mut used = BTreeSet::new();
        for op in ops {
            let dial = |back: u64| DialId(u64::saturating_sub(last, back));
            match op {
                Op::Resolved(gateway, ips) => {
                    let ips = ips.into_iter().map(|ip| IpAddr::V4(ip.into())).collect();
                    run.sup.handle_resolved(run.at(now), GatewayIndex(gateway), Ok(ips));
                }
                Op::Established(back) => {
                    // Also for what was closed: the message may have been on its way.
                    open.entry(dial(back)).and_modify(|up| *up = true);
                    run.sup.handle_established(run.at(now), dial(back));
                }
                Op::Closed(back, why) => {
                    open.remove(&dial(back));
                    kept = kept.filter(|kept| *kept != dial(back));
                    run.sup.handle_closed(run.at(now), dial(back), why);
                }
                Op::NetworkChange => run.sup.handle_network_change(run.at(now)),
                Op::Wait(ms) => now += ms,
                Op::UntilTimeout => if let Some(due) = run.due() {
                    now = now.max(due);
                    run.sup.handle_timeout(run.at(now));
                    prop_assert!(run.due().is_none_or(|due| due > now));
                }
            }
            for step in run.steps() {
                match step {
                    Connect { dial, .. } => {
                        prop_assert!(kept.is_none() && used.insert(dial));
                        open.insert(dial, false);
                        last = dial.0;
                    }
                    Close { dial } => {
                        prop_assert_ne!(Some(dial), kept);
                        open.remove(&dial);
                    }
                    Up { dial, .. } => {
                        prop_assert!(kept.is_none());
                        kept = Some(dial);
                    }
                    Resolve { .. } | Waiting { .. } => prop_assert!(kept.is_none()),
                    Drain { .. } | Adopt | Discard | Revert => prop_assert!(false, "there is one pair only"),
                }
            }
            let established: Vec<_> = open.iter().filter(|dial| *dial.1).map(|dial| *dial.0).collect();
            prop_assert_eq!(established, Vec::from_iter(kept));
            prop_assert_eq!(run.sup.connection(), kept);
            prop_assert!(kept.is_none() || open.len() == 1);
            prop_assert!(kept.is_some() || run.due().is_some());
        }
        run.sup.shutdown();
        for step in run.steps() {
            if let Close { dial } = step {
                open.remove(&dial);
            }
        }
        prop_assert!(open.is_empty());
    }
}

struct Run {
    sup: Supervisor,
    origin: Instant,
}

impl Run {
    fn new(gateways: &[&str]) -> Self {
        let origin = origin();
        let gateways = gateways.iter().map(|text| text.parse().unwrap()).collect();
        let sup =
            Supervisor::new(origin, gateways, KeptPairs::default(), &Seed::new([7; 32])).unwrap();
        Self { sup, origin }
    }

    fn at(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    /// The deadline in whole milliseconds, rounded up so that it is reached.
    fn due(&self) -> Option<u64> {
        let nanos = (self.sup.poll_timeout()? - self.origin).as_nanos();
        Some(u64::try_from(nanos.div_ceil(1_000_000)).unwrap())
    }

    fn steps(&mut self) -> Vec<SupervisorStep> {
        std::iter::from_fn(|| self.sup.poll_step()).collect()
    }

    fn dials(&mut self) -> Vec<DialId> {
        let dial = |step| match step {
            Connect { dial, .. } => Some(dial),
            Resolve { .. }
            | Close { .. }
            | Drain { .. }
            | Adopt
            | Discard
            | Revert
            | Up { .. }
            | Waiting { .. } => None,
        };
        self.steps().into_iter().filter_map(dial).collect()
    }

    fn fail_all(&mut self, ms: u64, why: LossKind) {
        for dial in self.dials() {
            self.sup.handle_closed(self.at(ms), dial, why);
        }
        self.steps();
    }

    fn resolved(&mut self, ms: u64, gateway: usize, found: &[&str]) {
        let found = found.iter().map(|ip| ip.parse().unwrap()).collect();
        self.sup
            .handle_resolved(self.at(ms), GatewayIndex(gateway), Ok(found));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
fn origin() -> Instant {
    Instant::now()
}

fn resolve(gateway: usize, host: &str) -> SupervisorStep {
    Resolve {
        gateway: GatewayIndex(gateway),
        host: host.into(),
        port: 4433,
    }
}

fn connect(dial: u64, gateway: usize, addr: &str, name: &str) -> SupervisorStep {
    Connect {
        dial: DialId(dial),
        gateway: GatewayIndex(gateway),
        addr: addr.parse().unwrap(),
        server_name: name.into(),
        credentials: Credentials::Current,
    }
}

fn close(dial: u64) -> SupervisorStep {
    Close { dial: DialId(dial) }
}

fn up(dial: u64, gateway: usize) -> SupervisorStep {
    Up {
        dial: DialId(dial),
        gateway: GatewayIndex(gateway),
    }
}
