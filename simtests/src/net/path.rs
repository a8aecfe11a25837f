//! One direction between two hosts: rate, queue, delay, and everything that goes wrong on the way.

use std::time::Duration;

use super::LossCause;
use crate::{At, choices::Choices};

/// How one direction between two hosts treats datagrams. Chances are in parts per million, sizes in bytes of UDP
/// payload: headers below UDP weigh nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Bits per second.
    pub rate_bps: u64,
    /// What fits in the queue before the link, the datagram on the link included; others are dropped. An idle link
    /// takes any datagram.
    pub queue_bytes: u64,
    /// From the end of the link to the receiver.
    pub delay: Duration,
    /// Up to so much is added to the delay. It does not reorder: what would overtake arrives together.
    pub jitter: Duration,
    /// Chance of a loss, each datagram by itself.
    pub loss_ppm: u64,
    /// Losses that come together.
    pub burst: Option<Burst>,
    /// Chance to arrive twice.
    pub duplicate_ppm: u64,
    /// Chance to be held back, so that later datagrams overtake.
    pub reorder_ppm: u64,
    /// Chance that one bit is flipped.
    pub corrupt_ppm: u64,
    /// The largest datagram; larger ones vanish and nobody is told.
    pub mtu: usize,
    /// Whether ECN-capable datagrams are marked while the queue is more than half full.
    pub ecn: bool,
}

/// Losses in bursts, after Gilbert and Elliott: a good and a bad state, with one step between them for each datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// Chance to enter the bad state.
    pub enter_ppm: u64,
    /// Chance to leave it.
    pub leave_ppm: u64,
    /// Chance of a loss in it.
    pub loss_ppm: u64,
}

impl Path {
    /// Gives a good path: 1 Gbit/s, 10 ms, a queue of 1 MiB and Ethernet's MTU.
    #[must_use]
    pub const fn clean() -> Self {
        Self {
            rate_bps: 1_000_000_000,
            queue_bytes: 1 << 20,
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss_ppm: 0,
            burst: None,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            corrupt_ppm: 0,
            mtu: MTU_IPV4,
            ecn: false,
        }
    }

    /// Draws a path: mostly usable, sometimes nasty.
    pub fn draw(choices: &mut Choices) -> Self {
        let rate_bps = choices.scaled(1_000_000, 10_000_000_000);
        let delay = choices.scaled_time(Duration::from_micros(100), Duration::from_millis(200));
        let queue = choices.scaled_time(Duration::from_millis(5), Duration::from_millis(500));
        let queue_bytes = u128::from(rate_bps) * queue.as_nanos() / NANOS_PER_BYTE_AT_1_BPS;
        let mut at_times = |per_mille, low, high| {
            if choices.chance(per_mille) {
                choices.scaled(low, high)
            } else {
                0
            }
        };
        let jitter = at_times(300, 100, 50_000);
        let loss_ppm = at_times(250, 100, 20_000).max(at_times(30, 20_000, 200_000));
        let duplicate_ppm = at_times(150, 100, 50_000);
        let reorder_ppm = at_times(200, 100, 100_000);
        let corrupt_ppm = at_times(50, 10, 10_000);
        let burst = choices.chance(100).then(|| Burst {
            enter_ppm: choices.scaled(100, 5_000),
            leave_ppm: choices.scaled(50_000, 500_000),
            loss_ppm: choices.between(500_000, MILLION),
        });
        Self {
            rate_bps,
            queue_bytes: u64::try_from(queue_bytes)
                .unwrap_or(u64::MAX)
                .max(QUEUE_BYTES_MIN),
            delay,
            jitter: Duration::from_micros(jitter),
            loss_ppm,
            burst,
            duplicate_ppm,
            reorder_ppm,
            corrupt_ppm,
            mtu: *choices.pick(&MTUS),
            ecn: choices.chance(300),
        }
    }

    /// How long the link is busy with so many bytes.
    fn busy(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * NANOS_PER_BYTE_AT_1_BPS / u128::from(self.rate_bps.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A path in use.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) path: Path,
    /// When the last byte of all that is queued will have left.
    free_at: At,
    /// The longest time from being queued to having left that the queue allows.
    queue_time: Duration,
    /// The latest arrival of those not held back; none arrives before it.
    newest: At,
    in_burst: bool,
}

/// A datagram that passed the link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pub(super) left_at: At,
    /// Whether it is to be marked, if its sender understands that.
    pub(super) mark: bool,
}

impl Link {
    pub(super) fn new(path: Path) -> Self {
        Self {
            free_at: At::ZERO,
            queue_time: path.busy(path.queue_bytes),
            newest: At::ZERO,
            in_burst: false,
            path,
        }
    }

