//! What each type of line demands.

use adit_proto_core::{
    domain::DomainPattern,
    error::DecodeError,
    limits::{CONTROL_LEN_MAX, SESSION_LEN_MAX, VERSION_MAX, VERSION_MIN},
    wire::{AGENT_TUNNEL_ALPN, control::check_version, frame::FrameDecoder},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fields::{Message, expect_keys, number, text};

/// Why a line is not met.
pub(crate) type Failure = String;

/// Checks one line, whatever its type.
pub(crate) fn check(line: &Value) -> Result<(), Failure> {
    match text(line, "type")? {
        kind @ ("RouteAdvertise"
        | "Heartbeat"
        | "HeartbeatAck"
        | "CertRenewalRequest"
        | "CertRenewalResponse"
        | "ConnectRequest"
        | "ConnectResponse") => message(kind, line),
        "size_limit" => size_limit(line),
        "malformed" => malformed(line),
        "lenient" => lenient(line),
        "route_valid" => route_valid(line),
        "domain_match" => domain_match(line),
        "version_check" => {
            expect_keys(line, &["id", "note", "type", "version", "result"])?;
            let version = u16::try_from(number(line, "version")?).map_err(|e| e.to_string())?;
            equal("version rule", &version_rule(version), &line["result"])
        }
        "constants" => constants(line),
        other => Err(format!("unknown type {other}")),
    }
}

fn message(kind: &str, line: &Value) -> Result<(), Failure> {
    expect_keys(
        line,
        &["id", "note", "type", "fields", "hex", "version_check"],
    )?;
    let hex = text(line, "hex")?;
    let message = Message::from_fields(kind, &line["fields"])?;
    let frame = message.encode().map_err(|e| e.to_string())?;
    equal("encoded", &to_hex(&frame), &hex.to_owned())?;
    let decoded = read(channel_of(kind), &from_hex(hex)?).map_err(|e| e.to_string())?;
    equal("decoded", &decoded, &message)?;
    equal(
        "version rule",
        &version_rule(message.version()),
        &line["version_check"],
    )
}

fn malformed(line: &Value) -> Result<(), Failure> {
    expect_keys(line, &["id", "note", "type", "channel", "hex", "error"])?;
    let error = &line["error"];
    match read(text(line, "channel")?, &from_hex(text(line, "hex")?)?) {
        Err(got) => expect_error(&got, error),
        Ok(got) => Err(format!("{got:?} instead of {error}")),
    }
}

fn lenient(line: &Value) -> Result<(), Failure> {
    expect_keys(line, &["id", "note", "type", "channel", "hex", "decoded"])?;
    let decoded = &line["decoded"];
    expect_keys(decoded, &["type", "fields", "reencoded_hex"])?;
    let kind = text(decoded, "type")?;
    let channel = text(line, "channel")?;
    equal("channel", &channel, &channel_of(kind))?;
    let got = read(channel, &from_hex(text(line, "hex")?)?).map_err(|e| e.to_string())?;
    let expected = Message::from_fields(kind, &decoded["fields"])?;
    equal("decoded", &got, &expected)?;
    let frame = got.encode().map_err(|e| e.to_string())?;
    equal(
        "encoded again",
        &to_hex(&frame),
        &text(decoded, "reencoded_hex")?.to_owned(),
    )
}

fn size_limit(line: &Value) -> Result<(), Failure> {
    let kind = text(line, "message")?;
    equal("channel", &text(line, "channel")?, &channel_of(kind))?;
    let message = Message::from_fields(kind, &repeated_fields(line)?)?;
    let result = &line["result"];
    match (text(result, "encode")?, message.encode()) {
        ("ok", Ok(frame)) => {
            expect_keys(
                result,
                &["encode", "frame_len", "frame_prefix_hex", "frame_sha256"],
            )?;
            let prefix = text(result, "frame_prefix_hex")?;
            let digest = to_hex(&Sha256::digest(&frame));
            equal("length", &json!(frame.len()), &result["frame_len"])?;
            let start = frame.get(..prefix.len() / 2).unwrap_or_default();
            equal("start", &to_hex(start).as_str(), &prefix)?;
            equal("digest", &json!(digest), &result["frame_sha256"])?;
            let decoded = read(channel_of(kind), &frame).map_err(|e| e.to_string())?;
            match decoded == message {
                true => Ok(()),
                false => Err("decoded is not what was encoded".to_owned()),
            }
        }
        ("error", Err(got)) => {
            // The reference has one kind of error for both directions.
            let got = DecodeError::MessageTooLarge {
                size: u64::try_from(got.size).map_err(|e| e.to_string())?,
                max: u64::try_from(got.max).map_err(|e| e.to_string())?,
            };
            expect_error(&got, &error_of(result))
        }
        (_, got) => Err(format!(
            "{:?} instead of {result}",
            got.map(|frame| frame.len())
        )),
    }
}

/// The error object of a failed encoding, which stands in a field of its own or beside the verdict.
fn error_of(result: &Value) -> Value {
    let mut beside = result.clone();
    if let Some(beside) = beside.as_object_mut() {
        beside.remove("encode");
    }
    result.get("error").cloned().unwrap_or(beside)
}

/// The fields of a message out of a `size_limit` line, where `{"repeat", "count"}` stands for a long text.
fn repeated_fields(line: &Value) -> Result<Value, Failure> {
    let mut fields = line.as_object().ok_or("no object")?.clone();
    for key in ["id", "note", "type", "channel", "message", "result"] {
        fields.remove(key);
    }
    for value in fields.values_mut() {
        if value.is_object() {
            expect_keys(value, &["repeat", "count"])?;
            let count = usize::try_from(number(value, "count")?).map_err(|e| e.to_string())?;
            *value = json!(text(value, "repeat")?.repeat(count));
        }
    }
    fields
        .entry("protocol_version")
        .or_insert(json!(VERSION_MAX));
    if fields.contains_key("reason") {
        fields.entry("result").or_insert(json!("error"));
    }
    Ok(fields.into())
}

fn route_valid(line: &Value) -> Result<(), Failure> {
    expect_keys(line, &["id", "note", "type", "route", "valid"])?;
    let parsed = DomainPattern::parse(text(line, "route")?);
    equal("valid", &json!(parsed.is_ok()), &line["valid"])
}

fn domain_match(line: &Value) -> Result<(), Failure> {
    expect_keys(
        line,
        &[
            "id",
            "note",
            "type",
            "host",
            "route",
            "match",
            "normalized",
            "wildcard",
        ],
    )?;
    let route = DomainPattern::parse(text(line, "route")?).map_err(|e| e.to_string())?;
    equal("normalized", &json!(route.as_str()), &line["normalized"])?;
    equal(
        "wildcard",
        &json!(route.suffix().is_some()),
        &line["wildcard"],
    )?;
    let covered = route.matches(text(line, "host")?);
    equal("match", &json!(covered), &line["match"])
}

fn constants(line: &Value) -> Result<(), Failure> {
    let ours = json!({
        "id": line["id"],
        "type": "constants",
        "alpn": str::from_utf8(AGENT_TUNNEL_ALPN).map_err(|e| e.to_string())?,
        "current_version": VERSION_MAX,
        "min_version": VERSION_MIN,
        "max_control": CONTROL_LEN_MAX,
        "max_session": SESSION_LEN_MAX,
    });
    equal("constants", &ours, line)
}

/// Feeds bytes and then the end of the stream, as a reader of one message does.
fn read(channel: &str, stream: &[u8]) -> Result<Message, DecodeError> {
    let len_max = match channel {
        "control" => CONTROL_LEN_MAX,
        _ => SESSION_LEN_MAX,
    };
    let mut decoder = FrameDecoder::new(len_max);
    match decoder.feed(stream)? {
        (_, Some(payload)) => Message::decode(channel, &payload),
        (_, None) => {
            decoder.end()?;
            // The border before a message that had to come is no clean end.
            Err(DecodeError::UnexpectedEnd)
        }
    }
}

fn channel_of(kind: &str) -> &'static str {
    match kind {
        "ConnectRequest" => "connect_request",
        "ConnectResponse" => "connect_response",
        _ => "control",
    }
}

