//! Running a program and looking at what came of it.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use serde_json::Value;

/// What a test's programs see of the environment it runs in; the rest could change what they do.
const PASSED_ON: [&str; 10] = [
    "PATH",
    "TMPDIR",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "XDG_RUNTIME_DIR",
    "BOTTLE_DOCKER",
    "LLVM_PROFILE_FILE",
];

/// A call of a program, not yet made.
#[must_use]
pub struct Call {
    command: Command,
    stdin: Vec<u8>,
}

/// A program that runs.
#[must_use]
pub struct Started {
    child: Child,
    feeder: JoinHandle<()>,
}

/// What a program did.
#[derive(Clone, Debug)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Call {
    /// A call of `program`, in an environment of its own.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env_clear();
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        Self {
            command,
            stdin: Vec::new(),
        }
    }

    /// More arguments.
    pub fn args<I, A>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString>,
    {
        self.command.args(args.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Several of them.
    pub fn envs<'a>(mut self, pairs: impl IntoIterator<Item = &'a (String, OsString)>) -> Self {
        for (name, value) in pairs {
            self.command.env(name, value);
        }
        self
    }

    /// What it reads on stdin; nothing unless given.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// The folder it starts in.
    pub fn cwd(mut self, folder: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Makes the call and waits for its end.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn run(self) -> Done {
        self.start().wait()
    }

    /// Makes the call, and does not wait.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(mut self) -> Started {
        let program = self.command.get_program().to_owned();
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let mut pipe = child.stdin.take().expect("stdin is piped");
        // A program that does not read to the end has its reasons; its exit code says them.
        let feeder = thread::spawn(move || drop(pipe.write_all(&self.stdin)));
        Started { child, feeder }
    }
}

impl Started {
    /// Kills it, as `kill -9` does: it, and nothing that it has started.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When that is not possible.
    #[must_use]
    pub fn wait(self) -> Done {
        let output = self
            .child
            .wait_with_output()
            .expect("the child can be waited for");
        self.feeder.join().expect("the feeding thread never panics");
        Done {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Done {
    /// The exit code; a signal is 128 and its number, as a shell has it.
    #[must_use]
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let signal = self.status.signal().map_or(-1, |number| 128 + number);
        self.status.code().unwrap_or(signal)
    }

    /// It ended with `code`, and nothing was on stdout: no product, and no half of one.
    ///
    /// # Panics
    /// When it did not, or something was; the message begins with `about`.
    #[track_caller]
    pub fn no_product(&self, code: i32, about: &str) {
        assert_eq!(
            (self.code(), self.stdout.as_str()),
            (code, ""),
            "{about}: {}",
            self.stderr
        );
    }

    /// Stdout of a call that had to succeed.
    ///
    /// # Panics
    /// When it did not; the message has its stderr.
    #[must_use]
    pub fn ok(self) -> String {
        assert!(
            self.status.success(),
            "exit {}: {}",
            self.code(),
            self.stderr
        );
        self.stdout
    }

    /// Stdout of a call that had to succeed, as JSON.
    ///
    /// # Panics
    /// When it did not succeed, or stdout is not JSON.
    #[must_use]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}
