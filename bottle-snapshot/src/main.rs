//! `bottle-snapshot`: the freezer.

mod cli;

use std::process::ExitCode;

use bottle_plan::{shell, tool};
use clap::{CommandFactory as _, Parser as _};

fn main() -> ExitCode {
    shell::answer(cli::Cli::command);
    match cli::Cli::try_parse() {
        Ok(args) => {
            let as_json = args.json;
            tool::finish("bottle-snapshot", as_json, cli::run(args))
        }
        Err(answer) => {
            tool::not_parsed("bottle-snapshot", &answer.to_string(), answer.use_stderr())
        }
    }
}
