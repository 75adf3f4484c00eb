//! What is put into the agent's container between its creation and its first start.
//!
//! `docker cp` races with a running container (CVE-2026-42306, -41568) and unpacks compressed archives with the
//! container's own programs (CVE-2026-41567). So: one plain tar, before anything in the container has run.

mod archive;
mod contents;

use std::io::{self, Read as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::{Plan, Skill};

pub use bottle_plan::plan::HELPER;

use crate::engine::{Engine, at_once};
use crate::images::SidecarBinary;
use crate::{files, resume, work};
use archive::LeftOut;
use contents::Contents;

/// Where Debian and most others keep all roots in one file.
const SYSTEM_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// The CA of the bottle alone.
const EGRESS_CA: &str = "etc/bottle/egress-ca.pem";

/// Where the skills are below the home, when there is no provider that knows better.
const SKILLS: &str = ".claude/skills";

/// Where the skills wait for being put in place, once the container runs and what is there can be removed.
const SKILLS_STAGED: &str = "/etc/bottle/skills";

/// Debian's keystore of Java; other images have theirs below JAVA_HOME, which `keytool -cacerts` knows.
const JAVA_STORE: &str = "etc/ssl/certs/java/cacerts";

/// Java takes its time to start.
const KEYTOOL: Duration = Duration::from_secs(120);

/// Larger than any trust bundle or passwd file; keeps a hostile image from filling the memory.
const MAX_FILE: u64 = 8 << 20;

/// Fills the created container.
///
/// # Errors
/// When a file cannot be read or the engine refuses the archive; the message names the step.
pub fn fill(
    engine: &Engine,
    plan: &Plan,
    container: &str,
    ca_pem: &str,
    binary: &SidecarBinary,
    resumed: bool,
) -> Result<Filled> {
    // One after the other they would be most of the time this takes.
    let read = |path: &str| read_from(engine, container, path);
    let two = |one: &str, other: &str| {
        let found = at_once(|| read(one), || read(other));
        found.unwrap_or_else(|failure| (Err(failure), Ok(None)))
    };
    let program = absolute_program(plan);
    let ((bundle, program_file), (passwd, java)) = at_once(
        || two(SYSTEM_BUNDLE, program.unwrap_or(SYSTEM_BUNDLE)),
        || two("etc/passwd", JAVA_STORE),
    )?;
    let java = java?.is_some();
    let has_program = program.is_none() || program_file?.is_some();
    let old_ca = if resumed {
        read_from(engine, container, EGRESS_CA)?.and_then(|pem| String::from_utf8(pem).ok())
    } else {
        None
    };
    let contents = Contents {
        plan: plan.clone(),
        user: files::user(&plan.agent.user)?,
        bundle: resume::without_certificate(
            bundle?.unwrap_or_default(),
            old_ca.as_deref().unwrap_or_default(),
        ),
        // One of a bottle with another name has another place.
        old_ca_hash: old_ca.and_then(|pem| bottle_ca::subject_hash(&pem).ok()),
        resumed,
        passwd: passwd?.unwrap_or_default(),
        ca_hash: bottle_ca::subject_hash(ca_pem)?,
        ca_pem: ca_pem.to_owned(),
        helper: binary.read()?,
        listed: if resumed { None } else { listed(engine, plan)? },
    };
    let mut missing = contents.missing();
    if let Some(program) = program.filter(|_| !has_program) {
        missing.push(format!(
            "the image has no /{program}, which `attach` would start: give the manifest a `command` that is there"
        ));
    }
    let (failed, why) = std::sync::mpsc::channel();
    let (told, left_out) = std::sync::mpsc::channel();
    let copied = engine
        .call(["cp", "-", &format!("{container}:/")])
        .input_from(move |out| {
            let mut out = PipeWatch { out, closed: false };
            let mut left_out = LeftOut::default();
            let written = contents.write(&mut out, &mut left_out);
            let _ = told.send(left_out);
            written.map_err(|failure| {
                let error = io::Error::other(failure.chain());
                if !out.closed {
                    let _ = failed.send(failure);
                }
                error
            })
        })
        .within(Duration::from_secs(600))
        .run();
    // A failure on our side of the pipe says more than the engine's about a short archive; when it was the engine that
    // stopped reading, its own message does.
    let result = why.try_recv().map_or(copied.map(drop), Err);
    result.map_err(|failure| failure.while_doing("filling the agent's container"))?;
    missing.extend(left_out.try_recv().unwrap_or_default().lines());
    Ok(Filled {
        notes: missing,
        java,
    })
}

/// The agent's program, when its place is known without looking for it.
fn absolute_program(plan: &Plan) -> Option<&str> {
    let program = plan.agent.command.first()?;
    program
        .starts_with('/')
        .then(|| program.trim_start_matches('/'))
}

/// What came of the filling.
#[derive(Debug)]
pub struct Filled {
    /// What of the host was not copied, and what the image lacks; a line each, for the person who starts the bottle.
    pub notes: Vec<String>,
    /// Whether the image has a keystore of Java.
    pub java: bool,
}

/// A skill that is gone is noticed before anything is started.
///
/// # Errors
/// Not found, naming it.
pub fn check_sources(plan: &Plan) -> Result<()> {
    let gone = |skill: &&Skill| !skill.path.is_dir();
    match plan.agent.skills.iter().find(gone) {
        None => Ok(()),
        Some(skill) => Err(Failure::not_found(format!(
            "skills: `{}` is not at {} any more",
            skill.name,
            skill.path.display()
        ))
        .hint("plan again, or take it out of the manifest")),
    }
}

/// What can only be done in a container that runs, before the agent does: by our helper or the image's own tools, as
/// users by number.
///
/// # Errors
/// When a skill cannot be put in place. Java's keystore is a warning: the environment says where it is not.
pub fn settle(
    engine: &Engine,
    plan: &Plan,
    container: &str,
    filled: &Filled,
    say: &dyn Fn(&str),
) -> Result<()> {
    if !plan.agent.skills.is_empty() {
        let user = format!("--user={}", plan.agent.user);
        let folder = skills_folder(plan);
        engine
            .call(["exec", &user, container, HELPER])
            .args(["skills", SKILLS_STAGED, &folder])
            .args(plan.agent.skills.iter().map(|skill| skill.name.as_str()))
            .run()
            .map_err(|failure| failure.while_doing("putting the skills in place"))?;
    }
    if filled.java && !trusted_by_java(engine, container)? {
        say(
            "warning: keytool did not take the bottle's CA: Java programs trust no host that egress opens",
        );
    }
    Ok(())
}

/// The image's own keytool, as the owner of the keystore and without any capability.
fn trusted_by_java(engine: &Engine, container: &str) -> Result<bool> {
    let keytool = |args: &[&str]| {
        let call = engine.call(["exec", "--user=0:0", container, "keytool"]);
        call.args(args.iter().copied()).within(KEYTOOL).output()
    };
    let entry = [
        "-cacerts",
        "-storepass",
        "changeit",
        "-alias",
        "bottle-egress",
    ];
    // One of an earlier bottle, when this one goes on from a snapshot.
    keytool(&[&["-delete"], entry.as_slice()].concat())?;
    let import = [
        "-importcert",
        "-noprompt",
        "-trustcacerts",
        "-file",
        "/etc/bottle/egress-ca.pem",
    ];
    let imported = keytool(&[import.as_slice(), entry.as_slice()].concat())?;
    Ok(imported.status.success())
}

fn skills_folder(plan: &Plan) -> String {
    let usual = || format!("{}/{SKILLS}", plan.agent.home);
    plan.agent.skills_folder.clone().unwrap_or_else(usual)
}

/// With `ignore` only what git does not ignore is copied, and the repository itself.
fn listed(engine: &Engine, plan: &Plan) -> Result<Option<Vec<PathBuf>>> {
    match &plan.workspace.from {
        Some(from) if plan.workspace.ignore => {
            let mut names = work::not_ignored(engine, from)?;
            names.insert(0, PathBuf::from(".git"));
            Ok(Some(names))
        }
        _ => Ok(None),
    }
}

/// A writer that knows whether the other end went away.
struct PipeWatch<'a> {
    out: &'a mut dyn Write,
    closed: bool,
}

impl Write for PipeWatch<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.closed |= written
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file of a container that was never started; nothing when the image does not have it.
fn read_from(engine: &Engine, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
    let output = engine
        .call(["cp", "--follow-link", &format!("{container}:/{path}"), "-"])
        .output()?;
    if !output.status.success() {
        return Ok(None);
    }
    let mut archive = tar::Archive::new(output.stdout.as_slice());
    let unreadable =
        |error| Failure::failed(format!("cannot read /{path} of the image")).because(error);
    let Some(entry) = archive.entries().map_err(unreadable)?.next() else {
        return Ok(None);
    };
    let entry = entry.map_err(unreadable)?;
    if !entry.header().entry_type().is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    entry
        .take(MAX_FILE)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(Some(bytes))
}
