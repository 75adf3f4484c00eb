//! `bottle-ca`: parses, calls, prints, exits.

mod cli;
mod commands;

use std::process::ExitCode;

use bottle_plan::failure::Result;
use bottle_plan::tool;

const TOOL: &str = "bottle-ca";

fn main() -> ExitCode {
    let (as_json, result) = match cli::Cli::read() {
        Ok(cli) => (cli.json, run(&cli)),
        Err((as_json, failure)) => (as_json, Err(failure)),
    };
    tool::finish(TOOL, as_json, result)
}

fn run(cli: &cli::Cli) -> Result<u8> {
    let report = commands::run(cli)?;
    if !cli.quiet && !report.note.is_empty() {
        tool::say(TOOL, &report.note);
    }
    tool::emit(&report.product)?;
    Ok(0)
}
