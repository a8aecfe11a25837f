//! Processes that die at a chosen step of what they do to their files.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{preload::library, site::Site};

/// Which files are watched.
pub(crate) struct Crash {
    /// What stands between a process and its files.
    library: PathBuf,
    folder: PathBuf,
    names: &'static str,
}

impl Crash {
    /// Watches the files of a folder whose names contain a text, and the folder.
    pub(crate) fn new(site: &Site, folder: &Path, names: &'static str) -> Self {
        Self {
            library: library(site, "crash"),
            folder: folder.to_owned(),
            names,
        }
    }

    /// The same command in a process that dies at the n-th step.
    pub(crate) fn at(&self, step: usize, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("CRASH_AT", step.to_string())
            .env("CRASH_FILE", self.names)
            .env("CRASH_DIR", &self.folder);
        command
    }
}
