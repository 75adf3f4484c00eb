//! A push, from the moment git has it in quarantine: checked, recorded, forwarded.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;

use super::checks::{Passed, check, failed, unmoved};
use super::forward::forward;
use super::hook::{Push, Voice};
use super::objects::Quarantine;
use super::repo::Repo;
use super::rules::{Command, Refusal};
use super::run::Gate;
use super::{asking, review};
use crate::audit::{Entry, Way};
use crate::reason::Reason;

/// How long a push may take in all, the operator's review in it.
pub(super) const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

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
        unmoved(&repo, &updates)?;
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
