//! `token create`.

use super::{Context, odd_answer};
use crate::{
    admin::{Answer, Request, TokenRequest},
    args::TokenCreate,
    exit::CommandFailure,
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
