//! The one kind of queue between tasks: many senders, one receiver, bounded, taken in batches.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};
// The models in `loom/` run this file in every order that threads can take.
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};

/// Makes a queue for at most `capacity` items.
pub fn handoff<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::default()),
        capacity,
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The sending end; cheap to clone.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// The receiving end. Dropping it closes the queue.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

/// What could not be taken, given back.
#[derive(Debug)]
pub enum Rejected<T> {
    /// The queue holds as much as it may.
    Full(T),
    /// Nobody receives any more.
    Closed(T),
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    waker: Option<Waker>,
    closed: bool,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            waker: None,
            closed: false,
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    /// A panic elsewhere leaves the queue as it was: every change below is a single step.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Adds one item and wakes the receiver.
    pub fn push(&self, item: T) -> Result<(), Rejected<T>> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(Rejected::Closed(item));
        }
        if state.items.len() >= self.0.capacity {
            return Err(Rejected::Full(item));
        }
        state.items.push_back(item);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Adds an item to a queue whose receiver lives as long as the process serves. One that is full or gone means that
    /// the process is stopping, or so far behind that it should be seen.
    pub fn push_or_stop(&self, item: T) {
        if let Err(Rejected::Full(_)) = self.push(item) {
            tracing::error!(
                "an internal queue is full; a message was dropped: restart the process and report this"
            );
        }
    }

    /// Adds what fits, in order, and wakes the receiver once. Empties `items`; gives how many were dropped.
    pub fn push_all(&self, items: &mut Vec<T>) -> usize {
        let mut state = self.0.lock();
        let room = if state.closed {
            0
        } else {
            self.0.capacity.saturating_sub(state.items.len())
        };
        let dropped = items.len().saturating_sub(room);
        state.items.extend(items.drain(..).take(room));
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        dropped
    }
}

impl<T> Receiver<T> {
    /// Takes everything there is, into an empty `into`; with nothing there, the task is woken by the next item.
    pub fn poll_take(&self, cx: &Context<'_>, into: &mut VecDeque<T>) -> Poll<()> {
        debug_assert!(into.is_empty(), "items of the last batch are left");
        let mut state = self.0.lock();
        if state.items.is_empty() {
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => state.waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        std::mem::swap(&mut state.items, into);
        Poll::Ready(())
    }

    /// The same for whoever may have left items of the last time in `into`: they come first, alone.
    pub fn poll_fill(&self, cx: &Context<'_>, into: &mut VecDeque<T>) -> Poll<()> {
        if into.is_empty() {
            return self.poll_take(cx, into);
        }
        Poll::Ready(())
    }

    /// Waits for items and takes all of them.
    pub async fn take(&self, into: &mut VecDeque<T>) {
        std::future::poll_fn(|cx| self.poll_take(cx, into)).await;
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let items = std::mem::take(&mut state.items);
        drop(state);
        // Outside the lock: an item's own end may push to a queue.
        drop(items);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::task::Context;

    use super::*;

    #[test]
    fn items_come_in_order_and_the_bound_holds() {
        let (tx, rx) = handoff(2);
        tx.push(1).unwrap();
        tx.push(2).unwrap();
        assert!(matches!(tx.push(3), Err(Rejected::Full(3))));
        let mut got = VecDeque::new();
        let cx = Context::from_waker(Waker::noop());
        assert!(rx.poll_take(&cx, &mut got).is_ready());
        assert_eq!(got, [1, 2]);
        got.pop_front();
        tx.push(3).unwrap();
        assert!(rx.poll_fill(&cx, &mut got).is_ready());
        assert_eq!(got, [2], "what was left comes alone");
        got.clear();
        assert!(rx.poll_fill(&cx, &mut got).is_ready());
        assert_eq!(got, [3]);
        got.clear();
        assert!(rx.poll_fill(&cx, &mut got).is_pending());
        let mut batch = vec![4, 5, 6];
        assert_eq!(tx.push_all(&mut batch), 1);
        assert!(batch.is_empty());
        drop(rx);
        assert!(matches!(tx.push(7), Err(Rejected::Closed(7))));
        assert_eq!(tx.push_all(&mut vec![8]), 1);
    }

    #[test]
    fn a_push_between_two_polls_wakes() {
        struct Flag(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let flag = Arc::new(Flag(0.into()));
        let waker = Waker::from(Arc::clone(&flag));
        let (tx, rx) = handoff(8);
        let mut got = VecDeque::new();
        assert!(
            rx.poll_take(&Context::from_waker(&waker), &mut got)
                .is_pending()
        );
        tx.push(1).unwrap();
        tx.push(2).unwrap();
        assert_eq!(
            flag.0.load(std::sync::atomic::Ordering::SeqCst),
            1,
            "one wake-up for the batch"
        );
    }
}
