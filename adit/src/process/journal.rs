//! The journal of a process, where its configuration asks for one.

use std::time::Instant;

use adit_io_common::journal::JournalFile;
use adit_proto_core::{env::Env, journal::Journal};

use crate::{
    config::JournalConfig,
    exit::{Code, CommandFailure},
};

/// Begins it: the file, to be finished at the end, and what the driver is started with.
pub(super) fn begin(
    config: Option<&JournalConfig>,
    _env: &Env,
) -> Result<Option<(JournalFile, Journal)>, CommandFailure> {
    let Some(JournalConfig { file, max_mib }) = config else {
        return Ok(None);
    };
    let created = JournalFile::create(file, u64::from(max_mib.get()) << 20);
    let written = created.map_err(|error| {
        let what = format!("journal {}: {error}", file.display());
        CommandFailure::message(Code::Failure, what)
    })?;
    tracing::info!(path = %file.display(), max_mib, "journal begun; `adit replay` replays it");
    let journal = Journal::new(Instant::now(), written.sink());
    Ok(Some((written, journal)))
}
