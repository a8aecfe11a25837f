//! Processes whose UDP socket fails when that is wanted.

use std::{fs, path::PathBuf, process::Command};

use super::{preload::library, site::Site};

/// One process's socket.
pub(crate) struct Deaf {
    file: PathBuf,
    library: PathBuf,
}

impl Deaf {
    pub(crate) fn new(site: &Site) -> Self {
        Self {
            file: site.path("deaf"),
            library: library(site, "deaf"),
        }
    }

    /// The same command in a process that has the socket.
    pub(crate) fn with(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("DEAF_FILE", &self.file);
        command
    }

    /// Has it receive nothing but errors from here on.
    pub(crate) fn fail(&self) {
        fs::write(&self.file, "").unwrap();
    }
}
