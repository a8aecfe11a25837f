//! `token create`, `token list` and `token revoke`.

use super::{Context, odd_answer};
use crate::{
    admin::{Answer, Request, TokenRequest, TokenRow},
    args::{Json, TokenCreate, TokenRevoke},
    exit::CommandFailure,
    output::{self, printable},
};

/// Asks the running gateway for an enrolment string and prints it alone on stdout, ready for a pipe.
pub(super) fn create(ctx: &Context<'_>, args: &TokenCreate) -> Result<(), CommandFailure> {
    let request = Request::TokenCreate(TokenRequest {
        name: args.name.clone(),
        lifetime_s: args.lifetime.as_secs(),
        url: args.url.clone(),
    });
    let Answer::Token(created) = ctx.ask_gateway(&request)? else {
        return Err(odd_answer());
    };
    ctx.print(args.json.json, &created, |out| {
        writeln!(out, "{}", created.token)
    })
}

/// Lists what the running gateway knows of the strings that it issued.
pub(super) fn list(ctx: &Context<'_>, json: Json) -> Result<(), CommandFailure> {
    let Answer::Tokens(tokens) = ctx.ask_gateway(&Request::TokenList {})? else {
        return Err(odd_answer());
    };
    let row = |t: &TokenRow| {
        let used_by = t.used_by.map_or_else(|| "-".to_owned(), |a| a.to_string());
        let expires = i64::try_from(t.expires_unix_s).unwrap_or(i64::MAX);
        vec![
            t.jti.to_string(),
            t.name.clone(),
            t.state.clone(),
            output::unix_time(expires),
            used_by,
        ]
    };
    let heading = ["ID", "NAME", "STATE", "EXPIRES", "USED BY"];
    ctx.print(json.json, &tokens, |mut out| {
        output::table(&mut out, &heading, tokens.iter().map(row).collect())
    })
}

/// Has the running gateway refuse a string from now on.
pub(super) fn revoke(ctx: &Context<'_>, args: &TokenRevoke) -> Result<(), CommandFailure> {
    let request = Request::TokenRevoke { jti: args.jti };
    let Answer::Revoked(token) = ctx.ask_gateway(&request)? else {
        return Err(odd_answer());
    };
    ctx.print(args.json.json, &token, |out| {
        writeln!(out, "revoked {} for {}", token.jti, printable(&token.name))
    })
}
