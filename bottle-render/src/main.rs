//! `bottle-render`: plan to Compose file.

mod cli;

use std::process::ExitCode;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::{shell, tool};
use bottle_render::{Options, compose, plan_from_json, to_json, to_yaml};
use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command, Format};

const TOOL: &str = "bottle-render";
const USE: &str = "bottle-plan NAME | bottle-render";

fn main() -> ExitCode {
    shell::answer(Cli::command);
    match Cli::try_parse() {
        Ok(cli) => tool::finish(TOOL, cli.json, run(&cli)),
        Err(answer) => tool::not_parsed(TOOL, &answer.to_string(), answer.use_stderr()),
    }
}

fn run(cli: &Cli) -> Result<u8> {
    match &cli.command {
        Some(Command::Completions { shell }) => return shell::print_completions(shell, TOOL),
        Some(Command::Man { folder }) => return shell::write_man_pages(Cli::command(), folder),
        None => {}
    }
    let text = String::from_utf8(tool::read_stdin("a plan", USE)?).map_err(|error| {
        Failure::invalid("the plan is not UTF-8")
            .because(error)
            .hint(USE)
    })?;
    let plan = plan_from_json(&text)?;
    let options = Options {
        standalone: cli.standalone,
    };
    let compose = compose(&plan, options)?;
    // The whole document is there before its first byte is written.
    let document = match cli.format {
        Format::Yaml => to_yaml(&compose)?,
        Format::Json => to_json(&compose)?,
    };
    tool::emit(&document).map(|()| 0)
}
