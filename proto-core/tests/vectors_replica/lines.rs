//! What each kind of line demands.

use adit_proto_core::replica::{
    Binding, ClusterId, Conduct, FRAME_LEN, Mac, MacKey, Profile, ReplicaId, Signer, Transcript,
};
use serde_json::Value;

use crate::exchange;

/// Why a line is not met.
pub(crate) type Failure = String;

/// Checks one line, whatever its kind.
pub(crate) fn check(line: &Value, conduct: Conduct) -> Result<(), Failure> {
    let kind = text(line, "kind")?;
    // The profile is in a field of its own.
    match kind.strip_suffix("_profile_a").unwrap_or(kind) {
        "cluster_id" => cluster_id(line),
        "mac" => mac(line),
        "ok" | "config" | "mismatch" | "binding" | "tamper_hello" | "tamper_challenge"
        | "tamper_finish" | "surgery" | "replay_source" | "replay" | "reflect"
        | "feed_acceptor" | "feed_acceptor2" | "feed_dialer" => exchange::check(line, conduct),
        other => Err(format!("unknown kind {other}")),
    }
}

/// Tells whether a line holds something that only the reference takes, or tells.
pub(crate) fn is_lenient(line: &Value) -> bool {
    let frames = line["frames"].as_array().cloned().unwrap_or_default();
    let bytes = |frame: &Value| {
        let delivered = frame.get("delivered").unwrap_or_else(|| &frame["sent"]);
        delivered
            .as_str()
            .and_then(|hex| from_hex(hex).ok())
            .unwrap_or_default()
    };
    let frames: Vec<(bool, Vec<u8>)> = frames
        .iter()
        .map(|frame| (frame["dir"] == "d2a", bytes(frame)))
        .collect();
    let has_body = frames.iter().any(|(_, frame)| {
        let size = frame.get(48..52).and_then(|s| s.try_into().ok());
        let size = size.map_or(0, u32::from_le_bytes);
        frame.len() > FRAME_LEN || (257..=64 << 20).contains(&size)
    });
    let nonces = |is_hello| {
        let of = frames
            .iter()
            .filter(move |(from_dialer, _)| *from_dialer == is_hello);
        of.map(|(_, frame)| frame.get(128..160).unwrap_or_default().to_vec())
    };
    let nonce_d = nonces(true).next().unwrap_or_default();
    let is_drawn = nonces(false).all(|nonce| nonce != nonce_d && nonce.iter().any(|b| *b != 0));
    let target = line
        .get("dialer_target_id")
        .unwrap_or_else(|| &line["acceptor_id"]);
    let is_dialled = line["dialer_id"].as_u64() < target.as_u64();
    let is_told = line["acceptor"] == "reject:cluster_mismatch"
        || line["acceptor"] == "reject:unknown_command";
    has_body || !is_drawn || !is_dialled || is_told
}

fn cluster_id(line: &Value) -> Result<(), Failure> {
    let id = ClusterId::of(text(line, "cluster_name")?);
    equal(
        "wire",
        &id.to_string().as_str(),
        &text(line, "cluster_id_wire_hex")?,
    )?;
    let number = id.number().to_string();
    equal("number", &number.as_str(), &text(line, "cluster_id_dec")?)
}

fn mac(line: &Value) -> Result<(), Failure> {
    let profile = profile(line)?;
    let key = MacKey::derive(&from_hex(text(line, "psk_hex")?)?);
    equal("key", &key, &MacKey::from_bytes(array(line, "mac_key")?))?;
    let transcript = Transcript {
        cluster: ClusterId(array(line, "cluster_id_wire_hex")?),
        dialer: replica(line, "dialer_id")?,
        acceptor: replica(line, "acceptor_id")?,
        nonce_d: array(line, "nonce_d")?,
        nonce_a: array(line, "nonce_a")?,
        binding: binding(line, "")?,
    };
    if let Some(input) = line.get("mac_input_dir1") {
        let bytes = transcript.encode(profile, Signer::Dialer);
        equal(
            "input",
            &to_hex(&bytes).as_str(),
            &input.as_str().unwrap_or_default(),
        )?;
    }
    for (signer, field) in [(Signer::Dialer, "mac_d"), (Signer::Acceptor, "mac_a")] {
        let got = transcript.mac(profile, signer, &key);
        match got == Mac(array(line, field)?) {
            true => {}
            false => return Err(format!("{field}: got {}", to_hex(&got.0))),
        }
    }
    Ok(())
}

pub(crate) fn profile(line: &Value) -> Result<Profile, Failure> {
    match text(line, "profile")? {
        "A" => Ok(Profile::A),
        "B" => Ok(Profile::B),
        other => Err(format!("unknown profile {other}")),
    }
}

/// What carries the connection; the fields of one end begin with its name where both differ.
pub(crate) fn binding(line: &Value, end: &str) -> Result<Binding, Failure> {
    let field = |name: &str| {
        let own = format!("{end}{name}");
        match line.get(&own) {
            Some(_) => own,
            None => name.to_owned(),
        }
    };
    let (mode, exporter) = (field("mode"), field("exporter"));
    let exporter = match line.get(&exporter) {
        Some(_) => array(line, &exporter)?,
        None => [0; 32],
    };
    match (line.get(&mode).and_then(Value::as_u64), exporter) {
        (None | Some(0), [0, ..]) if exporter == [0; 32] => Ok(Binding::Plaintext),
        (Some(1), _) => Ok(Binding::Tls(exporter)),
        (mode, _) => Err(format!("mode {mode:?} with exporter {exporter:?}")),
    }
}

/// A text field.
pub(crate) fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str, Failure> {
    let value = object[key].as_str();
    value.ok_or_else(|| format!("no text in field {key}"))
}

/// A field of one byte.
pub(crate) fn byte(object: &Value, key: &str) -> Result<u8, Failure> {
    let value = object[key].as_u64().and_then(|n| u8::try_from(n).ok());
    value.ok_or_else(|| format!("no byte in field {key}"))
}

pub(crate) fn replica(object: &Value, key: &str) -> Result<ReplicaId, Failure> {
    byte(object, key).map(ReplicaId)
}

/// A field of so many bytes, in hex.
pub(crate) fn array<const N: usize>(object: &Value, key: &str) -> Result<[u8; N], Failure> {
    let bytes = from_hex(text(object, key)?)?;
    bytes
        .try_into()
        .map_err(|_| format!("field {key} has not {N} bytes"))
}

pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    got: &T,
    expected: &T,
) -> Result<(), Failure> {
    match got == expected {
        true => Ok(()),
        false => Err(format!("{what}: got {got:?}, expected {expected:?}")),
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn from_hex(text: &str) -> Result<Vec<u8>, Failure> {
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
