//! Commands in the agent's container: as its user, in its folder, with a terminal when there is one.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::handle::Containers;
use bottle_plan::plan::{EnvSource, Plan};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bottle::around_exec;
use crate::engine::Engine;
use crate::interrupt;
use crate::provision::HELPER;
use crate::sessions;

/// How a command is connected to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// Frames for our helper inside, which holds a terminal for the command.
    Terminal,
    /// Our stdin, byte for byte.
    Bytes,
    /// None.
    Closed,
}

impl Stdin {
    /// What fits our own stdin and stdout.
    #[must_use]
    pub fn detect() -> Self {
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            Self::Terminal
        } else {
            Self::Bytes
        }
    }
}

/// The provider's command for one task without a terminal.
///
/// # Errors
/// Invalid, when the plan's provider has none.
pub fn headless(plan: &Plan, task: &str) -> Result<Vec<String>> {
    let template = &plan.agent.headless;
    if template.is_empty() {
        return Err(Failure::invalid(format!(
            "the bottle `{}` has no command for a single task",
            plan.slug
        ))
        .hint("give its manifest an `agent_provider`, or run the command itself: bottle-run exec SLUG -- CMD…"));
    }
    let word = |word: &String| match word.as_str() {
        "{{task}}" => task.to_owned(),
        other => other.to_owned(),
    };
    Ok(template.iter().map(word).collect())
}

/// Becomes the engine's client, so that bytes, signals and the exit code are the command's own.
///
/// # Errors
/// Only when the client cannot be started; otherwise this does not return.
pub fn replace_self(engine: &Engine, plan: &Plan, command: &[String], stdin: Stdin) -> Result<u8> {
    let mut client = client(engine, plan, command, stdin);
    if stdin == Stdin::Closed {
        client.stdin(Stdio::null());
    }
    let error = client.exec();
    Err(around_exec(
        Failure::failed("cannot start the engine's client").because(error),
    ))
}

/// Runs a command and waits; a signal to us is passed on, and the caller goes on to clean up.
///
/// # Errors
/// When the client cannot be started or waited for.
pub fn run(engine: &Engine, plan: &Plan, command: &[String]) -> Result<u8> {
    // Our stdin was the document; a person is at the terminal.
    let keyboard = File::options().read(true).write(true).open("/dev/tty").ok();
    if let Some(keyboard) = keyboard.filter(|_| std::io::stdout().is_terminal()) {
        return sessions::once(engine, plan, command, keyboard, false).map_err(around_exec);
    }
    let mut client = client(engine, plan, command, Stdin::Closed);
    client.stdin(Stdio::null());
    let cannot =
        |error| around_exec(Failure::failed("cannot run the engine's client").because(error));
    let mut child = client.spawn().map_err(cannot)?;
    let pid = i32::try_from(child.id()).map(Pid::from_raw);
    let mut passed_on = false;
    loop {
        if let Some(status) = child.try_wait().map_err(cannot)? {
            let code = status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal));
            return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
        if interrupt::signal().is_some() && !passed_on {
            passed_on = true;
            if let Ok(pid) = pid {
                let _ = kill(pid, Signal::SIGTERM);
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn client(engine: &Engine, plan: &Plan, command: &[String], stdin: Stdin) -> Command {
    let mut client = engine.command();
    client.arg("exec");
    match stdin {
        Stdin::Terminal => {
            client.arg("--interactive");
            for name in ["TERM", "COLORTERM", "LANG"] {
                if let Ok(value) = std::env::var(name) {
                    client.arg(format!("--env={name}={value}"));
                }
            }
        }
        Stdin::Bytes => {
            client.arg("--interactive");
        }
        Stdin::Closed => {}
    }
    client.arg(format!("--user={}", plan.agent.user));
    client.arg(format!("--workdir={}", plan.agent.workdir));
    client.arg(Containers::of(plan).agent);
    let has_secrets = plan
        .agent
        .env
        .iter()
        .any(|v| matches!(v.from, EnvSource::Host(_) | EnvSource::Prompt(_)));
    if has_secrets {
        // The helper reads them from the container's memory: on a command line they would be seen in the engine's events.
        client.args([HELPER, "env", "--"]);
    }
    client.args(command);
    client
}
