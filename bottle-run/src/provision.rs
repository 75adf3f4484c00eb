//! What is put into the agent's container between its creation and its first start.
//!
//! `docker cp` races with a running container (CVE-2026-42306, -41568) and unpacks compressed archives with the
//! container's own programs (CVE-2026-41567). So: one plain tar, before anything in the container has run.

mod archive;

use std::io::{self, Read as _, Write};
use std::path::Path;
use std::time::Duration;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::{AgentFile, Plan, Step};

use crate::engine::{Engine, at_once};
use crate::images::SidecarBinary;
use crate::{files, git_gate, resume};
use archive::{ROOT, broken, directory, file, tree};

/// The helper inside the agent's container: the isolation probe, and the way in for secrets.
pub const HELPER: &str = "/usr/local/lib/bottle/bottle-sidecar";

/// Where Debian and most others keep all roots in one file.
const SYSTEM_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// The CA of the bottle alone.
const EGRESS_CA: &str = "etc/bottle/egress-ca.pem";

/// Where OpenSSL looks for a root by the hash of its name, when no variable points it at the bundle.
const HASHED_FOLDER: &str = "etc/ssl/certs";

/// Where the prompt is, and the skills below the home, when there is no provider that knows better.
const PROMPT: &str = "/etc/bottle/prompt.md";
const SKILLS: &str = ".claude/skills";

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
) -> Result<()> {
    let (bundle, passwd) = at_once(
        || read_from(engine, container, SYSTEM_BUNDLE),
        || read_from(engine, container, "etc/passwd"),
    )?;
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
    };
    let (failed, why) = std::sync::mpsc::channel();
    let copied = engine
        .call(["cp", "-", &format!("{container}:/")])
        .input_from(move |out| {
            let mut out = PipeWatch { out, closed: false };
            contents.write(&mut out).map_err(|failure| {
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
    result.map_err(|failure| failure.while_doing("filling the agent's container"))
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
}

impl Contents {
    fn write(&self, out: &mut dyn Write) -> Result<()> {
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
            self.step(archive, *step)
                .map_err(|failure| failure.while_doing(format!("{step:?}").to_lowercase()))?;
        }
        archive.finish().map_err(broken)
    }

    fn step<W: Write>(&self, archive: &mut tar::Builder<W>, step: Step) -> Result<()> {
        let agent = &self.plan.agent;
        let home = agent.home.trim_start_matches('/');
        match step {
            Step::User => {
                directory(archive, home, 0o755, self.user)?;
                directory(
                    archive,
                    agent.workdir.trim_start_matches('/'),
                    0o755,
                    self.user,
                )?;
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
                let usual = format!("{}/{SKILLS}", agent.home);
                let folder = agent.skills_folder.as_deref().unwrap_or(&usual);
                for skill in &agent.skills {
                    let target = format!("{folder}/{}", skill.name);
                    self.parents(archive, &target)?;
                    let target = Path::new(target.trim_start_matches('/'));
                    tree(archive, &skill.path, target, self.user)?;
                }
                Ok(())
            }
            // It is there, as the agent left it.
            Step::Workspace if self.resumed => Ok(()),
            Step::Workspace => match &self.plan.workspace.from {
                Some(from) => tree(
                    archive,
                    from,
                    Path::new(agent.workdir.trim_start_matches('/')),
                    self.user,
                ),
                None => Ok(()),
            },
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
