//! Machines that are little more than timers.

use std::{sync::Arc, time::Duration};

use adit_proto_core::{
    agent::{
        advertise::{AdvertiseStep, Advertiser, AdvertiserConfig},
        backoff::{Backoff, BackoffCause},
    },
    env::Seed,
    limits::{ADVERTISE_INTERVAL_MAX, BACKOFF_STEADY_AFTER, HEARTBEAT_ACK_TIMEOUT},
    liveness::{Liveness, LivenessConfig, LivenessRole, LivenessStep, PathSample},
};

use super::{STEPS_MAX, assert_rests, pass, supervisor::cap};
use crate::{
    input::{Input, start},
    routing::routes,
};

pub(super) fn advertiser(input: &mut Input<'_>) {
    let mut now = start();
    let config = AdvertiserConfig {
        advertise_interval: input.time(),
        heartbeat_interval: input.time(),
    };
    let limits = Duration::from_nanos(1)..=ADVERTISE_INTERVAL_MAX;
    let is_good =
        limits.contains(&config.advertise_interval) && limits.contains(&config.heartbeat_interval);
    let mut present = Arc::new(routes(input));
    let made = Advertiser::new(now, config, Arc::clone(&present));
    assert_eq!(made.is_ok(), is_good);
    let Ok(mut machine) = made else { return };
    let (mut epoch, mut beats) = (1, Vec::new());
    let mut answered = now;
    for nth in 0..STEPS_MAX {
        let mut steps = 0;
        while let Some(step) = machine.poll_step() {
            steps += 1;
            assert!(steps <= 2, "the queue grows");
            match step {
                AdvertiseStep::Advertise {
                    epoch: sent,
                    routes,
                } => {
                    assert_eq!((sent, &routes), (epoch, &present));
                }
                AdvertiseStep::Heartbeat { timestamp_ms, .. } => beats.push(timestamp_ms),
            }
            machine.handle_sent(now, usize::from(input.byte()) << 12);
        }
        assert!(nth > 0 || steps == 1, "the routes do not go out at once");
        assert_eq!(machine.epoch(), epoch);
        if !input.has_more() {
            break;
        }
        match input.below(4) {
            0 => {
                let other = Arc::new(routes(input));
                epoch += u64::from(*other != *present);
                present = Arc::clone(&other);
                machine.set_routes(now, other);
            }
            1 => {
                let (before, sent) = (machine.round_trip(), input.byte());
                machine.handle_ack(now, u64::from(sent));
                let is_known = beats.contains(&u64::from(sent));
                assert!(is_known || machine.round_trip() == before);
                answered = now;
            }
            _ => {
                pass(input, &mut now, Some(machine.poll_timeout()));
                let unix_ms = u64::from(input.byte() % 16);
                machine.handle_timeout(now, || unix_ms, 3);
                assert_rests(now, Some(machine.poll_timeout()));
                if machine.is_unanswered() {
                    assert!(now >= answered + HEARTBEAT_ACK_TIMEOUT, "given up too soon");
                    break;
                }
            }
        }
    }
}

pub(super) fn liveness(input: &mut Input<'_>) {
    let mut now = start();
    let role = *input.pick(&[LivenessRole::Agent, LivenessRole::Gateway]);
    let mut machine = Liveness::new(now, LivenessConfig { role });
    let mut sample = PathSample::default();
    let (mut is_suspect, mut is_dead) = (false, false);
    for _ in 0..STEPS_MAX {
        if !input.has_more() {
            break;
        }
        let choice = input.byte();
        if choice & 7 == 0 {
            sample.sessions_open = choice & 8 != 0;
            machine.set_sessions(now, sample.sessions_open);
        } else {
            sample.acked += u64::from(choice & 16 != 0);
            sample.received += u64::from(choice & 48 != 0);
            sample.unacked = choice & 64 != 0;
            pass(input, &mut now, machine.poll_timeout());
            machine.handle_tick(now, sample);
            assert_rests(now, machine.poll_timeout());
        }
        for count in 0.. {
            let Some(step) = machine.poll_step() else {
                break;
            };
            assert!(count < 4 && !is_dead, "{step:?} after the end");
            match step {
                LivenessStep::Ping => {}
                LivenessStep::Suspect => assert!(!std::mem::replace(&mut is_suspect, true)),
                LivenessStep::Recovered => assert!(std::mem::replace(&mut is_suspect, false)),
                LivenessStep::Dead => {
                    assert!(is_suspect, "dead without being suspect");
                    assert!(sample.sessions_open || role == LivenessRole::Agent);
                    is_dead = true;
                }
            }
        }
        assert_eq!(machine.is_suspect(), is_suspect);
        assert_eq!(machine.poll_timeout().is_none(), is_dead);
    }
}

pub(super) fn backoff(input: &mut Input<'_>) {
    let mut rng = Seed::new([input.byte(); 32]).derive("backoff");
    let mut backoff = Backoff::after_first();
    for _ in 0..STEPS_MAX {
        if !input.has_more() {
            break;
        }
        let cause = *input.pick(&[
            BackoffCause::Unreachable,
            BackoffCause::Refused,
            BackoffCause::IdentityRefused,
        ]);
        let up = input.flag().then(|| input.time());
        let wait = match up {
            Some(up) => backoff.next_after(up, cause, &mut rng),
            None => backoff.next(cause, &mut rng),
        };
        assert!(wait <= cap(cause));
        let is_steady = up.is_some_and(|up| up >= BACKOFF_STEADY_AFTER);
        let floor = match cause {
            BackoffCause::Unreachable if is_steady => Duration::ZERO,
            BackoffCause::Unreachable => Duration::from_millis(25),
            BackoffCause::Refused => Duration::from_millis(500),
            BackoffCause::IdentityRefused => Duration::from_secs(60),
        };
        assert!(wait >= floor);
        assert_eq!(
            wait.is_zero(),
            floor.is_zero(),
            "an attempt at once is only for a loss"
        );
    }
}
