//! What only the operator can let through: her grants as they are at this moment, requests in the gate's own name, and
//! the denials an agent can turn into one.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bottle_plan::git::{Gate as Document, HOLD_SECONDS, review_file};
use bottle_plan::request::{self, Ask, OnTimeout, Scope};
use bottle_plan::supervise::{PUSH_DENIALS_FILE, PushDenial, Repo as Known, Settings};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::checks::{Checked, Passed};
use super::hook::{Push, Voice};
use super::push::show;
use super::repo::Repo;
use super::rules::{Command, Refusal, printable};
use super::run::Gate;
use crate::audit::Way;
use crate::grants::{self, Grants, Taker};
use crate::program::say;
use crate::reason::Reason;
use crate::supervise::{Desk, Refusal as NotAsked};

/// How often the operator's files are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(200);
/// How often an agent that waits is told so.
const PROGRESS: Duration = Duration::from_secs(5);
/// Pushes that are held at once: each keeps its objects on the disk.
const MAX_HELD: usize = 8;
/// Denials that can still be asked about.
const MAX_DENIALS: usize = 200;

/// The way to the operator.
pub(super) struct Asking {
    desk: Desk,
    /// Where requests, answers and grants are.
    base: PathBuf,
    grants: Mutex<Grants>,
    denials: Mutex<VecDeque<PushDenial>>,
    held: Semaphore,
}

impl Asking {
    /// Nothing in a bottle whose agent cannot ask.
    pub(super) fn open(
        document: &Document,
        base: &Path,
        uses: &Path,
    ) -> Result<Option<Self>, String> {
        let Some(timeout) = document.asking else {
            return match document.repos.iter().find(|repo| repo.push.review) {
                Some(repo) => Err(format!("{}: nobody can be asked to review", repo.name)),
                None => Ok(None),
            };
        };
        let settings = Settings {
            schema: String::new(),
            bottle: document.bottle.clone(),
            plan_digest: document.plan_digest.clone(),
            listen: document.listen,
            port: 0,
            timeout,
            on_timeout: OnTimeout::Deny,
            hosts: Vec::new(),
            routes: Vec::new(),
            repos: document
                .repos
                .iter()
                .map(|repo| Known {
                    name: repo.name.clone(),
                    refs: repo.refs.clone(),
                })
                .collect(),
        };
        let grants = Grants::open(base, uses, Taker::GitGate)
            .ok_or_else(|| format!("{}: there are no grants", base.display()))?;
        Ok(Some(Self {
            desk: Desk::open(settings, base)?,
            base: base.to_owned(),
            grants: Mutex::new(grants),
            denials: Mutex::default(),
            held: Semaphore::new(MAX_HELD),
        }))
    }

    /// Takes over what was granted or taken back since the last time, and records it.
    pub(super) async fn look(&self, gate: &Gate) {
        let changes = {
            let mut grants = self.grants();
            let changes = grants.look();
            if changes.policy {
                grants.say_applied(&self.base);
            }
            changes
        };
        for (grant, reason) in changes.noted() {
            if let Ok(mut entry) = gate.audit.begin(Way::Audit).await {
                let record = entry.record();
                grants::describe(grant, reason, record);
                if let Some(path) = &mut record.path {
                    *path = gate.secrets.shown(path).to_owned();
                }
            }
        }
    }

    /// The live grant that lets this update through although `lifted` is against it.
    fn grant_for(
        &self,
        repo: &Repo,
        update: &Command,
        lifted: Option<&Refusal>,
    ) -> Option<Arc<str>> {
        let seen_at = seen_at(&self.review(repo, update));
        let covers = |document: &request::Grant| {
            let Scope::Push {
                repo: name,
                reference,
                object,
            } = &document.scope
            else {
                return false;
            };
            let names_object = object.as_ref().is_some_and(|object| *object == update.new);
            let fits = match lifted.map(|refusal| refusal.reason) {
                // Also when the operator has allowed any content there.
                Some(Reason::GitRefNotAllowed) if !repo.rules.push.review => {
                    names_object || object.is_none()
                }
                // A protected path has to be seen before it is allowed.
                Some(Reason::GitProtectedPath) => {
                    let granted_at = request::time_of(&document.created_at).map(SystemTime::from);
                    names_object
                        && seen_at
                            .zip(granted_at)
                            .is_some_and(|(seen, granted)| seen <= granted)
                }
                _ => names_object,
            };
            *name == repo.rules.name && *reference == update.name && fits
        };
        let grants = self.grants();
        let mut live = grants.known().filter(|(_, grant)| grant.is_live());
        live.find(|(document, _)| covers(document))
            .map(|(_, grant)| grant.id)
    }

