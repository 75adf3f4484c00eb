//! What is put into the agent's container between its creation and its first start.
//!
//! `docker cp` races with a running container (CVE-2026-42306, -41568) and unpacks compressed archives with the
//! container's own programs (CVE-2026-41567). So: one plain tar, before anything in the container has run.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::plan::{Plan, Step};

use crate::engine::{Engine, at_once};
use crate::files;
use crate::images::SidecarBinary;

/// The helper inside the agent's container: the isolation probe, and the way in for secrets.
pub const HELPER: &str = "/usr/local/lib/bottle/bottle-sidecar";

/// Where Debian and most others keep all roots in one file.
const SYSTEM_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

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
) -> Result<()> {
    let (bundle, passwd) = at_once(
        || read_from(engine, container, SYSTEM_BUNDLE),
        || read_from(engine, container, "etc/passwd"),
    )?;
    let contents = Contents {
        plan: plan.clone(),
        user: files::user(&plan.agent.user)?,
        bundle: bundle?.unwrap_or_default(),
        passwd: passwd?.unwrap_or_default(),
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
    helper: Vec<u8>,
}

/// Who owns an entry.
type Owner = (u32, u32);
const ROOT: Owner = (0, 0);

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
                file(
                    archive,
                    "etc/bottle/egress-ca.pem",
                    0o644,
                    ROOT,
                    self.ca_pem.as_bytes(),
                )?;
                file(archive, "etc/bottle/ca-bundle.pem", 0o644, ROOT, &bundle)?;
                // Both places of the system store: the bundle programs read, and the folder it is made from.
                file(archive, SYSTEM_BUNDLE, 0o644, ROOT, &bundle)?;
                let source = "usr/local/share/ca-certificates/bottle-egress.crt";
                file(archive, source, 0o644, ROOT, self.ca_pem.as_bytes())
            }
            Step::Prompt => {
                let prompt = agent.prompt.as_deref().unwrap_or_default();
                file(
                    archive,
                    "etc/bottle/prompt.md",
                    0o644,
                    ROOT,
                    prompt.as_bytes(),
                )
            }
            Step::Skills => {
                for skill in &agent.skills {
                    let target = PathBuf::from(format!("{home}/.claude/skills/{}", skill.name));
                    tree(archive, &skill.path, &target, self.user)?;
                }
                Ok(())
            }
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

fn header(kind: tar::EntryType, mode: u32, owner: Owner, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(u64::from(owner.0));
    header.set_gid(u64::from(owner.1));
    header.set_size(size);
    // A fixed time: the same plan gives the same container.
    header.set_mtime(1);
    header
}

fn directory<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    owner: Owner,
) -> Result<()> {
    let mut header = header(tar::EntryType::Directory, mode, owner, 0);
    archive
        .append_data(&mut header, format!("{path}/"), io::empty())
        .map_err(broken)
}

fn file<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    owner: Owner,
    bytes: &[u8],
) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, owner, bytes.len() as u64);
    archive
        .append_data(&mut header, path, bytes)
        .map_err(broken)
}

fn broken(error: io::Error) -> Failure {
    Failure::failed("cannot write the archive").because(error)
}

/// A folder of the host, as it is: links stay links (and lead nowhere but into the container), devices and sockets
/// are left out.
fn tree<W: Write>(
    archive: &mut tar::Builder<W>,
    from: &Path,
    to: &Path,
    owner: Owner,
) -> Result<()> {
    let root = fs::symlink_metadata(from).at("read", from)?;
    entry(archive, from, to, &root, owner)?;
    let mut names: Vec<_> = fs::read_dir(from)
        .at("read", from)?
        .collect::<io::Result<Vec<_>>>()
        .at("read", from)?
        .into_iter()
        .map(|found| found.file_name())
        .collect();
    names.sort();
    for name in names {
        let (path, target) = (from.join(&name), to.join(&name));
        let found = fs::symlink_metadata(&path).at("read", &path)?;
        if found.is_dir() {
            tree(archive, &path, &target, owner)?;
        } else {
            entry(archive, &path, &target, &found, owner)?;
        }
    }
    Ok(())
}

fn entry<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &Path,
    target: &Path,
    found: &fs::Metadata,
    owner: Owner,
) -> Result<()> {
    let kind = found.file_type();
    let mode = found.permissions().mode() & 0o777;
    if kind.is_dir() {
        let mut header = header(tar::EntryType::Directory, mode | 0o700, owner, 0);
        return archive
            .append_data(&mut header, target.join(""), io::empty())
            .map_err(broken);
    }
    if kind.is_symlink() {
        let to = fs::read_link(path).at("read", path)?;
        let mut header = header(tar::EntryType::Symlink, 0o777, owner, 0);
        return archive.append_link(&mut header, target, to).map_err(broken);
    }
    if kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
        return Ok(());
    }
    let opened = File::open(path).at("read", path)?;
    // The size is taken from the open file, and exactly as much is copied: one that changes meanwhile cannot shift
    // the rest of the archive.
    let size = opened.metadata().at("read", path)?.len();
    let mut header = header(tar::EntryType::Regular, mode | 0o400, owner, size);
    let mut exact = opened.take(size).chain(io::repeat(0)).take(size);
    archive
        .append_data(&mut header, target, &mut exact)
        .map_err(broken)
}
