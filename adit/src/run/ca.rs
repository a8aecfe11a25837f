//! `ca`: the authorities of a gateway.

use serde::Serialize;

use super::{Context, odd_answer};
use crate::{
    admin::{Answer, Request},
    args::{CaVerb, Json},
    exit::{Code, CommandFailure},
    output,
    pki::rotation::certificates,
    state::StateDir,
};

pub(super) fn ca(ctx: &Context<'_>, verb: &CaVerb) -> Result<(), CommandFailure> {
    match verb {
        CaVerb::Export(json) => export(ctx, *json),
        CaVerb::Show(json) => ask(ctx, &Request::CaShow {}, *json),
        CaVerb::Rotate(json) => ask(ctx, &Request::CaRotate {}, *json),
        CaVerb::Retire(args) => {
            let force = args.force;
            ask(ctx, &Request::CaRetire { force }, args.json)
        }
    }
}

#[derive(Serialize)]
struct Exported<'a> {
    /// In PEM: the CA that signs, then a former one.
    certificates: &'a [String],
}

/// Reads what is on disk, so that it works whether or not the gateway runs.
fn export(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let failed = |error| CommandFailure::new(Code::Failure, error);
    let dir = StateDir::open_existing(ctx.gateway_state_dir()?)
        .map_err(|error| CommandFailure::new(Code::Failure, error))?;
    let all = certificates(&dir).map_err(failed)?;
    let view = Exported { certificates: &all };
    ctx.print(json.json, &view, |out| {
        all.iter().try_for_each(|pem| out.write_all(pem.as_bytes()))
    })
}

fn ask(ctx: &Context<'_>, request: &Request, json: Json) -> Result<(), CommandFailure> {
    let Answer::Ca(view) = ctx.ask_gateway(request)? else {
        return Err(odd_answer());
    };
    ctx.print(json.json, &view, |out| {
        writeln!(out, "signing key   {}", view.key_sha256)?;
        let Some(until) = view.former_until_unix_s else {
            return writeln!(out, "former CA     none");
        };
        let until = output::unix_time(until);
        writeln!(
            out,
            "former CA     trusted; its last certificate ends {until}"
        )?;
        writeln!(
            out,
            "agents on it  {} of {}",
            view.agents_on_former, view.agents
        )
    })
}
