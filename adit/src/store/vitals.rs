//! What is known of the store's thread without asking it: a disk that hangs keeps it from answering.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{TokenKind, worker::Worker};

/// Written by the store's thread, read by everybody.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    has_failed: AtomicBool,
    /// What it is doing; none while it waits for a request.
    doing: Mutex<Option<Doing>>,
    scopes: AtomicUsize,
    associations: AtomicUsize,
}

/// A request that is being carried out.
#[derive(Clone, Copy, Debug)]
struct Doing {
    since: Instant,
    /// Its waiting has been told.
    told: bool,
}

impl Vitals {
    /// Says of each request that the disk keeps waiting for long that it does, as the thread that waits cannot. Never
    /// ends.
    pub(super) async fn watch(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.begins_to_hang(Instant::now()) {
                tracing::error!("{HANGS}");
            }
        }
    }

    /// Tells whether the disk has kept the thread waiting for long by `now`; once for each request.
    fn begins_to_hang(&self, now: Instant) -> bool {
        match &mut *self.doing() {
            Some(doing)
                if !doing.told && now.saturating_duration_since(doing.since) >= HANGS_AFTER =>
            {
                doing.told = true;
                true
            }
            Some(_) | None => false,
        }
    }

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
        *self.doing() = Some(Doing {
            since: now,
            told: false,
        });
    }

    /// Notes that it is done with it.
    pub(super) fn end(&self, now: Instant) {
        let took = self.busy_for(now).unwrap_or_default();
        *self.doing() = None;
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
        let doing = *self.doing();
        doing.map(|doing| now.saturating_duration_since(doing.since))
    }

    /// Held for a moment only, so that nobody waits for the disk.
    fn doing(&self) -> MutexGuard<'_, Option<Doing>> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const HANGS: &str = "the disk of the store does not answer; the gateway is not ready until it does";
const LATE: &str =
    "the disk of the store was late with an answer; the gateway was not ready meanwhile";
/// Above what a request takes on a slow disk that is sound, and below what users and supervisors wait.
pub(super) const HANGS_AFTER: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_that_hangs_is_told_once() {
        let (vitals, start) = (Vitals::default(), Instant::now());
        assert!(!vitals.begins_to_hang(start + HANGS_AFTER));
        let late = start + 2 * HANGS_AFTER;
        for begun in [start, late] {
            vitals.begin(begun);
            assert!(!vitals.begins_to_hang(begun));
            assert!(vitals.begins_to_hang(begun + HANGS_AFTER));
            assert!(!vitals.begins_to_hang(begun + HANGS_AFTER));
            vitals.end(begun + HANGS_AFTER);
            assert!(!vitals.begins_to_hang(begun + 2 * HANGS_AFTER));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_watches_does_not_wait_for_the_disk() {
        let vitals = Vitals::default();
        let long_ago = Instant::now().checked_sub(HANGS_AFTER);
        vitals.begin(long_ago.unwrap());
        let watching = tokio::time::timeout(2 * LOOK_EVERY, vitals.watch());
        watching.await.unwrap_err();
        assert!(!vitals.begins_to_hang(Instant::now()), "told already");
    }
}
