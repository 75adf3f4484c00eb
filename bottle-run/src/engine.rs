//! The engine, reached through its command line.
//!
//! Every call has a time limit, an environment of its own, and an error that says what was run and what it said.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use bottle_plan::failure::{Failure, Kind, Result};

use crate::interrupt;

/// What of the host's environment the engine's client may see. The rest could steer it: `COMPOSE_FILE` alone
/// replaces the bottle.
const PASSED_ON: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "SSH_AUTH_SOCK",
    "TERM",
    "NO_COLOR",
];

/// The limit of a quick call: far above what any takes, far below a person's patience. `$BOTTLE_DOCKER_TIMEOUT` sets
/// another one, in seconds.
const QUICK_SECONDS: u64 = 60;

/// The most of a child's output that is kept.
const MAX_OUTPUT: u64 = 64 << 20;

/// The engine's command line.
#[derive(Clone, Debug)]
pub struct Engine {
    program: OsString,
    quick: Duration,
}

/// What a call printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed on stdout.
    pub stdout: Vec<u8>,
    /// What it printed on stderr, trimmed.
    pub stderr: String,
}

impl Output {
    /// Stdout as text, trimmed.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

impl Engine {
    /// `$BOTTLE_DOCKER`, or `docker`; `$BOTTLE_DOCKER_TIMEOUT` seconds for a quick call.
    #[must_use]
    pub fn from_env() -> Self {
        let program = std::env::var_os("BOTTLE_DOCKER").filter(|name| !name.is_empty());
        let seconds = std::env::var("BOTTLE_DOCKER_TIMEOUT")
            .ok()
            .and_then(|text| text.parse().ok());
        Self {
            program: program.unwrap_or_else(|| "docker".into()),
            quick: Duration::from_secs(seconds.filter(|s| *s > 0).unwrap_or(QUICK_SECONDS)),
        }
    }

    /// A call with these arguments; nothing happens until it is run.
    pub fn call<I, A>(&self, args: I) -> Call
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString>,
    {
        Call {
            program: self.program.clone(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            stdin: None,
            limit: Some(self.quick),
            show: false,
        }
    }

    /// Another program, run in the same way: nothing of the environment but what is passed on, a time limit, bounded
    /// output, deaf to Ctrl-C until we act on it.
    pub fn other(&self, program: &str) -> Call {
        let mut call = self.call::<_, OsString>([]);
        call.program = program.into();
        call
    }

    /// The command itself, for those who become the engine's client.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        restrict_environment(&mut command);
        command
    }
}

/// Something that can write a child's stdin.
type Input = Box<dyn FnOnce(&mut dyn std::io::Write) -> std::io::Result<()> + Send>;

/// One call of the engine's command line.
#[must_use]
pub struct Call {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    stdin: Option<Input>,
    limit: Option<Duration>,
    show: bool,
}

impl Call {
    /// More arguments.
    pub fn args<I, A>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString>,
    {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// One more argument.
    pub fn arg(self, arg: impl Into<OsString>) -> Self {
        self.args([arg.into()])
    }

    /// A variable of the child's environment: the one place secret values travel through.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Bytes for the child's stdin.
    pub fn input(self, bytes: Vec<u8>) -> Self {
        self.input_from(move |out| out.write_all(&bytes))
    }

    /// What writes the child's stdin, so that a large stream never is in memory whole.
    pub fn input_from(
        mut self,
        write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()> + Send + 'static,
    ) -> Self {
        self.stdin = Some(Box::new(write));
        self
    }

    /// Another time limit.
    pub const fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// No time limit: builds and pulls take what they take, and can be interrupted.
    pub const fn unlimited(mut self) -> Self {
        self.limit = None;
        self
    }

    /// Shows the child's stderr as it comes, for long work at a terminal.
    pub const fn showing_progress(mut self, show: bool) -> Self {
        self.show = show;
        self
    }

    /// Runs it; a non-zero exit is an error.
    ///
    /// # Errors
    /// When it cannot be started, takes too long, is interrupted or fails.
    pub fn run(self) -> Result<Output> {
        let described = self.described();
        let output = self.output()?;
        if output.status.success() {
            return Ok(output);
        }
        Err(failure_of(&described, &output))
    }

    /// Runs it and returns what it printed, whatever its exit status.
    ///
    /// # Errors
    /// When it cannot be started, takes too long or is interrupted.
    pub fn output(self) -> Result<Output> {
        let (mut output, stdout) = self.output_read_by(drain)?;
        output.stdout = stdout;
        Ok(output)
    }

    /// Runs it and hands its stdout to `read` as it comes, for what is too long to be held; a non-zero exit is an error.
    ///
    /// # Errors
    /// As [`Call::run`]; otherwise what `read` says.
    pub fn run_read_by<T: Send + 'static>(
        self,
        read: impl FnOnce(&mut dyn Read) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let described = self.described();
        let (output, result) = self.output_read_by(move |mut pipe| {
            let result = read(&mut pipe);
            // An engine's client that nobody reads from would never end.
            if result.is_ok() {
                let _ = std::io::copy(&mut pipe, &mut std::io::sink());
            }
            result
        })?;
        match result {
            // It was cut off because of this, so its own exit status says nothing.
            Err(failure) if output.status.success() || output.stderr.is_empty() => Err(failure),
            Err(failure) if output.stderr.contains("broken pipe") => Err(failure),
            _ if !output.status.success() => Err(failure_of(&described, &output)),
            result => result,
        }
    }

