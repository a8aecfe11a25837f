//! Does again what a machine did, and compares.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Begin, Entry, Recording, Records, entry::NoAnswer, recorder::nanoseconds};
use crate::{
    agent::supervisor::{self, Supervisor},
    connection::{self, Connection},
    gateway::dispatch::{self, Dispatch},
    link::{
        Link,
        tape::{Answer, Tape},
    },
};

/// What a machine was told, or said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Nanoseconds after the beginning of the journal, or before it.
    pub at: i64,
    /// Which, and what.
    pub said: Said,
}

/// Either side of the talk with a machine. Of users' bytes there are numbers only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Its driver called it.
    Call(String),
    /// It gave an output.
    Output(String),
}

/// A stream that was replayed whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Which machine.
    pub machine: String,
    /// Calls that it had.
    pub calls: u64,
    /// Outputs that it gave.
    pub outputs: u64,
    /// Hash of all that it gave out, what it told QUIC included.
    pub hash: [u8; 32],
}

/// Why a stream was not replayed to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes are no records.
    #[error("byte {at} of the stream is no record: the journal is damaged, or of another version")]
    Damaged {
        /// Offset in the stream, in bytes.
        at: usize,
    },
    /// The machine did something else than the journal says.
    #[error(
        "the machine does not do what it did, from byte {at} of the stream on, {ms} ms after the journal began: the \
         journal was changed or is of another version, or the machine depends on something that is not taken down"
    )]
    Differs {
        /// Offset in the stream, in bytes.
        at: usize,
        /// Milliseconds after the beginning of the journal.
        ms: i64,
    },
}

/// Replays the stream of one machine; `line` gets each of its calls and outputs, in order. `base` is what the beginning of the journal is
/// taken for; any time will do that has a century before and after it.
///
/// # Errors
/// [`Fault`].
pub fn replay(records: &[u8], base: Instant, line: &mut dyn FnMut(Line)) -> Result<Summary, Fault> {
    let damaged = Fault::Damaged { at: 0 };
    let Ok(((offset, begin), rest)) = postcard::take_from_bytes::<(i64, Begin)>(records) else {
        return Err(damaged);
    };
    let now = moved(base, offset).ok_or_else(|| damaged.clone())?;
    let recording = Recording::again(base, now, &begin);
    let (head, _) = records.split_at(records.len() - rest.len());
    let run = Run {
        base,
        now,
        head,
        line,
    };
    let name = begin.to_string();
    match begin {
        Begin::Agent { .. } | Begin::Gateway { .. } => {
            let link = Link::replay(Tape::new(Records::new(rest.to_vec())), recording);
            let conn = Connection::replay(now, begin, link).ok_or(damaged)?;
            run.finish(name, OnTape(conn))
        }
        Begin::Dispatch(config) => {
            let records = Records::new(rest.to_vec());
            let machine = Dispatch::replay(config, recording);
            run.finish(name, Plain { records, machine })
        }
        Begin::Supervisor {
            gateways,
            kept,
            seed,
        } => {
            let records = Records::new(rest.to_vec());
            let machine = Supervisor::replay(now, gateways, kept, seed, recording);
            let machine = machine.map_err(|_| damaged)?;
            run.finish(name, Plain { records, machine })
        }
    }
}

/// One replay under way.
struct Run<'a> {
    /// What the beginning of the journal is taken for.
    base: Instant,
    now: Instant,
    /// The stream up to its first call.
    head: &'a [u8],
    line: &'a mut dyn FnMut(Line),
}

