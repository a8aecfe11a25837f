//! What is counted of calls. They are rare beside sessions, so a lock is fine here.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::Semaphore;

use super::{Refusal, refusal::RefusalLines};

/// Events by cause. Causes are words of this program, never of a caller.
#[derive(Debug, Default)]
pub struct Causes(Mutex<BTreeMap<&'static str, u64>>);

impl Causes {
    /// Counts one.
    pub fn add(&self, cause: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(cause).or_default() += 1;
    }

    /// All so far.
    #[must_use]
    pub fn read(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }
}

/// What has happened on the public listener since the start.
#[derive(Debug, Default)]
pub struct HttpCounters {
    /// Agents enrolled.
    pub enrolments: AtomicU64,
    /// Enrolments refused.
    pub enrolments_refused: Causes,
    /// Calls of the agents API that were answered.
    pub calls: AtomicU64,
    /// Calls of the agents API that were refused.
    pub calls_refused: Causes,
    /// Tokens refused, by any of them and by the way in for WebSockets.
    pub tokens_refused: Causes,
    /// Renewals of agents' certificates, `granted` and `refused`.
    pub renewals: Causes,
    /// Configurations read again, `ok` and `failed`.
    pub reloads: Causes,
    pub(crate) enrolment_lines: RefusalLines,
    pub(crate) call_lines: RefusalLines,
}

impl HttpCounters {
    pub(crate) fn enrolment<T>(&self, outcome: &Result<T, Refusal>) {
        self.count(outcome, &self.enrolments, &self.enrolments_refused);
    }

    pub(crate) fn call<T>(&self, outcome: &Result<T, Refusal>) {
        self.count(outcome, &self.calls, &self.calls_refused);
    }

    /// Counts a refusal for want of a good token.
    pub(crate) fn token(&self, refusal: &Refusal) {
        if refusal.is_of_token() {
            self.tokens_refused.add(refusal.word());
        }
    }

    fn count<T>(&self, outcome: &Result<T, Refusal>, done: &AtomicU64, refused: &Causes) {
        match outcome {
            Ok(_) => {
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(refusal) => {
                refused.add(refusal.word());
                self.token(refusal);
            }
        }
    }
}

/// What has happened at one HTTP listener since the start, and how full it is.
#[derive(Debug)]
pub struct ListenerCounters {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Accepts that failed; the process was out of descriptors or memory.
    pub accept_failed: AtomicU64,
    /// Times that all places were taken, so that callers waited.
    pub places_full: AtomicU64,
    /// Connections closed because their source had its share of places.
    pub share_full: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub tls_failed: AtomicU64,
    /// Connections that are open.
    pub open: AtomicUsize,
    pub(crate) places: Arc<Semaphore>,
    places_max: usize,
}

impl ListenerCounters {
    /// Begins with so many free places.
    #[must_use]
    pub fn new(places_max: usize) -> Self {
        Self {
            accepted: AtomicU64::new(0),
            accept_failed: AtomicU64::new(0),
            places_full: AtomicU64::new(0),
            share_full: AtomicU64::new(0),
            tls_failed: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
        }
    }

    /// Places that are taken, and all of them.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        (self.open.load(Ordering::Relaxed), self.places_max)
    }
}
