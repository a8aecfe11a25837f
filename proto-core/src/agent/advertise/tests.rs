//! What is sent when, and when a gateway counts as dead.

use super::{AdvertiseStep::*, *};

#[test]
fn routes_go_out_at_once_and_every_interval() {
    let (mut adv, at) = start();
    assert_eq!(steps(&mut adv), [advertise(1, 8)]);
    assert_eq!(adv.poll_timeout(), at(30_000));
    adv.handle_timeout(at(29_999), || 0, 0);
    assert_eq!(steps(&mut adv), []);
    adv.handle_timeout(at(30_000), || 0, 0);
    assert_eq!(steps(&mut adv), [advertise(1, 8)]);
    assert_eq!(adv.poll_timeout(), at(60_000));
    adv.handle_timeout(at(59_999), || 0, 0);
    assert_eq!(steps(&mut adv), []);
    adv.handle_timeout(at(60_000), || 77, 3);
    assert_eq!(steps(&mut adv), [beat(77, 3), advertise(1, 8)]);
}

#[test]
fn changed_routes_get_the_next_epoch_at_once() {
    let (mut adv, at) = start();
    steps(&mut adv);
    adv.set_routes(at(10), routes(8));
    assert_eq!(steps(&mut adv), [], "the same set is no change");
    adv.set_routes(at(20), routes(9));
    assert_eq!(steps(&mut adv), [advertise(2, 9)]);
    assert_eq!(adv.poll_timeout(), at(30_020));
    adv.set_routes(at(30), routes(10));
    adv.set_routes(at(40), routes(8));
    assert_eq!(steps(&mut adv), [advertise(4, 8)], "only the latest");
    assert_eq!(adv.epoch(), 4);
}

#[test]
fn acks_give_the_round_trip_by_the_monotonic_clock() {
    let (mut adv, at) = start();
    assert_eq!(adv.round_trip(), None);
    tick(&mut adv, at(60_000), 1_000);
    adv.handle_ack(at(60_040), 1_000);
    assert_eq!(adv.round_trip(), Some(Duration::from_millis(40)));
    adv.handle_ack(at(60_090), 1_000);
    adv.handle_ack(at(60_090), 5);
    assert_eq!(
        adv.round_trip(),
        Some(Duration::from_millis(40)),
        "late and unknown acks"
    );
}

#[test]
fn a_gateway_that_answers_no_heartbeat_is_noticed() {
    let (mut adv, at) = start();
    tick(&mut adv, at(60_000), 1);
    tick(&mut adv, at(69_999), 0);
    assert!(!adv.is_unanswered());
    assert_eq!(adv.poll_timeout(), at(70_000));
    tick(&mut adv, at(70_000), 0);
    assert!(adv.is_unanswered());
}

#[test]
fn a_heartbeat_behind_large_messages_is_given_its_time() {
    let (mut adv, at) = start();
    adv.handle_sent(at(59_000), 40_960);
    adv.handle_sent(at(59_001), 24_576);
    adv.handle_timeout(at(60_000), || 1, 0);
    // What was queued before it goes first, too.
    adv.set_routes(at(60_000), routes(9));
    while let Some(step) = adv.poll_step() {
        let len = usize::from(matches!(step, Advertise { .. })) * 8_192;
        adv.handle_sent(at(60_000), len);
    }
    assert_eq!(adv.poll_timeout(), at(77_000));
    adv.handle_timeout(at(76_999), || 0, 0);
    assert!(!adv.is_unanswered());
    adv.handle_timeout(at(77_000), || 0, 0);
    assert!(adv.is_unanswered());
}

#[test]
fn a_gateway_that_takes_nothing_is_noticed_though_no_heartbeat_gets_out() {
    let (mut adv, at) = start();
    adv.handle_timeout(at(60_000), || 1, 0);
    adv.handle_timeout(at(120_000), || 2, 0);
    adv.handle_timeout(at(180_000), || 3, 0);
    assert_eq!(adv.poll_timeout(), at(198_000));
    adv.handle_timeout(at(197_999), || 0, 0);
    assert!(!adv.is_unanswered());
    adv.handle_timeout(at(198_000), || 0, 0);
    assert!(adv.is_unanswered());
}

