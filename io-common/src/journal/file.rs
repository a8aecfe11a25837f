//! Writes a journal, on a thread of its own: a disk that hangs stops nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use adit_proto_core::journal::Sink;

use super::{CHUNK_MAX, Chain, MAGIC, OVERHEAD};

/// Chunks that wait for the disk.
const WAITING_MAX: usize = 4096;

/// A journal that is being written.
#[derive(Debug)]
pub struct JournalFile {
    ways: Arc<Ways>,
    thread: JoinHandle<()>,
}

/// What the machines hand their records to.
#[derive(Debug)]
struct Ways {
    chunks: SyncSender<Chunk>,
    next: AtomicU64,
    /// Bytes that the file may still grow by.
    left: AtomicU64,
    /// Nothing more is taken.
    over: AtomicBool,
    path: PathBuf,
}

#[derive(Debug)]
enum Chunk {
    Records(u64, Vec<u8>),
    /// And whether everything was taken.
    End(bool),
}

impl JournalFile {
    /// Begins a file that grows to `bytes_max` at most; only its owner may read it. One that was there is kept beside it,
    /// as `PATH.1`, in the place of one that was kept before.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path, bytes_max: u64) -> io::Result<Self> {
        if path.try_exists()? {
            let mut kept = path.as_os_str().to_owned();
            kept.push(".1");
            fs::rename(path, kept)?;
        }
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let head = [MAGIC, env!("CARGO_PKG_VERSION").as_bytes(), b"\n"].concat();
        let (chunks, written) = sync_channel(WAITING_MAX);
        let ways = Arc::new(Ways {
            chunks,
            next: AtomicU64::new(0),
            left: AtomicU64::new(bytes_max.saturating_sub((head.len() + OVERHEAD) as u64)),
            over: AtomicBool::new(false),
            path: path.to_owned(),
        });
        let told = Arc::clone(&ways);
        let write = move || {
            let chain = Chain::begin(&head);
            if let Err(error) = write(file, &head, chain, &written) {
                told.end(&format!("it cannot be written: {error}"));
            }
        };
        let thread = thread::Builder::new().name("journal".into()).spawn(write)?;
        Ok(Self { ways, thread })
    }

    /// Where machines hand their records to.
    #[must_use]
    pub fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.ways) as _
    }

    /// Ends the journal behind what was handed on, and waits for the disk. What comes later is not taken.
    pub fn finish(self) {
        let is_whole = !self.ways.over.swap(true, Ordering::Relaxed);
        // A writer that is gone has told why.
        let _gone = self.ways.chunks.send(Chunk::End(is_whole));
        let _panicked = self.thread.join();
    }
}

impl Ways {
    /// Ends the journal before its time. What was taken stays good.
    fn end(&self, why: &str) {
        if !self.over.swap(true, Ordering::Relaxed) {
            let path = self.path.display();
            tracing::warn!(%path, why, "the journal ends here; sessions go on");
        }
    }

    fn reserve(&self, len: usize) -> bool {
        let taken = |left: u64| left.checked_sub(len as u64);
        let order = Ordering::Relaxed;
        self.left.fetch_update(order, order, taken).is_ok()
    }
}

impl Sink for Ways {
    fn begin(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn take(&self, stream: u64, records: &[u8]) -> bool {
        if self.over.load(Ordering::Relaxed) {
            return false;
        }
        if records.len() > CHUNK_MAX || !self.reserve(records.len() + OVERHEAD) {
            self.end("it is as large as it may be: raise journal.max_mib");
            return false;
        }
        match self
            .chunks
            .try_send(Chunk::Records(stream, records.to_vec()))
        {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.end("the disk is too slow for it");
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

fn write(file: File, head: &[u8], mut chain: Chain, chunks: &Receiver<Chunk>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    out.write_all(head)?;
    loop {
        let chunk = match chunks.try_recv() {
            Ok(chunk) => chunk,
            // Whoever reads it after a crash finds all that there was.
            Err(TryRecvError::Empty) => {
                out.flush()?;
                match chunks.recv() {
                    Ok(chunk) => chunk,
                    Err(_) => return Ok(()),
                }
            }
            Err(TryRecvError::Disconnected) => return out.flush(),
        };
        let (stream, records, is_end) = match chunk {
            Chunk::Records(stream, records) => (stream, records, false),
            Chunk::End(true) => (0, Vec::new(), true),
            Chunk::End(false) => return out.flush(),
        };
        let len = u32::try_from(records.len()).map_err(io::Error::other)?;
        out.write_all(&len.to_le_bytes())?;
        out.write_all(&stream.to_le_bytes())?;
        out.write_all(&records)?;
        out.write_all(&chain.carry_on(stream, &records))?;
        if is_end {
            return out.flush();
        }
    }
}
