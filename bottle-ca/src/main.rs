//! `bottle-ca`: parses, calls, prints, exits.

mod cli;
mod commands;

use std::process::ExitCode;

use bottle_plan::failure::Result;
use bottle_plan::{shell, tool};

const TOOL: &str = "bottle-ca";

fn main() -> ExitCode {
    shell::answer::<cli::Cli>();
    match shell::parse::<cli::Cli>() {
        Ok(cli) => tool::finish(TOOL, cli.flags.json, run(&cli)),
        Err(answer) => tool::not_parsed(TOOL, &answer.to_string(), answer.use_stderr()),
    }
}

fn run(cli: &cli::Cli) -> Result<u8> {
    if let Some(cli::Command::Common(common)) = &cli.command {
        return common.run::<cli::Cli>();
    }
    let report = commands::run(cli)?;
    if !cli.flags.quiet && !report.note.is_empty() {
        tool::say(TOOL, &report.note);
    }
    tool::emit(&report.product)?;
    Ok(0)
}
