//! What an endpoint counts.

use super::{EndpointLimits, admission::Limit};

/// What an endpoint did without a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounters {
    /// Handshakes begun by peers.
    pub accepted: u64,
    /// Clients asked to prove their address.
    pub retried: u64,
    /// Handshakes refused because a limit was reached.
    pub refused: HandshakesRefused,
    /// First packets that were no good.
    pub malformed: u64,
    /// Stateless resets not sent because the source had used its allowance.
    pub resets_withheld: u64,
    /// Datagrams that led to nothing.
    pub dropped: u64,
}

/// How full an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointLoad {
    /// Connections that exist, handshakes and those saying farewell included.
    pub connections: usize,
    /// Handshakes of peers in progress, or failed and not yet forgotten.
    pub handshakes: usize,
    /// What those hold who do not read.
    pub unread: UnreadHeld,
    /// What is allowed.
    pub limits: EndpointLimits,
}

/// Bytes that those hold who do not read, as they count against [`EndpointLimits::unread_in_all`] and
/// [`EndpointLimits::unread`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnreadHeld {
    /// On all connections.
    pub in_all: u64,
    /// On the connection with the most.
    pub most: u64,
}

/// Handshakes refused, by the limit of [`EndpointLimits`] that was reached first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakesRefused {
    /// [`EndpointLimits::connections`].
    pub connections: u64,
    /// [`EndpointLimits::handshakes`].
    pub handshakes: u64,
    /// [`EndpointLimits::handshakes_per_source`].
    pub source: u64,
}

impl HandshakesRefused {
    pub(super) fn count(&mut self, limit: Limit) {
        *match limit {
            Limit::Connections => &mut self.connections,
            Limit::Handshakes => &mut self.handshakes,
            Limit::Source => &mut self.source,
        } += 1;
    }

    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.connections + self.handshakes + self.source
    }
}
