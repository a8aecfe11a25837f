//! Payloads of the catalogue.

use adit_proto_core::{
    domain::DomainPattern,
    id::AgentId,
    peer::{
        NodeId,
        body::{Body, BodyError},
        catalogue::{Announcement, Holding, News, Received, Stamp},
    },
};
use serde_json::Value;

use crate::{
    equal,
    fields::{Failure, bytes, expect_keys, number, numbers, text, texts},
};

pub(crate) fn check(line: &Value) -> Result<(), Failure> {
    match text(line, "kind")? {
        "announcement" => announcement(line),
        "received" => received(line),
        "refused" => refused(line),
        other => Err(format!("unknown kind {other}")),
    }
}

fn announcement(line: &Value) -> Result<(), Failure> {
    expect_keys(
        line,
        &[
            "kind", "node", "epoch", "version", "news", "agents", "subnets", "domains", "payload",
        ],
    )?;
    let holding = Holding {
        agents: parsed(line, "agents", |text| text.parse().map(AgentId).ok())?,
        subnets: parsed(line, "subnets", |text| text.parse().ok())?,
        domains: parsed(line, "domains", |text| DomainPattern::parse(text).ok())?,
    };
    let told = Announcement {
        node: NodeId(number(line, "node")?),
        stamp: Stamp {
            epoch: number(line, "epoch")?,
            version: number(line, "version")?,
        },
        news: match text(line, "news")? {
            "whole" => News::Whole(holding),
            "unchanged" => News::Unchanged,
            "goodbye" => News::Goodbye,
            other => return Err(format!("unknown news {other}")),
        },
    };
    agrees(line, &told)
}

fn received(line: &Value) -> Result<(), Failure> {
    expect_keys(line, &["kind", "held", "highest", "payload"])?;
    let stamp = |key: &str| match numbers(line, key)?[..] {
        [epoch, version] => Ok::<_, Failure>(Stamp { epoch, version }),
        _ => Err(format!("no stamp in field {key}")),
    };
    let held = match line["held"].is_null() {
        true => None,
        false => Some(stamp("held")?),
    };
    let highest = stamp("highest")?;
    agrees(line, &Received { held, highest })
}

fn agrees<T: Body + PartialEq + std::fmt::Debug>(line: &Value, body: &T) -> Result<(), Failure> {
    let payload = bytes(line, "payload")?;
    equal("encoded", &body.encode(), &Ok(payload.clone()))?;
    equal("decoded", &T::decode(&payload).as_ref(), &Ok(body))
}

fn refused(line: &Value) -> Result<(), Failure> {
    expect_keys(line, &["kind", "error", "payload"])?;
    let got = match Announcement::decode(&bytes(line, "payload")?) {
        Ok(told) => return Err(format!("taken: {told:?}")),
        Err(BodyError::Malformed) => "malformed",
        Err(BodyError::Trailing { .. }) => "trailing",
        Err(other) => return Err(other.to_string()),
    };
    equal("error", &got, &text(line, "error")?)
}

fn parsed<T>(line: &Value, key: &str, parse: fn(&str) -> Option<T>) -> Result<Vec<T>, Failure> {
    let all = texts(line, key)?.into_iter();
    all.map(|text| text.and_then(parse).ok_or_else(|| format!("odd {key}")))
        .collect()
}
