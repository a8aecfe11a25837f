//! Tags, envelopes, frames and join tokens.

use adit_proto_core::peer::{
    NodeId,
    budget::Budget,
    envelope::{EnvelopeError, Header, Layout, Unverified},
    frame::{Frame, FrameError},
    key::{KeyRing, MacKey, TAG_LEN},
    reader::{EnvelopeReader, Terms},
    token::{JoinToken, TokenError},
};
use bytes::Bytes;
use serde_json::Value;

use crate::{
    equal, expect_fields,
    fields::{Failure, array, bytes, number, ring, small, text},
};

pub(crate) fn hmac(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["key", "data", "tag"])?;
    let key = MacKey::new(&array(line, "key")?);
    let data = bytes(line, "data")?;
    equal("tag", &key.tag(&[&data]), &array(line, "tag")?)
}

pub(crate) fn envelope(line: &Value) -> Result<(), Failure> {
    expect_fields(
        line,
        &[
            "key",
            "from_node_id",
            "seq",
            "inner",
            "inner_name",
            "envelope",
            "envelope_head",
            "envelope_len",
            "envelope_tag",
        ],
    )?;
    let header = Header {
        from: NodeId(number(line, "from_node_id")?),
        seq: number(line, "seq")?,
        address: None,
    };
    let inner = bytes(line, "inner")?;
    let key = MacKey::new(&array(line, "key")?);
    let sealed = header
        .seal([inner.clone()], &key, None)
        .map_err(|e| e.to_string())?;
    let whole = sealed.to_bytes();
    if line["envelope_head"].is_null() {
        equal("envelope", &whole, &bytes(line, "envelope")?)?;
    } else {
        let head: [u8; 21] = array(line, "envelope_head")?;
        equal(
            "head",
            &whole.slice(..head.len()),
            &head[..].to_vec().into(),
        )?;
        equal("length", &whole.len(), &small(line, "envelope_len")?)?;
        let tag: [u8; TAG_LEN] = array(line, "envelope_tag")?;
        equal("tag", &sealed.tag, &tag)?;
        equal("end", &whole.ends_with(&tag), &true)?;
    }
    let opened = parse(&whole, &ring(line, "key")?)?.map_err(|e| e.to_string())?;
    equal("header", &opened.0, &header)?;
    equal("inner frame", &opened.1, &inner)
}

pub(crate) fn envelope_error(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["op", "key", "data", "inner", "error"])?;
    let expected = text(line, "error")?;
    let got = match text(line, "op")? {
        "parse" => parse(&bytes(line, "data")?, &ring(line, "key")?)?.map(|_| ()),
        "write" => {
            let header = Header {
                from: NodeId(1),
                seq: 1,
                address: None,
            };
            let key = MacKey::new(&[1; 32]);
            header.seal([bytes(line, "inner")?], &key, None).map(|_| ())
        }
        other => return Err(format!("unknown op {other}")),
    };
    equal("outcome", &got.err().map_or("ok", name_of), &expected)
}

/// Opens an envelope at once and out of a stream in pieces, which must agree as far as a stream can.
fn parse(whole: &Bytes, ring: &KeyRing) -> Result<Result<(Header, Bytes), EnvelopeError>, Failure> {
    let at_once = Unverified::parse(Layout::Plain, whole.clone());
    let terms = Terms::Taken(Budget::new(u64::MAX));
    let mut reader = EnvelopeReader::new(Layout::Plain, Budget::new(u64::MAX), terms);
    let mut pieces = whole.chunks(1 + whole.len() / 7);
    let fed = pieces.try_for_each(|piece| reader.feed(piece));
    let streamed = fed.and_then(|()| reader.finish());
    let agree = match (&at_once, &streamed) {
        (Ok(a), Ok(Some(b))) => a == b,
        // What comes short is an end of the stream, and of nothing at all no message.
        (Err(EnvelopeError::TooShort { .. }), Ok(None)) => whole.is_empty(),
        (
            Err(EnvelopeError::TooShort { .. } | EnvelopeError::LengthMismatch { .. }),
            Err(EnvelopeError::UnexpectedEnd { .. }),
        ) => true,
        // Of a header that is whole more can be told.
        (Err(EnvelopeError::TooShort { len }), Err(_)) => *len >= Layout::Plain.header_len(),
        (Err(a), Err(b)) => name_of(*a) == name_of(*b),
        _ => false,
    };
    if !agree {
        return Err(format!("{at_once:?} at once, {streamed:?} in pieces"));
    }
    let verified = at_once.and_then(|read| read.verify(ring));
    Ok(verified.map(|message| (message.header, message.inner)))
}

