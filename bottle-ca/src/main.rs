//! `bottle-ca`: parses, calls, prints, exits.

mod cli;
mod commands;

use std::process::ExitCode;

use bottle_plan::failure::Result;
use bottle_plan::tool;
use clap::Parser as _;

const TOOL: &str = "bottle-ca";

fn main() -> ExitCode {
    match cli::Cli::try_parse() {
        Ok(cli) => tool::finish(TOOL, cli.json, run(&cli)),
        Err(answer) => tool::not_parsed(TOOL, &answer.to_string(), answer.use_stderr()),
    }
}

fn run(cli: &cli::Cli) -> Result<u8> {
    let report = commands::run(cli)?;
    if !cli.quiet && !report.note.is_empty() {
        tool::say(TOOL, &report.note);
    }
    tool::emit(&report.product)?;
    Ok(0)
}
