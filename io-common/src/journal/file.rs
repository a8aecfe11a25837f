//! Writes a journal, on a thread of its own: a disk that hangs stops nothing.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use adit_proto_core::journal::Sink;

use super::{
    Chain, Head, OVERHEAD,
    place::{CreateError, make},
    queue::{End, Queue, Writer},
};

/// A journal that is being written. Dropping it ends the journal behind what was handed on, and waits two seconds at most for
/// the disk. What comes later is not taken.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    head: Vec<u8>,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
    /// The file, which another process is kept from until this is dropped, also where the journal ends earlier.
    held: Option<File>,
}

impl JournalFile {
    /// A journal that takes records from now on, in memory at first, and whose file will grow to `bytes_max` at most. Nothing
    /// is touched before [`start`](Self::start).
    #[must_use]
    pub fn new(path: &Path, head: &Head, bytes_max: u64) -> Self {
        let head = head.line().into_bytes();
        let rest = bytes_max.saturating_sub((head.len() + OVERHEAD) as u64);
        Self {
            path: path.to_owned(),
            head,
            queue: Arc::new(Queue::new(path.display().to_string(), rest)),
            thread: None,
            held: None,
        }
    }

    /// Makes the file, which only its owner may read, and begins to write. A journal that was there is kept as `PATH.1`, the
    /// one before as `PATH.2`, and so on up to [`KEPT`](super::KEPT).
    ///
    /// # Errors
    /// [`CreateError`]. Nothing but journals is moved.
    pub fn start(&mut self) -> Result<(), CreateError> {
        let file = make(&self.path)?;
        let held = file.try_clone().map_err(CreateError::io(&self.path))?;
        self.held = Some(held);
        let begun = self.write_to(file);
        begun.map_err(CreateError::io(&self.path))
    }

    /// Makes a journal whose writer does not matter, and begins to write at once.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn create(path: &Path, bytes_max: u64) -> Result<Self, CreateError> {
        let mut journal = Self::new(path, &Head::new("none", "none", 0), bytes_max);
        journal.start()?;
        Ok(journal)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where machines hand their records to.
    #[must_use]
    pub fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.queue) as _
    }

    /// Ends it, as dropping it does.
    pub fn finish(self) {
        drop(self);
    }

    /// Begins to write, on a thread.
    pub(super) fn write_to(&mut self, mut out: impl Write + Send + 'static) -> io::Result<()> {
        let writer = Writer::new(&self.queue);
        let head = self.head.clone();
        let write = move || {
            if let Err(error) = write(&mut out, &head, &writer) {
                writer
                    .queue()
                    .cut(&format_args!("it cannot be written: {error}"));
            }
            // Whoever waits for the writer finds the file closed.
            drop(out);
        };
        let thread = thread::Builder::new().name("journal".into());
        self.thread = Some(thread.spawn(write)?);
        Ok(())
    }
}

impl Drop for JournalFile {
    fn drop(&mut self) {
        self.queue.finish();
        let Some(thread) = self.thread.take() else {
            return;
        };
        if self.queue.has_ended(PATIENCE) {
            let _panicked = thread.join();
        } else {
            let path = self.path.display();
            tracing::warn!(%path, "the disk does not take the rest of the journal; it has no end");
        }
    }
}

fn write(out: &mut impl Write, head: &[u8], writer: &Writer) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    let mut chain = Chain::begin(head);
    let mut waiting = Vec::new();
    out.write_all(head)?;
    loop {
        // Whoever reads it after a crash finds all that there was.
        out.flush()?;
        let end = writer.wait(&mut waiting);
        for (chunk, stream, records) in chunks(&waiting) {
            out.write_all(chunk)?;
            out.write_all(&chain.carry_on(stream, records))?;
        }
        waiting.clear();
        waiting.shrink_to(BUFFER);
        match end {
            None => {}
            Some(End::Cut) => return out.flush(),
            Some(End::Whole) => {
                out.write_all(&[0; 4 + 8])?;
                out.write_all(&chain.carry_on(0, &[]))?;
                return out.flush();
            }
        }
    }
}

/// Splits what a queue holds: each chunk whole, its stream and its records.
fn chunks(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], u64, &[u8])> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (stream, rest) = rest.split_first_chunk()?;
        let records = rest.get(..u32::from_le_bytes(*len) as usize)?;
        let (chunk, rest) = bytes.split_at(4 + 8 + records.len());
        bytes = rest;
        Some((chunk, u64::from_le_bytes(*stream), records))
    })
}

/// Time that a disk has for what is left at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes that are written at once, and that a queue at rest may keep.
const BUFFER: usize = 64 << 10;
