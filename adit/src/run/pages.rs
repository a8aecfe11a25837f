//! `completion` and `man`: what packages ship beside the program.

use clap::CommandFactory;

use super::Context;
use crate::{
    args::{Cli, ManArgs, ShellArg},
    exit::{Code, CommandFailure},
};

pub(super) fn completion(ctx: &Context<'_>, args: &ShellArg) -> Result<(), CommandFailure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut text);
    ctx.print(false, &(), |out| out.write_all(&text))
}

pub(super) fn man(ctx: &Context<'_>, args: &ManArgs) -> Result<(), CommandFailure> {
    let Some(dir) = &args.dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut text)?;
        return ctx.print(false, &(), |out| out.write_all(&text));
    };
    clap_mangen::generate_to(Cli::command(), dir).map_err(|error| {
        let text = format!("cannot write the pages to {}: {error}", dir.display());
        CommandFailure::message(Code::Failure, text)
    })
}

const NAME: &str = "adit";
