//! Every line of the agent tunnel's golden vectors, made by the reference encoder and decoder.

mod fields;
mod lines;
mod routing;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Reads a file of vectors, one JSON object per line.
///
/// The folder is the one that `ADIT_VECTORS_DIR` names, else the committed one. A folder from outside may hold only
/// one of the two files, or another protocol's; what is missing then has no lines.
///
/// # Panics
/// If the file is missing, cannot be read, is empty or holds a line that is not JSON.
pub(crate) fn load(name: &str) -> Vec<Value> {
    let outside = std::env::var_os("ADIT_VECTORS_DIR").map(PathBuf::from);
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let folder = outside.as_ref().unwrap_or(&committed);
    let path = folder.join(name);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e)
            if e.kind() == ErrorKind::NotFound
                && outside.is_some()
                && FILES
                    .iter()
                    .chain(&OTHERS)
                    .any(|file| folder.join(file).exists()) =>
        {
            return Vec::new();
        }
        Err(e) => panic!("{}: {e}", path.display()),
    };
    let lines: Vec<Value> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}")))
        .collect();
    assert!(!lines.is_empty(), "{} has no lines", path.display());
    lines
}

#[test]
fn every_line_agrees_with_the_reference() {
    let lines = load(FILES[0]);
    let failures: Vec<String> = lines
        .iter()
        .filter_map(|line| {
            let why = lines::check(line).err()?;
            let (id, note) = (&line["id"], &line["note"]);
            Some(format!("{id} ({note}): {why}"))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} lines fail:\n{}",
        failures.len(),
        lines.len(),
        failures.join("\n")
    );
}

/// The codec's lines and the routing decisions.
const FILES: [&str; 2] = ["agent-tunnel.jsonl", "agent-tunnel-routing.jsonl"];
/// The other protocols'.
const OTHERS: [&str; 2] = ["peer-rpc.jsonl", "replica-handshake.jsonl"];
