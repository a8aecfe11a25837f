//! `health`: whether what runs here serves, for supervisors and containers.

use super::{Context, odd_answer};
use crate::{
    admin::{Answer, HealthView, Request},
    args::HealthArgs,
    config::Role,
    exit::{Code, CommandFailure},
    output::printable,
};

pub(super) fn health(ctx: &Context<'_>, args: &HealthArgs) -> Result<(), CommandFailure> {
    let view = match args.role {
        Some(role) => ask(ctx, role),
        None => either(ctx),
    }?;
    ctx.print(args.json.json, &view, |out| {
        writeln!(out, "{} {}", view.role, printable(&view.detail))
    })?;
    match view.healthy {
        true => Ok(()),
        false => Err(CommandFailure::message(
            Code::Failure,
            format!("the {} does not serve: {}", view.role, view.detail),
        )),
    }
}

/// Asks the gateway, or else the agent. `--config` may name the file of one of them, which the other cannot read.
#[cfg(feature = "gateway")]
fn either(ctx: &Context<'_>) -> Result<HealthView, CommandFailure> {
    let is_absent =
        |failure: &CommandFailure| matches!(failure.code(), Code::Unreachable | Code::Config);
    let gateway = match ask(ctx, Role::Gateway) {
        Err(failure) if is_absent(&failure) => failure,
        asked => return asked,
    };
    match ask(ctx, Role::Agent) {
        Err(failure) if is_absent(&failure) && gateway.code() == Code::Unreachable => Err(gateway),
        asked => asked,
    }
}

/// Asks the agent: there is no gateway in this build.
#[cfg(not(feature = "gateway"))]
fn either(ctx: &Context<'_>) -> Result<HealthView, CommandFailure> {
    ask(ctx, Role::Agent)
}

fn ask(ctx: &Context<'_>, role: Role) -> Result<HealthView, CommandFailure> {
    let answer = match role {
        #[cfg(feature = "gateway")]
        Role::Gateway => ctx.ask_gateway(&Request::Health {}),
        Role::Agent => ctx.ask_agent(&Request::Health {}),
    }?;
    let Answer::Health(view) = answer else {
        return Err(odd_answer());
    };
    Ok(view)
}
