//! `bottle-render`: parses, calls, prints, exits.

mod cli;

use std::io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use bottle_plan::failure::Failure;
use bottle_render::{Options, compose, plan_from_json, to_json, to_yaml};

use cli::{Cli, Format};

const TOOL: &str = "bottle-render";

/// Far more than any plan; keeps a wrong pipe from filling the memory.
const MOST_BYTES: u64 = 16 << 20;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(failure) => return fail(&failure, true),
    };
    // The whole document is there before its first byte is written.
    match render(&cli).and_then(|document| deliver(&document)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure, cli.json),
    }
}

fn render(cli: &Cli) -> Result<String, Failure> {
    let plan = plan_from_json(&read_stdin()?)?;
    let compose = compose(
        &plan,
        Options {
            standalone: cli.standalone,
        },
    )?;
    match cli.format {
        Format::Yaml => to_yaml(&compose),
        Format::Json => to_json(&compose),
    }
}

fn read_stdin() -> Result<String, Failure> {
    let hint = "bottle-plan NAME | bottle-render";
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        return Err(
            Failure::invalid("a plan is expected on stdin, which is a terminal").hint(hint),
        );
    }
    let mut bytes = Vec::new();
    stdin
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed("cannot read stdin").because(error))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Failure::invalid(format!(
            "stdin holds more than {MOST_BYTES} bytes, which is no plan"
        ))
        .hint(hint));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| Failure::invalid("the plan is not UTF-8").because(error))?;
    if text.trim_ascii().is_empty() {
        return Err(Failure::invalid("a plan is expected on stdin, which is empty").hint(hint));
    }
    Ok(text)
}

fn deliver(document: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(document.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // Whoever read us has gone, and knows why.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::failed("cannot write to stdout").because(error)),
    }
}

fn fail(failure: &Failure, as_json: bool) -> ExitCode {
    // If even stderr is closed, there is nobody left to tell.
    let _ = io::stderr().write_all(failure.render(TOOL, as_json).as_bytes());
    ExitCode::from(failure.kind().code())
}
