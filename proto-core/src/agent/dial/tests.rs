//! Tables of (time, input) and the steps that they give.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::{DialStep::*, *};
use crate::{
    domain::DomainPattern,
    route::{DomainRoute, RouteSet},
};

#[test]
fn a_literal_is_connected_without_resolution() {
    let (mut dial, at) = start("10.0.0.5:22", &["10.0.0.0/8"]);
    assert_eq!(steps(&mut dial), [Connect(0, addr("10.0.0.5:22"))]);
    assert_eq!(dial.poll_timeout(), Some(at(20_000)));
    dial.handle_connected(at(5), 0);
    assert_eq!(steps(&mut dial), [Won(0)]);
    assert_eq!(dial.poll_timeout(), None);
}

#[test]
fn a_literal_outside_the_policy_is_refused_at_once() {
    let (mut dial, _) = start("127.0.0.1:22", &["0.0.0.0/0"]);
    let error = failure(&mut dial);
    assert_eq!(error.kind(), DialErrorKind::NotAllowed);
    assert!(error.to_string().contains("loopback"), "{error}");
    assert_eq!(dial.poll_timeout(), None);
}

#[test]
fn addresses_start_one_stagger_apart() {
    let (mut dial, at) = racing(&["10.0.0.1", "10.0.0.2", "2001:db8::1"]);
    assert_eq!(steps(&mut dial), [Connect(0, addr("[2001:db8::1]:80"))]);
    assert_eq!(dial.poll_timeout(), Some(at(250)));
    dial.handle_timeout(at(249));
    assert_eq!(steps(&mut dial), []);
    dial.handle_timeout(at(250));
    assert_eq!(steps(&mut dial), [Connect(1, addr("10.0.0.1:80"))]);
    dial.handle_timeout(at(500));
    assert_eq!(steps(&mut dial), [Connect(2, addr("10.0.0.2:80"))]);
    dial.handle_connected(at(501), 1);
    assert_eq!(steps(&mut dial), [Abort(0), Abort(2), Won(1)]);
}

#[test]
fn a_failure_starts_the_next_at_once() {
    let (mut dial, at) = racing(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    steps(&mut dial);
    dial.handle_failed(at(10), 0, ConnectErrorKind::Refused);
    assert_eq!(steps(&mut dial), [Connect(1, addr("10.0.0.2:80"))]);
    dial.handle_timeout(at(250));
    assert_eq!(steps(&mut dial), [], "the stagger runs from the last start");
    dial.handle_timeout(at(260));
    assert_eq!(steps(&mut dial), [Connect(2, addr("10.0.0.3:80"))]);
    dial.handle_failed(at(261), 1, ConnectErrorKind::Unreachable);
    dial.handle_failed(at(262), 2, ConnectErrorKind::Other(Some(24)));
    let error = failure(&mut dial);
    assert_eq!(error.kind(), DialErrorKind::ConnectionRefused);
    assert_eq!(
        error.to_string(),
        "cannot connect to db.corp:80: 10.0.0.1:80: connection refused; 10.0.0.2:80: unreachable; \
         10.0.0.3:80: system error 24"
    );
}

#[test]
fn a_silent_address_is_given_up_while_another_is_in_the_race() {
    let (mut dial, at) = racing(&["10.0.0.1", "10.0.0.2"]);
    dial.handle_timeout(at(250));
    steps(&mut dial);
    assert_eq!(dial.poll_timeout(), Some(at(10_000)));
    dial.handle_timeout(at(9_999));
    assert_eq!(steps(&mut dial), []);
    dial.handle_timeout(at(10_000));
    assert_eq!(steps(&mut dial), [Abort(0)]);
    dial.handle_timeout(at(10_250));
    assert_eq!(steps(&mut dial), [], "the last one keeps its place");
    dial.handle_connected(at(10_300), 0);
    assert_eq!(steps(&mut dial), [Abort(0)]);
    dial.handle_connected(at(19_999), 1);
    assert_eq!(steps(&mut dial), [Won(1)]);
}

#[test]
fn the_whole_ends_at_its_deadline() {
    let (mut dial, at) = racing(&["10.0.0.1"]);
    steps(&mut dial);
    dial.handle_timeout(at(19_999));
    assert_eq!(steps(&mut dial), []);
    dial.handle_timeout(at(20_000));
    let all = steps(&mut dial);
    let [Abort(0), Failed(error)] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!(error.kind(), DialErrorKind::TimedOut);
    assert_eq!(
        error.to_string(),
        "timed out after 20s connecting to db.corp:80"
    );
    dial.handle_connected(at(20_001), 0);
    assert_eq!(steps(&mut dial), [Abort(0)], "late connections are closed");
}

#[test]
fn an_answer_at_the_deadline_is_too_late_even_before_the_timer() {
    let (mut dial, at) = racing(&["10.0.0.1"]);
    steps(&mut dial);
    dial.handle_connected(at(20_000), 0);
    let all = steps(&mut dial);
    assert!(
        matches!(&all[..], [Abort(0), Failed(_), Abort(0)]),
        "{all:?}"
    );

    let (mut dial, at) = start("db.corp:80", &["0.0.0.0/0"]);
    steps(&mut dial);
    dial.handle_resolved(at(20_000), Ok(ips(&["10.0.0.1"])));
    let error = failure(&mut dial);
    assert_eq!(
        error.to_string(),
        "timed out after 20s resolving db.corp:80"
    );
}

#[test]
fn resolution_can_fail() {
    for (answer, text) in [
        (
            Ok(vec![]),
            "cannot resolve db.corp: the name has no address",
        ),
        (
            Err(ResolveError::NotFound),
            "cannot resolve db.corp: no such name",
        ),
        (
            Err(ResolveError::Other(Some(5))),
            "cannot resolve db.corp: resolver error 5",
        ),
    ] {
        let (mut dial, at) = start("db.corp:80", &["0.0.0.0/0"]);
        assert_eq!(steps(&mut dial), [Resolve("db.corp".into())]);
        dial.handle_resolved(at(1), answer);
        let error = failure(&mut dial);
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), DialErrorKind::NotResolved);
    }
}

