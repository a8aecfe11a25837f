//! The queue between tasks, and a task that has several of them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use loom::{model, thread};

use crate::{
    handoff::{Receiver, Rejected, Sender, handoff},
    task::Task,
};

#[test]
fn a_sender_keeps_its_order() {
    model(|| {
        let (tx, rx) = handoff(8);
        let sender = thread::spawn(move || {
            tx.push(1).unwrap();
            assert_eq!(tx.push_all(&mut vec![2, 3]), 0);
            tx.push(4).unwrap();
        });
        let task = Task::new();
        assert_eq!(take(&task, &rx, 4), [1, 2, 3, 4]);
        sender.join().unwrap();
        assert!(task.wakes() <= task.waits(), "woken for nothing");
    });
}

#[test]
fn senders_at_the_same_time_lose_nothing() {
    model(|| {
        let (tx, rx) = handoff(8);
        let other = tx.clone();
        let sender = thread::spawn(move || other.push(10).unwrap());
        let batcher = thread::spawn(move || assert_eq!(tx.push_all(&mut vec![20, 21]), 0));
        let task = Task::new();
        let got = take(&task, &rx, 3);
        assert!([[10, 20, 21], [20, 21, 10]].iter().any(|all| got == all));
        sender.join().unwrap();
        batcher.join().unwrap();
        assert!(task.wakes() <= task.waits(), "woken for nothing");
    });
}

#[test]
fn what_comes_between_two_looks_is_one_wake_up() {
    model(|| {
        let (tx, rx) = handoff(8);
        let task = Task::new();
        let mut batch = VecDeque::new();
        let waker = task.waker();
        let cx = Context::from_waker(&waker);
        assert!(rx.poll_take(&cx, &mut batch).is_pending());
        let other = tx.clone();
        let sender = thread::spawn(move || {
            other.push(1).unwrap();
            other.push(2).unwrap();
        });
        assert_eq!(tx.push_all(&mut vec![3, 4]), 0);
        sender.join().unwrap();
        assert_eq!(task.wakes(), 1);
        assert!(rx.poll_take(&cx, &mut batch).is_ready());
        assert_eq!(batch.len(), 4);
    });
}

#[test]
fn the_bound_holds_and_what_does_not_fit_is_told() {
    const CAPACITY: usize = 2;
    model(|| {
        let (tx, rx) = handoff(CAPACITY);
        let other = tx.clone();
        let sender = thread::spawn(move || {
            let mut dropped = 0;
            for n in [1, 2] {
                match other.push(n) {
                    Ok(()) => {}
                    Err(Rejected::Full(back)) => {
                        assert_eq!(back, n);
                        dropped += 1;
                    }
                    Err(Rejected::Closed(_)) => panic!("nobody has closed it"),
                }
            }
            dropped
        });
        let batcher = thread::spawn(move || tx.push_all(&mut vec![3, 4]));
        let waker = Task::new().waker();
        let cx = Context::from_waker(&waker);
        let mut taken = 0;
        let mut look = || {
            let mut batch = VecDeque::new();
            let _empty = rx.poll_take(&cx, &mut batch);
            assert!(batch.len() <= CAPACITY, "{batch:?}");
            taken += batch.len();
        };
        look();
        let dropped = sender.join().unwrap() + batcher.join().unwrap();
        look();
        assert_eq!(taken + dropped, 4);
    });
}

#[test]
fn a_task_that_has_moved_is_woken_where_it_is() {
    model(|| {
        let (tx, rx) = handoff(8);
        let former = Task::new().waker();
        let mut batch = VecDeque::new();
        let looked = rx.poll_take(&Context::from_waker(&former), &mut batch);
        assert!(looked.is_pending());
        let sender = thread::spawn(move || tx.push(1).unwrap());
        assert_eq!(take(&Task::new(), &rx, 1), [1]);
        sender.join().unwrap();
    });
}

#[test]
fn what_is_pushed_as_the_receiver_goes_is_given_back_or_dropped() {
    model(|| {
        let ended = Arc::new(AtomicUsize::new(0));
        let (tx, rx) = handoff(8);
        let senders = [false, true].map(|batch| {
            let (tx, ended) = (tx.clone(), Arc::clone(&ended));
            thread::spawn(move || {
                if batch {
                    tx.push_all(&mut vec![Counted(Arc::clone(&ended)), Counted(ended)]);
                } else if let Err(back) = tx.push(Counted(ended)) {
                    assert!(matches!(back, Rejected::Closed(Counted(_))));
                }
            })
        });
        drop(rx);
        for sender in senders {
            sender.join().unwrap();
        }
        // None is left in a queue that nobody looks at, although a sender lives.
        assert_eq!(ended.load(Ordering::Relaxed), 3);
        assert!(matches!(
            tx.push(Counted(ended)),
            Err(Rejected::Closed(Counted(_)))
        ));
    });
}

