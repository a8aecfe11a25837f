//! The default scenario: a seed draws topology, load and faults, from dull to hostile.

mod faults;
mod flood;
mod last_bytes;
mod operators;
mod renewals;
mod routes;
mod topology;
mod unheard;
mod users;

use std::time::Duration;

use crate::{At, choices::Choices, plan::Plan};

/// How much happens in a run.
#[derive(Clone, Copy, Debug)]
struct Size {
    gateways: usize,
    agents: usize,
    users: usize,
    /// Bytes that one program writes, at most.
    bytes_max: u64,
    faults: usize,
    /// Nobody is without a good identity.
    all_welcome: bool,
    safety: At,
}

/// Draws a run.
#[must_use]
pub fn draw(choices: &mut Choices) -> Plan {
    // Costly, so rare.
    match choices.between(0, 999) {
        992.. => return flood::draw(choices),
        990.. => return flood::draw_crowd(choices),
        987.. => return flood::draw_stop(choices),
        967.. => return last_bytes::draw(choices),
        963.. => return unheard::draw(choices),
        _ => {}
    }
    let size = Size::draw(choices);
    let mut plan = topology::draw(choices, size);
    users::draw(choices, size, &mut plan);
    faults::draw(choices, size, &mut plan);
    plan
}

impl Size {
    /// Small runs are the most likely: they are as cruel, quicker to run and easier to read.
    fn draw(choices: &mut Choices) -> Self {
        let heavy = choices.chance(60);
        Self {
            gateways: *choices.pick(&[1, 1, 1, 1, 1, 2, 2, 2, 3, 3]),
            agents: number(choices, 1, if heavy { 20 } else { 8 }),
            users: number(choices, 1, if heavy { 200 } else { 30 }),
            bytes_max: if choices.chance(100) {
                1 << 20
            } else {
                40 << 10
            },
            faults: number(choices, 0, 12),
            all_welcome: false,
            // The slowest timers need more than a minute.
            safety: match choices.chance(15) {
                true => choices.time(Duration::from_secs(61), Duration::from_secs(110)),
                false => choices.time(Duration::from_secs(6), Duration::from_secs(25)),
            },
        }
    }
}

fn number(choices: &mut Choices, low: u64, high: u64) -> usize {
    usize::try_from(choices.scaled(low, high)).unwrap_or(usize::MAX)
}
