//! The host's git, deaf to everything a repository could tell it to run.
//!
//! What comes out of a bottle is hostile, and so may be the repository it goes to. Git is therefore called with no
//! configuration but ours where ours can win, with no protocol but local files, with every object checked as it comes in,
//! and never with a working tree.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bottle_plan::failure::{Failure, Result};

use crate::engine::{Call, Engine, Output};

/// For what reads or writes a whole history.
const LONG: Duration = Duration::from_secs(600);

/// Settings that win over those of the repository. What the list is for is what git would run, ask or fetch.
const SETTINGS: [&str; 26] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.alternateRefsCommand=true",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.pager=cat",
    "core.editor=true",
    "core.askPass=true",
    "core.sshCommand=false",
    "core.gitProxy=false",
    // Larger contents are never held in memory: they are binary, whatever they are.
    "core.bigFileThreshold=8m",
    "credential.helper=",
    "protocol.allow=never",
    "protocol.file.allow=always",
    "fetch.fsckObjects=true",
    "transfer.fsckObjects=true",
    // A pack stays a pack: a few bytes must not become gigabytes of files.
    "fetch.unpackLimit=1",
    "transfer.unpackLimit=1",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "fetch.writeCommitGraph=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "log.showSignature=false",
    "gpg.program=false",
];

/// The same, as git's own variables; these win over every file.
const VARIABLES: [(&str, &str); 11] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_ALLOW_PROTOCOL", "file"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_TEMPLATE_DIR", ""),
    ("HOME", "/nonexistent"),
];

/// Git on one repository.
#[derive(Clone, Debug)]
pub(super) struct Git {
    engine: Engine,
    folder: PathBuf,
}

impl Git {
    pub(super) fn at(engine: &Engine, folder: &Path) -> Self {
        Self {
            engine: engine.clone(),
            folder: folder.to_owned(),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn call<I, A>(&self, args: I) -> Call
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString>,
    {
        let mut call = self.engine.other("git").within(LONG);
        for (name, value) in VARIABLES {
            call = call.env(name, value);
        }
        if let Ok(uid) = std::env::var("SUDO_UID") {
            // Git looks at it to let root into the repository of who called sudo.
            call = call.env("SUDO_UID", &uid);
        }
        let settings = SETTINGS.iter().flat_map(|setting| ["-c", setting]);
        call.args(settings)
            .arg("--no-replace-objects")
            .args(["--no-pager", "-C"])
            .arg(&self.folder)
            .args(args)
    }

    /// What it prints, when it ends well; the final newline is not kept.
    pub(super) fn text(&self, args: &[&str]) -> Result<String> {
        let output = self.call(args.iter().copied()).output()?;
        if output.status.success() {
            return Ok(output.text());
        }
        Err(failed(args, &output))
    }

    /// The same where no answer is one too.
    pub(super) fn maybe(&self, args: &[&str]) -> Result<Option<String>> {
        let output = self.call(args.iter().copied()).output()?;
        Ok(output.status.success().then(|| output.text()))
    }
}

/// A call that did not work: the settings before the command would hide what it was.
pub(super) fn failed(args: &[&str], output: &Output) -> Failure {
    let said = match output.stderr.as_str() {
        "" => "it said nothing",
        said => said,
    };
    let command: Vec<&str> = args.iter().copied().take(2).collect();
    let failure = Failure::failed(format!("git {}: {said}", command.join(" ")));
    if said.contains("dubious ownership") {
        return failure.hint("run bottle-run as the owner of the repository");
    }
    failure
}
