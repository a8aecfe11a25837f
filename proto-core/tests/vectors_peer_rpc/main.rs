//! Every line of the peer RPC's golden vectors, and those of adit's own extensions.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a line names what it is about, and anything else fails it"
)]

mod catalogue;
mod extension;
mod fields;
mod forward;
mod handshake;
mod identity;
mod messages;
mod state;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::fields::{Failure, expect_keys, text};

/// Reads a file of vectors, one JSON object per line.
fn load(folder: &Path, name: &str) -> Vec<Value> {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines: Vec<Value> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}")))
        .collect();
    assert!(!lines.is_empty(), "{} has no lines", path.display());
    lines
}

/// The folder of the committed vectors.
fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// Fails with every line that is not met.
fn assert_all(lines: &[Value], check: fn(&Value) -> Result<(), Failure>) {
    let failures: Vec<String> = lines
        .iter()
        .enumerate()
        .filter_map(|(i, line)| {
            let why = check(line).err()?;
            Some(format!("line {} ({}): {why}", i + 1, line["kind"]))
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

/// Lines of the reference, from the folder that `ADIT_VECTORS_DIR` names, else the committed ones; also where that
/// folder holds lines of other protocols only.
#[test]
fn every_line_agrees_with_the_reference() {
    let outside = std::env::var_os("ADIT_VECTORS_DIR").map(PathBuf::from);
    let of_others = |folder: &PathBuf| {
        let others = [
            "agent-tunnel.jsonl",
            "agent-tunnel-routing.jsonl",
            "replica-handshake.jsonl",
        ];
        !folder.join(NAME).exists() && others.iter().any(|name| folder.join(name).exists())
    };
    let folder = outside.filter(|folder| !of_others(folder));
    assert_all(&load(&folder.unwrap_or_else(committed), NAME), check);
}

/// Lines of `peer-rpc-extensions.py`, which shares no code with adit.
#[test]
fn every_line_of_the_extensions_agrees() {
    let lines = load(&committed(), "peer-rpc-extensions.jsonl");
    assert_all(&lines, extension::check);
}

/// Lines of `peer-forward.py`, which shares no code with adit.
#[test]
fn every_line_of_forwarded_sessions_agrees() {
    let lines = load(&committed(), "peer-forward.jsonl");
    assert_all(&lines, forward::check);
}

/// Lines of `peer-catalogue.py`, which shares no code with adit.
#[test]
fn every_line_of_the_catalogue_agrees() {
    let lines = load(&committed(), "peer-catalogue.jsonl");
    assert_all(&lines, catalogue::check);
}

const NAME: &str = "peer-rpc.jsonl";

fn check(line: &Value) -> Result<(), Failure> {
    let generation = match &line["gen"] {
        Value::Null => "",
        _ => text(line, "gen")?,
    };
    match (text(line, "kind")?, generation) {
        ("comment", _) => Ok(()),
        // Tags and envelopes are the same in all generations.
        ("hmac", "any" | "G1" | "G2" | "G3") => messages::hmac(line),
        ("envelope", "any" | "G1" | "G2" | "G3") => messages::envelope(line),
        ("envelope_error", "any" | "G1" | "G2" | "G3") => messages::envelope_error(line),
        ("frame", "any") if !line["crc"].is_null() => messages::checksum(line),
        // The third generation's frames are the second's.
        ("frame", "any" | "G2" | "G3") => messages::frame(line),
        ("frame_error", "any" | "G2" | "G3") => messages::frame_error(line),
        // The first generation's frames are refused by their version.
        ("frame", "G1") => messages::frame_of_g1(line),
        ("frame_error", "G1") => messages::frame_error_of_g1(line),
        ("hello", "G2") => handshake::hello(line),
        ("ack", "G2") => handshake::ack(line),
        // The third generation's handshake has one element more, and is refused.
        ("hello" | "ack", "G3") => handshake::of_g3(line),
        ("hs_error", "any" | "G2") => handshake::error(line),
        ("negotiate", "any" | "G2") => handshake::negotiate(line),
        // Width and boot epochs of the third generation are adopted (peer-rpc 7.3 and 7.5).
        ("window", "any" | "G1" | "G2" | "G3") => state::window(line),
        ("sender", "any" | "G1" | "G2" | "G3") => state::sender(line),
        ("backoff", "any" | "G2") => state::backoff(line),
        ("breaker", "any" | "G2") => state::breaker(line),
        ("token", "any" | "G1" | "G2" | "G3") => messages::token(line),
        ("cert", "any" | "G1" | "G2" | "G3") => identity::cert(line),
        ("identity", "any" | "G2") => identity::identity(line),
        ("tls_pin", "any" | "G2") => identity::tls_pin(line),
        // What else other generations do is told and not demanded (peer-rpc 12).
        (
            "hs_error" | "negotiate" | "backoff" | "breaker" | "identity" | "tls_pin",
            "G1" | "G3",
        ) => Ok(()),
        (kind, generation) => Err(format!("unknown kind {kind} of generation {generation}")),
    }
}

/// Fails where two values differ.
fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Result<(), Failure> {
    match got == expected {
        true => Ok(()),
        false => Err(format!("{what} is {got:?}, not {expected:?}")),
    }
}

/// Fails on a field that nobody checks; what says where a line comes from, or what it shows, is known everywhere.
fn expect_fields(line: &Value, known: &[&str]) -> Result<(), Failure> {
    let about = ["gen", "kind", "source", "note", "name", "what", "anchor"];
    expect_keys(line, &[&about, known].concat())
}
