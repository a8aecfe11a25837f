//! The agent's files, off the thread that moves users' bytes.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{AgentInput, KeyPairs};
use crate::{
    handoff::Sender,
    turns::{Turn, Turns},
};

/// Reads and writes key pairs on threads for that. Of each kind of call one is carried out at a time: none overtakes
/// another, and on a disk that hangs no more than one thread of each kind waits.
pub(super) struct Files {
    pairs: Arc<dyn KeyPairs>,
    own: Sender<AgentInput>,
    reads: Turns,
    changes: Turns,
    calls: BTreeMap<u64, Call>,
    number: u64,
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key pair is read: well within the time of an attempt.
    Read,
    /// One is made, written or moved: a slow disk takes a while.
    Change,
}

impl Kind {
    fn patience(self) -> Duration {
        match self {
            Self::Read => Duration::from_secs(5),
            Self::Change => Duration::from_secs(30),
        }
    }
}

/// A call whose answer is waited for.
struct Call {
    until: Instant,
    hung: Box<dyn FnOnce() -> AgentInput + Send>,
    _turn: Turn,
}

/// Why nothing came of a call.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesFault {
    /// What is wrong with the files.
    #[error("{0}")]
    Files(String),
    /// It has panicked.
    #[error("a fault in this program; its log says where")]
    Panicked,
    /// It, or one before it, has not come back. It may end yet, unheard.
    #[error("the disk with this agent's files does not answer; see that it is sound")]
    Hung,
}

impl Files {
    pub(super) fn new(pairs: Arc<dyn KeyPairs>, own: Sender<AgentInput>) -> Self {
        Self {
            pairs,
            own,
            reads: Turns::new("adit-reads"),
            changes: Turns::new("adit-files"),
            calls: BTreeMap::new(),
            number: 0,
        }
    }

    /// Has a call carried out. Its answer comes as an input in any case, and in bounded time: by [`AgentInput::Filed`], or
    /// by [`expire`](Self::expire).
    pub(super) fn ask<T>(
        &mut self,
        now: Instant,
        kind: Kind,
        act: impl FnOnce(&dyn KeyPairs) -> Result<T, String> + Send + 'static,
        news: impl Fn(Result<T, FilesFault>) -> AgentInput + Send + Sync + 'static,
    ) {
        let number = self.number;
        self.number += 1;
        let news = Arc::new(news);
        let mut answer = Answer {
            number,
            own: self.own.clone(),
            panicked: Some({
                let news = Arc::clone(&news);
                move || news(Err(FilesFault::Panicked))
            }),
        };
        let (pairs, tell) = (Arc::clone(&self.pairs), Arc::clone(&news));
        let turns = match kind {
            Kind::Read => &self.reads,
            Kind::Change => &self.changes,
        };
        let turn = turns.run(move || {
            let outcome = act(&*pairs).map_err(FilesFault::Files);
            answer.give(tell(outcome));
        });
        let call = Call {
            until: now + kind.patience(),
            hung: Box::new(move || news(Err(FilesFault::Hung))),
            _turn: turn,
        };
        self.calls.insert(number, call);
    }

    /// Tells whether the answer to a call is still waited for; it is not any more.
    pub(super) fn answered(&mut self, number: u64) -> bool {
        self.calls.remove(&number).is_some()
    }

    /// When [`expire`](Self::expire) is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.calls.values().map(|call| call.until).min()
    }

    /// The answer to a call that is waited for no longer, if there is one.
    pub(super) fn expire(&mut self, now: Instant) -> Option<AgentInput> {
        let due = |(number, call): (&u64, &Call)| (call.until <= now).then_some(*number);
        let number = self.calls.iter().find_map(due)?;
        let call = self.calls.remove(&number)?;
        Some((call.hung)())
    }
}

/// The way of an answer. Without one the call has panicked, or was withdrawn, and then nobody listens.
struct Answer<P: FnOnce() -> AgentInput> {
    number: u64,
    own: Sender<AgentInput>,
    panicked: Option<P>,
}

impl<P: FnOnce() -> AgentInput> Answer<P> {
    fn give(&mut self, input: AgentInput) {
        self.panicked = None;
        self.own
            .push_or_stop(AgentInput::Filed(self.number, Box::new(input)));
    }
}

