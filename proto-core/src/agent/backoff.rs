//! How long an agent waits before it tries a gateway again (design 8.4, agent-tunnel 13).

use std::time::Duration;

use rand_chacha::{ChaCha12Rng, rand_core::Rng};

use crate::limits::{
    BACKOFF_REFUSED_MAX, BACKOFF_RESET_AFTER, BACKOFF_SERIES, BACKOFF_STEADY_AFTER,
    BACKOFF_UNREACHABLE_MAX,
};

/// The reconnect series of one gateway: 0, 50 ms, 200 ms, 1 s, 2 s, 4 s and so on (design 8.4).
///
/// | What happened | Wait |
/// |---|---|
/// | no answer, reset, fault of this machine | next of the series, nominal at most 4 s |
/// | refused for load, or closed by the gateway before the connection was steady | the same from 1 s on, at most 60 s |
/// | a certificate was refused | 60 s, and up to a quarter more |
/// | lost after 30 s or more | none, and the series starts afresh |
/// | lost after 5 s or more | none, and the series goes on after it |
/// | lost sooner | as if it had not been established |
///
/// The wait is drawn evenly from the upper half of its nominal value, so that a cap is never exceeded and the agents of
/// a gateway that restarts spread out. A refused certificate does not get better by time: its wait is a floor instead.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    /// Place in the series of the wait that comes next; 0 is the immediate attempt.
    step: usize,
}

/// What ended an attempt or a connection, as far as waiting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackoffCause {
    /// Nobody said no: the gateway may be back, and a network change is a reason to try at once.
    Unreachable,
    /// The gateway wants fewer attempts.
    Refused,
    /// The gateway, or the agent, does not accept the other's certificate.
    IdentityRefused,
}

impl Backoff {
    /// A series of which the immediate attempt is taken: what follows is a wait.
    #[must_use]
    pub fn after_first() -> Self {
        Self { step: 1 }
    }

    /// The wait after an attempt that failed. Never zero, except right after [`Backoff::default`].
    pub fn next(&mut self, cause: BackoffCause, rng: &mut ChaCha12Rng) -> Duration {
        let cap = match cause {
            BackoffCause::Unreachable => BACKOFF_UNREACHABLE_MAX,
            BackoffCause::Refused => {
                self.step = self.step.max(FIRST_REFUSED);
                BACKOFF_REFUSED_MAX
            }
            BackoffCause::IdentityRefused => {
                self.step = self.step.max(FIRST_REFUSED);
                let spread = fraction(BACKOFF_REFUSED_MAX / 4, rng);
                return BACKOFF_REFUSED_MAX + spread;
            }
        };
        let full = nominal(self.step).min(cap);
        // Beyond the longest cap the place no longer matters.
        self.step = (self.step + 1).min(STEPS_MAX);
        full / 2 + fraction(full - full / 2, rng)
    }

    /// The wait after the loss of a connection that was up for `up`.
    pub fn next_after(
        &mut self,
        up: Duration,
        cause: BackoffCause,
        rng: &mut ChaCha12Rng,
    ) -> Duration {
        if up >= BACKOFF_RESET_AFTER {
            self.step = 0;
        }
        match cause {
            BackoffCause::Unreachable if up >= BACKOFF_STEADY_AFTER => {
                self.step = self.step.max(1);
                Duration::ZERO
            }
            BackoffCause::Unreachable | BackoffCause::Refused | BackoffCause::IdentityRefused => {
                self.next(cause, rng)
            }
        }
    }
}

fn nominal(step: usize) -> Duration {
    let [first, second, third] = BACKOFF_SERIES;
    match step {
        0 => Duration::ZERO,
        1 => first,
        2 => second,
        _ => third * (1u32 << (step - FIRST_REFUSED).min(DOUBLINGS_MAX)),
    }
}

/// An even draw from zero to `whole`.
fn fraction(whole: Duration, rng: &mut ChaCha12Rng) -> Duration {
    let drawn = whole.as_nanos() * u128::from(rng.next_u32()) / u128::from(u32::MAX);
    Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX))
}

