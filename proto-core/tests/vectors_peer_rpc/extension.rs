//! What adit adds where both sides offer it: bound envelopes, refusals, window resets.

use adit_proto_core::peer::{
    NodeId,
    bound::{ConnectionSecret, Direction, Route, Tags, UNREAD_REQUEST},
    capabilities::Capabilities,
    envelope::{Layout, Unverified},
    frame::Frame,
    key::{ClusterSecret, KeyId, KeyRing, MacKey, Tag},
    refusal::Refusal,
    rpc_type::RpcType,
};
use bytes::Bytes;
use serde_json::Value;

use crate::{
    equal,
    fields::{Failure, array, bytes, expect_keys, number, small, text},
};

pub(crate) fn check(line: &Value) -> Result<(), Failure> {
    match text(line, "kind")? {
        "call" => call(line),
        "refusal" => refusal(line),
        "window_reset" => window_reset(line),
        "capabilities" => capabilities(line),
        other => Err(format!("unknown kind {other}")),
    }
}

/// One message of a call.
struct Message {
    direction: Direction,
    route: Route,
    inner: Bytes,
    wire: Bytes,
    key: MacKey,
}

fn call(line: &Value) -> Result<(), Failure> {
    expect_keys(
        line,
        &[
            "kind",
            "secret",
            "exporter",
            "key_id",
            "client",
            "server",
            "receiver",
            "request_key",
            "response_key",
            "request_seq",
            "request_inner",
            "request",
            "response_seq",
            "response_inner",
            "response",
            "response_to_unread",
        ],
    )?;
    let client = NodeId(number(line, "client")?);
    let request = Message {
        direction: Direction::Request,
        route: Route {
            from: client,
            to: NodeId(number(line, "receiver")?),
            seq: number(line, "request_seq")?,
        },
        inner: bytes(line, "request_inner")?,
        wire: bytes(line, "request")?,
        key: MacKey::new(&array(line, "request_key")?),
    };
    let mut response = Message {
        direction: Direction::Response,
        route: Route {
            from: NodeId(number(line, "server")?),
            to: client,
            seq: number(line, "response_seq")?,
        },
        inner: bytes(line, "response_inner")?,
        wire: bytes(line, "response")?,
        key: MacKey::new(&array(line, "response_key")?),
    };
    let tag = check_message(line, &request, None)?;
    check_message(line, &response, Some(&tag))?;
    response.wire = bytes(line, "response_to_unread")?;
    check_message(line, &response, Some(&UNREAD_REQUEST))?;
    Ok(())
}

fn check_message(line: &Value, m: &Message, answered: Option<&Tag>) -> Result<Tag, Failure> {
    let secret = ClusterSecret::new(array(line, "secret")?).map_err(|e| e.to_string())?;
    let ring = KeyRing::new(KeyId(small(line, "key_id")?), secret);
    let exporter = array(line, "exporter")?;
    let tags = || Tags::new(Capabilities::BOUND, ConnectionSecret::new(exporter));
    let sealed = tags()
        .seal(&ring, m.direction, m.route, [m.inner.clone()], answered)
        .map_err(|e| e.to_string())?;
    equal("sealed", &sealed.to_bytes(), &m.wire)?;
    let read = Unverified::parse(Layout::Bound, m.wire.clone()).map_err(|e| e.to_string())?;
    let by_key = read.clone().verify_bound(&m.key, answered);
    let opened = tags().open(&ring, m.direction, read, answered);
    equal("opened by the derived key", &by_key, &opened)?;
    let opened = opened.map_err(|e| e.to_string())?;
    equal("inner frame", &opened.inner, &m.inner)?;
    let address = opened.header.address.map(|address| address.to);
    let got = (opened.header.from, address, opened.header.seq);
    equal(
        "header",
        &got,
        &(m.route.from, Some(m.route.to), m.route.seq),
    )?;
    Ok(opened.tag)
}

fn refusal(line: &Value) -> Result<(), Failure> {
    expect_keys(line, &["kind", "reason", "value", "payload", "frame"])?;
    let value = number(line, "value")?;
    let refusal = match text(line, "reason")? {
        "number" => Refusal::Number { high: value },
        "identity" => Refusal::Identity,
        "overload" => Refusal::Overload {
            retry_after_ms: value,
        },
        other => return Err(format!("unknown reason {other}")),
    };
    let payload = bytes(line, "payload")?;
    equal("encoded", &refusal.encode(), &payload)?;
    equal("decoded", &Refusal::decode(&payload), &Ok(refusal))?;
    check_frame(line, "frame", RpcType::Refusal, payload)
}

fn window_reset(line: &Value) -> Result<(), Failure> {
    expect_keys(
        line,
        &["kind", "high", "seq", "request_frame", "answer_frame"],
    )?;
    let payload = |key| Ok::<_, Failure>(number(line, key)?.to_le_bytes().to_vec().into());
    check_frame(
        line,
        "request_frame",
        RpcType::WindowReset,
        payload("high")?,
    )?;
    check_frame(
        line,
        "answer_frame",
        RpcType::WindowResetAnswer,
        payload("seq")?,
    )
}

fn check_frame(line: &Value, key: &str, kind: RpcType, payload: Bytes) -> Result<(), Failure> {
    let frame = Frame::new(kind, 0, payload);
    let encoded = frame.encode().map_err(|e| e.to_string())?;
    equal(key, &Bytes::from(encoded.concat()), &bytes(line, key)?)?;
    let decoded = Frame::decode(bytes(line, key)?).map_err(|e| e.to_string())?;
    equal("kind", &decoded.kind(), &Ok(kind))
}

fn capabilities(line: &Value) -> Result<(), Failure> {
    expect_keys(line, &["kind", "hello", "ack", "active"])?;
    let bits = |key| number(line, key).map(Capabilities::from_bits);
    let active = Capabilities::active(bits("hello")?, bits("ack")?);
    equal("active", &active.bits(), &number(line, "active")?)
}
