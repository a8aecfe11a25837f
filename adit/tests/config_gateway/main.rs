//! The gateway's configuration: each bad input and what is said about it.
#![cfg(feature = "gateway")]
#![allow(
    clippy::unwrap_used,
    reason = "a failed test may panic, in its helpers too"
)]

mod peers;
mod problems;
mod values;
mod ways_in;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use adit::config::{ConfigError, GatewayConfig, Loaded, Override, Surroundings};

fn load_with(
    dir: &Path,
    text: &str,
    overrides: &[Override],
    vars: &[(&str, &str)],
) -> Result<Loaded<GatewayConfig>, ConfigError> {
    let path = dir.join("gateway.toml");
    fs::write(&path, text).unwrap();
    let mut vars = vars.to_vec();
    vars.push(("HOME", "/home/u"));
    GatewayConfig::load(
        Some((path, true)),
        overrides,
        &Surroundings::new(vars, false),
    )
}

fn load(text: &str) -> Result<Loaded<GatewayConfig>, ConfigError> {
    load_with(tempfile::tempdir().unwrap().path(), text, &[], &[])
}

/// The problems without the directory of the file.
fn problems(text: &str) -> Vec<String> {
    let error = load(text).unwrap_err();
    let short = |p: &adit::config::Problem| {
        let line = p.to_string();
        let at = line.find("gateway.toml").unwrap_or_default();
        line[at..].to_owned()
    };
    error.problems.iter().map(short).collect()
}

/// Path of a file of users.
fn users_file(dir: &Path) -> PathBuf {
    let users = dir.join("users");
    fs::write(&users, "alice:secret\n").unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
    users
}

/// Paths of a certificate and its key.
fn operator_pair(dir: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join("c.pem"), dir.join("k.pem"));
    let made = rcgen::generate_simple_self_signed(["gw.example.com".to_owned()]).unwrap();
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert, key)
}
