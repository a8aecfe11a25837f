//! What both sides of a connection agree on beyond the reference's protocol (peer-rpc 11.1).

use super::envelope::Layout;

/// The capability bits of a version handshake. Unknown bits are carried and mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// The reference's: plain envelopes and nothing else.
    pub const NONE: Self = Self(0);
    /// Envelopes whose tags are bound to the connection, the direction and both nodes.
    pub const BOUND: Self = Self(1 << 0);
    /// A refusal is answered with its reason instead of an end without bytes.
    pub const REFUSALS: Self = Self(1 << 1);
    /// A replay window can begin anew. Needs both others: only what is bound to a connection cannot come again after it.
    pub const WINDOW_RESET: Self = Self(1 << 2);
    /// All that this side knows.
    pub const ALL: Self = Self(0b111);

    /// Takes the number of a hello or an ack.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The number in a hello or an ack.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// These and others.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Tells whether all of these bits are set.
    #[must_use]
    pub const fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// What is active on a connection: set in hello and ack, known here, and with what it needs.
    #[must_use]
    pub const fn active(hello: Self, ack: Self) -> Self {
        let both = Self(hello.0 & ack.0 & Self::ALL.0);
        match both.has(Self::BOUND.with(Self::REFUSALS)) {
            true => both,
            false => Self(both.0 & !Self::WINDOW_RESET.0),
        }
    }

    /// The layout of a connection's envelopes.
    #[must_use]
    pub const fn layout(self) -> Layout {
        match self.has(Self::BOUND) {
            true => Layout::Bound,
            false => Layout::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_needs_both_sides_and_what_it_rests_on() {
        let (bound, refusals) = (Capabilities::BOUND, Capabilities::REFUSALS);
        let reset = Capabilities::WINDOW_RESET;
        for (hello, ack, active) in [
            (Capabilities::ALL, Capabilities::NONE, Capabilities::NONE),
            (Capabilities::NONE, Capabilities::ALL, Capabilities::NONE),
            (Capabilities::ALL, Capabilities::ALL, Capabilities::ALL),
            (Capabilities::ALL, reset, Capabilities::NONE),
            (Capabilities::ALL, reset.with(bound), bound),
            (reset.with(refusals), Capabilities::ALL, refusals),
            (
                Capabilities::from_bits(u64::MAX),
                Capabilities::ALL,
                Capabilities::ALL,
            ),
        ] {
            assert_eq!(Capabilities::active(hello, ack), active);
        }
        assert_eq!(Capabilities::NONE.layout(), Layout::Plain);
        assert_eq!(Capabilities::ALL.layout(), Layout::Bound);
    }
}
