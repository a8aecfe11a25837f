//! Processes that die at a chosen step of what they do to their files.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::site::Site;

/// Which files are watched.
pub(crate) struct Crash {
    /// What stands between a process and its files, made by the C compiler that the build needs too.
    library: PathBuf,
    folder: PathBuf,
    names: &'static str,
}

impl Crash {
    /// Watches the files of a folder whose names contain a text, and the folder.
    pub(crate) fn new(site: &Site, folder: &Path, names: &'static str) -> Self {
        let library = site.path("crash.so");
        if !library.exists() {
            let made = Command::new("cc")
                .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
                .arg(&library)
                .arg(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/tests/e2e/harness/crash.c"
                ))
                .arg("-ldl")
                .status();
            assert!(made.unwrap().success());
        }
        Self {
            library,
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
