//! Headers and answers of forwarded sessions.

use adit_proto_core::{
    id::{AgentId, SessionId},
    peer::{
        NodeId,
        bound::ConnectionSecret,
        forward::{Answer, Answering, Forward, ForwardError, ForwardReader, Status},
        key::{ClusterSecret, KeyId, KeyRing},
    },
};
use bytes::Bytes;
use serde_json::Value;

use crate::{
    equal,
    fields::{Failure, array, bytes, expect_keys, maybe_text, number, small, text},
};

pub(crate) fn check(line: &Value) -> Result<(), Failure> {
    match text(line, "kind")? {
        "session" => session(line),
        "refused" => refused(line),
        other => Err(format!("unknown kind {other}")),
    }
}

fn session(line: &Value) -> Result<(), Failure> {
    expect_keys(
        line,
        &[
            "kind", "secret", "exporter", "key_id", "from", "to", "session", "agent", "target",
            "origin", "header", "status", "reason", "answer",
        ],
    )?;
    let uuid = |text: &str| text.parse().map_err(|_| format!("no UUID: {text}"));
    let forward = Forward {
        from: NodeId(number(line, "from")?),
        to: NodeId(number(line, "to")?),
        session: SessionId(uuid(text(line, "session")?)?),
        agent: match maybe_text(line, "agent")? {
            Some(text) => Some(AgentId(uuid(text)?)),
            None => None,
        },
        target: text(line, "target")?.parse().map_err(|e| format!("{e}"))?,
        origin: text(line, "origin")?.into(),
    };
    let (keys, connection) = credentials(line)?;
    let header = bytes(line, "header")?;
    let sealed = forward.seal(&keys, &connection);
    let (sealed, mut reader) = sealed.map_err(|e| e.to_string())?;
    equal("sealed", &sealed, &header)?;
    let (opened, answering) = open(line, header).map_err(|e| e.to_string())?;
    equal("opened", &opened, &forward)?;
    let expected = Answer {
        status: status(text(line, "status")?)?,
        reason: text(line, "reason")?.into(),
    };
    let mut answer = bytes(line, "answer")?;
    let sealed = answering.seal(expected.status, &expected.reason);
    equal("answer", &sealed, &answer)?;
    equal("read", &reader.feed(&mut answer), &Ok(Some(expected)))
}

fn refused(line: &Value) -> Result<(), Failure> {
    expect_keys(
        line,
        &[
            "kind", "error", "secret", "exporter", "key_id", "from", "to", "header",
        ],
    )?;
    let got = match open(line, bytes(line, "header")?) {
        Ok((forward, _)) => return Err(format!("taken: {forward:?}")),
        Err(ForwardError::Version { .. }) => "version",
        Err(ForwardError::Hop { .. }) => "hop",
        Err(ForwardError::TargetLen { .. }) => "target_len",
        Err(ForwardError::OriginLen { .. }) => "origin_len",
        Err(ForwardError::Mac) => "mac",
        Err(ForwardError::From { .. }) => "from",
        Err(ForwardError::To { .. }) => "to",
        Err(ForwardError::Target(_)) => "target",
        Err(ForwardError::NotUtf8) => "not_utf8",
        Err(other) => return Err(other.to_string()),
    };
    equal("error", &got, &text(line, "error")?)
}

fn open(line: &Value, mut header: Bytes) -> Result<(Forward, Answering), ForwardError> {
    let (keys, connection) = credentials(line).map_err(|_| ForwardError::Truncated)?;
    let node = |key| number(line, key).map_or(NodeId(0), NodeId);
    let unverified = ForwardReader::default().feed(&mut header)?;
    assert!(header.is_empty(), "bytes behind the header");
    let unverified = unverified.ok_or(ForwardError::Truncated)?;
    unverified.verify(&keys, &connection, node("from"), node("to"))
}

fn credentials(line: &Value) -> Result<(KeyRing, ConnectionSecret), Failure> {
    let secret = ClusterSecret::new(array(line, "secret")?).map_err(|e| e.to_string())?;
    let keys = KeyRing::new(KeyId(small(line, "key_id")?), secret);
    Ok((keys, ConnectionSecret::new(array(line, "exporter")?)))
}

fn status(word: &str) -> Result<Status, Failure> {
    Ok(match word {
        "open" => Status::Open,
        "refused" => Status::Refused,
        "no_route" => Status::NoRoute,
        "timed_out" => Status::TimedOut,
        "overload" => Status::Overload,
        "lost" => Status::Lost,
        "denied" => Status::Denied,
        "stopping" => Status::Stopping,
        other => return Err(format!("unknown status {other}")),
    })
}
