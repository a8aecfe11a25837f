//! What a journal was handed and has not written yet. Machines never wait for the disk: they find room here, or the journal ends.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use adit_proto_core::journal::Sink;

use super::{CHUNK_MAX, OVERHEAD, WAITING_MAX};

/// Between the machines of a process and the thread that writes.
#[derive(Debug)]
pub(super) struct Queue {
    next: AtomicU64,
    pending: Mutex<Pending>,
    /// For the thread: there is something to do.
    filled: Condvar,
    /// For who waits for the thread: it has ended.
    emptied: Condvar,
    /// What the log calls it.
    name: String,
}

#[derive(Debug)]
struct Pending {
    /// Chunks without their hashes, as they are to be written.
    chunks: Vec<u8>,
    /// Bytes that the file may still grow by.
    left: u64,
    /// Nothing more is taken.
    end: Option<End>,
    has_writer: bool,
}

/// How a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything was taken.
    Whole,
    /// Something was not.
    Cut,
}

/// Why a journal ends before its time.
#[derive(Debug)]
enum Refusal {
    Full,
    Slow,
    TooMuch(usize),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("it is as large as it may be: raise journal.max_mib"),
            Self::Slow => write!(
                f,
                "the disk is too slow for it: {} MiB wait",
                WAITING_MAX >> 20
            ),
            Self::TooMuch(len) => write!(
                f,
                "a machine told {len} bytes at once, and the format takes {CHUNK_MAX}: no setting helps"
            ),
        }
    }
}

impl Queue {
    /// A file may hold so many bytes of chunks.
    pub(super) fn new(name: String, bytes_max: u64) -> Self {
        Self {
            next: AtomicU64::new(0),
            pending: Mutex::new(Pending {
                chunks: Vec::new(),
                left: bytes_max,
                end: None,
                has_writer: false,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            name,
        }
    }

    /// Takes nothing more, and has the writer end behind what was taken.
    pub(super) fn finish(&self) {
        self.lock().end.get_or_insert(End::Whole);
        self.filled.notify_one();
    }

    /// Waits for the writer's end, so long at most; tells whether there is none left.
    pub(super) fn has_ended(&self, patience: Duration) -> bool {
        let pending = self.lock();
        let waited = self
            .emptied
            .wait_timeout_while(pending, patience, |pending| pending.has_writer);
        let (pending, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !pending.has_writer
    }

    /// Ends the journal before its time. What was taken stays good.
    pub(super) fn cut(&self, why: &dyn fmt::Display) {
        if self.lock().end.replace(End::Cut) != Some(End::Cut) {
            self.filled.notify_one();
            let (path, why) = (&self.name, why.to_string());
            tracing::warn!(%path, why, "the journal ends here; sessions go on");
        }
    }

    /// A panic elsewhere leaves it as it was: nothing in its use panics half-way.
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Queue {
    fn begin(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn take(&self, stream: u64, records: &[u8]) -> bool {
        let mut pending = self.lock();
        if pending.end.is_some() {
            return false;
        }
        let taken = pending.push(stream, records);
        drop(pending);
        match &taken {
            Ok(()) => self.filled.notify_one(),
            Err(refusal) => self.cut(refusal),
        }
        taken.is_ok()
    }
}

impl Pending {
    fn push(&mut self, stream: u64, records: &[u8]) -> Result<(), Refusal> {
        if records.is_empty() {
            // Its chunk would be the end.
            return Ok(());
        }
        let len = match u32::try_from(records.len()) {
            Ok(len) if records.len() <= CHUNK_MAX => len,
            Ok(_) | Err(_) => return Err(Refusal::TooMuch(records.len())),
        };
        let bytes = records.len() + OVERHEAD;
        if self.chunks.len() + bytes > WAITING_MAX {
            return Err(Refusal::Slow);
        }
        let left = self.left.checked_sub(bytes as u64);
        self.left = left.ok_or(Refusal::Full)?;
        self.chunks.extend(len.to_le_bytes());
        self.chunks.extend(stream.to_le_bytes());
        self.chunks.extend(records);
        Ok(())
    }
}

/// The thread's end of a queue. Where it is dropped there is no writer any more.
#[derive(Debug)]
pub(super) struct Writer(Arc<Queue>);

impl Writer {
    /// Made before the thread, so that nobody takes a writer that has yet to begin for one that has ended.
    pub(super) fn new(queue: &Arc<Queue>) -> Self {
        queue.lock().has_writer = true;
        Self(Arc::clone(queue))
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.0
    }

    /// Waits for chunks, and exchanges an empty buffer for them. Says how the journal ends where nothing comes behind them.
    pub(super) fn wait(&self, chunks: &mut Vec<u8>) -> Option<End> {
        let pending = self.0.lock();
        let waited = self.0.filled.wait_while(pending, |pending| {
            pending.chunks.is_empty() && pending.end.is_none()
        });
        let mut pending = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut pending.chunks, chunks);
        pending.end
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut pending = self.0.lock();
        pending.has_writer = false;
        pending.chunks = Vec::new();
        self.0.emptied.notify_all();
    }
}