/// Place of 1 s: a gateway that says no is not asked again within milliseconds.
const FIRST_REFUSED: usize = 3;
/// 1 s doubled six times is above every cap.
const DOUBLINGS_MAX: usize = 6;
const STEPS_MAX: usize = FIRST_REFUSED + DOUBLINGS_MAX;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{BackoffCause::*, *};
    use crate::env::Seed;

    #[test]
    fn the_series_of_an_unreachable_gateway() {
        let mut backoff = Backoff::default();
        for nominal_ms in [0, 50, 200, 1_000, 2_000, 4_000, 4_000, 4_000] {
            let wait = backoff.next(Unreachable, &mut rng(1)).as_millis();
            assert!(
                (nominal_ms / 2..=nominal_ms).contains(&wait),
                "{nominal_ms}: {wait}"
            );
        }
    }

    #[test]
    fn refusals_go_on_with_the_series_from_one_second_to_sixty() {
        let mut backoff = Backoff::after_first();
        for nominal_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            let wait = backoff.next(Refused, &mut rng(2)).as_millis();
            assert!(
                (nominal_ms / 2..=nominal_ms).contains(&wait),
                "{nominal_ms}: {wait}"
            );
        }
        let wait = backoff.next(Unreachable, &mut rng(3)).as_millis();
        assert!(
            (2_000..=4_000).contains(&wait),
            "the series is not restarted"
        );
    }

    #[test]
    fn a_refused_identity_waits_a_minute_at_once() {
        let wait = Backoff::default()
            .next(IdentityRefused, &mut rng(4))
            .as_millis();
        assert!((60_000..=75_000).contains(&wait));
    }

    #[test]
    fn a_loss_is_followed_at_once_unless_connections_die_young() {
        let far = |backoff: &mut Backoff| {
            (0..9).for_each(|_| {
                assert!(backoff.next(Unreachable, &mut rng(5)) <= BACKOFF_UNREACHABLE_MAX)
            })
        };
        for (up_ms, cause, first, second) in [
            (30_000, Unreachable, 0..=0, 25..=50),
            (29_999, Unreachable, 0..=0, 2_000..=4_000),
            (5_000, Unreachable, 0..=0, 2_000..=4_000),
            (4_999, Unreachable, 2_000..=4_000, 2_000..=4_000),
            (30_000, Refused, 500..=1_000, 1_000..=2_000),
            (29_999, Refused, 30_000..=60_000, 2_000..=4_000),
            (30_000, IdentityRefused, 60_000..=75_000, 500..=1_000),
        ] {
            let mut backoff = Backoff::default();
            far(&mut backoff);
            let up = Duration::from_millis(up_ms);
            let wait = backoff.next_after(up, cause, &mut rng(6)).as_millis();
            assert!(first.contains(&wait), "{up_ms} {cause:?}: {wait}");
            let cause = if cause == Refused && up_ms == 30_000 {
                Refused
            } else {
                Unreachable
            };
            let wait = backoff.next(cause, &mut rng(7)).as_millis();
            assert!(second.contains(&wait), "{up_ms} {cause:?}: then {wait}");
        }
    }

    #[test]
    fn the_waits_of_many_agents_spread_over_the_upper_half() {
        let wait = |seed| Backoff::after_first().next(Unreachable, &mut rng(seed));
        let mut waits: Vec<_> = (0..=u8::MAX).map(|seed| wait(seed).as_micros()).collect();
        waits.sort_unstable();
        waits.dedup();
        assert!(waits.len() > 200, "{}", waits.len());
        assert!(waits[0] < 26_000 && waits[waits.len() - 1] > 49_000);
        assert!((35_000..40_000).contains(&waits[waits.len() / 2]));
    }

    proptest! {
        #[test]
        fn waits_lie_in_the_upper_half_of_the_series(
            seed: u8,
            history in vec((0..3u8, proptest::option::weighted(0.2, 0..60_000u64)), 1..60),
        ) {
            const SERIES: [u64; 10] = [0, 50, 200, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000];
            let (mut backoff, mut rng) = (Backoff::after_first(), rng(seed));
            // Place of the next wait in the series.
            let mut place = 1;
            for (cause, up_ms) in history {
                let cause = [Unreachable, Refused, IdentityRefused][usize::from(cause)];
                let wait = match up_ms {
                    None => backoff.next(cause, &mut rng),
                    Some(ms) => backoff.next_after(Duration::from_millis(ms), cause, &mut rng),
                };
                if up_ms >= Some(30_000) {
                    place = 0;
                }
                let cap = if cause == Unreachable { 4_000 } else { 60_000 };
                if cause != Unreachable {
                    place = place.max(3);
                }
                let full = SERIES[place.min(9)].min(cap);
                let (least, most) = match cause {
                    Unreachable if up_ms >= Some(5_000) => (0, 0),
                    IdentityRefused => (60_000, 75_000),
                    Unreachable | Refused => (full / 2, full),
                };
                place = match cause {
                    Unreachable if up_ms >= Some(5_000) => place.max(1),
                    IdentityRefused => place,
                    Unreachable | Refused => place + 1,
                };
                let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
                prop_assert!((least..=most).contains(&wait), "{cause:?} {up_ms:?} {wait:?} {most:?}");
            }
        }
    }

    fn rng(seed: u8) -> ChaCha12Rng {
        Seed::new([seed; 32]).derive("backoff")
    }
}
