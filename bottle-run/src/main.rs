//! `bottle-run`: the runner.

mod cli;

use std::process::ExitCode;

use bottle_plan::tool;
use clap::Parser as _;

fn main() -> ExitCode {
    match cli::Cli::try_parse() {
        Ok(args) => {
            let as_json = args.json;
            tool::finish("bottle-run", as_json, cli::run(args))
        }
        Err(error) if error.use_stderr() => {
            let as_json = std::env::args().any(|arg| arg == "--json");
            tool::finish("bottle-run", as_json, Err(tool::usage(&error.to_string())))
        }
        Err(help) => tool::finish(
            "bottle-run",
            false,
            tool::emit(&help.to_string()).map(|()| 0),
        ),
    }
}
