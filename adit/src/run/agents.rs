//! `agents`: the running gateway's agents, listed, shown, drained and deleted.

use std::io::{self, Write};

use super::{Context, odd_answer, sessions};
use crate::{
    admin::{AgentDetails, AgentRow, Answer, Request},
    args::{AgentsDelete, AgentsDrain, AgentsShow, Json},
    exit::CommandFailure,
    output::{self, printable},
};

pub(super) fn list(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let Answer::Agents(agents) = ctx.ask_gateway(&Request::AgentsList {})? else {
        return Err(odd_answer());
    };
    let heading = [
        "NAME",
        "ID",
        "STATUS",
        "SESSIONS",
        "CONNECTED",
        "SILENT",
        "ROUTES",
    ];
    ctx.print(json.json, &agents, |mut out| {
        output::table(&mut out, &heading, agents.iter().map(row).collect())
    })
}

pub(super) fn show(ctx: &Context<'_>, args: &AgentsShow) -> Result<(), CommandFailure> {
    let agent = args.which.agent.clone();
    let Answer::AgentDetails(details) = ctx.ask_gateway(&Request::AgentsShow { agent })? else {
        return Err(odd_answer());
    };
    ctx.print(args.json.json, &details, |out| write_details(out, &details))
}

pub(super) fn delete(ctx: &Context<'_>, args: &AgentsDelete) -> Result<(), CommandFailure> {
    let agent = args.which.agent.clone();
    let Answer::Deleted(done) = ctx.ask_gateway(&Request::AgentsDelete { agent })? else {
        return Err(odd_answer());
    };
    ctx.print(args.json.json, &done, |out| {
        let name = printable(&done.name);
        writeln!(
            out,
            "deleted {name} ({}); connections closed: {}",
            done.id, done.closed
        )
    })
}

pub(super) fn drain(ctx: &Context<'_>, args: &AgentsDrain) -> Result<(), CommandFailure> {
    let request = Request::AgentsDrain {
        agent: args.which.agent.clone(),
        drained: !args.undo,
    };
    let Answer::Drained(done) = ctx.ask_gateway(&request)? else {
        return Err(odd_answer());
    };
    ctx.print(args.json.json, &done, |out| {
        let who = format!("{} ({})", printable(&done.name), done.id);
        match args.undo {
            true => writeln!(out, "{who} takes new sessions again"),
            false => writeln!(out, "drained {who}; sessions that go on: {}", done.sessions),
        }
    })
}

fn write_details(mut out: &mut dyn Write, agent: &AgentDetails) -> io::Result<()> {
    let or_none = |text: Option<&String>| text.map_or_else(|| "-".to_owned(), |t| printable(t));
    let enrolled = i64::try_from(agent.enrolled_unix_s).unwrap_or(i64::MAX);
    let ends = agent.certificate_ends_unix_s;
    for (what, value) in [
        ("name", printable(&agent.name)),
        ("id", agent.id.to_string()),
        (
            "drained",
            if agent.drained { "yes" } else { "no" }.to_owned(),
        ),
        ("hostname", or_none(agent.hostname.as_ref())),
        ("enrolled", output::unix_time(enrolled)),
        ("certificate", format!("until {}", output::unix_time(ends))),
        ("fingerprint", agent.fingerprint.clone()),
        ("key", agent.key_sha256.clone()),
        ("next key", or_none(agent.renewed_key_sha256.as_ref())),
    ] {
        writeln!(out, "{what:<12}{value}")?;
    }
    if agent.connections.is_empty() {
        writeln!(out, "connections offline")?;
    }
    for connection in &agent.connections {
        writeln!(
            out,
            "connection  {} from {}, round trip {}, for {}, silent for {}, sessions {}, epoch {}",
            connection.status,
            or_none(connection.remote.as_ref()),
            micros(connection.rtt_us),
            span(connection.connected_ms),
            span(connection.silent_ms),
            connection.sessions,
            connection.epoch
        )?;
        for route in connection.subnets.iter().chain(&connection.domains) {
            writeln!(out, "  route     {}", printable(route))?;
        }
    }
    if agent.sessions.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    sessions::table(&mut out, &agent.sessions)
}

fn row(agent: &AgentRow) -> Vec<String> {
    let routes: Vec<&str> = agent
        .subnets
        .iter()
        .chain(&agent.domains)
        .map(String::as_str)
        .collect();
    let shown = match routes.len() {
        0 => "-".to_owned(),
        1..=ROUTES_SHOWN => routes.join(", "),
        n => format!(
            "{}, and {} more",
            routes[..ROUTES_SHOWN].join(", "),
            n - ROUTES_SHOWN
        ),
    };
    let drained = if agent.drained { ", drained" } else { "" };
    vec![
        agent.name.clone(),
        agent.id.to_string(),
        format!("{}{drained}", agent.status),
        agent.sessions.to_string(),
        span(agent.connected_ms),
        span(agent.silent_ms),
        shown,
    ]
}

fn micros(us: Option<u64>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| format!("{us} us"))
}

fn span(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".to_owned(), output::span_ms)
}

/// Routes of one agent in a table; `agents show` and `--json` have them all.
const ROUTES_SHOWN: usize = 4;
