//! What is put into the agent's container between its creation and its first start.
//!
//! `docker cp` races with a running container (CVE-2026-42306, -41568) and unpacks compressed archives with the
//! container's own programs (CVE-2026-41567). So: one plain tar, before anything in the container has run.

mod archive;

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::{AgentFile, Plan, Skill, Step, WorkspaceMode};
use bottle_plan::policy::Tls;

pub use bottle_plan::plan::HELPER;

use crate::engine::{Engine, at_once};
use crate::images::SidecarBinary;
use crate::{files, git_gate, resume, work};
use archive::{LeftOut, ROOT, broken, directory, file, some_of, tree};

/// Where Debian and most others keep all roots in one file.
const SYSTEM_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// The CA of the bottle alone.
const EGRESS_CA: &str = "etc/bottle/egress-ca.pem";

/// Where OpenSSL looks for a root by the hash of its name, when no variable points it at the bundle.
const HASHED_FOLDER: &str = "etc/ssl/certs";

/// Where the prompt is, and the skills below the home, when there is no provider that knows better.
const PROMPT: &str = "/etc/bottle/prompt.md";
const SKILLS: &str = ".claude/skills";

/// Where the skills wait for being put in place, once the container runs and what is there can be removed.
const SKILLS_STAGED: &str = "/etc/bottle/skills";

/// Debian's keystore of Java; other images have theirs below JAVA_HOME, which `keytool -cacerts` knows.
const JAVA_STORE: &str = "etc/ssl/certs/java/cacerts";

/// Java takes its time to start.
const KEYTOOL: Duration = Duration::from_secs(120);

/// By so many characters Claude Code knows a key again that it was told to use.
const PLACEHOLDER_END: usize = 20;

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

struct Contents {
    plan: Plan,
    user: (u32, u32),
    bundle: Vec<u8>,
    passwd: Vec<u8>,
    ca_pem: String,
    ca_hash: String,
    old_ca_hash: Option<String>,
    resumed: bool,
    helper: Vec<u8>,
    /// What of the workspace is copied; none: all.
    listed: Option<Vec<PathBuf>>,
}

impl Contents {
    fn write(&self, out: &mut dyn Write, left_out: &mut LeftOut) -> Result<()> {
        let mut archive = tar::Builder::new(out);
        archive.follow_symlinks(false);
        let archive = &mut archive;
        directory(archive, "usr/local/lib/bottle", 0o755, ROOT)?;
        file(
            archive,
            HELPER.trim_start_matches('/'),
            0o755,
            ROOT,
            &self.helper,
        )?;
        directory(archive, "etc/bottle", 0o755, ROOT)?;
        for step in &self.plan.provision {
            self.step(archive, *step, left_out)
                .map_err(|failure| failure.while_doing(format!("{step:?}").to_lowercase()))?;
        }
        archive.finish().map_err(broken)
    }

    fn step<W: Write>(
        &self,
        archive: &mut tar::Builder<W>,
        step: Step,
        left_out: &mut LeftOut,
    ) -> Result<()> {
        let agent = &self.plan.agent;
        let home = agent.home.trim_start_matches('/');
        match step {
            Step::User => {
                directory(archive, home, 0o755, self.user)?;
                // A mounted one is the host's: its owner and mode stay as they are.
                if self.plan.workspace.mode == WorkspaceMode::Copy {
                    let workdir = agent.workdir.trim_start_matches('/');
                    directory(archive, workdir, 0o755, self.user)?;
                }
                if let Some(passwd) = self.passwd_with_agent() {
                    file(archive, "etc/passwd", 0o644, ROOT, &passwd)?;
                }
                Ok(())
            }
            Step::Ca => {
                let mut bundle = self.bundle.clone();
                if !bundle.is_empty() && !bundle.ends_with(b"\n") {
                    bundle.push(b'\n');
                }
                bundle.extend_from_slice(self.ca_pem.as_bytes());
                file(archive, EGRESS_CA, 0o644, ROOT, self.ca_pem.as_bytes())?;
                file(archive, "etc/bottle/ca-bundle.pem", 0o644, ROOT, &bundle)?;
                // Both places of the system store: the bundle programs read, and the folder it is made from.
                file(archive, SYSTEM_BUNDLE, 0o644, ROOT, &bundle)?;
                let source = "usr/local/share/ca-certificates/bottle-egress.crt";
                file(archive, source, 0o644, ROOT, self.ca_pem.as_bytes())?;
                // The name says which bottle it is, so nobody else has this hash and the `.0` is free.
                let hashes = self.old_ca_hash.iter().chain([&self.ca_hash]);
                for hash in hashes {
                    // Under an old name the new certificate is never asked for, and the old one is gone.
                    let hashed = format!("{HASHED_FOLDER}/{hash}.0");
                    file(archive, &hashed, 0o644, ROOT, self.ca_pem.as_bytes())?;
                }
                Ok(())
            }
            Step::Provider => {
                for given in &agent.files {
                    let text = self.with_placeholder(given)?;
                    self.place(archive, &given.path, text.as_bytes())?;
                }
                Ok(())
            }
            Step::Prompt => {
                let prompt = agent.prompt.as_deref().unwrap_or_default();
                let path = agent.prompt_file.as_deref().unwrap_or(PROMPT);
                self.place(archive, path, prompt.as_bytes())
            }
            Step::Skills => {
                self.parents(archive, &format!("{}/x", skills_folder(&self.plan)))?;
                let staged = Path::new(SKILLS_STAGED.trim_start_matches('/'));
                for skill in &agent.skills {
                    tree(
                        archive,
                        &skill.path,
                        &staged.join(&skill.name),
                        ROOT,
                        left_out,
                    )?;
                }
                Ok(())
            }
            // It is there, as the agent left it.
            Step::Workspace if self.resumed => Ok(()),
            Step::Workspace => {
                let target = Path::new(agent.workdir.trim_start_matches('/'));
                match (&self.plan.workspace.from, &self.listed) {
                    (Some(from), Some(names)) => {
                        some_of(archive, from, target, names, self.user, left_out)
                    }
                    (Some(from), None) => tree(archive, from, target, self.user, left_out),
                    (None, _) => Ok(()),
                }
            }
            Step::Git => {
                let mut config = String::from("[user]\n");
                let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
                if let Some(name) = &agent.git_user.name {
                    config.push_str(&format!("\tname = \"{}\"\n", quoted(name)));
                }
                if let Some(email) = &agent.git_user.email {
                    config.push_str(&format!("\temail = \"{}\"\n", quoted(email)));
                }
                config.push_str(&git_gate::instead_of(&self.plan));
                file(
                    archive,
                    &format!("{home}/.gitconfig"),
                    0o644,
                    self.user,
                    config.as_bytes(),
                )
            }
        }
    }

