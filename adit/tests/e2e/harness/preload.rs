//! What stands between a process and its system, to imitate one that fails.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::site::Site;

/// The library of one of the C files beside this one, made by the compiler that the build needs too.
pub(crate) fn library(site: &Site, name: &str) -> PathBuf {
    let library = site.path(&format!("{name}.so"));
    if !library.exists() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/harness");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .arg(Path::new(folder).join(format!("{name}.c")))
            .arg("-ldl")
            .status();
        assert!(made.unwrap().success());
    }
    library
}
