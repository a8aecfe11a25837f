//! A machine whose wall clock is off, and can be set while processes run.

use std::{fs, path::PathBuf, process::Command};

use super::{preload::library, site::Site};

/// The wall clock of the processes that are started by it.
pub(crate) struct Clock {
    file: PathBuf,
    /// What stands between a process and the system's clock.
    library: PathBuf,
}

impl Clock {
    pub(crate) fn new(site: &Site, name: &str) -> Self {
        let clock = Self {
            file: site.path(&format!("{name}.clock")),
            library: library(site, "clock"),
        };
        clock.set(0);
        clock
    }

    /// Sets it so many seconds ahead of the others; by a rename, so that nobody reads half of it.
    pub(crate) fn set(&self, seconds: i64) {
        let fresh = self.file.with_extension("fresh");
        fs::write(&fresh, seconds.to_string()).unwrap();
        fs::rename(fresh, &self.file).unwrap();
    }

    /// The same command on a machine with this clock.
    pub(crate) fn on(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKE_CLOCK", &self.file);
        command
    }
}

pub(crate) const DAY: i64 = 86_400;