    /// Takes one use of each, on the disk before the push goes on.
    pub(super) fn take(&self, ids: &[Arc<str>]) -> Result<(), Reason> {
        let grants = self.grants();
        ids.iter().try_for_each(|id| {
            let mut known = grants.known();
            match known.find(|(_, grant)| grant.id == *id) {
                Some((_, grant)) => grant.take(),
                None => Err(Reason::GrantOver),
            }
        })
    }

    /// Notes what was refused, so that its id is enough to ask for it.
    pub(super) fn note(&self, id: String, repo: &Repo, update: &Command) {
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        while denials.len() >= MAX_DENIALS {
            denials.pop_front();
        }
        denials.push_back(PushDenial {
            id,
            repo: repo.rules.name.clone(),
            reference: update.name.clone(),
            object: update.new.clone(),
        });
        let mut text = Vec::new();
        for denial in &*denials {
            // A vector takes what it is given.
            let _ = serde_json::to_writer(&mut text, denial);
            text.push(b'\n');
        }
        let folder = self.base.join("denials");
        let (path, new) = (folder.join(PUSH_DENIALS_FILE), folder.join(".new-pushes"));
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &path)) {
            say!("{}: {error}", path.display());
        }
    }

    /// Where the operator finds what the update would change.
    pub(super) fn review(&self, repo: &Repo, update: &Command) -> PathBuf {
        let name = review_file(&repo.rules.name, &update.name, &update.new);
        self.base.join("reviews").join(name)
    }

    fn grants(&self) -> std::sync::MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seen_at(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).ok()?.modified().ok()
}

/// The operator's word, where one is needed: the grants the push goes on by, or why it does not.
pub(super) async fn approve(
    gate: &Arc<Gate>,
    push: &Arc<Push>,
    objects: &Path,
    updates: &[Command],
    checked: &Checked,
    voice: &Voice,
) -> Result<Vec<Arc<str>>, Refusal> {
    let repo = &push.repo;
    let review = repo.rules.push.review;
    if !review && checked.lifts.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    let Some(asking) = &gate.asking else {
        let refusal = checked.lifts.iter().flatten().next().cloned();
        return Err(refusal.unwrap_or_else(|| Refusal::new(Reason::GitReviewPending, "")));
    };
    asking.look(gate).await;
    let needed: Vec<usize> = (0..updates.len())
        .filter(|&at| review || checked.lifts[at].is_some())
        .collect();
    let find = |at: &usize| asking.grant_for(repo, &updates[*at], checked.lifts[*at].as_ref());
    let open: Vec<usize> = needed
        .iter()
        .copied()
        .filter(|at| find(at).is_none())
        .collect();
    if !open.is_empty() {
        show(gate, push, objects, updates, &checked.lifts, &open).await?;
        let refused: Vec<usize> = open
            .iter()
            .copied()
            .filter(|&at| checked.lifts[at].is_some())
            .collect();
        if let Some(refusal) = refused.first().and_then(|&at| checked.lifts[at].clone()) {
            return Err(Refusal {
                asks: refused,
                ..refusal
            });
        }
        hold(
            gate,
            asking,
            push,
            updates,
            &open,
            checked.passed,
            voice,
            &find,
        )
        .await?;
    }
    let ids: Option<Vec<Arc<str>>> = needed.iter().map(find).collect();
    ids.ok_or_else(|| Refusal::new(Reason::GrantOver, ""))
}