    /// Runs it with its stdout going into a file, up to `most` bytes and one more, which says that there were more. A
    /// child that goes on writing is cut off.
    ///
    /// # Errors
    /// As [`Call::output`].
    pub fn output_into(self, file: File, most: u64) -> Result<Output> {
        let (output, ()) = self.output_read_by(move |pipe| save(pipe, file, most))?;
        Ok(output)
    }

    fn output_read_by<T: Send + 'static>(
        self,
        read_stdout: impl FnOnce(std::process::ChildStdout) -> T + Send + 'static,
    ) -> Result<(Output, T)> {
        let described = self.described();
        let mut command = Command::new(&self.program);
        restrict_environment(&mut command);
        command
            .args(&self.args)
            .envs(self.env)
            .stdin(if self.stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(if self.show {
                Stdio::inherit()
            } else {
                Stdio::piped()
            });
        // Ctrl-C at the terminal is for us to act on; the client in its own group is not torn down in mid-call.
        command.process_group(0);
        let mut child = command
            .spawn()
            .map_err(|error| cannot_start(&self.program, error))?;

        let (open, at_end) = mpsc::channel::<()>();
        let stdout = child.stdout.take().map(|pipe| {
            thread::spawn(move || {
                let _open = open;
                read_stdout(pipe)
            })
        });
        let stderr = child
            .stderr
            .take()
            .map(|pipe| thread::spawn(move || drain(pipe)));
        let feeder = child.stdin.take().zip(self.stdin).map(|(mut pipe, write)| {
            thread::spawn(move || write(&mut pipe).and_then(|()| pipe.flush()))
        });
        let status = wait(&mut child, self.limit, &described, &at_end)?;
        let read = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
            reader
                .and_then(|thread| thread.join().ok())
                .unwrap_or_default()
        };
        let stdout = stdout
            .and_then(|thread| thread.join().ok())
            .ok_or_else(|| Failure::failed(format!("{described}: cannot read what it prints")))?;
        let output = Output {
            status,
            stdout: Vec::new(),
            stderr: String::from_utf8_lossy(&read(stderr)).trim().to_owned(),
        };
        // A child that failed did not read to the end: its own message says more than the broken pipe.
        if let Some(Ok(Err(error))) = feeder.map(thread::JoinHandle::join)
            && output.status.success()
        {
            return Err(
                Failure::failed(format!("{described}: cannot write its input")).because(error),
            );
        }
        Ok((output, stdout))
    }

    fn described(&self) -> String {
        let shown: Vec<_> = self
            .args
            .iter()
            .take(6)
            .map(|arg| arg.to_string_lossy())
            .collect();
        let more = if self.args.len() > 6 { " …" } else { "" };
        format!(
            "{} {}{more}",
            self.program.to_string_lossy(),
            shown.join(" ")
        )
    }
}

fn restrict_environment(command: &mut Command) {
    command.env_clear();
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // Messages are matched in places, and colour codes would end up in errors.
    command
        .env("LC_ALL", "C.UTF-8")
        .env("COMPOSE_ANSI", "never")
        .env("BUILDKIT_PROGRESS", "plain");
}

