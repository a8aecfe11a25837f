//! What the state machines of both ends took down of a scenario, and that they do the same again (design 8.17).

use std::{fs::File, time::Instant};

use adit_io_common::journal::{JournalFile, read};
use adit_proto_core::journal::{Journal, replay};
use tempfile::TempDir;

pub(crate) struct Recorded {
    folder: TempDir,
    file: JournalFile,
    journal: Journal,
}

impl Recorded {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let file = JournalFile::create(&folder.path().join("journal"), BYTES_MAX).unwrap();
        let journal = Journal::new(Instant::now(), file.sink());
        Self {
            folder,
            file,
            journal,
        }
    }

    pub(crate) fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Replays it. Machines of nodes that were killed may not have told all.
    pub(crate) fn replay(self) {
        self.file.finish();
        let mut file = File::open(self.folder.path().join("journal")).unwrap();
        let recorded = read(&mut file).unwrap();
        assert!(recorded.is_whole, "neither too large nor too fast");
        assert!(!recorded.streams.is_empty());
        let base = Instant::now();
        for (stream, records) in recorded.streams {
            if let Err(fault) = replay(&records, base, &mut |_| {}) {
                panic!("stream {stream} of {} bytes: {fault}", records.len());
            }
        }
    }
}

const BYTES_MAX: u64 = 1 << 30;