fn version_rule(version: u16) -> Value {
    check_version(version).map_or_else(|e| error_json(&e), |()| json!("accept"))
}

/// Compares kinds and numbers; the texts of an expected error are informative only.
fn expect_error(got: &DecodeError, expected: &Value) -> Result<(), Failure> {
    let mut demanded = expected.clone();
    if let Some(demanded) = demanded.as_object_mut() {
        demanded.remove("expected");
        demanded.remove("reason");
    }
    equal("error", &error_json(got), &demanded)
}

fn error_json(error: &DecodeError) -> Value {
    match error {
        DecodeError::MessageTooLarge { size, max } => {
            json!({"kind": "MessageTooLarge", "size": size, "max": max})
        }
        DecodeError::Truncated { .. } => json!({"kind": "Truncated"}),
        DecodeError::UnknownTag { tag } => json!({"kind": "UnknownTag", "tag": tag}),
        DecodeError::InvalidField { field, .. } => json!({"kind": "InvalidField", "field": field}),
        DecodeError::UnsupportedVersion { received, min, max } => {
            json!({"kind": "UnsupportedVersion", "received": received, "min": min, "max": max})
        }
        DecodeError::UnexpectedEnd => json!({"kind": "Io", "io": "UnexpectedEof"}),
        other => json!({"kind": format!("{other:?}")}),
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Result<(), Failure> {
    match got == expected {
        true => Ok(()),
        false => Err(format!("{what}: got {got:?}, expected {expected:?}")),
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Result<Vec<u8>, Failure> {
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    if !odd.is_empty() {
        return Err("odd number of hex digits".to_owned());
    }
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    pairs
        .iter()
        .map(|pair| byte(pair).ok_or_else(|| "not hex".to_owned()))
        .collect()
}