fn name_of(error: EnvelopeError) -> &'static str {
    match error {
        EnvelopeError::TooShort { .. } => "too_short",
        EnvelopeError::Version { .. } => "version",
        EnvelopeError::InnerLenExceedsMax { .. } => "inner_len_exceeds_max",
        EnvelopeError::LengthMismatch { .. } => "length_mismatch",
        EnvelopeError::Mac => "mac",
        _ => "another error",
    }
}

pub(crate) fn checksum(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["payload", "crc"])?;
    let frame = Frame {
        rpc_type: 9,
        epoch: 0,
        payload: bytes(line, "payload")?,
    };
    let [header, _] = frame.encode().map_err(|e| e.to_string())?;
    let crc = header[6..10].iter().rev().copied().collect::<Vec<u8>>();
    equal("checksum", &Bytes::from(crc), &bytes(line, "crc")?)
}

pub(crate) fn frame(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["rpc_type", "epoch", "payload", "frame"])?;
    let frame = Frame {
        rpc_type: small(line, "rpc_type")?,
        epoch: number(line, "epoch")?,
        payload: bytes(line, "payload")?,
    };
    let whole = bytes(line, "frame")?;
    let encoded = frame.clone().encode().map_err(|e| e.to_string())?.concat();
    equal("encoded", &Bytes::from(encoded), &whole)?;
    equal("decoded", &Frame::decode(whole), &Ok(frame))
}

/// The reference passes over bytes behind the payload; where it decodes so, we refuse for exactly that.
pub(crate) fn frame_error(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["data", "error"])?;
    let data = bytes(line, "data")?;
    let expected = text(line, "error")?;
    let got = match Frame::decode(data.clone()) {
        Ok(_) => "ok",
        Err(FrameError::Trailing { len }) => {
            let exact = Frame::decode(data.slice(..data.len() - len));
            equal("frame without what follows", &exact.is_ok(), &true)?;
            "ok"
        }
        Err(error) => frame_error_name(error),
    };
    equal("outcome", &got, &expected)
}

pub(crate) fn frame_of_g1(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["rpc_type", "payload", "frame"])?;
    let got = Frame::decode(bytes(line, "frame")?);
    equal(
        "outcome",
        &got,
        &Err(FrameError::UnsupportedVersion { got: 1 }),
    )
}

pub(crate) fn frame_error_of_g1(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["data", "error"])?;
    text(line, "error")?;
    let got = Frame::decode(bytes(line, "data")?);
    equal("refused", &got.is_err(), &true)
}

fn frame_error_name(error: FrameError) -> &'static str {
    match error {
        FrameError::TooShort { .. } => "too_short",
        FrameError::UnsupportedVersion { .. } => "unsupported_wire_version",
        FrameError::PayloadLenExceedsMax { .. } => "payload_len_exceeds_max",
        FrameError::Truncated { .. } => "truncated",
        FrameError::Crc => "crc",
        _ => "another error",
    }
}

pub(crate) fn token(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["secret", "for_node", "expiry", "token"])?;
    let key = MacKey::new(&array(line, "secret")?);
    let token = JoinToken {
        for_node: NodeId(number(line, "for_node")?),
        expiry: number(line, "expiry")?,
    };
    let whole = bytes(line, "token")?;
    equal("encoded", &Bytes::from(token.encode(&key).to_vec()), &whole)?;
    let decode = |at| JoinToken::decode(&whole, &key, at);
    equal("expired", &decode(token.expiry), &Err(TokenError::Expired))?;
    if let Some(before) = token.expiry.checked_sub(1) {
        equal("decoded", &decode(before), &Ok(token))?;
    }
    Ok(())
}
