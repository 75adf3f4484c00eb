//! A push, from the moment git has it in quarantine: judged, looked through, recorded, forwarded.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bottle_plan::git::GateRepo;
use hyper::Method;

use super::forward::forward;
use super::git;
use super::glob::{beginning, fits_path};
use super::hook::{Push, Voice};
use super::leaks::{Leak, Scanner};
use super::objects::{Kind, Object, Quarantine, Stop};
use super::repo::Repo;
use super::rules::{Command, Refusal, judge, printable};
use super::run::Gate;
use super::{asking, decode, review, tree};
use crate::audit::{Entry, Way};
use crate::reason::Reason;

/// How long a push may take in all, the operator's review in it.
pub(super) const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// So many findings are told; the rest is counted.
const TOLD: usize = 10;

/// What the checks of a push that may go on have counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    pub(super) commits: u64,
    pub(super) bytes: u64,
    /// How long looking at them took.
    took: Duration,
}

/// A push that nothing is against, or nothing but what the operator can lift.
pub(super) struct Checked {
    pub(super) passed: Passed,
    /// For each update what only she can let through.
    pub(super) lifts: Vec<Option<Refusal>>,
}

/// What was decided: what was counted, and the grants it goes on by.
type Decided = Result<(Passed, Vec<Arc<str>>), Refusal>;

/// Decides on a push; true lets git write the refs, and then the upstream has them already.
pub(super) async fn decide(
    gate: Arc<Gate>,
    push: Arc<Push>,
    objects: PathBuf,
    updates: Vec<Command>,
    voice: Voice,
) -> bool {
    let decided = judge_all(&gate, &push, &objects, &updates, &voice).await;
    // On record before it has any effect: what cannot be recorded does not happen.
    let Ok(ids) = record(&gate, &push.repo, &updates, "PUSH", &decided).await else {
        voice.say(format!("git-gate: {}", Reason::AuditUnavailable.text()));
        return false;
    };
    let (passed, grants) = match decided {
        Ok(decided) => decided,
        Err(refusal) => {
            explain(&voice, &refusal);
            offer(&gate, &push.repo, &updates, &refusal, &ids, &voice);
            return false;
        }
    };
    // From here to the end of the push nobody else changes the mirror's refs.
    push.hold_refs(push.repo.refs.clone().lock_owned().await);
    let outcome = match take(&gate, &grants).await {
        Ok(()) => hand_on(&push, objects, &updates, &voice).await,
        Err(reason) => Err(Refusal::new(reason, "")),
    };
    let outcome = outcome.map(|()| (passed, grants));
    // What has happened is recorded if it can be; that it was allowed is on record already.
    let _ = record(&gate, &push.repo, &updates, "FORWARD", &outcome).await;
    match outcome {
        Ok(_) => {
            let commits = passed.commits;
            voice.say(format!(
                "git-gate: checked {commits} new commit(s) in {:.2} s and handed them to {}",
                passed.took.as_secs_f64(),
                push.repo.host
            ));
            true
        }
        Err(refusal) => {
            explain(&voice, &refusal);
            false
        }
    }
}

async fn judge_all(
    gate: &Arc<Gate>,
    push: &Arc<Push>,
    objects: &Path,
    updates: &[Command],
    voice: &Voice,
) -> Decided {
    let checked = check(gate, &push.repo, objects, updates).await?;
    let grants = asking::approve(gate, push, objects, updates, &checked, voice).await?;
    Ok((checked.passed, grants))
}

/// Takes a use of each grant, of those that still hold.
async fn take(gate: &Gate, grants: &[Arc<str>]) -> Result<(), Reason> {
    match &gate.asking {
        Some(asking) if !grants.is_empty() => {
            asking.look(gate).await;
            asking.take(grants)
        }
        _ => Ok(()),
    }
}

/// Puts what the updates with these numbers would change where the operator sees it.
pub(super) async fn show(
    gate: &Arc<Gate>,
    push: &Arc<Push>,
    objects: &Path,
    updates: &[Command],
    lifts: &[Option<Refusal>],
    open: &[usize],
) -> Result<(), Refusal> {
    let (gate, push, objects) = (gate.clone(), push.clone(), objects.to_owned());
    let open: Vec<(Command, Option<Refusal>)> = open
        .iter()
        .map(|&at| (updates[at].clone(), lifts[at].clone()))
        .collect();
    let work = tokio::task::spawn_blocking(move || {
        let repo = &push.repo;
        let quarantine = Quarantine {
            mirror: &repo.path,
            objects: &objects,
        };
        open.iter().try_for_each(|(update, lifted)| {
            let Some(asking) = &gate.asking else {
                return Ok(());
            };
            let path = asking.review(repo, update);
            review::write(
                &quarantine,
                &repo.rules.name,
                update,
                lifted.as_ref(),
                &path,
            )
        })
    });
    let done = work
        .await
        .unwrap_or_else(|_| Err(io::Error::other("showing ended before it was done")));
    done.map_err(|error| failed(&error))
}

/// Says how to ask for what was refused, where there is somebody to ask.
fn offer(
    gate: &Gate,
    repo: &Repo,
    updates: &[Command],
    refusal: &Refusal,
    ids: &[String],
    voice: &Voice,
) {
    let Some(asking) = &gate.asking else { return };
    for &at in &refusal.asks {
        let Some(id) = ids.get(at) else { continue };
        asking.note(id.clone(), repo, &updates[at]);
        voice.say(format!(
            "git-gate: ask: request_push {{\"denial\": \"{id}\", \"reason\": \"why\"}}, or \
             curl supervise:9100/requests/push -d '{{\"denial\": \"{id}\", \"reason\": \"why\"}}'"
        ));
    }
    if !refusal.asks.is_empty() {
        voice.say("git-gate: hint: once the operator has granted it, push the same commit again");
    }
}

