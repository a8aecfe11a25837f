//! Fields of a line.

use adit_proto_core::peer::key::{ClusterSecret, KeyId, KeyRing};
use bytes::Bytes;
use serde_json::Value;

/// Why a line is not met.
pub(crate) type Failure = String;

/// Fails on a key that is not in `known`: a field that nobody checks.
pub(crate) fn expect_keys(object: &Value, known: &[&str]) -> Result<(), Failure> {
    let object = object.as_object().ok_or("no object")?;
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown field {key}")),
        None => Ok(()),
    }
}

/// A text field.
pub(crate) fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str, Failure> {
    let value = object[key].as_str();
    value.ok_or_else(|| format!("no text in field {key}"))
}

/// A text field, or null.
pub(crate) fn maybe_text<'a>(object: &'a Value, key: &str) -> Result<Option<&'a str>, Failure> {
    match &object[key] {
        Value::Null => Ok(None),
        _ => text(object, key).map(Some),
    }
}

/// A number field, in all of its 64 bits.
pub(crate) fn number(object: &Value, key: &str) -> Result<u64, Failure> {
    number_of(&object[key]).map_err(|e| format!("{e} in field {key}"))
}

/// A number that fits a smaller type.
pub(crate) fn small<T: TryFrom<u64>>(object: &Value, key: &str) -> Result<T, Failure> {
    let value = number(object, key)?;
    T::try_from(value).map_err(|_| format!("{value} in field {key} is too large"))
}

/// A list field.
pub(crate) fn list<'a>(object: &'a Value, key: &str) -> Result<&'a [Value], Failure> {
    let value = object[key].as_array();
    value
        .map(Vec::as_slice)
        .ok_or_else(|| format!("no list in field {key}"))
}

/// A list of numbers.
pub(crate) fn numbers(object: &Value, key: &str) -> Result<Vec<u64>, Failure> {
    list(object, key)?.iter().map(number_of).collect()
}

/// A list of texts, some of them null.
pub(crate) fn texts<'a>(object: &'a Value, key: &str) -> Result<Vec<Option<&'a str>>, Failure> {
    let read = |value: &'a Value| match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.as_str())),
        _ => Err(format!("neither text nor null in field {key}")),
    };
    list(object, key)?.iter().map(read).collect()
}

/// Bytes, as hex or as one byte that is repeated.
pub(crate) fn bytes(object: &Value, key: &str) -> Result<Bytes, Failure> {
    let value = &object[key];
    if value.is_object() {
        expect_keys(value, &["repeat", "len"])?;
        let byte: u8 = small(value, "repeat")?;
        return Ok(vec![byte; small(value, "len")?].into());
    }
    hex(text(object, key)?).map(Bytes::from)
}

/// So many bytes, as hex.
pub(crate) fn array<const N: usize>(object: &Value, key: &str) -> Result<[u8; N], Failure> {
    let bytes = bytes(object, key)?;
    let array: Result<[u8; N], _> = bytes.as_ref().try_into();
    array.map_err(|_| format!("{} bytes in field {key}", bytes.len()))
}

/// A ring of the one key in a field; zeros are the insecure mode's.
pub(crate) fn ring(object: &Value, key: &str) -> Result<KeyRing, Failure> {
    let bytes = array(object, key)?;
    let secret = match bytes == [0; 32] {
        true => ClusterSecret::insecure(),
        false => ClusterSecret::new(bytes).map_err(|e| e.to_string())?,
    };
    Ok(KeyRing::new(KeyId(0), secret))
}

pub(crate) fn hex(text: &str) -> Result<Vec<u8>, Failure> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err("no hex".to_owned());
    }
    let digits = |i| u8::from_str_radix(&text[i..i + 2], 16).map_err(|e| e.to_string());
    (0..text.len()).step_by(2).map(digits).collect()
}

fn number_of(value: &Value) -> Result<u64, Failure> {
    value.as_u64().ok_or_else(|| "no number".to_owned())
}
