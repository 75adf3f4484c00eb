//! What a push would change, written down for the operator: from the objects themselves, with nothing of the agent's that
//! decides how they are shown. It is hers to read escaped; here it is bytes.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use bottle_plan::git::{MAX_REVIEW, PLAIN_DIFF};

use super::git::{finish, finish_within};
use super::objects::Quarantine;
use super::rules::{Command, Refusal};

/// How long git may take for one part.
const LIMIT: Duration = Duration::from_secs(120);
/// Commits that are told one by one.
const COMMITS: &str = "--max-count=100";
/// Files that are kept; the oldest go first.
const MAX_FILES: usize = 100;

/// Writes what `update` would change to `path`. A file that is there is of the same object, and stays: the operator may
/// have read it.
pub(super) fn write(
    quarantine: &Quarantine<'_>,
    repo: &str,
    update: &Command,
    lifted: Option<&Refusal>,
    path: &Path,
) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let base = base(quarantine, update)?;
    let mut text = Vec::new();
    writeln!(text, "push to {} of {repo}", update.name)?;
    writeln!(text, "from {base}\nto   {}", update.new)?;
    if let Some(refusal) = lifted {
        writeln!(
            text,
            "\nrefused unless you allow it ({}):",
            refusal.reason.code()
        )?;
        for line in refusal.detail.lines() {
            writeln!(text, "  {line}")?;
        }
    }
    writeln!(text, "\ncommits, newest first:")?;
    let tip = format!("{}^{{commit}}", update.new);
    let log = [
        "log",
        COMMITS,
        "--no-color",
        "--no-show-signature",
        "--no-decorate",
        "--format=  %h %s (%an <%ae>)",
        &tip,
        "--not",
        "--all",
    ];
    text.extend(part(quarantine, &log, MAX_REVIEW / 4)?);
    for kind in ["--stat=100", "--patch"] {
        text.push(b'\n');
        let args = [&PLAIN_DIFF[..], &[kind, &base, &tip, "--"]].concat();
        text.extend(part(quarantine, &args, MAX_REVIEW)?);
    }
    if text.len() as u64 > MAX_REVIEW {
        text.truncate(usize::try_from(MAX_REVIEW).unwrap_or(usize::MAX));
        text.extend_from_slice(b"\n(cut here: it is longer than is shown)\n");
    }
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)?;
    forget_oldest(path.parent().unwrap_or(path))
}

/// What the push is compared with: what the ref was, else where the new history leaves what the upstream has.
fn base(quarantine: &Quarantine<'_>, update: &Command) -> io::Result<String> {
    if !update.creates() && update.name.starts_with("refs/heads/") {
        return Ok(update.old.clone());
    }
    let tip = format!("{}^{{commit}}", update.new);
    let listed = quarantine.run(
        &["rev-list", "--boundary", &tip, "--not", "--all"],
        Vec::new(),
    )?;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let mut boundary = listed.lines().filter_map(|line| line.strip_prefix('-'));
    if let (Some(one), None) = (boundary.next(), boundary.next()) {
        return Ok(one.to_owned());
    }
    let mut command = quarantine.git();
    command.args(["merge-base", "HEAD", &tip]);
    let merged = finish(&mut command, Vec::new(), LIMIT, &mut |_| {})?;
    let merged = String::from_utf8_lossy(&merged.stdout).trim().to_owned();
    if merged.is_empty() {
        return empty_tree(quarantine);
    }
    Ok(merged)
}

fn empty_tree(quarantine: &Quarantine<'_>) -> io::Result<String> {
    let id = quarantine.run(&["hash-object", "-t", "tree", "/dev/null"], Vec::new())?;
    Ok(String::from_utf8_lossy(&id).trim().to_owned())
}

/// What git says, up to `most` bytes. No attributes: a file must not be able to say that it is not to be shown.
fn part(quarantine: &Quarantine<'_>, args: &[&str], most: u64) -> io::Result<Vec<u8>> {
    let mut command = quarantine.git();
    command
        .env("GIT_ATTR_SOURCE", empty_tree(quarantine)?)
        .env("GIT_ATTR_NOSYSTEM", "1")
        .args(args);
    let done = finish_within(&mut command, Vec::new(), LIMIT, most + 1, &mut |_| {})?;
    // Git that was cut off did not end well, and that is what was wanted.
    if done.status.success() || done.stdout.len() as u64 > most {
        return Ok(done.stdout);
    }
    Err(io::Error::other(format!(
        "git {}: {}",
        args[0], done.stderr
    )))
}

fn forget_oldest(folder: &Path) -> io::Result<()> {
    let mut files: Vec<_> = fs::read_dir(folder)?
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort();
    let too_many = files.len().saturating_sub(MAX_FILES);
    for (_, path) in files.into_iter().take(too_many) {
        fs::remove_file(path)?;
    }
    Ok(())
}