/// Asks, and waits for the answer for as long as an agent does.
#[allow(clippy::too_many_arguments, reason = "all of it is one push")]
async fn hold(
    gate: &Gate,
    asking: &Asking,
    push: &Push,
    updates: &[Command],
    open: &[usize],
    passed: Passed,
    voice: &Voice,
    find: &impl Fn(&usize) -> Option<Arc<str>>,
) -> Result<(), Refusal> {
    let Ok(_place) = asking.held.try_acquire() else {
        let detail = format!("{MAX_HELD} pushes wait already");
        return Err(Refusal::new(Reason::GitReviewPending, detail));
    };
    let mut waiting = Vec::new();
    for &at in open {
        let id = ask(asking, &push.repo, &updates[at], passed)?;
        note_held(gate, &push.repo, &updates[at], &id).await?;
        voice.say(format!(
            "git-gate: {} waits for the operator ({id})",
            printable(&updates[at].name)
        ));
        waiting.push((at, id));
    }
    let hold = push.repo.rules.push.hold.unwrap_or(HOLD_SECONDS);
    let until = Instant::now() + Duration::from_secs(hold);
    let mut said = Instant::now();
    loop {
        // What is decided is looked at first: an answer that is there must be one of the grants that are then taken over.
        let mut answered = Vec::new();
        for (_, id) in &waiting {
            answered.push(is_answered(asking, id)?);
        }
        asking.look(gate).await;
        let mut answered = answered.into_iter();
        let mut other = None;
        waiting.retain(|(at, id)| {
            let is_answered = answered.next().unwrap_or(false);
            let is_granted = find(at).is_some();
            if is_answered && !is_granted {
                other = Some(id.clone());
            }
            !is_granted
        });
        if let Some(id) = other {
            let detail = format!("{id}: what was granted is not this push");
            return Err(Refusal::new(Reason::GitReviewDenied, detail));
        }
        let Some((_, id)) = waiting.first() else {
            return Ok(());
        };
        if push.is_gone() {
            return Err(pending(&waiting, "the client went away"));
        }
        let now = Instant::now();
        if now >= until {
            return Err(pending(&waiting, &format!("after {hold} s")));
        }
        if now.duration_since(said) >= PROGRESS {
            said = now;
            let left = until.duration_since(now).as_secs();
            voice.say(format!(
                "git-gate: waiting for the operator ({id}), {left} s more"
            ));
        }
        sleep(LOOK).await;
    }
}

fn pending(waiting: &[(usize, String)], when: &str) -> Refusal {
    let ids: Vec<&str> = waiting.iter().map(|(_, id)| id.as_str()).collect();
    Refusal::new(
        Reason::GitReviewPending,
        format!("not answered yet, {when}: {}", ids.join(", ")),
    )
}

/// Puts the request on file, or finds the one that waits for the same.
fn ask(asking: &Asking, repo: &Repo, update: &Command, passed: Passed) -> Result<String, Refusal> {
    let ask = Ask::Push {
        repo: repo.rules.name.clone(),
        reference: update.name.clone(),
        object: Some(update.new.clone()),
    };
    let reason = format!(
        "git-gate holds it for review: {} new commit(s), {} bytes",
        passed.commits, passed.bytes
    );
    asking.desk.hand_in(ask, &reason).map_err(|problem| {
        let (NotAsked::Wrong(why)
        | NotAsked::TooMany(why)
        | NotAsked::Unknown(why)
        | NotAsked::Broken(why)) = problem;
        Refusal::new(Reason::GitReviewPending, printable(&why))
    })
}

/// A push that waits is on record, whatever becomes of it.
async fn note_held(gate: &Gate, repo: &Repo, update: &Command, id: &str) -> Result<(), Refusal> {
    let mut entry = gate
        .audit
        .begin(Way::Git)
        .await
        .map_err(|reason| Refusal::new(reason, ""))?;
    let record = entry.record();
    record.method = hyper::Method::from_bytes(b"HOLD").ok();
    record.host = Some(repo.host.clone());
    record.path = Some(update.place(repo, &gate.secrets));
    record.reason = Reason::GitHeld;
    record.rule = Some(id.into());
    Ok(())
}

/// Whether it was approved; an error when it was answered otherwise.
fn is_answered(asking: &Asking, id: &str) -> Result<bool, Refusal> {
    let Ok(state) = asking.desk.state(id) else {
        return Err(Refusal::new(
            Reason::GitReviewPending,
            format!("{id}: the request is gone"),
        ));
    };
    match state["status"].as_str().unwrap_or_default() {
        "waiting" => Ok(false),
        "approved" => Ok(true),
        "expired" => Err(Refusal::new(
            Reason::GitReviewPending,
            format!("{id}: nobody answered in time"),
        )),
        _ => {
            let why = state["text"].as_str().unwrap_or_default();
            Err(Refusal::new(Reason::GitReviewDenied, printable(why)))
        }
    }
}