#[test]
fn resolved_addresses_pass_the_policy() {
    let (mut dial, at) = start("db.corp:80", &["10.0.0.0/8"]);
    steps(&mut dial);
    dial.handle_resolved(at(1), Ok(ips(&["8.8.8.8", "::1", "10.1.1.1"])));
    assert_eq!(steps(&mut dial), [Connect(0, addr("10.1.1.1:80"))]);

    let (mut dial, at) = start("db.corp:80", &["10.0.0.0/8"]);
    steps(&mut dial);
    dial.handle_resolved(at(1), Ok(ips(&["8.8.8.8"])));
    assert_eq!(failure(&mut dial).kind(), DialErrorKind::NotAllowed);
}

#[test]
fn a_name_is_judged_by_every_answer_anew() {
    let domain = DomainRoute {
        pattern: DomainPattern::parse("db.corp").unwrap(),
        auto_detected: false,
    };
    let by_name = RouteSet {
        subnets: Vec::new(),
        domains: vec![domain],
    };
    let by_subnet = RouteSet {
        subnets: ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()).into(),
        domains: Vec::new(),
    };
    for routes in [by_name, by_subnet] {
        let policy = Arc::new(Policy::new(&routes));
        let resolved = |answer: &[&str]| {
            let (_, at) = start("db.corp:80", &[]);
            let mut dial = Dial::new(at(0), "db.corp:80".parse().unwrap(), Arc::clone(&policy));
            assert_eq!(steps(&mut dial), [Resolve("db.corp".into())]);
            dial.handle_resolved(at(1), Ok(ips(answer)));
            (dial, at)
        };
        for special in [
            "127.0.0.1",
            "127.255.255.254",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "::",
            "::ffff:0.0.0.0",
            "169.254.1.1",
            "fe80::1",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::127.0.0.1",
            "2002:7f00:1::1",
            "fd00:ec2::254",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            // The same name led elsewhere a moment ago.
            let (mut first, _) = resolved(&["192.0.2.1"]);
            assert_eq!(steps(&mut first), [Connect(0, addr("192.0.2.1:80"))]);
            let (mut second, _) = resolved(&[special]);
            let error = failure(&mut second);
            assert_eq!(error.kind(), DialErrorKind::NotAllowed, "{special}");
            assert_eq!(steps(&mut second), [], "{special}");
            // Nor is it dialled beside others, nor by an answer that comes behind the one that was judged.
            let (mut both, at) = resolved(&[special, "192.0.2.1", special]);
            assert_eq!(steps(&mut both), [Connect(0, addr("192.0.2.1:80"))]);
            both.handle_resolved(at(2), Ok(ips(&[special])));
            both.handle_failed(at(3), 0, ConnectErrorKind::Refused);
            assert!(
                matches!(steps(&mut both)[..], [Failed(_)]),
                "{special} was dialled"
            );
        }
    }
}

#[test]
fn answers_that_nobody_waits_for_are_ignored() {
    let (mut dial, at) = start("db.corp:80", &["0.0.0.0/0"]);
    steps(&mut dial);
    dial.handle_connected(at(1), 0);
    dial.handle_failed(at(1), 0, ConnectErrorKind::Reset);
    assert_eq!(steps(&mut dial), []);
    dial.handle_resolved(at(2), Ok(ips(&["10.0.0.1", "10.0.0.2"])));
    steps(&mut dial);
    dial.handle_resolved(at(3), Err(ResolveError::NotFound));
    dial.handle_connected(at(3), 1);
    dial.handle_failed(at(3), 7, ConnectErrorKind::Reset);
    assert_eq!(steps(&mut dial), [], "the second address was not started");
    dial.handle_connected(at(4), 0);
    dial.handle_connected(at(5), 0);
    dial.handle_failed(at(6), 0, ConnectErrorKind::Reset);
    dial.cancel();
    dial.handle_timeout(at(30_000));
    assert_eq!(steps(&mut dial), [Won(0)]);
}

