//! The agent's machines, one file each.

mod dial;
mod supervisor;
mod timers;

use std::time::Instant;

use crate::input::Input;

/// The first byte picks a machine, the rest is its script.
pub fn agent(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(5) {
        0 => supervisor::run(&mut input),
        1 => dial::run(&mut input),
        2 => timers::advertiser(&mut input),
        3 => timers::liveness(&mut input),
        _ => timers::backoff(&mut input),
    }
}

/// Moves time to the deadline, or by some time; or leaves it, for timers that fire too early.
fn pass(input: &mut Input<'_>, now: &mut Instant, deadline: Option<Instant>) {
    match (input.below(4), deadline) {
        (0 | 1, Some(at)) => *now = at.max(*now),
        (2, _) | (0 | 1, None) => *now += input.time(),
        _ => {}
    }
}

/// A timer that was handled rests: a deadline that is not ahead would be a busy loop.
fn assert_rests(now: Instant, deadline: Option<Instant>) {
    assert!(
        deadline.is_none_or(|at| at > now),
        "the timer does not rest"
    );
}

/// Keeps an input under a millisecond.
const STEPS_MAX: usize = 150;
