//! Takes records down.

use std::{fmt, sync::Arc, time::Instant};

use serde::Serialize;

use super::{Begin, Entry, Journal, Sink};

/// What a machine takes down of itself: nothing, unless a journal is kept.
#[derive(Default)]
pub(crate) struct Recording(Option<Box<Recorder>>);

struct Recorder {
    to: To,
    buf: Vec<u8>,
    /// Time of the latest call.
    last: Instant,
    outputs: blake3::Hasher,
    /// Nothing is handed on yet.
    is_held: bool,
}

enum To {
    /// The stream has its name with the first of it that is handed on.
    Journal {
        sink: Arc<dyn Sink>,
        stream: Option<u64>,
    },
    /// Kept, to be compared.
    Replay,
}

/// Records that are handed on at once, in bytes.
const CHUNK: usize = 16 << 10;

impl Recording {
    /// Begins a machine's stream.
    pub(crate) fn begin(journal: &Journal, now: Instant, begin: &Begin) -> Self {
        let to = To::Journal {
            sink: Arc::clone(&journal.sink),
            stream: None,
        };
        Self::new(to, journal.begun, now, begin)
    }

    /// Begins to take down what a machine does that is replayed.
    pub(super) fn again(begun: Instant, now: Instant, begin: &Begin) -> Self {
        Self::new(To::Replay, begun, now, begin)
    }

    fn new(to: To, begun: Instant, now: Instant, begin: &Begin) -> Self {
        let mut recording = Self(Some(Box::new(Recorder {
            to,
            buf: Vec::new(),
            last: now,
            outputs: blake3::Hasher::new(),
            is_held: false,
        })));
        recording.put(&(nanoseconds(begun, now), begin));
        recording
    }

    /// Hands nothing on until [`release`](Self::release): what ends before has not been.
    pub(crate) fn hold(&mut self) {
        if let Some(recorder) = &mut self.0 {
            recorder.is_held = true;
        }
    }

    /// Ends a [`hold`](Self::hold).
    pub(crate) fn release(&mut self) {
        if let Some(recorder) = &mut self.0 {
            recorder.is_held = false;
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The machine was called; without a time where it asks for none.
    pub(crate) fn call<C: Serialize>(&mut self, now: Option<Instant>, call: impl FnOnce() -> C) {
        if let Some(recorder) = &mut self.0 {
            // A stream that ends early ends between two calls, and so can be replayed.
            let is_full = recorder.buf.len() >= CHUNK;
            let now = now.unwrap_or(recorder.last);
            let since = nanoseconds(recorder.last, now);
            recorder.last = now;
            if is_full {
                self.flush();
            }
            self.put(&Entry::<C, ()>::Call(since, call()));
        }
    }

    /// The machine asked, and was answered.
    pub(crate) fn answer<A: Serialize>(&mut self, answer: impl FnOnce() -> A) {
        if self.is_on() {
            self.put(&Entry::<(), A>::Answer(answer()));
        }
    }

    /// The machine did what nobody answers, and what is no output to be seen.
    pub(crate) fn told(&mut self, told: impl FnOnce(Instant) -> String) {
        if let Some(recorder) = &mut self.0 {
            recorder.hash(&told(recorder.last));
        }
    }

    /// The machine gave an output.
    pub(crate) fn output(&mut self, output: impl FnOnce(Instant) -> String) {
        if let Some(recorder) = &mut self.0 {
            recorder.hash(&output(recorder.last));
            let mut hash = [0; 8];
            recorder.outputs.finalize_xof().fill(&mut hash);
            self.put(&Entry::<(), ()>::Output(hash));
        }
    }

    /// Hands on what was taken down: the machine is going to wait.
    pub(crate) fn flush(&mut self) {
        if self.0.as_mut().is_some_and(|recorder| !recorder.flush()) {
            self.0 = None;
        }
    }

    /// Takes what was taken down by a replay.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let buf = self.0.as_mut().map(|recorder| &mut recorder.buf);
        buf.map(std::mem::take).unwrap_or_default()
    }

    /// The hash of all outputs.
    pub(super) fn outputs(&self) -> [u8; 32] {
        let hash = self.0.as_ref().map(|recorder| recorder.outputs.finalize());
        hash.map(Into::into).unwrap_or_default()
    }

    fn put(&mut self, record: &impl Serialize) {
        let Some(recorder) = &mut self.0 else {
            return;
        };
        let buf = std::mem::take(&mut recorder.buf);
        // What cannot be written down never happens; a stream that ends early is as good as any.
        match postcard::to_extend(record, buf) {
            Ok(buf) => recorder.buf = buf,
            Err(_) => self.0 = None,
        }
    }
}

impl Recorder {
    fn hash(&mut self, text: &str) {
        self.outputs.update(text.as_bytes()).update(b"\n");
    }

    fn flush(&mut self) -> bool {
        let To::Journal { sink, stream } = &mut self.to else {
            return true;
        };
        if self.buf.is_empty() {
            return true;
        }
        if self.is_held {
            return self.buf.len() < CHUNK;
        }
        let stream = *stream.get_or_insert_with(|| sink.begin());
        let taken = sink.take(stream, &self.buf);
        self.buf.clear();
        taken
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recording").field(&self.is_on()).finish()
    }
}

/// How long a machine wanted to be left alone, as it is taken down.
pub(crate) fn wait(due: Option<Instant>, now: Instant) -> String {
    format!("{:?}", due.map(|at| nanoseconds(now, at)))
}

/// From one time to another, which may be before it.
pub(super) fn nanoseconds(from: Instant, to: Instant) -> i64 {
    let count = |span: std::time::Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    match to.checked_duration_since(from) {
        Some(span) => count(span),
        None => -count(from.saturating_duration_since(to)),
    }
}
