//! Every line of the replica handshake's golden vectors, made by the reference's own MAC code, dialer and acceptor, and
//! those of sealed links.

mod exchange;
mod lines;
mod sealed;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use adit_proto_core::replica::Conduct;
use serde_json::Value;

/// Reads the vectors, one JSON object per line.
///
/// The folder is the one that `ADIT_VECTORS_DIR` names, else the committed one. A folder from outside may hold the
/// vectors of another protocol only; there are no lines then.
///
/// # Panics
/// If the file is missing where it has to be, cannot be read, is empty or holds a line that is not JSON.
fn load() -> Vec<Value> {
    let outside = std::env::var_os("ADIT_VECTORS_DIR").map(PathBuf::from);
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let folder = outside.as_ref().unwrap_or(&committed);
    let path = folder.join("replica-handshake.jsonl");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound && outside.is_some() && has_others(folder) => {
            return Vec::new();
        }
        Err(e) => panic!("{}: {e}", path.display()),
    };
    let lines: Vec<Value> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}")))
        .map(without_nulls)
        .collect();
    assert!(!lines.is_empty(), "{} has no lines", path.display());
    lines
}

/// A field that is null says what one that is missing says.
fn without_nulls(mut line: Value) -> Value {
    if let Some(fields) = line.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    line
}

/// Tells whether a folder has what another protocol's tests read.
fn has_others(folder: &Path) -> bool {
    OTHERS.iter().any(|file| folder.join(file).exists())
}

/// The lines that are not met, with the reasons.
fn failures(lines: &[Value], conduct: Conduct) -> Vec<(&Value, String)> {
    let failed = lines.iter().filter_map(|line| {
        let why = lines::check(line, conduct).err()?;
        Some((line, why))
    });
    failed.collect()
}

#[test]
fn every_line_agrees_with_the_reference() {
    let lines = load();
    let failures: Vec<String> = failures(&lines, Conduct::Reference)
        .into_iter()
        .map(|(line, why)| format!("{} ({}): {why}", line["id"], line["note"]))
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} lines fail:\n{}",
        failures.len(),
        lines.len(),
        failures.join("\n")
    );
}

/// What strict conduct changes is all that the documentation lists: frames with a body, nonces that nobody drew,
/// replicas that are not to be dialled, and the cluster field of a refusal.
#[test]
fn strict_conduct_differs_only_where_it_says_so() {
    let lines = load();
    for (line, why) in failures(&lines, Conduct::Strict) {
        assert!(
            lines::is_lenient(line),
            "{} ({}): {why}",
            line["id"],
            line["note"]
        );
    }
}

/// The other protocols' vectors.
const OTHERS: [&str; 3] = [
    "agent-tunnel.jsonl",
    "agent-tunnel-routing.jsonl",
    "peer-rpc.jsonl",
];
