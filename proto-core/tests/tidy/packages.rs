//! The rules on what packages depend on: read from `cargo tree`, so that what comes through others counts, too.

use std::{collections::BTreeSet, process::Command};

use crate::workspace::root;

/// Packages that the core must not depend on, whether directly or through others. A name that ends with `*` stands for
/// all that begin so.
const NOT_IN_THE_CORE: &[&str] = &[
    "tokio*",
    "async-*",
    "futures*",
    "mio",
    "polling",
    "smol",
    "socket2",
    "quinn",
    "quinn-udp",
    "hyper*",
    "reqwest",
];
/// Packages that no part of adit may bring to its users: one TLS stack, one provider of cryptography, our own sockets.
const NOT_IN_ADIT: &[&str] = &[
    "openssl",
    "openssl-sys",
    "native-tls",
    "ring",
    "quinn",
    "boring*",
    "s2n-*",
];

/// Packages that a build of the agent alone, on mio, must not bring: a runtime, and what only a gateway needs.
const NOT_IN_THE_SMALL_AGENT: &[&str] = &[
    "tokio*",
    "async-*",
    "axum*",
    "hyper*",
    "jsonwebtoken",
    "prometheus-client",
    "redb",
];

#[test]
fn the_core_depends_on_no_driver() {
    let found = forbidden(&tree(&["-p", "adit-proto-core"]), NOT_IN_THE_CORE);
    assert!(found.is_empty(), "the core may not depend on: {found:?}");
}

#[test]
fn what_drivers_share_and_the_driver_mio_need_no_runtime() {
    for package in ["adit-io-common", "adit-io-mio"] {
        let found = forbidden(&tree(&["-p", package]), &["tokio*", "async-*", "smol"]);
        assert!(found.is_empty(), "{package} may not depend on: {found:?}");
    }
}

#[test]
fn there_is_one_tls_stack() {
    let packages = tree(&["--workspace"]);
    let found = forbidden(&packages, NOT_IN_ADIT);
    assert!(found.is_empty(), "adit may not depend on: {found:?}");
    assert!(
        packages.contains("aws-lc-rs"),
        "the tree was not read: {packages:?}"
    );
}

#[test]
fn the_small_agent_has_no_runtime() {
    let part = ["-p", "adit", "--no-default-features", "--features"];
    let packages = tree(&[&part[..], &["agent-mio"]].concat());
    let found = forbidden(&packages, NOT_IN_THE_SMALL_AGENT);
    assert!(
        found.is_empty(),
        "the small agent may not depend on: {found:?}"
    );
    assert!(
        packages.contains("mio"),
        "the tree was not read: {packages:?}"
    );
    let on_tokio = tree(&[&part[..], &["agent-tokio"]].concat());
    assert!(!forbidden(&on_tokio, NOT_IN_THE_SMALL_AGENT).is_empty());
}

#[test]
fn packages_are_matched_by_name() {
    let packages: BTreeSet<String> = ["tokio-util", "mio", "miow", "quinn-proto"]
        .map(str::to_owned)
        .into();
    assert_eq!(forbidden(&packages, NOT_IN_THE_CORE), ["mio", "tokio-util"]);
    // The driver is full of what the core may not have, so a tree that is read wrongly is noticed.
    assert!(!forbidden(&tree(&["-p", "adit-io-tokio"]), NOT_IN_THE_CORE).is_empty());
}

/// Names of the packages in a part of the tree that is built for users: neither for tests nor for build scripts.
fn tree(part: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-e", "normal", "--prefix", "none"])
        .args(part)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("package names are ASCII");
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

fn forbidden(packages: &BTreeSet<String>, patterns: &[&str]) -> Vec<String> {
    let matches = |package: &str, pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => package.starts_with(start),
        None => package == pattern,
    };
    let found = packages
        .iter()
        .filter(|package| patterns.iter().any(|pattern| matches(package, pattern)));
    found.cloned().collect()
}
