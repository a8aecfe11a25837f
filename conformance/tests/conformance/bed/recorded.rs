//! What the state machines of both ends took down of a scenario, and that they do the same again (design 8.17).

use std::{fs::File, time::Instant};

use adit_io_common::journal::{JournalFile, read};
use adit_proto_core::journal::{Journal, replay};
use tempfile::TempDir;

use super::sequences::{Sequence, Sequences};

pub(crate) struct Recorded {
    folder: TempDir,
    file: JournalFile,
    journal: Journal,
    passed_over: &'static [&'static str],
    only_used: bool,
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
            passed_over: &[],
            only_used: false,
        }
    }

    pub(crate) fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Has these calls and events count for nothing where sequences are compared.
    pub(crate) fn pass_over(&mut self, these: &'static [&'static str]) {
        self.passed_over = these;
    }

    /// Has connections without a session count for nothing where sequences are compared: an agent that is sent away comes
    /// back, and how often, and how far it gets with a gateway that is leaving, is a matter of luck.
    pub(crate) fn compare_used_only(&mut self) {
        self.only_used = true;
    }

    /// Replays it, and gives what was told and said. Machines of nodes that were killed may not have told all.
    pub(crate) fn replay(self) -> Sequences {
        self.file.finish();
        let mut file = File::open(self.folder.path().join("journal")).unwrap();
        let recorded = read(&mut file).unwrap();
        assert!(recorded.is_whole, "neither too large nor too fast");
        assert!(!recorded.streams.is_empty());
        let base = Instant::now();
        let mut sequences = Sequences::default();
        for (stream, records) in recorded.streams {
            let mut sequence = Sequence::new(self.passed_over);
            match replay(&records, base, &mut |line| sequence.take(&line)) {
                Ok(_) if self.only_used && !sequence.has_sessions() => {}
                Ok(summary) => sequences.add(&summary.machine, &sequence),
                Err(fault) => panic!("stream {stream} of {} bytes: {fault}", records.len()),
            }
        }
        sequences
    }
}

const BYTES_MAX: u64 = 1 << 30;
