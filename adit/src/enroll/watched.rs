//! What is counted and logged of an HTTP listener's callers, so that none of them goes unseen and none fills the log.

use std::{
    fmt, mem,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use adit_io_common::lines::Lines;

use crate::http::ListenerCounters;

/// Counters of one listener with the bounds of its lines; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) counters: Arc<ListenerCounters>,
    accept: Lines,
    full: Lines,
    share: Lines,
    tls: Lines,
}

impl Watched {
    pub(super) fn new(counters: Arc<ListenerCounters>) -> Self {
        Self {
            counters,
            accept: Lines::new(ACCEPT_FAILED),
            full: Lines::new(PLACES_FULL),
            share: Lines::new(SHARE_FULL),
            tls: Lines::new(TLS_FAILED),
        }
    }

    /// Counts a connection, and that it is open until what this gives is dropped.
    pub(super) fn accepted(&self) -> Open {
        bump(&self.counters.accepted);
        self.counters.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.counters))
    }

    pub(super) fn accept_failed(&self, error: impl fmt::Display) {
        bump(&self.counters.accept_failed);
        if self.accept.allow() {
            tracing::warn!(%error, "{ACCEPT_FAILED}");
        }
    }

    /// Looks whether the next caller has to wait; `full` remembers that it was told already.
    pub(super) fn places(&self, full: &mut bool) {
        let is_full = self.counters.places.available_permits() == 0;
        if is_full && !mem::replace(full, true) {
            bump(&self.counters.places_full);
            if self.full.allow() {
                tracing::warn!("{PLACES_FULL}");
            }
        }
    }

    pub(super) fn share_full(&self, source: SocketAddr) {
        bump(&self.counters.share_full);
        if self.share.allow() {
            tracing::warn!(%source, "{SHARE_FULL}");
        }
    }

    pub(super) fn tls_failed(&self, source: SocketAddr, reason: impl fmt::Display) {
        bump(&self.counters.tls_failed);
        if self.tls.allow() {
            tracing::info!(%source, %reason, "{TLS_FAILED}");
        }
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Open(Arc<ListenerCounters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

const ACCEPT_FAILED: &str = "cannot accept an HTTP connection";
const PLACES_FULL: &str = "all places of an HTTP listener are taken; callers wait";
const SHARE_FULL: &str = "HTTP connection closed: its source has its share of places";
const TLS_FAILED: &str = "TLS with an HTTP caller failed";
