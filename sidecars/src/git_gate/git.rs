//! Calling git. Nothing of the agent's reaches a command line, no configuration but ours is read, and no program but git
//! and ssh is started by it.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt as _;

/// What is kept of a child's stderr.
const MAX_STDERR: usize = 16 * 1024;

/// What is kept of a child's stdout, where it is kept.
const MAX_STDOUT: u64 = 64 << 20;

/// How often a child is looked after.
const LOOK: Duration = Duration::from_millis(10);

/// What every git child sees, and nothing else.
pub(super) const ENVIRONMENT: [(&str, &str); 9] = [
    // Last, where Debian keeps what `git` itself starts: `git-http-backend` is one process less without it.
    ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/lib/git-core"),
    ("HOME", "/nonexistent"),
    ("LC_ALL", "C.UTF-8"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    // Else one push to refs/replace shows the checks another object than the upstream gets.
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_ALLOW_PROTOCOL", "none"),
];

/// `git` in a repository, with an environment of its own.
pub(super) fn git(repo: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .envs(ENVIRONMENT)
        .env("GIT_DIR", repo)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command
}

/// What a child did.
pub(super) struct Done {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// Runs a child to its end, or to the end of its time. Each line of its stderr is also handed on as it comes. One that
/// says too much is an error: its pipe holds what nobody reads, so that it can end well, and a part would pass for the whole.
pub(super) fn finish(
    command: &mut Command,
    input: Vec<u8>,
    limit: Duration,
    on_line: &mut dyn FnMut(&str),
) -> io::Result<Done> {
    let done = finish_within(command, input, limit, MAX_STDOUT + 1, on_line)?;
    if done.stdout.len() as u64 > MAX_STDOUT {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("git says more than {MAX_STDOUT} bytes about it"),
        ));
    }
    Ok(done)
}

/// The same for one of which no more than `most` bytes are read: it is cut off then.
pub(super) fn finish_within(
    command: &mut Command,
    input: Vec<u8>,
    limit: Duration,
    most: u64,
    on_line: &mut dyn FnMut(&str),
) -> io::Result<Done> {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let group = Group::of(child.id());
    let (lines, said) = std::sync::mpsc::channel::<String>();
    let result = thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // A child that does not read to the end says why.
                let _ = stdin.write_all(&input);
            }
        });
        let out = scope.spawn(move || {
            let mut bytes = Vec::new();
            match stdout {
                Some(stdout) => stdout.take(most).read_to_end(&mut bytes).map(|_| bytes),
                None => Ok(bytes),
            }
        });
        scope.spawn(move || {
            if let Some(stderr) = stderr {
                hand_on_lines(stderr, &lines);
            }
        });
        let mut kept = String::new();
        let mut note = |line: String| {
            on_line(&line);
            if kept.len() + line.len() < MAX_STDERR {
                kept.push_str(&line);
                kept.push('\n');
            }
        };
        let deadline = Instant::now() + limit;
        let status = loop {
            match said.recv_timeout(LOOK) {
                Ok(line) => note(line),
                // All was said; what is left is to end.
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => thread::sleep(LOOK / 10),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            }
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                group.kill();
                child.wait()?;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("it took longer than {} s", limit.as_secs()),
                ));
            }
        };
        // Whatever it left behind holds the pipes open.
        group.kill();
        said.iter().for_each(&mut note);
        let stdout = out
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the reader panicked")))?;
        Ok((status, stdout, kept))
    });
    let (status, stdout, stderr) = result?;
    Ok(Done {
        status,
        stdout,
        stderr: stderr.trim_end().to_owned(),
    })
}

fn hand_on_lines(mut stderr: impl io::Read, lines: &std::sync::mpsc::Sender<String>) {
    let mut held = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = match stderr.read(&mut buffer) {
            Ok(read) if read > 0 => read,
            _ => break,
        };
        for &byte in &buffer[..read] {
            if byte == b'\n' || byte == b'\r' {
                send(&mut held, lines);
            } else if held.len() < 1000 {
                held.push(byte);
            }
        }
    }
    send(&mut held, lines);
}

fn send(held: &mut Vec<u8>, lines: &std::sync::mpsc::Sender<String>) {
    let text = String::from_utf8_lossy(held);
    // What another program says may go to a terminal in the end.
    let text: String = text
        .chars()
        .filter(|c| !c.is_control() || *c == '\t')
        .collect();
    held.clear();
    if !text.trim().is_empty() {
        let _ = lines.send(text.trim_end().to_owned());
    }
}

/// A process group of our own making: git and all that it started.
pub(super) struct Group(Option<Pid>);

impl Group {
    pub(super) fn of(id: u32) -> Self {
        Self(i32::try_from(id).ok().map(Pid::from_raw))
    }

    /// Ends all of it. That it is gone is as good.
    pub(super) fn kill(&self) {
        if let Some(leader) = self.0 {
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }

    #[test]
    fn what_a_child_says_arrives_in_lines_that_steer_no_terminal() {
        let mut lines = Vec::new();
        let script = "printf 'one\\rtwo\\033[31m\\nthree' >&2; cat";
        let done = finish(
            &mut sh(script),
            b"in".to_vec(),
            Duration::from_secs(20),
            &mut |line| {
                lines.push(line.to_owned());
            },
        )
        .expect("runs");
        assert_eq!(lines, ["one", "two[31m", "three"]);
        assert_eq!(done.stdout, b"in");
        assert!(done.status.success());
    }

    #[test]
    fn a_child_that_says_too_much_and_ends_well_is_an_error() {
        // What is left when the reader has enough fits in the pipe.
        let script = format!("head -c {} /dev/zero", MAX_STDOUT + 1000);
        let limit = Duration::from_secs(60);
        let failed = finish(&mut sh(&script), Vec::new(), limit, &mut |_| {});
        assert_eq!(
            failed.err().map(|error| error.kind()),
            Some(io::ErrorKind::FileTooLarge)
        );
        let script = format!("head -c {MAX_STDOUT} /dev/zero");
        let done = finish(&mut sh(&script), Vec::new(), limit, &mut |_| {}).expect("it fits");
        assert_eq!(done.stdout.len() as u64, MAX_STDOUT);
    }

    #[test]
    fn a_child_that_hangs_is_ended_with_all_it_started() {
        let failed = finish(
            &mut sh("sleep 600 & sleep 600"),
            Vec::new(),
            Duration::from_millis(50),
            &mut |_| {},
        );
        assert_eq!(
            failed.err().map(|error| error.kind()),
            Some(io::ErrorKind::TimedOut)
        );
    }
}