#[test]
fn a_gateway_has_its_time_for_routes_that_change_often() {
    let (mut adv, at) = start();
    send(&mut adv, at(0));
    for n in 0..40 {
        adv.set_routes(at(59_000), routes(8 + n % 2));
        send(&mut adv, at(59_000));
    }
    tick(&mut adv, at(60_000), 1);
    tick(&mut adv, at(78_999), 0);
    assert!(!adv.is_unanswered(), "19.5 s, of which 10 count");
    tick(&mut adv, at(79_000), 0);
    assert!(adv.is_unanswered());
}

#[test]
fn any_answer_begins_the_wait_anew() {
    let (mut adv, at) = start_with(Duration::from_secs(3));
    for beat in 1..=4 {
        tick(&mut adv, at(beat * 3_000), beat);
    }
    adv.handle_ack(at(12_500), 2);
    tick(&mut adv, at(15_000), 5);
    tick(&mut adv, at(22_499), 6);
    assert!(!adv.is_unanswered(), "answered 10 s ago");
    adv.handle_ack(at(22_499), 999);
    tick(&mut adv, at(32_498), 7);
    assert!(!adv.is_unanswered(), "answered, whatever it was");
    adv.handle_ack(at(32_498), 7);
    tick(&mut adv, at(32_500), 0);
    assert_eq!(adv.poll_timeout(), at(35_498), "nothing in wait");
}

#[test]
fn a_process_that_stood_still_reads_before_it_judges() {
    let (mut adv, at) = start();
    tick(&mut adv, at(60_000), 1);
    tick(&mut adv, at(100_000), 0);
    assert!(!adv.is_unanswered());
    assert_eq!(adv.poll_timeout(), at(101_000));
    tick(&mut adv, at(110_000), 0);
    assert!(adv.is_unanswered(), "late at every check");
}

#[test]
fn a_late_timer_sends_once() {
    let (mut adv, at) = start();
    steps(&mut adv);
    adv.handle_timeout(at(600_000), || 9, 1);
    assert_eq!(steps(&mut adv), [beat(9, 1), advertise(1, 8)]);
    adv.handle_ack(at(600_010), 9);
    assert_eq!(adv.poll_timeout(), at(630_000));
}

#[test]
fn odd_intervals_are_refused() {
    let good = AdvertiserConfig::default();
    for (advertise_interval, heartbeat_interval, expected) in [
        (
            Duration::ZERO,
            good.heartbeat_interval,
            AdvertiserConfigError::Zero("route advertisement"),
        ),
        (
            good.advertise_interval,
            Duration::ZERO,
            AdvertiserConfigError::Zero("heartbeat"),
        ),
        (
            Duration::MAX,
            good.heartbeat_interval,
            AdvertiserConfigError::TooLong("route advertisement"),
        ),
    ] {
        let config = AdvertiserConfig {
            advertise_interval,
            heartbeat_interval,
        };
        let refused = Advertiser::new(origin(), config, routes(8)).unwrap_err();
        assert_eq!(refused, expected);
    }
}

fn start() -> (Advertiser, impl Fn(u64) -> Instant) {
    start_with(Duration::from_secs(60))
}

fn start_with(heartbeat_interval: Duration) -> (Advertiser, impl Fn(u64) -> Instant) {
    let origin = origin();
    let config = AdvertiserConfig {
        heartbeat_interval,
        ..AdvertiserConfig::default()
    };
    let adv = Advertiser::new(origin, config, routes(8)).unwrap();
    (adv, move |ms| origin + Duration::from_millis(ms))
}

#[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
fn origin() -> Instant {
    Instant::now()
}

fn routes(prefix_len: u8) -> Arc<RouteSet> {
    Arc::new(RouteSet {
        subnets: vec![format!("10.0.0.0/{prefix_len}").parse().unwrap()],
        domains: Vec::new(),
    })
}

fn advertise(epoch: u64, prefix_len: u8) -> AdvertiseStep {
    Advertise {
        epoch,
        routes: routes(prefix_len),
    }
}

fn beat(timestamp_ms: u64, sessions: u32) -> AdvertiseStep {
    Heartbeat {
        timestamp_ms,
        sessions,
    }
}

fn tick(adv: &mut Advertiser, now: Instant, unix_ms: u64) {
    adv.handle_timeout(now, || unix_ms, 0);
    send(adv, now);
}

/// Sends what is due, in no time.
fn send(adv: &mut Advertiser, now: Instant) {
    while adv.poll_step().is_some() {
        adv.handle_sent(now, 0);
    }
}

fn steps(adv: &mut Advertiser) -> Vec<AdvertiseStep> {
    std::iter::from_fn(|| adv.poll_step()).collect()
}
