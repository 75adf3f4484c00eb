//! `up` and `run`: their flags, and what they call.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use bottle_plan::explain::explain;
use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::plan::{EnvSource, Plan};
use bottle_plan::{state, tool};
use bottle_run::bottle::{Home, around_exec};
use bottle_run::engine::Engine;
use bottle_run::{exec, interrupt, up};
use clap::Args;

use super::{TOOL, remove};

#[derive(Args, Debug)]
pub(super) struct Up {
    /// Read the rendered file from here instead of stdin
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Refuse another plan than the one with this digest
    #[arg(long, value_name = "DIGEST")]
    expect_digest: Option<String>,
    /// Hand the bottle over only when the whole check passes (see `bottle-run check`)
    #[arg(long)]
    check: bool,
    /// Say what would be started, and whether its secrets are there; start nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct Run {
    #[command(flatten)]
    up: Up,
    #[command(flatten)]
    task: Task,
    /// Run this instead of the plan's command
    #[arg(last = true, value_name = "CMD", conflicts_with = "prompt")]
    command: Vec<String>,
}

/// One task instead of a conversation.
#[derive(Args, Debug)]
pub(super) struct Task {
    /// Do one task without a terminal, print what the agent says at the end, and take its exit code
    #[arg(long, requires = "prompt")]
    headless: bool,
    /// The task
    #[arg(long, value_name = "TEXT", requires = "headless")]
    prompt: Option<String>,
}

impl Task {
    pub(super) fn command(&self, plan: &Plan) -> Result<Option<Vec<String>>> {
        self.prompt
            .as_deref()
            .map(|task| exec::headless(plan, task))
            .transpose()
    }
}

pub(super) fn up(
    engine: &Engine,
    args: &Up,
    quiet: bool,
    ask: bool,
    say: &dyn Fn(&str),
) -> Result<u8> {
    let request = request(args, quiet, ask)?;
    if args.dry_run {
        return dry_run(&request);
    }
    interrupt::watch()?;
    let handle = up::up(engine, &request, say)?;
    tool::emit(&state::to_json(&handle)?).map(|()| 0)
}

pub(super) fn run(
    engine: &Engine,
    args: Run,
    quiet: bool,
    ask: bool,
    say: &dyn Fn(&str),
) -> Result<u8> {
    let request = request(&args.up, quiet, ask)?;
    if args.up.dry_run {
        return dry_run(&request);
    }
    let command = args.task.command(&request.plan)?.unwrap_or(args.command);
    run_and_remove(engine, &request, &command, say)
}

/// Reads the rendered file, and the plan in it.
fn request(args: &Up, quiet: bool, ask: bool) -> Result<up::Request> {
    let hint = "bottle-plan NAME | bottle-render | bottle-run up";
    let bytes = match &args.file {
        Some(path) => std::fs::read(path).at("read", path)?,
        None => tool::read_stdin("a rendered bottle", hint)?,
    };
    let compose = String::from_utf8(bytes).map_err(|error| {
        Failure::invalid("the rendered bottle is not UTF-8 text")
            .because(error)
            .hint(hint)
    })?;
    let document: serde_json::Value = serde_yaml::from_str(&compose).map_err(|error| {
        Failure::invalid("the rendered bottle is not YAML")
            .because(error)
            .hint(hint)
    })?;
    let mut plan = bottle_render::plan_from_compose(&document)?;
    // A stage in between may have changed the plan: what it grants counts, not what it says it grants.
    let digest = bottle_plan::digest::of(&plan)?;
    if digest != plan.digest {
        if !quiet {
            tool::say(
                TOOL,
                &format!("warning: the plan was changed after it was made; its digest is {digest}"),
            );
        }
        plan.labels.insert("bottle.plan".to_owned(), digest.clone());
        plan.digest = digest;
    }
    if let Some(expected) = args
        .expect_digest
        .as_ref()
        .filter(|expected| **expected != plan.digest)
    {
        return Err(Failure::refused(format!(
            "the plan's digest is {}, not {expected}",
            plan.digest
        ))
        .hint(format!(
            "see what differs before approving it: bottle-plan NAME | bottle-plan diff {} -",
            approved(&plan, expected)
        )));
    }
    let progress = !quiet && std::io::stderr().is_terminal();
    Ok(up::Request {
        plan,
        compose,
        progress,
        check: args.check,
        planted: Vec::new(),
        ask,
    })
}

/// Where the approved plan can be read: the bottle's own last one, when it is that.
fn approved(plan: &Plan, expected: &str) -> String {
    let kept = std::fs::read(plan.state.join("plan.json")).ok();
    let kept: Option<Plan> = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match kept {
        Some(kept) if kept.digest == expected => plan.slug.clone(),
        _ => "APPROVED.json".to_owned(),
    }
}

fn dry_run(request: &up::Request) -> Result<u8> {
    let plan = &request.plan;
    tool::say(TOOL, &format!("would start {}", explain(plan)));
    let given = plan
        .agent
        .env
        .iter()
        .filter_map(|variable| match &variable.from {
            EnvSource::Host(name) => Some(name),
            _ => None,
        });
    for name in plan.egress.slots.iter().map(|slot| &slot.host).chain(given) {
        let there = if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
            "set"
        } else {
            "NOT set"
        };
        tool::say(TOOL, &format!("${name} is {there}"));
    }
    Ok(0)
}

/// `up`, the command, `down`: the last whatever the first two did.
fn run_and_remove(
    engine: &Engine,
    request: &up::Request,
    command: &[String],
    say: &dyn Fn(&str),
) -> Result<u8> {
    interrupt::watch()?;
    let handle = up::up(engine, request, say).map_err(around_exec)?;
    let command = if command.is_empty() {
        &request.plan.agent.command
    } else {
        command
    };
    let ran = exec::run(engine, &request.plan, command);
    let signal = interrupt::signal();
    interrupt::clear();
    let home =
        Home::find(handle.state.parent().and_then(|state| state.parent())).map_err(around_exec)?;
    let slugs = [handle.slug];
    let removed = remove(engine, &home, &slugs, false, false, &|_| {}).map_err(around_exec);
    let code = ran?;
    removed?;
    Ok(signal.map_or(code, |number| 128 + number))
}
