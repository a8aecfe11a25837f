//! Which sessions of a connection have a socket that is ready.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    task::{Context, Wake, Waker},
};
// The models in `loom/` run this file in every order that threads can take. They need no more of the core than a number.
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};

#[cfg(not(loom))]
use adit_proto_core::id::Slot;
#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard, atomic::AtomicBool};

#[cfg(loom)]
use crate::Slot;

/// Collects the wake-ups of many sockets for one task, so that the task looks only at those that are ready.
#[derive(Debug, Default)]
pub(crate) struct ReadyQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    task: Option<Waker>,
}

/// The waker of one session's socket, for both directions.
#[derive(Debug)]
pub(crate) struct SlotWaker {
    queue: Arc<ReadyQueue>,
    slot: Slot,
    queued: AtomicBool,
}

impl ReadyQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the ready slots to `into`; with none, the task is woken by the next one.
    pub(crate) fn take(&self, cx: &Context<'_>, into: &mut Vec<Slot>) {
        let mut state = self.lock();
        if state.slots.is_empty() {
            match &mut state.task {
                Some(task) => task.clone_from(cx.waker()),
                None => state.task = Some(cx.waker().clone()),
            }
        } else {
            into.append(&mut state.slots);
        }
    }

    fn push(&self, slot: Slot) {
        let mut state = self.lock();
        state.slots.push(slot);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl SlotWaker {
    pub(crate) fn new(queue: &Arc<ReadyQueue>, slot: Slot) -> Arc<Self> {
        Arc::new(Self {
            queue: Arc::clone(queue),
            slot,
            queued: AtomicBool::new(false),
        })
    }

    /// The session is looked at now; a later wake-up queues it again. Called before the socket is polled.
    pub(crate) fn rearm(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self.slot);
        }
    }
}