#[test]
fn cancelling_aborts_what_runs() {
    let (mut dial, at) = racing(&["10.0.0.1", "10.0.0.2"]);
    dial.handle_timeout(at(250));
    steps(&mut dial);
    dial.cancel();
    dial.cancel();
    assert_eq!(
        steps(&mut dial),
        [Abort(0), Abort(1), Failed(DialError::Cancelled)]
    );
}

#[derive(Clone, Debug)]
enum Op {
    Resolved(Vec<u32>),
    NotResolved,
    Connected(usize),
    Failed(usize),
    Wait(u64),
    UntilTimeout,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => vec(prop_oneof![0x0a00_0000..0x0a00_0020u32, 0x7f00_0000..0x7f00_0004u32, any::<u32>()], 0..24).prop_map(Op::Resolved),
        1 => Just(Op::NotResolved),
        4 => (0..20usize).prop_map(Op::Connected),
        6 => (0..20usize).prop_map(Op::Failed),
        3 => (0..400u64).prop_map(Op::Wait),
        6 => Just(Op::UntilTimeout),
    ]
}

proptest! {
    #[test]
    fn any_order_of_answers_ends_once_and_leaves_nothing_open(ops in vec(op(), 0..80)) {
        let net: ipnet::IpNet = "10.0.0.0/8".parse().unwrap();
        let (mut dial, at) = start("db.corp:80", &["10.0.0.0/8"]);
        let (mut now, mut ended) = (0, 0);
        let mut open = std::collections::BTreeSet::new();
        let mut won = None;
        let ending = [Op::Wait(20_000), Op::UntilTimeout, Op::Wait(0), Op::Connected(0)];
        for op in ops.into_iter().chain(ending) {
            let t = at(now);
            match op {
                Op::Resolved(list) => {
                    let list = list.into_iter().map(|ip| IpAddr::V4(ip.into())).collect();
                    dial.handle_resolved(t, Ok(list));
                }
                Op::NotResolved => dial.handle_resolved(t, Err(ResolveError::Unavailable)),
                Op::Connected(index) => dial.handle_connected(t, index),
                Op::Failed(index) => {
                    dial.handle_failed(t, index, ConnectErrorKind::Refused);
                    if won != Some(index) {
                        open.remove(&index);
                    }
                }
                Op::Wait(ms) => now += ms,
                Op::UntilTimeout => if let Some(due) = dial.poll_timeout() {
                    now = now.max(u64::try_from((due - at(0)).as_millis()).unwrap());
                    dial.handle_timeout(at(now));
                }
            }
            while let Some(step) = dial.poll_step() {
                match step {
                    Resolve(name) => prop_assert_eq!(&*name, "db.corp"),
                    Connect(index, addr) => {
                        prop_assert!(net.contains(&addr.ip()) && ended == 0);
                        prop_assert!(open.insert(index));
                    }
                    Abort(index) => {
                        prop_assert_ne!(Some(index), won);
                        open.remove(&index);
                    }
                    Won(index) => {
                        prop_assert!(open.contains(&index));
                        won = Some(index);
                        ended += 1;
                    }
                    Failed(_) => ended += 1,
                }
            }
        }
        prop_assert_eq!(ended, 1);
        prop_assert_eq!(open.into_iter().collect::<Vec<_>>(), Vec::from_iter(won));
        prop_assert_eq!(dial.poll_timeout(), None);
    }
}

fn start(target: &str, nets: &[&str]) -> (Dial, impl Fn(u64) -> Instant + use<>) {
    #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
    let origin = Instant::now();
    let routes = RouteSet {
        subnets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        domains: Vec::new(),
    };
    let policy = Arc::new(Policy::new(&routes));
    let dial = Dial::new(origin, target.parse().unwrap(), policy);
    (dial, move |ms| origin + Duration::from_millis(ms))
}

/// A dial of `db.corp:80` that was resolved at its start.
fn racing(found: &[&str]) -> (Dial, impl Fn(u64) -> Instant + use<>) {
    let (mut dial, at) = start("db.corp:80", &["0.0.0.0/0", "::/0"]);
    assert_eq!(steps(&mut dial), [Resolve("db.corp".into())]);
    dial.handle_resolved(at(0), Ok(ips(found)));
    (dial, at)
}

fn steps(dial: &mut Dial) -> Vec<DialStep> {
    std::iter::from_fn(|| dial.poll_step()).collect()
}

fn failure(dial: &mut Dial) -> DialError {
    match steps(dial).pop() {
        Some(Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
