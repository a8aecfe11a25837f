//! Decisions out of a fuzzer's bytes.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// What is left of the bytes. After the last one every draw gives its lowest value.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Tells whether bytes are left: scripts end with the input.
    pub(crate) fn has_more(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `count`, which is 1 to 256.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    pub(crate) fn pick<'b, T>(&mut self, list: &'b [T]) -> &'b T {
        &list[self.below(list.len())]
    }

    /// A time from milliseconds to hours, most of them near the core's own deadlines.
    pub(crate) fn time(&mut self) -> Duration {
        let ms = [1, 50, 249, 250, 300, 500, 1_000, 3_000, 4_000, 10_000];
        let longer = [20_000, 29_999, 30_000, 60_000, 90_000, 3_600_000];
        let at = self.below(256);
        match ms.iter().chain(&longer).nth(at % 32) {
            Some(ms) => Duration::from_millis(*ms),
            None => Duration::from_micros(u64::from(self.byte()) << (at % 16)),
        }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// The base of virtual time: only distances from it count.
pub(crate) fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(|| Instant::now() + Duration::from_secs(86_400))
}

/// Cuts data into pieces whose lengths follow from `seed`.
pub(crate) fn pieces(data: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (data, seed);
    std::iter::from_fn(move || {
        state = state.wrapping_mul(37).wrapping_add(11);
        let len = 1 + usize::from(state) % (1 + usize::from(seed) / 4);
        let (piece, left) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        rest = left;
        (!piece.is_empty()).then_some(piece)
    })
}
