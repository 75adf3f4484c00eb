//! What a push must pass before the upstream hears of it: the rules, and a look at every object that is new.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bottle_plan::git::GateRepo;

use super::glob::{beginning, fits_path};
use super::leaks::{Leak, Scanner};
use super::objects::{Kind, New, Object, Quarantine, Stop};
use super::repo::Repo;
use super::rules::{Command, Refusal, judge, printable};
use super::run::Gate;
use super::{decode, git, tree};
use crate::program::say;
use crate::reason::Reason;

/// So many findings are told; the rest is counted.
const TOLD: usize = 10;

/// How long reading the mirror's refs may take.
const LOOK: Duration = Duration::from_secs(60);

/// What the checks of a push that may go on have counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    pub(super) commits: u64,
    pub(super) bytes: u64,
    /// How long looking at them took.
    pub(super) took: Duration,
}

/// A push that nothing is against, or nothing but what the operator can lift.
pub(super) struct Checked {
    pub(super) passed: Passed,
    /// For each update what only she can let through.
    pub(super) lifts: Vec<Option<Refusal>>,
}

/// Looks at all of a push, off the threads that serve others.
pub(super) async fn check(
    gate: &Arc<Gate>,
    repo: &Arc<Repo>,
    objects: &Path,
    updates: &[Command],
) -> Result<Checked, Refusal> {
    let lifts = judge(&repo.rules, updates)?;
    if gate.asking.is_none()
        && let Some(refusal) = lifts.iter().flatten().next()
    {
        return Err(refusal.clone());
    }
    let Ok(_place) = gate.scans.acquire().await else {
        return Err(failed(&io::Error::other("the gate is going down")));
    };
    let (gate, repo, objects, updates) = (
        gate.clone(),
        repo.clone(),
        objects.to_owned(),
        updates.to_vec(),
    );
    let work = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let quarantine = Quarantine {
            mirror: &repo.path,
            objects: &objects,
        };
        unmoved(&repo, &updates)?;
        let looked = look_through(&gate, &repo.rules, &quarantine, &updates, lifts);
        let mut checked = looked.map_err(|stop| match stop {
            Stop::Refusal(refusal) => refusal,
            Stop::Failed(error) => failed(&error),
        })?;
        checked.passed.took = began.elapsed();
        Ok(checked)
    });
    work.await.unwrap_or_else(|_| {
        Err(failed(&io::Error::other(
            "the checks ended before they were done",
        )))
    })
}

/// A check that does not work lets nothing through.
pub(super) fn failed(error: &io::Error) -> Refusal {
    let reason = match error.kind() {
        io::ErrorKind::FileTooLarge => Reason::GitTooLarge,
        _ => Reason::GitScanFailed,
    };
    say!("checking a push: {error}");
    Refusal::new(reason, printable(&error.to_string()))
}

/// Whether each ref is in the mirror as the push believes. What a push says of before is the agent's word: what it is
/// compared with, and what the operator is shown, must be what the upstream has.
pub(super) fn unmoved(repo: &Repo, updates: &[Command]) -> Result<(), Refusal> {
    let moved = moved(repo, updates).map_err(|error| failed(&error))?;
    moved.map_or(Ok(()), |moved| {
        Err(Refusal::new(Reason::GitStale, moved.name.clone()))
    })
}

/// The first ref that is not in the mirror as the push believes.
fn moved<'a>(repo: &Repo, updates: &'a [Command]) -> io::Result<Option<&'a Command>> {
    let mut command = git::git(&repo.path);
    command
        .args(["for-each-ref", "--format=%(objectname) %(refname)", "--"])
        .args(updates.iter().map(|update| &update.name));
    let listed = git::finish(&mut command, Vec::new(), LOOK, &mut |_| {})?;
    if !listed.status.success() {
        return Err(io::Error::other(listed.stderr));
    }
    let listed = String::from_utf8_lossy(&listed.stdout);
    let is: HashMap<&str, &str> = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(oid, name)| (name, oid))
        .collect();
    Ok(updates.iter().find(|update| {
        let believed = (!update.creates()).then_some(update.old.as_str());
        is.get(update.name.as_str()).copied() != believed
    }))
}

fn look_through(
    gate: &Gate,
    rules: &GateRepo,
    quarantine: &Quarantine<'_>,
    updates: &[Command],
    mut lifts: Vec<Option<Refusal>>,
) -> Result<Checked, Stop> {
    // Each is a walk of git's of its own, and neither needs the other.
    let (grow, new) = both(
        || check_growth(quarantine, updates),
        || quarantine.new_objects(updates),
    );
    let New { tips, objects } = new?;
    check_kinds(updates, &tips)?;
    grow?;
    let passed = check_size(rules, &objects)?;
    let (protected, leaks) = both(
        || protected(rules, quarantine, &objects).map_err(Stop::from),
        || scan(gate, quarantine, updates, &objects),
    );
    if let Some(refusal) = protected? {
        if gate.asking.is_none() {
            return Err(refusal.into());
        }
        // Which of them changes it is not told apart; it also weighs more than a ref's name.
        lifts.fill(Some(refusal));
    }
    let leaks = leaks?;
    if leaks.is_empty() {
        return Ok(Checked { passed, lifts });
    }
    Err(refusal_of(&leaks).into())
}

/// What both come to, which run at the same time.
fn both<A: Send, B>(
    one: impl FnOnce() -> Result<A, Stop> + Send,
    other: impl FnOnce() -> B,
) -> (Result<A, Stop>, B) {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        let one = one
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a check panicked").into()));
        (one, other)
    })
}

