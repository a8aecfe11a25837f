//! `route explain`.

use super::{Context, odd_answer};
use crate::{
    admin::{Answer, CandidateRow, PassedOverRow, PeerCandidateRow, Request},
    args::RouteExplain,
    exit::CommandFailure,
    output,
};

pub(super) fn explain(ctx: &Context<'_>, args: &RouteExplain) -> Result<(), CommandFailure> {
    let request = Request::RouteExplain {
        target: args.target.to_string(),
        agent: args.agent,
    };
    let Answer::Explanation(view) = ctx.ask_gateway(&request)? else {
        return Err(odd_answer());
    };
    let row = |c: &CandidateRow| {
        vec![
            c.name.clone(),
            c.agent.to_string(),
            c.route.clone(),
            c.rung.to_string(),
            c.sessions.to_string(),
        ]
    };
    let peer = |p: &PeerCandidateRow| {
        let (node, none) = (format!("n{}", p.node), "-".to_owned());
        let sessions = p.sessions.to_string();
        let name = match p.forward.as_str() {
            "replica" => "peer, replica link",
            _ => "peer",
        };
        vec![name.to_owned(), node, p.route.clone(), none, sessions]
    };
    // Each peer stands behind the agents that are tried before it.
    let rows = || {
        let mut rows: Vec<Vec<String>> = view.candidates.iter().map(row).collect();
        for (nth, p) in view.peers.iter().enumerate() {
            rows.insert((p.after + nth).min(rows.len()), peer(p));
        }
        let order = |(i, row): (usize, Vec<String>)| [vec![(i + 1).to_string()], row].concat();
        rows.into_iter().enumerate().map(order).collect()
    };
    let passed = |p: &PassedOverRow| {
        let agent = p.agent.to_string();
        vec![p.name.clone(), agent, p.route.clone(), p.why.clone()]
    };
    ctx.print(args.json.json, &view, |mut out| {
        if view.candidates.is_empty() && view.peers.is_empty() {
            let then = match view.fallback.as_str() {
                "direct" => "the gateway dials it itself",
                _ => "the session is refused",
            };
            let none = match view.passed_over.is_empty() {
                true => "no connected agent advertises",
                false => "no agent takes sessions at the moment for",
            };
            writeln!(out, "{none} {}; {then}", view.target)?;
        } else {
            let heading = ["ORDER", "NAME", "ID", "ROUTE", "RUNG", "SESSIONS"];
            output::table(&mut out, &heading, rows())?;
        }
        if view.passed_over.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nPassed over:")?;
        let rows = view.passed_over.iter().map(passed).collect();
        output::table(&mut out, &["NAME", "ID", "ROUTE", "WHY"], rows)
    })
}
