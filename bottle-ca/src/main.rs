//! `bottle-ca`: parses, calls, prints, exits.

mod cli;
mod commands;

use std::process::ExitCode;

use bottle_plan::failure::Result;
use bottle_plan::{shell, tool};
use clap::{CommandFactory as _, Parser as _};

const TOOL: &str = "bottle-ca";

fn main() -> ExitCode {
    shell::answer(cli::Cli::command);
    match cli::Cli::try_parse() {
        Ok(cli) => tool::finish(TOOL, cli.json, run(&cli)),
        Err(answer) => tool::not_parsed(TOOL, &answer.to_string(), answer.use_stderr()),
    }
}

fn run(cli: &cli::Cli) -> Result<u8> {
    match &cli.command {
        Some(cli::Command::Completions { shell }) => return shell::print_completions(shell, TOOL),
        Some(cli::Command::Man { folder }) => {
            return shell::write_man_pages(cli::Cli::command(), folder);
        }
        _ => {}
    }
    let report = commands::run(cli)?;
    if !cli.quiet && !report.note.is_empty() {
        tool::say(TOOL, &report.note);
    }
    tool::emit(&report.product)?;
    Ok(0)
}
