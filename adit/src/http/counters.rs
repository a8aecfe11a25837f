//! What is counted of calls. They are rare beside sessions, so a lock is fine here.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

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
