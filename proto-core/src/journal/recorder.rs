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
    digest_key: [u8; 32],
}

enum To {
    Journal {
        sink: Arc<dyn Sink>,
        stream: u64,
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
            stream: journal.sink.begin(),
        };
        Self::new(to, journal.begun, now, begin, journal.digest_key)
    }

    /// Begins to take down what a machine does that is replayed.
    pub(super) fn again(begun: Instant, now: Instant, begin: &Begin) -> Self {
        Self::new(To::Replay, begun, now, begin, [0; 32])
    }

    fn new(to: To, begun: Instant, now: Instant, begin: &Begin, digest_key: [u8; 32]) -> Self {
        let mut recording = Self(Some(Box::new(Recorder {
            to,
            buf: Vec::new(),
            last: now,
            outputs: blake3::Hasher::new(),
            digest_key,
        })));
        recording.put(&(nanoseconds(begun, now), begin));
        recording
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The machine was called; without a time where it asks for none.
    pub(crate) fn call<C: Serialize>(&mut self, now: Option<Instant>, call: impl FnOnce() -> C) {
        if let Some(recorder) = &mut self.0 {
            let now = now.unwrap_or(recorder.last);
            let since = nanoseconds(recorder.last, now);
            recorder.last = now;
            self.put(&Entry::<C, ()>::Call(since, call()));
        }
    }

    /// The machine asked, and was answered.
    pub(crate) fn answer<'a, A: Serialize + 'a>(&mut self, answer: impl FnOnce() -> &'a A) {
        if self.is_on() {
            self.put(&Entry::<(), &A>::Answer(answer()));
        }
    }

    /// The machine did what nobody answers, and what is no output to be seen.
    pub(crate) fn told(&mut self, told: impl FnOnce() -> String) {
        if let Some(recorder) = &mut self.0 {
            recorder.hash(&told());
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

    /// Begins a hash of a user's bytes.
    pub(crate) fn digest(&self) -> Digest {
        let hasher = |recorder: &Recorder| blake3::Hasher::new_keyed(&recorder.digest_key);
        Digest(self.0.as_deref().map(|recorder| Box::new(hasher(recorder))))
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
            Err(_) => return self.0 = None,
        }
        if recorder.buf.len() >= CHUNK {
            self.flush();
        }
    }
}

impl Recorder {
    fn hash(&mut self, text: &str) {
        self.outputs.update(text.as_bytes()).update(b"\n");
    }

    fn flush(&mut self) -> bool {
        let To::Journal { sink, stream } = &self.to else {
            return true;
        };
        if self.buf.is_empty() {
            return true;
        }
        let taken = sink.take(*stream, &self.buf);
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

/// A keyed hash of a user's bytes; none where no journal is kept.
pub(crate) struct Digest(Option<Box<blake3::Hasher>>);

impl Digest {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.0 {
            hasher.update(bytes);
        }
    }

    pub(crate) fn finish(self) -> u64 {
        let mut hash = [0; 8];
        if let Some(hasher) = &self.0 {
            hasher.finalize_xof().fill(&mut hash);
        }
        u64::from_le_bytes(hash)
    }
}

/// From one time to another, which may be before it.
pub(super) fn nanoseconds(from: Instant, to: Instant) -> i64 {
    let count = |span: std::time::Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    match to.checked_duration_since(from) {
        Some(span) => count(span),
        None => -count(from.saturating_duration_since(to)),
    }
}
