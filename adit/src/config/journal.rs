//! The section `[journal]`: where a process takes down what its state machines did.

use std::{num::NonZeroU32, path::PathBuf};

use adit_io_common::journal::check;

use super::{common, file::Kind, parse, reader::Reader};

/// A journal for `adit replay`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// The file.
    pub file: PathBuf,
    /// MiB that it grows to; then it ends.
    pub max_mib: NonZeroU32,
}

/// Reads the section; without a file there is no journal. The outer option is none after a problem.
#[allow(
    clippy::option_option,
    reason = "a problem and an absence are two things"
)]
pub(super) fn journal(r: &mut Reader<'_>) -> Option<Option<JournalConfig>> {
    let file = r.optional("journal.file", Kind::Text, parse::path);
    let max_mib = common::within(r, "journal.max_mib", 64, 1, 1 << 20);
    let (file, max_mib) = (file?, max_mib?);
    if let Some(file) = file.as_ref().filter(|_| r.reads_named_files())
        && let Err(error) = check(&file.value)
    {
        r.problem(file.source.clone(), format!("`journal.file`: {error}"));
        return None;
    }
    Some(file.map(|file| JournalConfig {
        file: file.value,
        max_mib,
    }))
}
