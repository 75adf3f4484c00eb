//! Sessions: commands on terminals inside a bottle that go on when the terminal here is gone.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::thread;

use bottle_plan::failure::{Failure, PathContext as _, Result, printable};
use bottle_plan::frame::is_session_name;
use bottle_plan::handle::Containers;
use bottle_plan::plan::Plan;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::exec::{self, Stdin};
use crate::provision::HELPER;
use crate::terminal::keys::{self, Keys};
use crate::terminal::{self, Ended, Options};

/// The session that is meant when none is named.
pub const USUAL: &str = "main";

/// More sessions than this of one bottle are not listed: what lists them is inside, and may say anything.
const MOST: usize = 64;

/// The longest command that is shown of a session, in characters.
const SHOWN: usize = 200;

/// A session of a running bottle, as the bottle says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub command: Vec<String>,
    /// How many terminals are connected to it.
    pub terminals: u32,
}

/// What `attach` is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Attach<'a> {
    /// The session; started when there is none of this name.
    pub name: &'a str,
    /// What it runs when it is started.
    pub command: &'a [String],
    /// The keys that leave it, by name; none: Docker's.
    pub detach_keys: Option<&'a str>,
    /// Whether everything that is printed reaches the terminal.
    pub raw: bool,
}

/// Connects this terminal to a session. Leaving it is code 0.
///
/// # Errors
/// Invalid, when the name or the keys are none; failed, when the bottle does not answer.
pub fn attach(engine: &Engine, plan: &Plan, wanted: &Attach<'_>, say: &dyn Fn(&str)) -> Result<u8> {
    if !is_session_name(wanted.name) {
        return Err(
            Failure::invalid(format!("`{}` is not a session's name", wanted.name))
                .hint("1 to 40 of a-z, 0-9 and `-`"),
        );
    }
    let options = Options {
        keys: Keys::parse(wanted.detach_keys.unwrap_or(keys::USUAL))?,
        raw: wanted.raw,
    };
    let head = ["session", "attach", wanted.name, "--"];
    let client = exec::client(
        engine,
        plan,
        &inside(&head, wanted.command),
        Stdin::Terminal,
    );
    let ended = terminal::connect(client, keyboard()?, options)?;
    if ended == Ended::Detached {
        let session = match wanted.name {
            USUAL => String::new(),
            name => format!(" --session {name}"),
        };
        say(&format!(
            "left; it goes on. Back to it: bottle-run attach {}{session}",
            plan.slug
        ));
    }
    Ok(code(&ended))
}

/// Runs a command on a terminal that ends with this one.
///
/// # Errors
/// When the bottle does not answer.
pub fn once(
    engine: &Engine,
    plan: &Plan,
    command: &[String],
    keyboard: File,
    raw: bool,
) -> Result<u8> {
    let options = Options {
        keys: Keys::parse("none")?,
        raw,
    };
    let command = inside(&["session", "once", "--"], command);
    let client = exec::client(engine, plan, &command, Stdin::Terminal);
    terminal::connect(client, keyboard, options).map(|ended| code(&ended))
}

/// The terminal we are called from.
///
/// # Errors
/// Invalid, when stdin and stdout are not both one.
pub fn keyboard() -> Result<File> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Failure::invalid("stdin and stdout are not a terminal")
            .hint("one task without a terminal: bottle-run attach SLUG --headless --prompt TEXT"));
    }
    let copy = stdin.as_fd().try_clone_to_owned();
    copy.map(File::from).at("use", "the terminal".as_ref())
}

/// The sessions of a bottle that runs. What cannot be read is none: a list must not fail for what an agent wrote.
#[must_use]
pub fn list(engine: &Engine, plan: &Plan) -> Vec<Session> {
    let user = format!("--user={}", plan.agent.user);
    let container = Containers::of(plan).agent;
    let call = engine.call(["exec", &user, &container, HELPER, "session", "list"]);
    let Ok(output) = call.output() else {
        return Vec::new();
    };
    let mut found: Vec<Session> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    found.retain(|session| is_session_name(&session.name));
    found.truncate(MOST);
    for session in &mut found {
        let shown = printable(&session.command.join(" ")).replace('\n', " ");
        session.command = vec![shown.chars().take(SHOWN).collect()];
    }
    found
}

/// The sessions of several bottles, asked side by side.
#[must_use]
pub fn of_all(engine: &Engine, plans: &[Plan]) -> Vec<Vec<Session>> {
    /// Calls of the engine at once.
    const AT_ONCE: usize = 8;
    let mut found = Vec::new();
    for some in plans.chunks(AT_ONCE) {
        found.extend(thread::scope(|scope| {
            let asked: Vec<_> = some
                .iter()
                .map(|plan| scope.spawn(|| list(engine, plan)))
                .collect();
            asked
                .into_iter()
                .map(|thread| thread.join().unwrap_or_default())
                .collect::<Vec<_>>()
        }));
    }
    found
}

fn inside(head: &[&str], command: &[String]) -> Vec<String> {
    let head = std::iter::once(HELPER).chain(head.iter().copied());
    head.map(str::to_owned)
        .chain(command.iter().cloned())
        .collect()
}

const fn code(ended: &Ended) -> u8 {
    match ended {
        Ended::Code(code) => *code,
        Ended::Detached => 0,
        Ended::Signal(number) => 128 + *number,
    }
}
