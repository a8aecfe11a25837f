//! What is known of the store's thread without asking it: a disk that hangs keeps it from answering.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{TokenKind, worker::Worker};

/// Written by the store's thread, read by everybody.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    has_failed: AtomicBool,
    /// When it began with what it is doing; none while it waits for a request.
    busy_since: Mutex<Option<Instant>>,
    scopes: AtomicUsize,
    associations: AtomicUsize,
}

impl Vitals {
    /// Tells whether the disk was sound when it was last used, and does not keep the thread waiting for long by `now`.
    pub(super) fn is_sound(&self, now: Instant) -> bool {
        let waits = self.busy_for(now).unwrap_or_default();
        !self.has_failed() && waits < HANGS_AFTER
    }

    /// Tells whether the disk failed when it was last used.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Notes whether the disk has failed; gives what was noted before.
    pub(super) fn set_failed(&self, has_failed: bool) -> bool {
        self.has_failed.swap(has_failed, Ordering::Relaxed)
    }

    /// Notes that the thread has begun with a request.
    pub(super) fn begin(&self, now: Instant) {
        *self
            .busy_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Notes that it is done with it.
    pub(super) fn end(&self, now: Instant) {
        let took = self.busy_for(now).unwrap_or_default();
        *self
            .busy_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        if took >= HANGS_AFTER {
            tracing::warn!(seconds = took.as_secs(), "{LATE}");
        }
    }

    /// Notes how many used tokens there are.
    pub(super) fn publish(&self, worker: &Worker) {
        for kind in [TokenKind::Scope, TokenKind::Association] {
            let (used, _) = worker.used_tokens(kind);
            self.count(kind).store(used, Ordering::Relaxed);
        }
    }

    /// Gives how many used tokens of a kind there are, by the last request that could be carried out.
    pub(super) fn used_tokens(&self, kind: TokenKind) -> usize {
        self.count(kind).load(Ordering::Relaxed)
    }

    fn count(&self, kind: TokenKind) -> &AtomicUsize {
        match kind {
            TokenKind::Scope => &self.scopes,
            TokenKind::Association => &self.associations,
        }
    }

    fn busy_for(&self, now: Instant) -> Option<Duration> {
        let since = *self
            .busy_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        since.map(|since| now.saturating_duration_since(since))
    }
}

const LATE: &str =
    "the disk of the store was late with an answer; the gateway was not ready meanwhile";
/// Above what a request takes on a slow disk that is sound, and below what users and supervisors wait.
pub(super) const HANGS_AFTER: Duration = Duration::from_secs(5);
