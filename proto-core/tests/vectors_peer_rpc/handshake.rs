//! The version handshake.

use adit_proto_core::peer::{
    capabilities::Capabilities,
    hello::{Ack, Hello, HelloError, HelloReader, VersionRange},
};
use bytes::Bytes;
use serde_json::Value;

use crate::{
    equal, expect_fields,
    fields::{Failure, bytes, expect_keys, number, numbers, small, text},
};

pub(crate) fn hello(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["min", "max", "capabilities", "wire"])?;
    let hello = hello_of(line)?;
    let wire = bytes(line, "wire")?;
    equal("encoded", &hello.encode(), &wire)?;
    equal("decoded", &decode(&wire, Hello::decode), &Ok(Some(hello)))
}

pub(crate) fn ack(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["agreed", "capabilities", "wire"])?;
    let ack = ack_of(line)?;
    let wire = bytes(line, "wire")?;
    equal("encoded", &ack.encode(), &wire)?;
    equal("decoded", &decode(&wire, Ack::decode), &Ok(Some(ack)))
}

pub(crate) fn of_g3(line: &Value) -> Result<(), Failure> {
    let known = ["min", "max", "agreed", "capabilities", "build_id", "wire"];
    expect_fields(line, &known)?;
    let wire = bytes(line, "wire")?;
    let three = HelloError::ArrayLen {
        expected: 2,
        got: 3,
    };
    let got = match text(line, "kind")? {
        "hello" => decode(&wire, Hello::decode).err(),
        _ => decode(&wire, Ack::decode).err(),
    };
    equal("outcome", &got, &Some(three))
}

/// The reference passes over bytes behind the value; where it decodes so, we refuse for exactly that.
pub(crate) fn error(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["message", "wire", "wire_prefix", "result"])?;
    if !line["wire_prefix"].is_null() {
        let prefix = bytes(line, "wire_prefix")?;
        let got = match HelloReader::default().feed(&prefix) {
            Ok(None) => "needs_more",
            Err(HelloError::TooLarge { .. }) => "frame_too_large",
            _ => "another outcome",
        };
        return equal("outcome", &got, &text(line, "result")?);
    }
    let wire = bytes(line, "wire")?;
    let result = &line["result"];
    match text(line, "message")? {
        "hello" => judge(&wire, Hello::decode, result, |ok| {
            expect_keys(ok, &["min", "max", "capabilities"])?;
            hello_of(ok)
        }),
        "ack" => judge(&wire, Ack::decode, result, |ok| {
            expect_keys(ok, &["agreed", "capabilities"])?;
            ack_of(ok)
        }),
        other => Err(format!("unknown message {other}")),
    }
}

fn judge<T: PartialEq + std::fmt::Debug>(
    wire: &Bytes,
    read: fn(&[u8]) -> Result<T, HelloError>,
    result: &Value,
    value_of: impl Fn(&Value) -> Result<T, Failure>,
) -> Result<(), Failure> {
    let mut got = decode(wire, read);
    if let Err(HelloError::Trailing { len }) = got
        && wire.len() >= 4 + len
    {
        got = read(&wire[4..wire.len() - len]).map(Some);
    }
    if result.is_object() {
        expect_keys(result, &["ok"])?;
        let expected = value_of(&result["ok"])?;
        return equal("outcome", &got, &Ok(Some(expected)));
    }
    let outcome = match got {
        Ok(Some(_)) => "ok",
        Ok(None) => "needs_more",
        Err(HelloError::TooLarge { .. }) => "frame_too_large",
        Err(_) => "decode_error",
    };
    let expected = result.as_str().ok_or("neither text nor object in result")?;
    equal("outcome", &outcome, &expected)
}

pub(crate) fn negotiate(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["local", "remote", "agreed"])?;
    let agreed = match &line["agreed"] {
        Value::Null => None,
        _ => Some(small(line, "agreed")?),
    };
    let (local, remote) = (range(line, "local")?, range(line, "remote")?);
    equal("agreed", &local.common(remote), &agreed)
}

/// Takes the message out of its frame, byte by byte, and reads it.
fn decode<T>(
    wire: &Bytes,
    read: fn(&[u8]) -> Result<T, HelloError>,
) -> Result<Option<T>, HelloError> {
    let mut reader = HelloReader::default();
    let mut message = None;
    for byte in wire {
        message = reader.feed(&[*byte])?.or(message);
    }
    message.map(|message| read(&message)).transpose()
}

fn hello_of(object: &Value) -> Result<Hello, Failure> {
    Ok(Hello {
        versions: VersionRange {
            min: small(object, "min")?,
            max: small(object, "max")?,
        },
        capabilities: capabilities(object)?,
    })
}

fn ack_of(object: &Value) -> Result<Ack, Failure> {
    Ok(Ack {
        agreed: small(object, "agreed")?,
        capabilities: capabilities(object)?,
    })
}

fn capabilities(object: &Value) -> Result<Capabilities, Failure> {
    number(object, "capabilities").map(Capabilities::from_bits)
}

fn range(line: &Value, key: &str) -> Result<VersionRange, Failure> {
    let bounds = numbers(line, key)?;
    let [min, max] = bounds[..] else {
        return Err(format!("no range in field {key}"));
    };
    let small = |n: u64| u16::try_from(n).map_err(|e| e.to_string());
    Ok(VersionRange {
        min: small(min)?,
        max: small(max)?,
    })
}
