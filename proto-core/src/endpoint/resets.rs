//! Stateless resets: answers to anybody, so they are rationed.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::limits;

/// How many stateless resets each source address may still get in this second (design 8.5).
#[derive(Debug, Default)]
pub(super) struct ResetAllowance {
    since: Option<Instant>,
    used: BTreeMap<IpAddr, u32>,
}

impl ResetAllowance {
    /// Tells whether one may be sent to this source, and counts it.
    pub(super) fn take(&mut self, now: Instant, source: IpAddr) -> bool {
        if self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1))
        {
            self.since = Some(now);
            self.used.clear();
        }
        if self.used.len() >= limits::RESET_SOURCES_MAX && !self.used.contains_key(&source) {
            return false;
        }
        let used = self.used.entry(source).or_default();
        *used += 1;
        *used <= limits::RESETS_PER_SOURCE_MAX
    }
}