    /// Sends a datagram over the link. What is lost by chance is lost behind the link, and took its time there.
    pub(super) fn pass(
        &mut self,
        at: At,
        len: usize,
        choices: &mut Choices,
    ) -> Result<Passed, LossCause> {
        if len > self.path.mtu {
            return Err(LossCause::TooBig);
        }
        let left_at = self.free_at.max(at) + self.path.busy(len as u64);
        let queued = left_at - at;
        if self.free_at > at && queued > self.queue_time {
            return Err(LossCause::QueueFull);
        }
        self.free_at = left_at;
        if hits(choices, self.path.loss_ppm) {
            return Err(LossCause::Random);
        }
        if self.lost_in_burst(choices) {
            return Err(LossCause::Burst);
        }
        let mark = self.path.ecn && queued > self.queue_time / 2;
        Ok(Passed { left_at, mark })
    }

    fn lost_in_burst(&mut self, choices: &mut Choices) -> bool {
        let Some(burst) = self.path.burst else {
            return false;
        };
        let turn = if self.in_burst {
            burst.leave_ppm
        } else {
            burst.enter_ppm
        };
        self.in_burst ^= hits(choices, turn);
        self.in_burst && hits(choices, burst.loss_ppm)
    }

    /// Draws how many of a datagram arrive.
    pub(super) fn copies(&self, choices: &mut Choices) -> usize {
        1 + usize::from(hits(choices, self.path.duplicate_ppm))
    }

    /// Draws when one copy arrives.
    pub(super) fn arrives_at(&mut self, left_at: At, choices: &mut Choices) -> At {
        let mut at = left_at + self.path.delay;
        if !self.path.jitter.is_zero() {
            at += choices.time(Duration::ZERO, self.path.jitter);
        }
        at = at.max(self.newest);
        if hits(choices, self.path.reorder_ppm) {
            let most = self.path.delay.max(HELD_BACK_MIN);
            return at + choices.time(most / 8, most);
        }
        self.newest = at;
        at
    }

    /// Flips one bit, if chance says so.
    pub(super) fn corrupt(&self, data: &mut [u8], choices: &mut Choices) -> bool {
        let spoilt = hits(choices, self.path.corrupt_ppm) && !data.is_empty();
        if spoilt {
            let byte = choices.index(data.len());
            data[byte] ^= 1 << choices.between(0, 7);
        }
        spoilt
    }
}

/// Draws a chance; one that cannot be met costs no draw. The highest draws meet it: a fuzzer that has run out of bytes
/// has no bad luck.
fn hits(choices: &mut Choices, ppm: u64) -> bool {
    // A range of a power of 256 is drawn without bias.
    const RANGE: u64 = 1 << 32;
    ppm > 0 && choices.between(0, RANGE - 1) >= RANGE - RANGE * ppm.min(MILLION) / MILLION
}

const MILLION: u64 = 1_000_000;

const NANOS_PER_BYTE_AT_1_BPS: u128 = 8_000_000_000;

/// Ethernet's 1500 bytes less the headers of IPv4 and UDP.
const MTU_IPV4: usize = 1_472;

/// Ethernet by IPv4 and IPv6, `IPv6`'s least, QUIC's least, a VPN, and large Ethernet frames.
const MTUS: [usize; 8] = [
    MTU_IPV4, MTU_IPV4, MTU_IPV4, 1_452, 1_232, 1_200, 1_392, 8_972,
];

/// Ten datagrams; with less not even the start of a connection fits in.
const QUEUE_BYTES_MIN: u64 = 15_000;