fn save(pipe: impl Read, mut file: File, most: u64) {
    // What could not be written is missed by whoever reads the file; the pipe is closed either way.
    let _ = std::io::copy(&mut pipe.take(most + 1), &mut file);
}

fn drain(mut pipe: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = pipe.by_ref().take(MAX_OUTPUT).read_to_end(&mut bytes);
    // Keeps the child from blocking on a full pipe when it prints more than anybody wants.
    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    bytes
}

fn cannot_start(program: &OsStr, error: std::io::Error) -> Failure {
    Failure::failed(format!("cannot start {}", program.to_string_lossy()))
        .because(error)
        .hint("install Docker with the Compose v2 plugin (scripts/setup does it on Debian), or name it with BOTTLE_DOCKER")
}

/// How often a child is looked at, at first and at last: a signal to us or the time limit may be noticed so late.
const PAUSES: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(5));

/// Waits for the child, for the time limit, or for a signal to us, whichever is first. Its stdout, which `at_end` tells of,
/// ends just before itself: from then on it is looked at often, because most calls are as short as some pauses.
fn wait(
    child: &mut Child,
    limit: Option<Duration>,
    described: &str,
    at_end: &mpsc::Receiver<()>,
) -> Result<ExitStatus> {
    let started = Instant::now();
    let (first, last) = PAUSES;
    let (mut pause, mut has_ended) = (first, false);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(error) => {
                return Err(Failure::failed(format!("{described}: cannot wait")).because(error));
            }
        }
        // What has no time limit is a build or a pull: nothing is half done when it is cut off.
        let cut_off = limit.is_none() || interrupt::insisted();
        if let Some(number) = interrupt::signal().filter(|_| cut_off) {
            end(child);
            return Err(Failure::failed(format!(
                "{described}: interrupted by signal {number}"
            )));
        }
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            end(child);
            return Err(Failure::failed(format!(
                "{described}: no answer for {} s",
                started.elapsed().as_secs()
            ))
            .hint("see whether the engine is well: docker info"));
        }
        if has_ended {
            thread::sleep(pause);
        } else if at_end.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            (pause, has_ended) = (first, true);
            continue;
        }
        pause = (pause * 2).min(last);
    }
}

/// Asks first: the engine's client passes the request on. Then insists.
fn end(child: &mut Child) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_secs(3) {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The failure for a call that returned non-zero: what was run, how it ended, what it said.
#[must_use]
pub fn failure_of(described: &str, output: &Output) -> Failure {
    let status = match output.status.code() {
        Some(code) => format!("exit code {code}"),
        None => "a signal".to_owned(),
    };
    let said = match output.stderr.as_str() {
        "" => "it printed nothing on stderr".to_owned(),
        text => last_lines(text, 12),
    };
    let failure = Failure::new(Kind::Failed, format!("{described}: {status}: {said}"));
    match known_cause(&output.stderr) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// What to do about messages that say little to somebody new to the engine.
fn known_cause(stderr: &str) -> Option<&'static str> {
    let has = |text: &str| stderr.contains(text);
    if has("Cannot connect to the Docker daemon") || has("failed to connect to the docker API") {
        Some("start the engine (on Debian: scripts/setup), or point DOCKER_HOST at one")
    } else if has("permission denied") && has("docker.sock") {
        Some("you may not use the engine: join the group `docker`, or use a rootless one")
    } else if has("'compose' is not a docker command") || has("unknown shorthand flag: 'f'") {
        Some("the Compose v2 plugin is missing (on Debian: scripts/setup)")
    } else if has("executable file not found") || (has("Container ") && has("is not running")) {
        Some(
            "it ended at once: an image needs `sleep`, by which its container waits (Debian, Alpine, BusyBox have it)",
        )
    } else if has("no space left on device") {
        Some("the disk is full: `docker system df` shows what takes it")
    } else if has("has active endpoints") {
        Some(
            "a container that is not the bottle's is on its network: docker network inspect shows it",
        )
    } else if has("Pool overlaps with other one") {
        Some("another network has these addresses: plan again with another --slug or --subnets")
    } else {
        None
    }
}

/// Two calls side by side: most of a call's time is its client starting.
///
/// # Errors
/// When the thread of `one` panicked.
pub fn at_once<A: Send, B>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B,
) -> Result<(A, B)> {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        let one = one
            .join()
            .map_err(|_| Failure::failed("a thread of bottle-run panicked"))?;
        Ok((one, other))
    })
}
