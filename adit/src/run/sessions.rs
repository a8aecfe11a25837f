//! `sessions`: the running gateway's sessions, listed, shown and ended.

use std::io::{self, Write};

use super::{Context, odd_answer};
use crate::{
    admin::{Answer, Request, SessionRow},
    args::{Json, SessionsKill, SessionsShow},
    exit::CommandFailure,
    output::{self, printable},
};

pub(super) fn list(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let Answer::Sessions(sessions) = ctx.ask_gateway(&Request::SessionsList {})? else {
        return Err(odd_answer());
    };
    ctx.print(json.json, &sessions, |mut out| table(&mut out, &sessions))
}

pub(super) fn show(ctx: &Context<'_>, args: &SessionsShow) -> Result<(), CommandFailure> {
    let id = args.which.id;
    let Answer::Session(session) = ctx.ask_gateway(&Request::SessionsShow { id })? else {
        return Err(odd_answer());
    };
    ctx.print(args.json.json, &session, |out| {
        let names = [
            "id", "user", "ingress", "target", "agent", "age", "sent", "received",
        ];
        for (what, value) in names.iter().zip(row(&session)) {
            writeln!(out, "{what:<12}{}", printable(&value))?;
        }
        Ok(())
    })
}

pub(super) fn kill(ctx: &Context<'_>, args: &SessionsKill) -> Result<(), CommandFailure> {
    let id = args.which.id;
    let Answer::Session(session) = ctx.ask_gateway(&Request::SessionsKill { id })? else {
        return Err(odd_answer());
    };
    ctx.print(args.json.json, &session, |out| {
        writeln!(out, "ended {id} to {}", printable(&session.target))
    })
}

/// Writes sessions as a table.
pub(super) fn table(out: &mut impl Write, sessions: &[SessionRow]) -> io::Result<()> {
    let heading = [
        "ID", "USER", "INGRESS", "TARGET", "AGENT", "AGE", "SENT", "RECEIVED",
    ];
    output::table(out, &heading, sessions.iter().map(row).collect())
}

fn row(s: &SessionRow) -> Vec<String> {
    let agent = match (s.agent, s.peer) {
        (Some(agent), _) => agent.to_string(),
        (None, Some(node)) => format!("peer n{node}"),
        (None, None) => "direct".to_owned(),
    };
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let bytes = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |n| n.to_string());
    vec![
        s.id.to_string(),
        or_none(&s.user),
        or_none(&s.ingress),
        s.target.clone(),
        agent,
        output::span_ms(s.age_ms),
        bytes(s.sent),
        bytes(s.received),
    ]
}