/// All that is new, in front of gitleaks and of the bottle's own secrets.
fn scan(
    gate: &Gate,
    quarantine: &Quarantine<'_>,
    updates: &[Command],
    objects: &[Object],
) -> Result<Vec<Leak>, Stop> {
    let mut scanner = Scanner::new(&gate.scratch)?;
    for update in updates {
        look_at(
            gate,
            &mut scanner,
            "the name of a ref",
            update.name.as_bytes(),
        )?;
    }
    quarantine.read(objects, &mut |object, data| {
        let place = object.place(&gate.secrets);
        match object.kind {
            Kind::Tree => {
                tree::check(data, &object.oid)?;
                // Between the names are raw object ids; a scanner reads lines.
                look_at(
                    gate,
                    &mut scanner,
                    &place,
                    &names(data, object.oid.len() / 2),
                )
            }
            Kind::Blob if tree::is_lfs_pointer(data) => {
                Err(Refusal::new(Reason::GitLfsPointer, place).into())
            }
            _ => look_at(gate, &mut scanner, &place, data),
        }
    })?;
    Ok(scanner.end()?)
}

/// Branches are commits; a tag names one or is an object of its own.
fn check_kinds(updates: &[Command], tips: &[Option<Kind>]) -> Result<(), Refusal> {
    for (update, kind) in updates.iter().zip(tips) {
        let fits = if update.name.starts_with("refs/heads/") {
            *kind == Some(Kind::Commit)
        } else {
            matches!(kind, Some(Kind::Commit | Kind::Tag))
        };
        if !fits {
            let detail = format!("{} is no commit", update.name);
            return Err(Refusal::new(Reason::GitObjectInvalid, detail));
        }
    }
    Ok(())
}

/// What is there already only grows.
fn check_growth(quarantine: &Quarantine<'_>, updates: &[Command]) -> Result<(), Stop> {
    for update in updates.iter().filter(|update| !update.creates()) {
        if !quarantine.goes_on_from(&update.old, &update.new)? {
            let detail = format!(
                "{}: what it was is not in the history of what it is to be",
                update.name
            );
            return Err(Refusal::new(Reason::GitForce, detail).into());
        }
    }
    Ok(())
}

fn check_size(rules: &GateRepo, objects: &[Object]) -> Result<Passed, Refusal> {
    let commits = objects
        .iter()
        .filter(|object| object.kind == Kind::Commit)
        .count() as u64;
    let bytes = objects
        .iter()
        .fold(0u64, |sum, object| sum.saturating_add(object.size));
    let limits = &rules.push;
    if commits > limits.max_commits {
        let detail = format!("{commits} new commits; at most {}", limits.max_commits);
        return Err(Refusal::new(Reason::GitTooManyCommits, detail));
    }
    if bytes > limits.max_bytes {
        let detail = format!("{bytes} bytes unpacked; at most {}", limits.max_bytes);
        return Err(Refusal::new(Reason::GitTooLarge, detail));
    }
    Ok(Passed {
        commits,
        bytes,
        took: Duration::ZERO,
    })
}

/// What is against it for the sake of protected paths.
fn protected(
    rules: &GateRepo,
    quarantine: &Quarantine<'_>,
    objects: &[Object],
) -> io::Result<Option<Refusal>> {
    let patterns = &rules.push.protected_paths;
    let commits: Vec<&Object> = objects
        .iter()
        .filter(|object| object.kind == Kind::Commit)
        .collect();
    if patterns.is_empty() || commits.is_empty() {
        return Ok(None);
    }
    let mut found = BTreeSet::new();
    let folders: Option<Vec<String>> = patterns.iter().map(|text| beginning(text)).collect();
    for path in quarantine.changed_paths(&commits, &folders.unwrap_or_default())? {
        if let Some(pattern) = patterns.iter().find(|pattern| fits_path(pattern, &path)) {
            let shown = printable(&String::from_utf8_lossy(&path));
            found.insert(format!("{shown} ({pattern})"));
        }
    }
    let lines = told(found.into_iter().collect());
    Ok((!lines.is_empty()).then(|| Refusal::new(Reason::GitProtectedPath, lines)))
}

/// The first of them, a line each, and how many more there are.
fn told(mut lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(TOLD);
    lines.truncate(TOLD);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

/// One piece, and what is behind its coats.
fn look_at(gate: &Gate, scanner: &mut Scanner, place: &str, data: &[u8]) -> Result<(), Stop> {
    let own = |data: &[u8]| {
        if gate.secrets.are_in(data) {
            return Err(Refusal::new(Reason::SecretLeak, place.to_owned()));
        }
        Ok(())
    };
    own(data)?;
    scanner.add(place, data)?;
    for layer in decode::layers(data) {
        own(&layer)?;
        scanner.add(place, &layer)?;
    }
    Ok(())
}

/// The names in a tree, a line each.
fn names(tree: &[u8], id_length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = tree;
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let entry = &rest[..end];
        let name = entry
            .iter()
            .position(|byte| *byte == b' ')
            .map_or(entry, |at| &entry[at + 1..]);
        out.extend_from_slice(name);
        out.push(b'\n');
        rest = rest.get(end + 1 + id_length..).unwrap_or_default();
    }
    out
}

/// What was found, in words that do not say it.
fn refusal_of(leaks: &[Leak]) -> Refusal {
    let mut lines: Vec<String> = leaks
        .iter()
        .map(|leak| format!("{} in {}, line {}", leak.rule, leak.place, leak.line))
        .collect();
    lines.sort();
    lines.dedup();
    let mut found: Vec<String> = leaks
        .iter()
        .map(|leak| format!("gitleaks/{}", leak.rule))
        .collect();
    found.sort();
    found.dedup();
    found.truncate(TOLD);
    Refusal {
        reason: Reason::GitSecret,
        detail: told(lines),
        found,
        asks: Vec::new(),
    }
}