/// What is held back on a short path is held back for up to this, or nothing would be sent in between.
const HELD_BACK_MIN: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A path of 8 Mbit/s: 1000 bytes take a millisecond.
    fn slow() -> Path {
        Path {
            rate_bps: 8_000_000,
            queue_bytes: 4_000,
            ..Path::clean()
        }
    }

    /// Sends so many datagrams on an idle link each, and tells which were lost for what.
    fn fates(path: Path, count: u32) -> Vec<Option<LossCause>> {
        let mut choices = Choices::from_seed(11);
        let mut link = Link::new(path);
        (0..count)
            .map(|n| link.pass(MS * n, 100, &mut choices).err())
            .collect()
    }

    #[test]
    fn datagrams_leave_at_the_rate_of_the_link() {
        let mut choices = Choices::from_seed(1);
        let mut link = Link::new(slow());
        let mut left = |at, len| link.pass(at, len, &mut choices).unwrap().left_at;
        assert_eq!(left(MS * 5, 1_000), MS * 6);
        assert_eq!(left(MS * 5, 500), MS * 13 / 2);
        assert_eq!(left(MS * 6, 1_000), MS * 15 / 2);
        assert_eq!(left(MS * 20, 1), MS * 20 + MS / 1_000);
        let arrival = link.arrives_at(MS * 21, &mut choices);
        assert_eq!(arrival, MS * 31);
    }

    #[test]
    fn a_full_queue_drops_until_there_is_room_again() {
        let mut choices = Choices::from_seed(1);
        let mut link = Link::new(slow());
        let mut pass = |at, len| {
            link.pass(at, len, &mut choices)
                .map(|passed| passed.left_at)
        };
        for n in 1..=4 {
            assert_eq!(pass(At::ZERO, 1_000), Ok(MS * n));
        }
        assert_eq!(pass(At::ZERO, 1), Err(LossCause::QueueFull));
        assert_eq!(pass(MS / 2, 501), Err(LossCause::QueueFull));
        assert_eq!(pass(MS / 2, 500), Ok(MS * 9 / 2));
        assert_eq!(pass(MS * 9 / 2, 1_400), Ok(MS * 59 / 10));
    }

    #[test]
    fn an_idle_link_takes_a_datagram_larger_than_its_queue() {
        let mut choices = Choices::from_seed(1);
        let mut link = Link::new(Path {
            queue_bytes: 0,
            ..slow()
        });
        let mut pass = |at| {
            link.pass(at, 1_000, &mut choices)
                .map(|passed| passed.left_at)
        };
        assert_eq!(pass(At::ZERO), Ok(MS));
        assert_eq!(pass(MS / 2), Err(LossCause::QueueFull));
        assert_eq!(pass(MS), Ok(MS * 2));
    }

    #[test]
    fn what_is_queued_beyond_one_half_is_marked() {
        let mut choices = Choices::from_seed(1);
        for ecn in [false, true] {
            let mut link = Link::new(Path { ecn, ..slow() });
            let mut mark = |len| link.pass(MS, len, &mut choices).unwrap().mark;
            assert!(!mark(1_000));
            assert!(!mark(1_000));
            assert_eq!(mark(1), ecn);
        }
    }

    #[test]
    fn datagrams_beyond_the_mtu_vanish() {
        let mut choices = Choices::from_seed(1);
        let mut link = Link::new(Path {
            mtu: 1_200,
            ..slow()
        });
        assert!(link.pass(MS, 1_200, &mut choices).is_ok());
        let large = link.pass(MS * 9, 1_201, &mut choices).map(|_| ());
        assert_eq!(large, Err(LossCause::TooBig));
    }

    #[test]
    fn losses_come_as_often_as_the_path_says() {
        for (loss_ppm, low, high) in [
            (0, 0, 0),
            (100, 1, 30),
            (20_000, 1_800, 2_200),
            (200_000, 19_400, 20_600),
            (MILLION, 100_000, 100_000),
        ] {
            let path = Path {
                loss_ppm,
                ..Path::clean()
            };
            let fates = fates(path, 100_000);
            let lost = fates.iter().flatten().count();
            assert!((low..=high).contains(&lost), "{loss_ppm} ppm: {lost}");
            let random = |cause: &LossCause| *cause == LossCause::Random;
            assert!(fates.iter().flatten().all(random));
        }
    }

    #[test]
    fn losses_of_a_burst_come_together() {
        let burst = Some(Burst {
            enter_ppm: 2_000,
            leave_ppm: 100_000,
            loss_ppm: MILLION,
        });
        let fates = fates(
            Path {
                burst,
                ..Path::clean()
            },
            200_000,
        );
        let lost = fates.iter().flatten().count();
        let starts = fates
            .windows(2)
            .filter(|pair| pair[0].is_none() && pair[1].is_some())
            .count();
        // The share of bad states is 2/102; one lasts ten datagrams.
        assert!((3_400..4_500).contains(&lost), "{lost}");
        assert!((340..450).contains(&starts), "{starts}");
        assert!((8..=12).contains(&(lost / starts)), "{lost} in {starts}");
        let in_burst = |cause: &LossCause| *cause == LossCause::Burst;
        assert!(fates.iter().flatten().all(in_burst));
    }

    #[test]
    fn jitter_delays_and_keeps_the_order() {
        let mut choices = Choices::from_seed(4);
        let mut link = Link::new(Path {
            jitter: MS * 5,
            ..slow()
        });
        let mut before = At::ZERO;
        let mut largest = Duration::ZERO;
        for n in 0..1_000 {
            let arrival = link.arrives_at(MS * n, &mut choices);
            let delay = arrival - MS * n;
            assert!((MS * 10..=MS * 15).contains(&delay), "{delay:?}");
            assert!(arrival >= before);
            before = arrival;
            largest = largest.max(delay);
        }
        assert!(largest > MS * 14);
    }

    #[test]
    fn drawn_paths_are_mostly_usable_and_cover_their_range() {
        let mut choices = Choices::from_seed(5);
        let paths: Vec<Path> = (0..1_000).map(|_| Path::draw(&mut choices)).collect();
        let share = |of: &dyn Fn(&Path) -> bool| paths.iter().filter(|path| of(path)).count();
        for path in &paths {
            assert!((1_000_000..=10_000_000_000).contains(&path.rate_bps));
            assert!((MS / 10..=MS * 200).contains(&path.delay));
            assert!(path.loss_ppm <= 200_000);
            assert!(path.mtu >= 1_200);
            assert!(path.queue_bytes >= QUEUE_BYTES_MIN);
        }
        assert!(share(&|path| path.loss_ppm <= 1_000 && path.burst.is_none()) > 600);
        assert!(share(&|path| path.loss_ppm > 50_000) > 5);
        assert!(share(&|path| path.burst.is_some()) > 50);
        assert!(share(&|path| path.delay < MS) > 50);
        assert!(share(&|path| path.delay > MS * 100) > 50);
        assert!(share(&|path| path.rate_bps < 10_000_000) > 50);
        assert!(share(&|path| path.rate_bps > 1_000_000_000) > 50);
    }
}
