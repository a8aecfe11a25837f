//! `config show` and `config check`.

use serde::Serialize;

use super::Context;
use crate::{
    args::ConfigArgs,
    config::{ConfigError, Role, Setting},
    exit::CommandFailure,
    output,
};

/// Shows every value in force and its source.
pub(super) fn show(ctx: &Context<'_>, args: &ConfigArgs) -> Result<(), CommandFailure> {
    let settings = match args.role {
        #[cfg(feature = "gateway")]
        Role::Gateway => ctx.gateway_draft()?.settings,
        Role::Agent => ctx.agent_config()?.settings,
    };
    ctx.print(args.json.json, &settings, |mut out| {
        let row = |s: &Setting| vec![s.key.clone(), s.value.clone(), s.source.to_string()];
        output::table(
            &mut out,
            &["KEY", "VALUE", "SOURCE"],
            settings.iter().map(row).collect(),
        )
    })
}

/// Prints `ok`, or all problems and fails.
pub(super) fn check(ctx: &Context<'_>, args: &ConfigArgs) -> Result<(), CommandFailure> {
    let result = settings(ctx, args.role);
    match (result, args.json.json) {
        (Ok(_), json) => ctx.print(json, &Verdict::new(&[]), |out| writeln!(out, "ok")),
        (Err(error), true) => {
            ctx.print(true, &Verdict::new(&error.problems), |_| Ok(()))?;
            Err(error.into())
        }
        (Err(error), false) => Err(error.into()),
    }
}

fn settings(ctx: &Context<'_>, role: Role) -> Result<Vec<Setting>, ConfigError> {
    match role {
        #[cfg(feature = "gateway")]
        Role::Gateway => Ok(ctx.gateway_config()?.settings),
        Role::Agent => Ok(ctx.agent_config()?.settings),
    }
}

#[derive(Serialize)]
struct Verdict {
    ok: bool,
    problems: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    source: String,
    message: String,
}

impl Verdict {
    fn new(problems: &[crate::config::Problem]) -> Self {
        let line = |p: &crate::config::Problem| Line {
            source: p.source.to_string(),
            message: p.message.clone(),
        };
        Self {
            ok: problems.is_empty(),
            problems: problems.iter().map(line).collect(),
        }
    }
}
