//! `bottle-plan`: manifest to plan.

mod cli;

use std::process::ExitCode;

use bottle_plan::{shell, tool};

fn main() -> ExitCode {
    shell::answer::<cli::Cli>();
    match shell::parse::<cli::Cli>() {
        Ok(args) => {
            let as_json = args.flags.json;
            tool::finish("bottle-plan", as_json, cli::run(args))
        }
        Err(answer) => tool::not_parsed("bottle-plan", &answer.to_string(), answer.use_stderr()),
    }
}
