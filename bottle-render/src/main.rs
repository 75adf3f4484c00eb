//! `bottle-render`: plan to Compose file.

mod cli;

use std::process::ExitCode;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::{shell, tool};
use bottle_render::{Options, compose, plan_from_json, to_json, to_yaml};

use cli::{Cli, Command, Format};

const TOOL: &str = "bottle-render";
const USE: &str = "bottle-plan NAME | bottle-render";

fn main() -> ExitCode {
    shell::answer::<Cli>();
    match shell::parse::<Cli>() {
        Ok(cli) => tool::finish(TOOL, cli.flags.json, run(&cli)),
        Err(answer) => tool::not_parsed(TOOL, &answer.to_string(), answer.use_stderr()),
    }
}

fn run(cli: &Cli) -> Result<u8> {
    if let Some(Command::Common(common)) = &cli.command {
        return common.run::<Cli>();
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
