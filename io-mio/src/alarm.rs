//! Wakes the loop from elsewhere, where it sleeps.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    time::{Duration, Instant},
};

use mio::{Events, Poll};

/// Wakes a loop. One that is awake looks at all of its queues before it sleeps, so that no system call is spent on it.
#[derive(Debug)]
pub(crate) struct Alarm {
    waker: mio::Waker,
    asleep: AtomicBool,
}

impl Alarm {
    pub(crate) fn new(waker: mio::Waker) -> Arc<Self> {
        Arc::new(Self {
            waker,
            asleep: AtomicBool::new(false),
        })
    }

    /// What the loop's queues are polled with.
    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// The loop is about to sleep, and looks at its queues and flags a last time: whatever is pushed or raised from here on
    /// wakes it.
    pub(crate) fn set(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// Sleeps until something comes or until then; awake afterwards.
    pub(crate) fn sleep(
        &self,
        poll: &mut Poll,
        events: &mut Events,
        until: Option<Instant>,
    ) -> io::Result<()> {
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        // The system counts in milliseconds: rounded down the loop would spin for the last one.
        let left = left.map(|left| match left {
            Duration::ZERO => left,
            left => left.max(Duration::from_millis(1)),
        });
        let polled = poll.poll(events, left);
        self.asleep.store(false, Ordering::SeqCst);
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "the driver's loop cannot be woken; what has come waits for the next event");
        }
    }
}
