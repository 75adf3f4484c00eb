//! Fetching from the upstream: before each answer, once for all who ask at the same time, and all or nothing.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::repo::Repo;
use super::{git, index, mirror};

/// The longest a fetch may take: the first one of a large repository over a slow line.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// The longest a look at the upstream's HEAD may take.
const LOOK: Duration = Duration::from_secs(60);

/// What a fetch came to; the error is for the agent to read.
type Outcome = Result<(), Arc<str>>;

/// The fetch under way, if there is one.
#[derive(Default)]
pub(super) struct Flights(Mutex<Option<watch::Receiver<Option<Outcome>>>>);

/// Brings the mirror up to date, or says why that cannot be done.
pub(super) async fn refresh(repo: &Arc<Repo>) -> Outcome {
    let mut flight = join_or_start(repo);
    let ended = flight.wait_for(Option::is_some).await;
    match ended.map(|outcome| outcome.clone()) {
        Ok(Some(outcome)) => outcome,
        _ => Err("the gate is going down".into()),
    }
}

/// Whether the mirror has been filled at least once; if not, fills it.
pub(super) async fn ensure(repo: &Arc<Repo>) -> Outcome {
    if mirror::is_filled(repo) {
        return Ok(());
    }
    refresh(repo).await
}

fn join_or_start(repo: &Arc<Repo>) -> watch::Receiver<Option<Outcome>> {
    let mut slot = repo
        .flights
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(flight) = &*slot
        && flight.borrow().is_none()
        && flight.has_changed().is_ok()
    {
        return flight.clone();
    }
    let (land, flight) = watch::channel(None);
    *slot = Some(flight.clone());
    let repo = repo.clone();
    // A task of its own: it goes on when the one who asked first has gone away.
    tokio::spawn(async move {
        let alone = repo.refs.clone().lock_owned().await;
        let work = tokio::task::spawn_blocking({
            let repo = repo.clone();
            move || fetch(&repo)
        });
        let outcome = match work.await {
            Ok(outcome) => outcome,
            Err(_) => Err("the fetch ended before it was done".into()),
        };
        let is_filled = outcome.is_ok();
        land.send_replace(Some(outcome));
        drop(alone);
        if is_filled {
            // Nobody waits for it.
            tokio::task::spawn_blocking(move || index::refresh(&repo));
        }
    });
    flight
}

fn fetch(repo: &Repo) -> Outcome {
    fetch_all(repo).map_err(|error| {
        let host = &repo.host;
        format!("cannot fetch from {host}: {error}").into()
    })
}

fn fetch_all(repo: &Repo) -> io::Result<()> {
    if !mirror::exists(repo) || !head_is_there(repo) {
        follow_head(repo)?;
    }
    let mut command = repo.upstream_git();
    command.args([
        // A bitmap wants all objects in packs, a few as well.
        "-c",
        "fetch.unpackLimit=1",
        "fetch",
        "--quiet",
        "--prune",
        "--atomic",
        "--force",
        "--no-tags",
        "--no-auto-maintenance",
        "--no-write-fetch-head",
        "--no-recurse-submodules",
        "--no-show-forced-updates",
        "--refmap=",
        "--",
    ]);
    command.arg(&repo.rules.url);
    command.args(["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]);
    done(&git::finish(&mut command, Vec::new(), LIMIT, &mut |_| {})?)?;
    mirror::note_filled(repo)?;
    if !head_is_there(repo) {
        // The default branch was renamed; what is served must not point at nothing.
        follow_head(repo)?;
    }
    Ok(())
}

/// Whether HEAD points at a branch that there is.
fn head_is_there(repo: &Repo) -> bool {
    let mut command = git::git(&repo.path);
    command.args(["rev-parse", "--quiet", "--verify", "HEAD^{commit}"]);
    git::finish(&mut command, Vec::new(), LOOK, &mut |_| {}).is_ok_and(|done| done.status.success())
}

/// Asks the upstream which branch is its own HEAD, and makes the mirror when there is none yet.
fn follow_head(repo: &Repo) -> io::Result<()> {
    let mut command = repo.upstream_git();
    command.args(["ls-remote", "--symref", "--", &repo.rules.url, "HEAD"]);
    // Outside of any repository: there may be none yet.
    command.env_remove("GIT_DIR");
    let answer = git::finish(&mut command, Vec::new(), LOOK, &mut |_| {})?;
    done(&answer)?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let is_sha256 = text
        .lines()
        .any(|line| line.ends_with("\tHEAD") && line.find('\t') == Some(64));
    mirror::prepare(repo, is_sha256)?;
    let branch = text
        .lines()
        .find_map(|line| line.strip_prefix("ref: ")?.strip_suffix("\tHEAD"))
        .filter(|name| name.starts_with("refs/heads/"));
    let Some(branch) = branch else { return Ok(()) };
    let mut command = git::git(&repo.path);
    command.args(["symbolic-ref", "--", "HEAD", branch]);
    done(&git::finish(&mut command, Vec::new(), LOOK, &mut |_| {})?)
}

/// What the upstream, ssh or git said is the reason.
fn done(done: &git::Done) -> io::Result<()> {
    if done.status.success() {
        return Ok(());
    }
    // The reason comes last; before it ssh may have drawn a frame of its own around a warning.
    let mut said: Vec<&str> = done
        .stderr
        .lines()
        .filter(|line| !line.starts_with('@'))
        .rev()
        .take(5)
        .collect();
    said.reverse();
    Err(io::Error::other(if said.is_empty() {
        format!("git ended with {}", done.status)
    } else {
        said.join("; ")
    }))
}
