//! The fake engine, from the test's side.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::tools;

/// What the fake engine does, in the order rules are tried.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// The first that fits decides.
    pub rules: Vec<Rule>,
    /// The engine that calls without a rule go to; without one they succeed and print nothing.
    pub real: Option<String>,
    /// Variables whose values are written to the log.
    pub env: Vec<String>,
}

/// What happens to some calls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Arguments that must all be there, in this order; others may stand between them.
    pub args: Vec<String>,
    /// Only the call with this number, counted from 1 over all calls.
    pub call: Option<u32>,
    /// The exit code.
    pub exit: u8,
    /// What it prints.
    pub stdout: String,
    /// What it prints on stderr.
    pub stderr: String,
    /// Never answers.
    pub hang: bool,
    /// Sends this signal to whoever called, before anything else.
    pub kill_parent: Option<i32>,
    /// Hands the call to the real engine, after the signal.
    pub pass_on: bool,
}

impl Rule {
    /// For calls with these arguments.
    #[must_use]
    pub fn for_args(args: &[&str]) -> Self {
        Self {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// For the call with this number.
    #[must_use]
    pub fn for_call(number: u32) -> Self {
        Self {
            call: Some(number),
            ..Self::default()
        }
    }
}

/// One call as it was logged.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// Its arguments.
    pub args: Vec<String>,
    /// What it read on stdin, when a rule answered it.
    pub stdin: String,
    /// The variables of the script that were set.
    pub env: std::collections::BTreeMap<String, String>,
    /// The names of all its variables.
    pub env_names: Vec<String>,
}

/// An engine that follows a script: a program in a folder of its own, to be named with `$BOTTLE_DOCKER`.
///
/// The script lies beside the program and is found by its name, because the tools give their engine a cleared
/// environment.
#[derive(Debug)]
pub struct FakeDocker {
    folder: TempDir,
}

impl FakeDocker {
    /// A fake engine for `script`.
    ///
    /// # Panics
    /// When its files cannot be made.
    #[must_use]
    pub fn new(script: &Script) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("fake-docker-")
            .tempdir()
            .expect("a temporary folder");
        let text = serde_json::to_vec_pretty(script).expect("a script is JSON");
        fs::write(folder.path().join("docker.json"), text).expect("the script can be written");
        std::os::unix::fs::symlink(tools::own("fake-docker"), folder.path().join("docker"))
            .expect("a link");
        Self { folder }
    }

    /// The real engine behind a script.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn behind(rules: Vec<Rule>) -> Self {
        Self::new(&Script {
            rules,
            real: Some("docker".to_owned()),
            ..Script::default()
        })
    }

    /// The real engine, whose caller gets `signal` at the call that fits; the call itself goes on as an orphan.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn killing(signal: i32, at: Rule) -> Self {
        Self::behind(vec![Rule {
            kill_parent: Some(signal),
            pass_on: true,
            ..at
        }])
    }

    /// What `$BOTTLE_DOCKER` is to be.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.folder.path().join("docker")
    }

    /// The calls so far.
    ///
    /// # Panics
    /// When the log holds something else.
    #[must_use]
    pub fn calls(&self) -> Vec<Logged> {
        let log = fs::read_to_string(self.folder.path().join("docker.log")).unwrap_or_default();
        // A call that was killed while it noted its input has no end of line.
        log.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).expect("a line is one call"))
            .collect()
    }
}
