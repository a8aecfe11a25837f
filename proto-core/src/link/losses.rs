//! Tells the losses of a path that is full from those of a path that is merely bad.

use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;

/// What was acknowledged and lost lately on one path, and whether data waits on it.
///
/// A path that is full delays before it loses, and then loses much. A few losses while nothing waits have another cause,
/// a radio link or a cable, and sending less would not mend it: at 1 % of loss and 50 ms CUBIC is left with 3 Mbit/s of
/// any link.
#[derive(Clone, Debug)]
pub(super) struct Losses {
    mtu: u64,
    acked: u64,
    lost: u64,
    /// When the counts are halved next.
    halve_at: Option<Instant>,
    rtt: Duration,
    rtt_min: Duration,
}

/// Losses that are few: one in so many bytes.
const FEW: u64 = 50;
/// A loss of so many datagrams is few, however little was sent.
const FEW_DATAGRAMS: u64 = 3;
/// Round trips after which the counts are halved.
const MEMORY: u32 = 4;

impl Losses {
    pub(super) fn new(mtu: u16) -> Self {
        Self {
            mtu: mtu.into(),
            acked: 0,
            lost: 0,
            halve_at: None,
            rtt: Duration::ZERO,
            rtt_min: Duration::ZERO,
        }
    }

    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.into();
    }

    pub(super) fn on_ack(&mut self, now: Instant, bytes: u64, rtt: &RttEstimator) {
        self.sample(now, bytes, rtt.get(), rtt.min());
    }

    fn sample(&mut self, now: Instant, bytes: u64, rtt: Duration, rtt_min: Duration) {
        (self.rtt, self.rtt_min) = (rtt, rtt_min);
        self.acked = self.acked.saturating_add(bytes);
        if self.halve_at.is_none_or(|at| at <= now) {
            self.acked /= 2;
            self.lost /= 2;
            self.halve_at = Some(now + rtt * MEMORY);
        }
    }

    /// Takes a loss; tells whether it says that the path is full.
    pub(super) fn is_congestion(&mut self, bytes: u64) -> bool {
        self.lost = self.lost.saturating_add(bytes);
        let waits = self.rtt > self.rtt_min + self.rtt_min / 4;
        let few = (self.acked.saturating_add(self.lost) / FEW).max(self.mtu * FEW_DATAGRAMS);
        waits || self.lost > few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1_452;
    const RTT: Duration = Duration::from_millis(50);

    #[expect(
        clippy::disallowed_methods,
        reason = "the base of a test's virtual time"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    /// Of each hundred datagrams so many are lost; tells how often that meant congestion in ten round trips of 10,000.
    fn run(lost: u64, rtt: Duration) -> u64 {
        let mut losses = Losses::new(MTU);
        let start = start();
        losses.sample(start, MTU.into(), rtt, RTT);
        let mut signs = 0;
        for round in 0..10 {
            for at in 0..10_000 {
                let now = start + RTT * round + RTT * at / 10_000;
                if u64::from(at) % 100 < lost {
                    signs += u64::from(losses.is_congestion(MTU.into()));
                } else {
                    losses.sample(now, MTU.into(), rtt, RTT);
                }
            }
        }
        signs
    }

    #[test]
    fn few_losses_on_an_idle_path_are_none_of_its_load() {
        assert_eq!(run(1, RTT), 0);
    }

    #[test]
    fn many_losses_are_congestion() {
        assert!(run(5, RTT) > 1_000);
    }

    #[test]
    fn any_loss_on_a_path_where_data_waits_is_congestion() {
        assert_eq!(run(1, RTT * 2), 1_000);
    }

    #[test]
    fn the_start_of_a_path_may_lose_three() {
        let mut losses = Losses::new(MTU);
        losses.sample(start(), 10 * u64::from(MTU), RTT, RTT);
        let signs = [(); 5].map(|()| losses.is_congestion(MTU.into()));
        assert_eq!(signs, [false, false, false, true, true]);
    }

    #[test]
    fn what_was_lost_long_ago_counts_no_more() {
        let mut losses = Losses::new(MTU);
        let start = start();
        losses.sample(start, MTU.into(), RTT, RTT);
        assert!(losses.is_congestion(100 * u64::from(MTU)));
        for round in 1..40 {
            losses.sample(start + RTT * round, MTU.into(), RTT, RTT);
        }
        assert!(!losses.is_congestion(MTU.into()));
    }
}
