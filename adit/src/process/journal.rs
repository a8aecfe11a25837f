//! The journal of a process, where its configuration asks for one.

use std::time::Instant;

use adit_io_common::journal::{Head, JournalFile};
use adit_proto_core::{env::Env, journal::Journal};
use clap::ValueEnum;

use crate::{
    config::{Driver, JournalConfig},
    exit::{Code, CommandFailure},
};

/// The journal of a process that starts, to be kept behind what carries the traffic: dropping it ends it.
#[derive(Debug, Default)]
pub(super) struct ProcessJournal(Option<JournalFile>);

impl ProcessJournal {
    /// Begins it, for a process of a role: what the driver is started with. The file is not touched yet.
    pub(super) fn begin(
        config: Option<&JournalConfig>,
        role: &str,
        driver: Driver,
        env: &Env,
    ) -> (Self, Option<Journal>) {
        let Some(JournalConfig { file, max_mib }) = config else {
            return (Self::default(), None);
        };
        let driver = driver.to_possible_value();
        let driver = driver.as_ref().map_or("none", |name| name.get_name());
        let (begun, unix_ms) = (Instant::now(), env.wall_clock.unix_ms());
        let head = Head::new(role, driver, unix_ms);
        let written = JournalFile::new(file, &head, u64::from(max_mib.get()) << 20);
        let journal = Journal::new(begun, written.sink());
        (Self(Some(written)), Some(journal))
    }

    /// Makes the file. Called last in a start: one that fails leaves former journals where they are.
    pub(super) fn start(&mut self) -> Result<(), CommandFailure> {
        let Some(written) = &mut self.0 else {
            return Ok(());
        };
        let failed = |error| CommandFailure::message(Code::Failure, format!("journal: {error}"));
        written.start().map_err(failed)?;
        let path = written.path().display();
        tracing::info!(%path, "journal begun; `adit replay` replays it");
        Ok(())
    }
}