impl Run<'_> {
    fn finish<M: Replayed>(mut self, machine: String, mut replayed: M) -> Result<Summary, Fault> {
        let start = self.head.len();
        if replayed.recording().take() != self.head {
            return Err(self.differs(0));
        }
        let (mut calls, mut outputs) = (0, 0);
        loop {
            let from = replayed.records().at();
            match replayed.records().next() {
                Some(Entry::Call(since, call)) => {
                    let damaged = Fault::Damaged { at: start + from };
                    self.now = moved(self.now, since).ok_or(damaged)?;
                    self.tell(Said::Call(format!("{call:?}")));
                    replayed.call(self.now, call);
                    calls += 1;
                }
                Some(Entry::Output(_)) => {
                    let output = replayed.output(self.now);
                    let output = output.ok_or_else(|| self.differs(start + from))?;
                    self.tell(Said::Output(output));
                    outputs += 1;
                }
                // It has asked for less than it did.
                Some(Entry::Answer(_)) => return Err(self.differs(start + from)),
                None if replayed.records().is_read() => break,
                None => return Err(Fault::Damaged { at: start + from }),
            }
            let to = replayed.records().at();
            let again = replayed.recording().take();
            if again != replayed.records().between(from, to) {
                return Err(self.differs(start + from));
            }
        }
        Ok(Summary {
            machine,
            calls,
            outputs,
            hash: replayed.recording().outputs(),
        })
    }

    fn tell(&mut self, said: Said) {
        let at = nanoseconds(self.base, self.now);
        (self.line)(Line { at, said });
    }

    fn differs(&self, at: usize) -> Fault {
        let ms = nanoseconds(self.base, self.now) / 1_000_000;
        Fault::Differs { at, ms }
    }
}

/// A machine that is called again.
trait Replayed {
    type Call: Debug + Serialize + DeserializeOwned;
    type Answer: Serialize + DeserializeOwned;

    fn records(&mut self) -> &mut Records<Self::Call, Self::Answer>;
    fn recording(&mut self) -> &mut Recording;
    fn call(&mut self, now: Instant, call: Self::Call);
    fn output(&mut self, now: Instant) -> Option<String>;
}

/// A connection; it reads its answers itself.
struct OnTape(Connection);

impl Replayed for OnTape {
    type Call = connection::Call;
    type Answer = Answer;

    #[expect(clippy::expect_used, reason = "it was made with a tape")]
    fn records(&mut self) -> &mut Records<Self::Call, Answer> {
        self.0.tape().expect("a tape").records()
    }

    fn recording(&mut self) -> &mut Recording {
        self.0.recording()
    }

    fn call(&mut self, now: Instant, call: Self::Call) {
        self.0.apply(now, call);
    }

    fn output(&mut self, _now: Instant) -> Option<String> {
        self.0
            .poll_event()
            .map(|event| connection::describe(&event))
    }
}

/// A machine that asks nothing.
struct Plain<M, C> {
    records: Records<C, NoAnswer>,
    machine: M,
}

impl Replayed for Plain<Dispatch, dispatch::Call> {
    type Call = dispatch::Call;
    type Answer = NoAnswer;

    fn records(&mut self) -> &mut Records<Self::Call, NoAnswer> {
        &mut self.records
    }

    fn recording(&mut self) -> &mut Recording {
        self.machine.recording()
    }

    fn call(&mut self, now: Instant, call: Self::Call) {
        self.machine.apply(now, call);
    }

    fn output(&mut self, _now: Instant) -> Option<String> {
        self.machine
            .poll_output()
            .map(|output| format!("{output:?}"))
    }
}

impl Replayed for Plain<Supervisor, supervisor::Call> {
    type Call = supervisor::Call;
    type Answer = NoAnswer;

    fn records(&mut self) -> &mut Records<Self::Call, NoAnswer> {
        &mut self.records
    }

    fn recording(&mut self) -> &mut Recording {
        self.machine.recording()
    }

    fn call(&mut self, now: Instant, call: Self::Call) {
        self.machine.apply(now, call);
    }

    fn output(&mut self, now: Instant) -> Option<String> {
        self.machine
            .poll_step()
            .map(|step| supervisor::describe(&step, now))
    }
}

fn moved(from: Instant, nanoseconds: i64) -> Option<Instant> {
    let span = Duration::from_nanos(nanoseconds.unsigned_abs());
    match nanoseconds < 0 {
        true => from.checked_sub(span),
        false => from.checked_add(span),
    }
}