impl<P: FnOnce() -> AgentInput> Drop for Answer<P> {
    fn drop(&mut self) {
        if let Some(panicked) = self.panicked.take() {
            self.give(panicked());
        }
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files")
            .field("calls", &self.calls.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::mpsc::channel, thread};

    use adit_proto_core::{link::tls::AgentTls, output::Renewed};

    use super::*;
    use crate::{
        agent::{Credentials, KeptPairs, Swap, Validity, renewal::RenewalNews},
        handoff::{Receiver, handoff},
    };

    #[test]
    fn a_call_is_answered_whatever_becomes_of_it() {
        let (own, inputs) = handoff(64);
        let mut files = Files::new(Arc::new(NoPairs), own);
        let now = Instant::now();
        files.ask(now, Kind::Change, |pairs| pairs.request(), told);
        assert_eq!(answer(&mut files, &inputs), "none");
        let panics = |_: &dyn KeyPairs| -> Result<String, _> { panic!("on purpose") };
        files.ask(now, Kind::Change, panics, told);
        assert!(answer(&mut files, &inputs).contains("fault in this program"));
        // The disk hangs until it is told to go on.
        let (go_on, hangs) = channel::<()>();
        let (tell, hanging) = channel();
        let hang = move |_: &dyn KeyPairs| {
            tell.send(()).map_err(|e| e.to_string())?;
            hangs.recv().map_err(|e| e.to_string())?;
            Ok(String::new())
        };
        files.ask(now, Kind::Change, hang, told);
        // One that has not begun would be withdrawn when it is given up.
        hanging.recv().unwrap();
        let (began, begun) = channel();
        for _ in 0..8 {
            let began = began.clone();
            let behind = move |_: &dyn KeyPairs| {
                began.send(()).map_err(|e| e.to_string())?;
                Ok(String::new())
            };
            files.ask(now, Kind::Change, behind, told);
        }
        // Reading does not wait for writing.
        files.ask(now, Kind::Read, |_| Ok("read".to_owned()), told);
        assert_eq!(answer(&mut files, &inputs), "read");
        assert_eq!(files.poll_timeout(), Some(now + Kind::Change.patience()));
        assert!(files.expire(now).is_none());
        for _ in 0..9 {
            let hung = files.expire(now + Kind::Change.patience());
            assert!(text(hung.unwrap()).contains("does not answer"));
        }
        assert_eq!(files.poll_timeout(), None);
        go_on.send(()).unwrap();
        // Those that were given up before they began are never carried out.
        files.ask(now, Kind::Change, |_| Ok("last".to_owned()), told);
        assert_eq!(answer(&mut files, &inputs), "last");
        assert!(begun.try_recv().is_err());
    }

    fn told(outcome: Result<String, FilesFault>) -> AgentInput {
        AgentInput::Renewal(RenewalNews::Requested(outcome.map_err(|e| e.to_string())))
    }

    fn text(input: AgentInput) -> String {
        let AgentInput::Renewal(RenewalNews::Requested(Ok(text) | Err(text))) = input else {
            panic!("{input:?}");
        };
        text
    }

    /// The next answer that is waited for.
    fn answer(files: &mut Files, inputs: &Receiver<AgentInput>) -> String {
        let mut batch = VecDeque::new();
        loop {
            let cx = std::task::Context::from_waker(std::task::Waker::noop());
            if inputs.poll_take(&cx, &mut batch).is_pending() {
                thread::yield_now();
            }
            while let Some(input) = batch.pop_front() {
                let AgentInput::Filed(number, input) = input else {
                    panic!("{input:?}");
                };
                if files.answered(number) {
                    assert!(batch.is_empty());
                    return text(*input);
                }
            }
        }
    }

    /// Has none.
    struct NoPairs;

    impl KeyPairs for NoPairs {
        fn tls(&self, _: Credentials) -> Result<AgentTls, String> {
            Err("none".to_owned())
        }

        fn validity(&self) -> Result<Validity, String> {
            Err("none".to_owned())
        }

        fn kept(&self) -> KeptPairs {
            KeptPairs::default()
        }

        fn swap(&self) -> Swap {
            Swap::WhenIdle
        }

        fn request(&self) -> Result<String, String> {
            Err("none".to_owned())
        }

        fn store(&self, _: Renewed) -> Result<(), String> {
            Err("none".to_owned())
        }

        fn adopt(&self) -> Result<Validity, String> {
            Err("none".to_owned())
        }

        fn discard(&self) -> Result<(), String> {
            Err("none".to_owned())
        }

        fn revert(&self) -> Result<Validity, String> {
            Err("none".to_owned())
        }
    }
}