    /// What of ours the image has no place for, where somebody could miss it.
    fn missing(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let routes = &self.plan.egress.routes;
        if self.bundle.is_empty() && routes.iter().any(|route| route.tls == Tls::Passthrough) {
            lines.push(
                "the image has no root certificates (Debian: ca-certificates): hosts with `tls: passthrough` are not \
                 trusted in it"
                    .to_owned(),
            );
        }
        if self.passwd.is_empty() {
            lines.push(
                "the image has no /etc/passwd: programs in it find no name for their user"
                    .to_owned(),
            );
        }
        lines
    }

    /// A file at an absolute path: the agent's own below its home, elsewhere one it can only read.
    fn place<W: Write>(
        &self,
        archive: &mut tar::Builder<W>,
        path: &str,
        bytes: &[u8],
    ) -> Result<()> {
        let own = self.below_home(path).is_some();
        let (mode, owner) = if own {
            (0o600, self.user)
        } else {
            (0o644, ROOT)
        };
        self.parents(archive, path)?;
        file(archive, path.trim_start_matches('/'), mode, owner, bytes)
    }

    /// The folders between the home and `path`. The engine would make them too, but root's: a program that keeps its
    /// settings beside its skills could not write them.
    fn parents<W: Write>(&self, archive: &mut tar::Builder<W>, path: &str) -> Result<()> {
        let Some(below) = self.below_home(path) else {
            return Ok(());
        };
        let home = Path::new(self.plan.agent.home.trim_start_matches('/'));
        let mut folders: Vec<&Path> = below.ancestors().skip(1).collect();
        folders.retain(|folder| !folder.as_os_str().is_empty());
        for folder in folders.into_iter().rev() {
            let folder = home.join(folder);
            directory(archive, &folder.to_string_lossy(), 0o755, self.user)?;
        }
        Ok(())
    }

    fn below_home<'a>(&self, path: &'a str) -> Option<&'a Path> {
        Path::new(path).strip_prefix(&self.plan.agent.home).ok()
    }

    /// The text of a provider's file. The placeholder is filled in here because it is another one in every bottle.
    fn with_placeholder(&self, given: &AgentFile) -> Result<String> {
        let Some(slot) = &given.slot else {
            return Ok(given.text.clone());
        };
        let auths = self
            .plan
            .egress
            .routes
            .iter()
            .filter_map(|route| route.auth.as_ref());
        let placeholder = auths
            .filter(|auth| auth.slot == *slot)
            .find_map(|auth| auth.placeholder.as_deref())
            .ok_or_else(|| {
                Failure::invalid(format!(
                    "{} needs the placeholder of {slot}, which no route has",
                    given.path
                ))
            })?;
        let end: Vec<char> = placeholder.chars().rev().take(PLACEHOLDER_END).collect();
        let end: String = end.into_iter().rev().collect();
        Ok(given
            .text
            .replace("{{placeholder_end}}", &end)
            .replace("{{placeholder}}", placeholder))
    }

    /// The image's passwd with a line for the agent: without one ssh, git and Node's `os.userInfo` refuse to work.
    fn passwd_with_agent(&self) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(&self.passwd)
            .ok()
            .filter(|text| !text.is_empty())?;
        let (uid, gid) = self.user;
        let has_uid = text
            .lines()
            .any(|line| line.split(':').nth(2) == Some(&uid.to_string()));
        if has_uid {
            return None;
        }
        let line = format!(
            "agent:x:{uid}:{gid}:agent:{}:/bin/bash",
            self.plan.agent.home
        );
        Some(format!("{}\n{line}\n", text.trim_end()).into_bytes())
    }
}
