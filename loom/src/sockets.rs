//! The wake-ups of many sockets for one task.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use loom::{
    model,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    Slot,
    handoff::{Receiver, handoff},
    ready::{ReadyQueue, SlotWaker},
    task::Task,
};

#[test]
fn no_event_of_a_socket_is_missed() {
    model(|| {
        let socket = Arc::new(Socket::default());
        let reactor = reactor([&socket, &socket]);
        let mut sessions = Sessions::attach([&socket]);
        let task = Task::new();
        task.run(|cx| sessions.poll(cx, 2));
        reactor.join().unwrap();
        assert!(task.wakes() <= sessions.empty_looks, "woken for nothing");
    });
}

#[test]
fn one_socket_does_not_hide_another() {
    model(|| {
        let sockets = [0, 1].map(|_| Arc::new(Socket::default()));
        let reactor = reactor([&sockets[0], &sockets[1]]);
        let mut sessions = Sessions::attach([&sockets[0], &sockets[1]]);
        let task = Task::new();
        task.run(|cx| sessions.poll(cx, 2));
        reactor.join().unwrap();
        assert!(task.wakes() <= sessions.empty_looks, "woken for nothing");
    });
}

#[test]
fn sockets_that_become_ready_together_are_one_wake_up() {
    model(|| {
        let ready = Arc::new(ReadyQueue::default());
        let task = Task::new();
        let waker = task.waker();
        let cx = Context::from_waker(&waker);
        let mut slots = Vec::new();
        ready.take(&cx, &mut slots);
        assert!(slots.is_empty());
        let wakers = [0, 1].map(|slot| Waker::from(SlotWaker::new(&ready, slot)));
        let threads = [wakers.clone(), wakers]
            .map(|wakers| thread::spawn(move || wakers.into_iter().for_each(Waker::wake)));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(task.wakes(), 1);
        ready.take(&cx, &mut slots);
        slots.sort_unstable();
        assert_eq!(slots, [0, 1], "each once, however often it wakes");
    });
}

#[test]
fn sockets_and_queues_wake_the_same_task() {
    model(|| {
        let socket = Arc::new(Socket::default());
        let reactor = reactor([&socket]);
        let (commands, commands_rx) = handoff(8);
        let asking = thread::spawn(move || commands.push(()).unwrap());
        let mut sessions = Sessions::attach([&socket]);
        let mut asked = false;
        Task::new().run(|cx| {
            asked |= take_one(&commands_rx, cx);
            match sessions.poll(cx, 1) {
                Poll::Ready(()) if asked => Poll::Ready(()),
                Poll::Ready(()) | Poll::Pending => Poll::Pending,
            }
        });
        reactor.join().unwrap();
        asking.join().unwrap();
    });
}

fn take_one(rx: &Receiver<()>, cx: &Context<'_>) -> bool {
    rx.poll_take(cx, &mut VecDeque::new()).is_ready()
}

/// The runtime's thread that learns of events: one for each time that a socket is named.
fn reactor<const N: usize>(sockets: [&Arc<Socket>; N]) -> thread::JoinHandle<()> {
    let sockets = sockets.map(Arc::clone);
    thread::spawn(move || {
        for socket in sockets {
            socket.on_event();
        }
    })
}

/// A socket of the runtime: its readiness is looked at without its lock first and with it once more.
#[derive(Default)]
struct Socket {
    events: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

impl Socket {
    fn on_event(&self) {
        self.events.fetch_add(1, Ordering::AcqRel);
        let waker = self.waker.lock().unwrap().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the events that there are; with none, the waker is told of the next one.
    fn poll(&self, cx: &Context<'_>) -> Poll<usize> {
        if let Some(events) = self.take() {
            return Poll::Ready(events);
        }
        let mut waker = self.waker.lock().unwrap();
        *waker = Some(cx.waker().clone());
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    fn take(&self) -> Option<usize> {
        let events = self.events.swap(0, Ordering::AcqRel);
        (events > 0).then_some(events)
    }
}

/// A session's end at its socket, as the pump holds it.
struct Pump {
    socket: Arc<Socket>,
    ready: Arc<SlotWaker>,
    waker: Waker,
}

impl Pump {
    /// As `Pump::turn`: armed again before the socket is polled, and polled until it has nothing more.
    fn turn(&self) -> usize {
        self.ready.rearm();
        let cx = Context::from_waker(&self.waker);
        let mut events = 0;
        while let Poll::Ready(more) = self.socket.poll(&cx) {
            events += more;
        }
        events
    }
}

/// As the sessions of a connection's task: those that are ready get a turn, and all of them a first one.
struct Sessions {
    pumps: Vec<Pump>,
    ready: Arc<ReadyQueue>,
    runnable: Vec<Slot>,
    /// Looks that found no socket ready, after each of which one wake-up may come.
    empty_looks: usize,
    events: usize,
}

impl Sessions {
    fn attach<const N: usize>(sockets: [&Arc<Socket>; N]) -> Self {
        let ready = Arc::new(ReadyQueue::default());
        let pumps: Vec<Pump> = (0..)
            .zip(sockets)
            .map(|(slot, socket)| {
                let waker = SlotWaker::new(&ready, slot);
                Pump {
                    socket: Arc::clone(socket),
                    ready: Arc::clone(&waker),
                    waker: waker.into(),
                }
            })
            .collect();
        Self {
            runnable: (0..pumps.len() as Slot).collect(),
            pumps,
            ready,
            empty_looks: 0,
            events: 0,
        }
    }

    /// Rounds until so many events have been seen, or until there is nothing to do.
    fn poll(&mut self, cx: &Context<'_>, wanted: usize) -> Poll<()> {
        while self.events < wanted {
            let before = self.runnable.len();
            self.ready.take(cx, &mut self.runnable);
            self.empty_looks += usize::from(self.runnable.len() == before);
            if self.runnable.is_empty() {
                return Poll::Pending;
            }
            for slot in std::mem::take(&mut self.runnable) {
                let slot = usize::try_from(slot).expect("there are two at most");
                self.events += self.pumps[slot].turn();
            }
        }
        Poll::Ready(())
    }
}
