//! The thread that tells of suppressed lines when nobody writes any more.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::Inner;
use crate::threads::Start;

/// Tells when it is time, on one thread that lives only while there is something to tell.
pub(super) struct Teller {
    start: Start,
    list: Mutex<List>,
    /// Something is to be told earlier than what the thread waits for.
    sooner: Condvar,
}

struct List {
    due: BTreeMap<Instant, Vec<Arc<Inner>>>,
    has_thread: bool,
}

impl Teller {
    pub(super) const fn new(start: Start) -> Self {
        Self {
            start,
            list: Mutex::new(List {
                due: BTreeMap::new(),
                has_thread: false,
            }),
            sooner: Condvar::new(),
        }
    }

    /// Has lines told of at this time.
    pub(super) fn add(&'static self, due: Instant, lines: Arc<Inner>) {
        let mut list = self.lock();
        let first = list.due.first_key_value();
        let is_first = first.is_none_or(|(&first, _)| due < first);
        list.due.entry(due).or_default().push(lines);
        if list.has_thread {
            if is_first {
                self.sooner.notify_one();
            }
        } else if (self.start)("adit-lines", Box::new(|| self.run())).is_ok() {
            list.has_thread = true;
        } else {
            // The next line of the kind tells.
            list.due.clear();
        }
    }

    fn run(&self) {
        while let Some(due) = self.next() {
            for lines in due {
                // A log that cannot be written may panic, and the next lines are to be told all the same.
                let tell = || lines.tell_due(Instant::now());
                drop(catch_unwind(AssertUnwindSafe(tell)));
            }
        }
    }

    /// Waits for what is due next; where there is nothing more the thread ends.
    fn next(&self) -> Option<Vec<Arc<Inner>>> {
        let mut list = self.lock();
        loop {
            let Some(first) = list.due.first_entry() else {
                list.has_thread = false;
                return None;
            };
            let wait = first.key().saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Some(first.remove());
            }
            let waited = self.sooner.wait_timeout(list, wait);
            (list, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A panic elsewhere leaves the list as it was: nothing in its use panics half-way.
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io, mem,
        sync::mpsc::channel,
        thread::{self, JoinHandle},
        time::Duration,
    };

    use super::{
        super::{INTERVAL, Lines},
        *,
    };
    use crate::threads::Work;

    #[test]
    fn all_is_told_and_the_thread_ends() {
        static STARTED: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());
        static TELLER: Teller = Teller::new(|_name, work| {
            STARTED.lock().unwrap().push(thread::spawn(work));
            Ok(())
        });
        let past = Instant::now() - INTERVAL;
        let kinds: Vec<_> = (0..8).map(|n| Lines::new(n.to_string())).collect();
        for lines in &kinds {
            for _ in 0..30 {
                lines.allow_at(past, &TELLER);
            }
        }
        let started = mem::take(&mut *STARTED.lock().unwrap());
        assert!(!started.is_empty());
        for thread in started {
            thread.join().unwrap();
        }
        for lines in kinds {
            assert_eq!(lines.0.lock().suppressed, 0);
            // Neither the list nor a thread has it any more.
            assert_eq!(Arc::strong_count(&lines.0), 1);
        }
        let list = TELLER.lock();
        assert!(list.due.is_empty() && !list.has_thread);
    }

    #[test]
    fn what_is_due_sooner_comes_first() {
        static TELLER: Teller = Teller::new(start);
        static STARTS: Mutex<u32> = Mutex::new(0);
        /// The test does what the thread would.
        fn start(_name: &'static str, _work: Work) -> io::Result<()> {
            *STARTS.lock().unwrap() += 1;
            Ok(())
        }
        let (late, soon) = (Lines::new("late"), Lines::new("soon"));
        let now = Instant::now();
        TELLER.add(now + Duration::from_secs(3600), late.0);
        let (tell, told) = channel();
        thread::spawn(move || tell.send(TELLER.next()));
        TELLER.add(now, Arc::clone(&soon.0));
        let due = told.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
        assert!(due.len() == 1 && Arc::ptr_eq(&due[0], &soon.0));
        // One thread is enough for both.
        assert_eq!(*STARTS.lock().unwrap(), 1);
    }
}
