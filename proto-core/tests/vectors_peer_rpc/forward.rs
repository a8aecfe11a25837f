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
        "record" => record(line),
        "refused_record" => refused_record(line),
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
    let forward = wanted(line)?;
    let (keys, connection) = credentials(line)?;
    let header = bytes(line, "header")?;
    let sealed = forward.seal(&keys, &connection);
    let (sealed, mut reader) = sealed.map_err(|e| e.to_string())?;
    equal("sealed", &sealed, &header)?;
    let (opened, answering) = open(line, header).map_err(|e| e.to_string())?;
    equal("opened", &opened, &forward)?;
    let expected = outcome(line)?;
    let mut answer = bytes(line, "answer")?;
    let sealed = answering.seal(expected.status, &expected.reason);
    equal("answer", &sealed, &answer)?;
    equal("read", &reader.feed(&mut answer), &Ok(Some(expected)))
}

/// The session of a line.
fn wanted(line: &Value) -> Result<Forward, Failure> {
    let uuid = |text: &str| text.parse().map_err(|_| format!("no UUID: {text}"));
    Ok(Forward {
        from: NodeId(number(line, "from")?),
        to: NodeId(number(line, "to")?),
        session: SessionId(uuid(text(line, "session")?)?),
        agent: match maybe_text(line, "agent")? {
            Some(text) => Some(AgentId(uuid(text)?)),
            None => None,
        },
        target: text(line, "target")?.parse().map_err(|e| format!("{e}"))?,
        origin: text(line, "origin")?.into(),
    })
}

/// Its answer.
fn outcome(line: &Value) -> Result<Answer, Failure> {
    Ok(Answer {
        status: status(text(line, "status")?)?,
        reason: text(line, "reason")?.into(),
    })
}

fn record(line: &Value) -> Result<(), Failure> {
    expect_keys(
        line,
        &[
            "kind", "from", "to", "session", "agent", "target", "origin", "header", "status",
            "reason", "answer",
        ],
    )?;
    let (forward, header) = (wanted(line)?, bytes(line, "header")?);
    equal("written", &forward.to_record(), &header)?;
    let read = Forward::from_record(&header, forward.from, forward.to);
    equal("read", &read, &Ok(forward))?;
    let (expected, answer) = (outcome(line)?, bytes(line, "answer")?);
    let written = Answer::to_record(expected.status, &expected.reason);
    equal("answer", &written, &answer)?;
    equal("heard", &Answer::from_record(&answer), &Ok(expected))
}

fn refused_record(line: &Value) -> Result<(), Failure> {
    expect_keys(line, &["kind", "error", "from", "to", "header"])?;
    let (from, to) = (number(line, "from")?, number(line, "to")?);
    let header = bytes(line, "header")?;
    let got = match Forward::from_record(&header, NodeId(from), NodeId(to)) {
        Ok(forward) => return Err(format!("taken: {forward:?}")),
        Err(error) => name(error)?,
    };
    equal("error", &got, &text(line, "error")?)
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
        Err(error) => name(error)?,
    };
    equal("error", &got, &text(line, "error")?)
}

/// What a line calls an error.
fn name(error: ForwardError) -> Result<&'static str, Failure> {
    Ok(match error {
        ForwardError::Version { .. } => "version",
        ForwardError::Hop { .. } => "hop",
        ForwardError::TargetLen { .. } => "target_len",
        ForwardError::OriginLen { .. } => "origin_len",
        ForwardError::Mac => "mac",
        ForwardError::From { .. } => "from",
        ForwardError::To { .. } => "to",
        ForwardError::Target(_) => "target",
        ForwardError::NotUtf8 => "not_utf8",
        ForwardError::KeyId { .. } => "key_id",
        ForwardError::Behind => "behind",
        ForwardError::Truncated => "truncated",
        other => return Err(other.to_string()),
    })
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
