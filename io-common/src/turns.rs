//! Calls that may hang, one at a time and off the thread that asks for them.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::threads::{self, Start, Work};

/// Carries out calls in the order in which they came, one at a time, on a thread that lives only while there are some:
/// none overtakes another, and on a disk that hangs no more than one thread waits. Clones share the thread.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Shared>);

struct Shared {
    name: &'static str,
    start: Start,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Those that have not begun.
    calls: BTreeMap<u64, Work>,
    next: u64,
    has_thread: bool,
}

/// The turn of one call. Dropping it before the call has begun withdraws the call, which is dropped unrun; one that has
/// begun goes on.
#[derive(Debug)]
#[must_use = "dropping a turn withdraws its call"]
pub struct Turn {
    number: u64,
    shared: Arc<Shared>,
}

impl Turns {
    /// Begins without calls; the thread that carries them out will have this name.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self::started_by(threads::start, name)
    }

    fn started_by(start: Start, name: &'static str) -> Self {
        Self(Arc::new(Shared {
            name,
            start,
            queue: Mutex::default(),
        }))
    }

    /// Has a call carried out after all those that were asked for before. Where no thread can be started it is dropped
    /// unrun, before this returns. One that panics ends alone.
    pub fn run(&self, call: impl FnOnce() + Send + 'static) -> Turn {
        let shared = &self.0;
        let mut queue = shared.lock();
        let number = queue.next;
        queue.next += 1;
        queue.calls.insert(number, Box::new(call));
        let mut unrun = None;
        if !queue.has_thread {
            let carry_out = Arc::clone(shared);
            let started = (shared.start)(shared.name, Box::new(move || carry_out.run()));
            queue.has_thread = started.is_ok();
            if !queue.has_thread {
                unrun = queue.calls.remove(&number);
            }
        }
        // What a call holds may call back when it is dropped.
        drop(queue);
        drop(unrun);
        Turn {
            number,
            shared: Arc::clone(shared),
        }
    }
}

impl Shared {
    fn run(&self) {
        while let Some(call) = self.next() {
            drop(catch_unwind(AssertUnwindSafe(call)));
        }
    }

    /// Gives the call whose turn it is; where there is none the thread ends.
    fn next(&self) -> Option<Work> {
        let mut queue = self.lock();
        let call = queue.calls.pop_first();
        queue.has_thread = call.is_some();
        call.map(|(_, call)| call)
    }

    /// A panic elsewhere leaves the queue as it was: no call is run or dropped while it is locked.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let unrun = self.shared.lock().calls.remove(&self.number);
        drop(unrun);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turns({:?})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io, mem,
        sync::mpsc::{Receiver, Sender, channel},
        thread::{self, JoinHandle},
        time::Duration,
    };

    use super::*;

    #[test]
    fn calls_come_one_after_the_other_on_the_thread_of_that_name() {
        let turns = Turns::new("files");
        let (go_on, hangs) = channel();
        let (tell, told) = channel();
        let hung = turns.run(move || hangs.recv().unwrap());
        let call = |n| {
            let (turns, tell) = (turns.clone(), tell.clone());
            turns.run(move || tell.send((n, name())).unwrap())
        };
        let behind: Vec<_> = (0..8).map(call).collect();
        assert!(told.try_recv().is_err());
        go_on.send(()).unwrap();
        for n in 0..8 {
            assert_eq!(next(&told), (n, Some("files".to_owned())));
        }
        drop((hung, behind));
    }

    #[test]
    fn a_panic_ends_its_call_alone() {
        let turns = Turns::new("files");
        let (tell, told) = channel();
        let panics = turns.run(|| panic!("on purpose"));
        let behind = turns.run(move || tell.send(()).unwrap());
        next(&told);
        drop((panics, behind));
    }

    #[test]
    fn what_is_withdrawn_is_dropped_unrun_and_what_has_begun_goes_on() {
        let turns = Turns::new("files");
        let (go_on, hangs) = channel::<()>();
        let (begin, begun) = channel();
        let (tell, told) = channel();
        let tell_first = tell.clone();
        let first = turns.run(move || {
            begin.send(()).unwrap();
            hangs.recv().unwrap();
            tell_first.send("first").unwrap();
        });
        next(&begun);
        drop(first);
        let (guard, dropped) = guard();
        let withdrawn = turns.run(move || guard.send("run").unwrap());
        let last = turns.run(move || tell.send("last").unwrap());
        drop(withdrawn);
        assert!(dropped.recv().is_err());
        go_on.send(()).unwrap();
        assert_eq!((next(&told), next(&told)), ("first", "last"));
        drop(last);
    }

    #[test]
    fn without_a_thread_a_call_is_dropped_unrun() {
        let turns = Turns::started_by(threads::start_none, "files");
        for _ in 0..2 {
            let (guard, dropped) = guard();
            let _turn = turns.run(move || guard.send("run").unwrap());
            assert!(dropped.try_recv().is_err());
            assert!(turns.0.lock().calls.is_empty());
        }
    }

    #[test]
    fn the_thread_ends_with_the_last_call_and_another_comes_when_needed() {
        static STARTED: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());
        fn start(_name: &'static str, work: Work) -> io::Result<()> {
            STARTED.lock().unwrap().push(thread::spawn(work));
            Ok(())
        }
        let turns = Turns::started_by(start, "files");
        for _ in 0..2 {
            let (tell, told) = channel();
            let turn = turns.run(move || tell.send(()).unwrap());
            next(&told);
            let started = mem::take(&mut *STARTED.lock().unwrap());
            assert_eq!(started.len(), 1);
            for thread in started {
                thread.join().unwrap();
            }
            drop(turn);
        }
    }

    /// A call that holds the one end tells by the other that it was dropped.
    fn guard() -> (Sender<&'static str>, Receiver<&'static str>) {
        channel()
    }

    fn next<T>(told: &Receiver<T>) -> T {
        told.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn name() -> Option<String> {
        thread::current().name().map(ToOwned::to_owned)
    }
}
