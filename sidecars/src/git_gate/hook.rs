//! Between git's pre-receive hook and the gate. The hook is a small process of git's; it tells the gate what is about to
//! be pushed, shows the agent what the gate says, and ends as the gate decides.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::OwnedMutexGuard;
use tokio::sync::mpsc::UnboundedSender;

use super::push;
use super::repo::Repo;
use super::rules::Command;
use super::run::Gate;
use crate::program::say;

/// The variable that says which push a hook belongs to.
pub(super) const PUSH: &str = "BOTTLE_GIT_GATE_PUSH";

/// Where the hook finds the gate. In the gate's own container nobody else is there to find it.
const SOCKET: &str = "/tmp/bottle-git-gate-hook.sock";

/// What a hook may tell us.
const MAX_QUESTION: u64 = 1 << 20;

/// What the hook says.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    push: u64,
    /// Where the new objects are; nowhere, when there are none: a push that only deletes has none.
    objects: Option<PathBuf>,
    commands: Vec<String>,
}

/// What the gate says, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    /// For the agent.
    Say(String),
    /// The end: whether git goes on.
    End(bool),
}

/// The hook itself, in the process git started.
pub(crate) fn run() -> ExitCode {
    match ask(&mut io::stderr()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("git-gate: the push cannot be checked: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(out: &mut dyn io::Write) -> io::Result<bool> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|_| io::Error::other(format!("{name} is not set")))
    };
    let question = Question {
        push: variable(PUSH)?.parse().map_err(io::Error::other)?,
        // Set by git for a push and for nothing else.
        objects: std::env::var_os("GIT_QUARANTINE_PATH").map(PathBuf::from),
        commands: commands(io::stdin())?,
    };
    let mut socket = std::os::unix::net::UnixStream::connect(SOCKET)?;
    let mut line = serde_json::to_vec(&question)?;
    line.push(b'\n');
    socket.write_all(&line)?;
    for line in BufReader::new(socket).lines() {
        match serde_json::from_str(&line?)? {
            Said::Say(text) => writeln!(out, "{text}")?,
            Said::End(decision) => return Ok(decision),
        }
    }
    Err(io::Error::other("the gate broke off"))
}

/// The lines git gives its hook, as they are: a carriage return at an end belongs to a name.
fn commands(input: impl io::Read) -> io::Result<Vec<String>> {
    let mut text = String::new();
    input.take(MAX_QUESTION + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_QUESTION {
        return Err(io::Error::other("it has too many refs"));
    }
    Ok(text.split_terminator('\n').map(str::to_owned).collect())
}

/// A push under way: made with its request, found again by its hook.
pub(super) struct Push {
    pub(super) repo: Arc<Repo>,
    /// Whether its hook has asked; if not, git itself refused.
    asked: Mutex<bool>,
    /// Whether its client has hung up.
    gone: AtomicBool,
    /// Held from before the upstream is told until git has written the refs, so that no fetch comes in between.
    refs: Mutex<Option<OwnedMutexGuard<()>>>,
}

impl Push {
    pub(super) fn was_asked(&self) -> bool {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that nobody waits for it any more.
    pub(super) fn hang_up(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Keeps the refs as they are until the push has ended.
    pub(super) fn hold_refs(&self, guard: OwnedMutexGuard<()>) {
        *self.refs.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    }
}

/// The pushes under way.
#[derive(Default)]
pub(super) struct Pushes {
    next: AtomicU64,
    known: Mutex<HashMap<u64, Arc<Push>>>,
}

impl Pushes {
    /// Notes a push; its number is for its hook.
    pub(super) fn begin(&self, repo: Arc<Repo>) -> (u64, Arc<Push>) {
        let push = Arc::new(Push {
            repo,
            asked: Mutex::new(false),
            gone: AtomicBool::new(false),
            refs: Mutex::new(None),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.all().insert(number, push.clone());
        (number, push)
    }

    /// Forgets it, and lets others at the refs.
    pub(super) fn end(&self, number: u64) {
        self.all().remove(&number);
    }

    /// The push a hook belongs to; each is asked about once.
    fn claim(&self, number: u64) -> Option<Arc<Push>> {
        let push = self.all().get(&number).cloned()?;
        let was = std::mem::replace(
            &mut *push.asked.lock().unwrap_or_else(PoisonError::into_inner),
            true,
        );
        (!was).then_some(push)
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Push>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the socket the hooks come to.
pub(super) fn bind() -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(SOCKET);
    UnixListener::bind(SOCKET)
}

/// Answers hooks.
pub(super) async fn serve(gate: Arc<Gate>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let gate = gate.clone();
                tokio::spawn(async move {
                    if let Err(error) = attend(&gate, stream).await {
                        say!("a hook broke off: {error}");
                    }
                });
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

async fn attend(gate: &Arc<Gate>, mut stream: UnixStream) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = Vec::new();
    let mut reader = tokio::io::BufReader::new(read).take(2 * MAX_QUESTION);
    reader.read_until(b'\n', &mut line).await?;
    let question: Question = serde_json::from_slice(&line)?;
    let push = gate
        .pushes
        .claim(question.push)
        .ok_or_else(|| io::Error::other("it belongs to no push"))?;
    let commands: Option<Vec<Command>> = question
        .commands
        .iter()
        .map(|text| Command::parse(text))
        .collect();
    let commands = commands.ok_or_else(|| io::Error::other("it has commands that are none"))?;
    let objects = quarantine(&push.repo.path, question.objects)?;

    let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
    let work = tokio::spawn(push::decide(
        gate.clone(),
        push,
        objects,
        commands,
        Voice(say),
    ));
    while let Some(text) = said.recv().await {
        write_line(&mut write, &Said::Say(text)).await?;
    }
    let decision = work.await.unwrap_or(false);
    write_line(&mut write, &Said::End(decision)).await
}

/// The quarantine, which is in the mirror whose push this is; without one, the mirror's own objects.
fn quarantine(mirror: &Path, given: Option<PathBuf>) -> io::Result<PathBuf> {
    let objects = mirror.join("objects");
    let Some(given) = given else {
        return Ok(objects);
    };
    let named = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("tmp_objdir-");
    if given.parent() == Some(&objects) && given.file_name().is_some_and(named) {
        return Ok(given);
    }
    let shown = given.display();
    Err(io::Error::other(format!(
        "{shown} is no quarantine of this mirror"
    )))
}

async fn write_line(out: &mut (impl tokio::io::AsyncWrite + Unpin), said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    out.write_all(&line).await
}

/// What the agent reads while it waits, as lines that begin with `remote: `.
#[derive(Clone)]
pub(super) struct Voice(UnboundedSender<String>);

impl Voice {
    pub(super) fn say(&self, text: impl Into<String>) {
        // An agent that has gone away hears nothing.
        let _ = self.0.send(text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_tells_is_taken_whole_or_not_at_all() {
        let told = commands(b"a b refs/heads/x\r\na b refs/heads/y\n".as_slice()).expect("reads");
        assert_eq!(told, ["a b refs/heads/x\r", "a b refs/heads/y"]);
        let many = "a b refs/heads/x\n".repeat(70_000);
        assert!(commands(many.as_bytes()).is_err());
    }
}