async fn hand_on(
    push: &Arc<Push>,
    objects: PathBuf,
    updates: &[Command],
    voice: &Voice,
) -> Result<(), Refusal> {
    let (repo, updates, voice) = (push.repo.clone(), updates.to_vec(), voice.clone());
    let work = tokio::task::spawn_blocking(move || {
        if let Some(moved) = updates.iter().find(|update| !is_still(&repo, update)) {
            return Err(Refusal::new(Reason::GitStale, moved.name.clone()));
        }
        let quarantine = Quarantine {
            mirror: &repo.path,
            objects: &objects,
        };
        forward(&repo, &quarantine, &updates, &voice)
    });
    work.await.unwrap_or_else(|_| {
        Err(failed(&io::Error::other(
            "forwarding ended before it was done",
        )))
    })
}

/// Whether the ref is in the mirror as the push believes.
fn is_still(repo: &Repo, update: &Command) -> bool {
    let mut command = git::git(&repo.path);
    command.args([
        "rev-parse",
        "--quiet",
        "--verify",
        "--end-of-options",
        &update.name,
    ]);
    let done = git::finish(
        &mut command,
        Vec::new(),
        Duration::from_secs(60),
        &mut |_| {},
    );
    done.is_ok_and(|done| {
        let is = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        if update.creates() {
            is.is_empty()
        } else {
            is == update.old
        }
    })
}

async fn check(
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
fn failed(error: &io::Error) -> Refusal {
    let reason = match error.kind() {
        io::ErrorKind::FileTooLarge => Reason::GitTooLarge,
        _ => Reason::GitScanFailed,
    };
    eprintln!("bottle-sidecar: checking a push: {error}");
    Refusal::new(reason, printable(&error.to_string()))
}

fn look_through(
    gate: &Gate,
    rules: &GateRepo,
    quarantine: &Quarantine<'_>,
    updates: &[Command],
    mut lifts: Vec<Option<Refusal>>,
) -> Result<Checked, Stop> {
    check_shape(quarantine, updates)?;
    let objects = quarantine.new_objects(updates)?;
    let passed = check_size(rules, &objects)?;
    if let Some(refusal) = protected(rules, quarantine, &objects)? {
        if gate.asking.is_none() {
            return Err(refusal.into());
        }
        // Which of them changes it is not told apart; it also weighs more than a ref's name.
        lifts.fill(Some(refusal));
    }
    let mut scanner = Scanner::new(&gate.scratch)?;
    for update in updates {
        look_at(
            gate,
            &mut scanner,
            "the name of a ref",
            update.name.as_bytes(),
        )?;
    }
    quarantine.read(&objects, &mut |object, data| {
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
    let leaks = scanner.end()?;
    if leaks.is_empty() {
        return Ok(Checked { passed, lifts });
    }
    Err(refusal_of(&leaks).into())
}

/// Branches are commits, and only grow.
fn check_shape(quarantine: &Quarantine<'_>, updates: &[Command]) -> Result<(), Stop> {
    let kinds = quarantine.kinds(updates)?;
    for (update, kind) in updates.iter().zip(kinds) {
        let is_branch = update.name.starts_with("refs/heads/");
        let fits = if is_branch {
            kind == Some(Kind::Commit)
        } else {
            matches!(kind, Some(Kind::Commit | Kind::Tag))
        };
        if !fits {
            return Err(Refusal::new(
                Reason::GitObjectInvalid,
                format!("{} is no commit", update.name),
            )
            .into());
        }
        if !update.creates() && !quarantine.goes_on_from(&update.old, &update.new)? {
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

/// What the agent reads, and what it can do.
fn explain(voice: &Voice, refusal: &Refusal) {
    voice.say(format!(
        "git-gate: refused ({}): {}",
        refusal.reason.code(),
        refusal.reason.text()
    ));
    for line in refusal.detail.lines().filter(|line| !line.is_empty()) {
        voice.say(format!("git-gate:   {line}"));
    }
    let advice = match refusal.reason {
        Reason::GitSecret | Reason::SecretLeak => {
            "every commit is looked at, not only the last: take it out of the history (git rebase -i), and push again"
        }
        Reason::GitForce => "git fetch, then merge or rebase onto it, and push again",
        Reason::UpstreamUnreachable => "nothing was pushed; try again later",
        Reason::GitReviewPending => {
            "push the same commit again once the operator has approved it: that push goes through"
        }
        _ => return,
    };
    voice.say(format!("git-gate: hint: {advice}"));
}

/// One record for each ref; their ids, in the order of the updates.
async fn record(
    gate: &Gate,
    repo: &Repo,
    updates: &[Command],
    what: &str,
    decided: &Decided,
) -> Result<Vec<String>, Reason> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut ids = Vec::new();
    for update in updates.iter().take(32) {
        let mut entry = gate.audit.begin(Way::Git).await?;
        let record = entry.record();
        record.method = Method::from_bytes(what.as_bytes()).ok();
        record.host = Some(repo.host.clone());
        record.path = Some(update.place(repo, &gate.secrets));
        match decided {
            Ok((passed, grants)) => {
                record.bytes_out = passed.bytes;
                record.rule = (!grants.is_empty()).then(|| grants.join(" ").into());
            }
            Err(refusal) => {
                record.reason = refusal.reason;
                record.also_found = refusal.found.clone();
            }
        }
        ids.push(record.id.clone());
        entries.push(entry);
    }
    Ok(ids)
}
