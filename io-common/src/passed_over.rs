//! The log's line about datagrams that came to nothing.

use std::time::{Duration, Instant};

use adit_proto_core::endpoint::EndpointCounters;

/// What an endpoint passed over, as it was logged last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    at: Option<Instant>,
    counters: EndpointCounters,
    overflowed: u64,
}

/// Between two lines about what was passed over.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

impl PassedOver {
    /// Logs what was passed over since the last line, at most once per interval: what hostile or lost datagrams cause is
    /// seen, and cannot fill the log. `overflowed` are datagrams dropped because a connection's inbox was full.
    pub fn tell(
        &mut self,
        now: Instant,
        counters: impl FnOnce() -> EndpointCounters,
        overflowed: u64,
    ) {
        let recent = |at| now.saturating_duration_since(at) < TELL_INTERVAL;
        if self.at.is_some_and(recent) {
            return;
        }
        let (counters, before) = (counters(), self.counters);
        // Accepted handshakes have lines of their own.
        let quiet = EndpointCounters {
            accepted: before.accepted,
            ..counters
        } == before;
        if !quiet || self.overflowed != overflowed {
            tracing::info!(
                retried = counters.retried - before.retried,
                refused = counters.refused.total() - before.refused.total(),
                malformed = counters.malformed - before.malformed,
                resets_withheld = counters.resets_withheld - before.resets_withheld,
                dropped = counters.dropped - before.dropped,
                overflowed = overflowed - self.overflowed,
                "datagrams passed over: strays, garbage, or more handshakes than the limits allow"
            );
        }
        *self = Self {
            at: Some(now),
            counters,
            overflowed,
        };
    }
}