#[test]
fn the_end_of_an_item_may_push() {
    model(|| {
        let (tx, rx) = handoff(8);
        assert!(tx.push(Echo(Some(tx.clone()))).is_ok());
        let other = tx.clone();
        let sender = thread::spawn(move || {
            let _closed = other.push(Echo(None));
        });
        drop(rx);
        sender.join().unwrap();
        assert!(tx.push(Echo(None)).is_err());
    });
}

#[test]
fn a_task_misses_none_of_its_queues() {
    model(|| {
        let (inbox, inbox_rx) = handoff(8);
        let (commands, commands_rx) = handoff(8);
        let receiving = thread::spawn(move || {
            assert_eq!(inbox.push_all(&mut vec![1, 2]), 0);
        });
        let asking = thread::spawn(move || commands.push(3).unwrap());
        let mut got = Vec::new();
        Task::new().run(|cx| {
            loop {
                if !round(cx, &[&inbox_rx, &commands_rx], &mut got) {
                    return Poll::Pending;
                }
                if got.len() == 3 {
                    return Poll::Ready(());
                }
            }
        });
        receiving.join().unwrap();
        asking.join().unwrap();
    });
}

#[test]
fn who_asks_a_task_that_ends_is_not_left_waiting() {
    model(|| {
        let (commands, commands_rx) = handoff(8);
        let stopping = commands.clone();
        let stop = thread::spawn(move || assert!(stopping.push(Command::Stop).is_ok()));
        let ask = thread::spawn(move || {
            let asker = Task::new();
            let over = Arc::new(AtomicUsize::new(0));
            let reply = Reply(Arc::clone(&over), Arc::clone(&asker));
            // Given back or accepted: the end of the reply is the least that comes of it.
            drop(commands.push(Command::Ask(reply)));
            asker.run(|_| match over.load(Ordering::Relaxed) {
                0 => Poll::Pending,
                _ => Poll::Ready(()),
            });
        });
        let mut batch = VecDeque::new();
        Task::new().run(|cx| {
            while commands_rx.poll_take(cx, &mut batch).is_ready() {
                while let Some(command) = batch.pop_front() {
                    match command {
                        Command::Ask(reply) => drop(reply),
                        Command::Stop => return Poll::Ready(()),
                    }
                }
            }
            Poll::Pending
        });
        // The end of the task, with what it took and did not come to.
        drop((commands_rx, batch));
        stop.join().unwrap();
        ask.join().unwrap();
    });
}

/// Waits for so many items.
fn take(task: &Arc<Task>, rx: &Receiver<u32>, count: usize) -> Vec<u32> {
    let mut got = Vec::new();
    let mut batch = VecDeque::new();
    task.run(|cx| {
        while rx.poll_take(cx, &mut batch).is_ready() {
            got.extend(batch.drain(..));
            if got.len() == count {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    });
    got
}

/// Looks at each queue once, as a connection's task does in each of its rounds; tells whether there was anything.
fn round(cx: &Context<'_>, queues: &[&Receiver<u32>], got: &mut Vec<u32>) -> bool {
    let mut any = false;
    let mut batch = VecDeque::new();
    for queue in queues {
        any |= queue.poll_take(cx, &mut batch).is_ready();
        got.extend(batch.drain(..));
    }
    any
}

/// Counts its end.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// At its end it pushes to the queue that it was in, as a session does that tells of its end.
struct Echo(Option<Sender<Self>>);

impl Drop for Echo {
    fn drop(&mut self) {
        if let Some(tx) = self.0.take() {
            assert!(matches!(tx.push(Self(None)), Err(Rejected::Closed(_))));
        }
    }
}

enum Command {
    Ask(Reply),
    Stop,
}

/// Wakes whoever waits for it when it ends, answered or not.
struct Reply(Arc<AtomicUsize>, Arc<Task>);

impl Drop for Reply {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Relaxed);
        self.1.waker().wake();
    }
}
