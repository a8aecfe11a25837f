//! `agents list`, `sessions list` and `route explain`: questions to the running gateway.

use std::time::Duration;

use super::{Context, odd_answer};
use crate::{
    admin::{AgentRow, Answer, CandidateRow, Request, SessionRow},
    args::{Json, RouteExplain},
    exit::CommandFailure,
    output,
};

pub(super) fn agents(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
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
        output::table(&mut out, &heading, agents.iter().map(agent_row).collect())
    })
}

pub(super) fn sessions(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let Answer::Sessions(sessions) = ctx.ask_gateway(&Request::SessionsList {})? else {
        return Err(odd_answer());
    };
    let row = |s: &SessionRow| {
        let agent = s
            .agent
            .map_or_else(|| "direct".to_owned(), |a| a.to_string());
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            s.id.to_string(),
            or_none(&s.user),
            or_none(&s.ingress),
            s.target.clone(),
            agent,
            span_ms(s.age_ms),
        ]
    };
    ctx.print(json.json, &sessions, |mut out| {
        output::table(
            &mut out,
            &["ID", "USER", "INGRESS", "TARGET", "AGENT", "AGE"],
            sessions.iter().map(row).collect(),
        )
    })
}

pub(super) fn explain(ctx: &Context<'_>, args: &RouteExplain) -> Result<(), CommandFailure> {
    let request = Request::RouteExplain {
        target: args.target.to_string(),
        agent: args.agent,
    };
    let Answer::Explanation(view) = ctx.ask_gateway(&request)? else {
        return Err(odd_answer());
    };
    let row = |(i, c): (usize, &CandidateRow)| {
        let order = (i + 1).to_string();
        vec![
            order,
            c.name.clone(),
            c.agent.to_string(),
            c.route.clone(),
            c.rung.to_string(),
            c.sessions.to_string(),
        ]
    };
    let heading = ["ORDER", "NAME", "ID", "ROUTE", "RUNG", "SESSIONS"];
    ctx.print(args.json.json, &view, |mut out| {
        if view.candidates.is_empty() {
            let then = match view.fallback.as_str() {
                "direct" => "the gateway dials it itself",
                _ => "the session is refused",
            };
            return writeln!(out, "no connected agent advertises {}; {then}", view.target);
        }
        output::table(
            &mut out,
            &heading,
            view.candidates.iter().enumerate().map(row).collect(),
        )
    })
}

fn agent_row(agent: &AgentRow) -> Vec<String> {
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
    vec![
        agent.name.clone(),
        agent.id.to_string(),
        agent.status.clone(),
        agent.sessions.to_string(),
        span_ms(agent.connected_ms),
        span_ms(agent.silent_ms),
        shown,
    ]
}

fn span_ms(ms: u64) -> String {
    output::span(Duration::from_millis(ms))
}

/// Routes of one agent in a table; `--json` has them all.
const ROUTES_SHOWN: usize = 4;
