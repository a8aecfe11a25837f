//! One state folder between two processes.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::{env, process::Command};

use adit::{
    state::{StateDir, StateError},
    store::{Store, StoreError},
};

#[test]
fn second_process_is_kept_out() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state");
    let dir = StateDir::open(&path).unwrap();
    let held = dir.lock().unwrap();
    let store = Store::open(&dir).unwrap();
    assert_eq!(verdict(&path), "lock: taken, store: taken");
    drop(store);
    drop(held);
    assert_eq!(verdict(&path), "lock: free, store: free");
}

/// Runs in a process of its own, started by the test above; does nothing otherwise.
#[test]
fn other_process() {
    let Some(path) = env::var_os(PATH) else {
        return;
    };
    let dir = StateDir::open(path).unwrap();
    let lock = match dir.lock() {
        Ok(_) => "free",
        Err(StateError::Locked { .. }) => "taken",
        Err(e) => panic!("{e}"),
    };
    let store = match Store::open(&dir) {
        Ok(_) => "free",
        Err(StoreError::InUse { .. }) => "taken",
        Err(e) => panic!("{e}"),
    };
    println!("\nlock: {lock}, store: {store}");
}

fn verdict(path: &std::path::Path) -> String {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "other_process", "--nocapture"])
        .env(PATH, path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("lock: "));
    line.unwrap_or(&text).to_owned()
}

const PATH: &str = "ADIT_TEST_STATE_DIR";
