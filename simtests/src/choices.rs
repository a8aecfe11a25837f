//! The only source of decisions: a seed, or a fuzzer's bytes.

use std::{sync::Arc, time::Duration};

use rand_chacha::{
    ChaCha12Rng,
    rand_core::{Rng, SeedableRng},
};

/// Draws every decision of a run.
///
/// From a seed the draws are endless. From a fuzzer's bytes each draw eats as many bytes as its range needs, and after
/// the last byte every draw gives its lowest value: the dull choice, so that short inputs make short runs.
#[derive(Clone, Debug)]
pub struct Choices(Source);

#[derive(Clone, Debug)]
enum Source {
    Seed(Box<ChaCha12Rng>),
    Bytes { bytes: Arc<[u8]>, at: usize },
}

impl Choices {
    /// Draws from a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self::from_key(*blake3::hash(&seed.to_le_bytes()).as_bytes())
    }

    /// Draws from a fuzzer's bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Source::Bytes {
            bytes: bytes.into(),
            at: 0,
        })
    }

    fn from_key(key: [u8; 32]) -> Self {
        Self(Source::Seed(Box::new(ChaCha12Rng::from_seed(key))))
    }

    /// Gives the stream of one consumer, always a seeded one: losses and delays of packets would otherwise eat a
    /// fuzzer's bytes before the topology had any. Costs one draw of 64 bits; the label keeps consumers apart.
    pub fn fork(&mut self, label: &str) -> Self {
        let drawn = self.bits(64);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&drawn.to_le_bytes());
        hasher.update(label.as_bytes());
        Self::from_key(*hasher.finalize().as_bytes())
    }

    /// Gives 32 bytes, for keys and seeds.
    pub fn key(&mut self) -> [u8; 32] {
        let mut key = [0; 32];
        for chunk in key.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.bits(64).to_le_bytes());
        }
        key
    }

    /// Draws evenly from `low` to `high`, both included; `low` where the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let Some(span) = high.checked_sub(low) else {
            return low;
        };
        let bits = u64::BITS - span.leading_zeros();
        let drawn = self.bits(bits.next_multiple_of(8));
        low + span.checked_add(1).map_or(drawn, |count| drawn % count)
    }

    /// Draws evenly over orders of magnitude: small values are as likely as large ones. Both ends are included.
    pub fn scaled(&mut self, low: u64, high: u64) -> u64 {
        let (first, last) = (low.max(1), high.max(low).max(1));
        let doublings = u64::from((last / first).ilog2());
        let shift = self.between(0, doublings);
        let (from, to) = (first << shift, (first << shift).saturating_mul(2) - 1);
        let from = if low == 0 && shift == 0 { 0 } else { from };
        self.between(from.min(last), to.min(last))
    }

    /// Draws an index below `len`; 0 where `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        let last = (len as u64).saturating_sub(1);
        usize::try_from(self.between(0, last)).unwrap_or(0)
    }

    /// Picks one of a list.
    ///
    /// # Panics
    /// Where the list is empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.index(list.len())]
    }

    /// Tells yes with `per_mille` in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.between(0, 999) >= 1_000 - u64::from(per_mille.min(1_000))
    }

    /// Draws a time, evenly.
    pub fn time(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_micros(self.between(micros(low), micros(high)))
    }

    /// Draws a time, evenly over orders of magnitude.
    pub fn scaled_time(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_micros(self.scaled(micros(low), micros(high)))
    }

    /// At least so many bits. From a seed always 64, so that what a range makes of them is as good as even; a fuzzer's
    /// bytes are not wasted.
    fn bits(&mut self, bits: u32) -> u64 {
        match &mut self.0 {
            Source::Seed(rng) => rng.next_u64(),
            Source::Bytes { bytes, at } => {
                let mut value = 0;
                for _ in 0..bits.div_ceil(8) {
                    let byte = bytes.get(*at).copied().unwrap_or(0);
                    *at += 1;
                    value = value << 8 | u64::from(byte);
                }
                value
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_range_and_reach_its_ends() {
        let mut choices = Choices::from_seed(1);
        let (mut low, mut high) = (false, false);
        for _ in 0..2_000 {
            let drawn = choices.between(3, 9);
            assert!((3..=9).contains(&drawn));
            low |= drawn == 3;
            high |= drawn == 9;
            assert!((5..=700).contains(&choices.scaled(5, 700)));
            assert!(choices.scaled(0, 4) <= 4);
        }
        assert!(low && high);
        assert_eq!(choices.between(7, 7), 7);
        assert_eq!(choices.between(7, 6), 7);
        let all = choices.between(0, u64::MAX);
        assert_ne!(all, choices.between(0, u64::MAX));
    }

    #[test]
    fn a_chance_is_met_about_as_often_as_it_says() {
        let mut choices = Choices::from_seed(2);
        let met = (0..10_000).filter(|_| choices.chance(250)).count();
        assert!((2_200..2_800).contains(&met), "{met}");
        assert!(!choices.chance(0));
        assert!(choices.chance(1_000));
    }

    #[test]
    fn after_a_fuzzers_last_byte_everything_is_dull() {
        let mut choices = Choices::from_bytes(&[5, 1, 2]);
        assert_eq!(choices.between(0, 255), 5);
        assert_eq!(choices.between(10, 10 + 0xffff), 10 + 0x0102);
        assert_eq!(choices.between(4, 100), 4);
        assert!(!choices.chance(999));
        assert_eq!(choices.index(9), 0);
    }

    #[test]
    fn forks_are_streams_of_their_own() {
        let mut one = Choices::from_seed(3);
        let mut two = Choices::from_seed(3);
        let (mut a, mut b) = (one.fork("net"), two.fork("net"));
        assert_eq!(a.key(), b.key());
        assert_eq!(one.key(), two.key());
        assert_ne!(one.fork("net").key(), two.fork("nat").key());
    }
}
