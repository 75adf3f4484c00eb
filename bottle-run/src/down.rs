//! Down: everything `up` makes, removed in inverse order. Gone already is done.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use bottle_plan::failure::{Failure, Kind, PathContext as _, Result};
use bottle_plan::planner;
use bottle_plan::snapshot::SNAPSHOT_JOURNAL_FILE;
use bottle_plan::state::{self, StateHome};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::audit;
use crate::containers::{self, Container, Labels};
use crate::engine::{Engine, Output, at_once, failure_of};
use crate::files;
use crate::journal::{Journal, START, STOP};
use crate::keys;
use crate::lock::BottleLock;

/// How long a sidecar may take to write its last records.
const SIDECAR_GRACE: u32 = 5;

/// The schema tag of [`Removed`].
pub const REMOVED_SCHEMA: &str = "bottle.removed/v1";

/// What was removed.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Removed {
    /// Always [`REMOVED_SCHEMA`].
    pub schema: &'static str,
    /// The bottle.
    pub slug: String,
    /// Names of containers.
    pub containers: Vec<String>,
    /// Names of networks.
    pub networks: Vec<String>,
    /// Whether the state folder went too.
    pub state: bool,
}

impl Removed {
    /// Whether there was nothing to remove.
    #[must_use]
    pub fn nothing(&self) -> bool {
        self.containers.is_empty() && self.networks.is_empty() && !self.state
    }
}

/// Which bottle, and what of it.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The state home it is in.
    pub home: &'a StateHome,
    /// The label its resources carry for that home.
    pub home_label: &'a str,
    /// The bottle.
    pub slug: &'a str,
    /// Removes the state folder too: audit, logs and the reserved addresses.
    pub purge: bool,
}

/// Removes the bottle's containers and networks, and the secrets in its state folder.
///
/// # Errors
/// Not found, when there is neither a state folder nor anything in the engine; otherwise every failure on the way, after
/// all that could be removed has been.
pub fn down(engine: &Engine, request: &Request<'_>, say: &dyn Fn(&str)) -> Result<Removed> {
    let folder = request.home.folder(request.slug)?;
    let _lock = if folder.is_dir() {
        Some(BottleLock::wait(&folder, request.slug, || {
            say("waiting for another bottle-run or its docker to finish");
        })?)
    } else {
        None
    };
    let journal = Journal::of(request.home, request.slug)?;
    // From here on it is to be finished, by the next `down` or by `gc`. A disk that is full must not keep it running.
    let _ = journal.begin(STOP, serde_json::Value::Null);
    let mut removed = remove(engine, request, &folder)?;
    let kept = if request.purge {
        why_kept(request, &folder)?
    } else {
        None
    };
    if folder.is_dir() && (!request.purge || kept.is_some()) {
        note_stopped(request)?;
    } else if folder.is_dir() {
        planner::release(request.home, request.slug)?;
        removed.state = true;
    }
    if let Some(why) = kept {
        say(&format!("its state is kept, because {why}"));
    }
    journal.end_all(&[START, STOP])?;
    if removed.nothing() && !folder.is_dir() {
        return Err(
            Failure::not_found(format!("there is no bottle `{}`", request.slug))
                .hint("bottle-run list shows what there is"),
        );
    }
    Ok(removed)
}

/// What of the state is somebody else's to remove first: without it nobody would find what it leads to in the engine.
fn why_kept(request: &Request<'_>, folder: &Path) -> Result<Option<String>> {
    let slug = request.slug;
    if folder.join(SNAPSHOT_JOURNAL_FILE).exists() {
        return Ok(Some(
            "a bottle-snapshot was killed in it: bottle-snapshot gc finishes or undoes that"
                .to_owned(),
        ));
    }
    let known = request.home.metadata(slug)?;
    Ok(known
        .is_some_and(|known| known.preserved)
        .then(|| format!("it has snapshots: bottle-snapshot rm {slug} --all removes them")))
}

/// As [`down`], for whoever holds the lock already.
///
/// # Errors
/// Every failure on the way, after all that could be removed has been.
pub fn remove(engine: &Engine, request: &Request<'_>, folder: &Path) -> Result<Removed> {
    let labels = Labels::of_bottle(request.home_label, request.slug);
    let mut removed = Removed {
        schema: REMOVED_SCHEMA,
        slug: request.slug.to_owned(),
        ..Removed::default()
    };
    let mut failures = Vec::new();

    let found = containers::list(engine, &labels)?;
    // Side by side: an agent that outlives the sidecar by a moment is cut off, not free.
    let (agents, sidecars): (Vec<_>, Vec<_>) = found.into_iter().partition(|c| c.role() == "agent");
    let (without_agents, without_sidecars) = at_once(
        || {
            let saved = save_logs(engine, &agents, folder);
            (saved, remove_containers(engine, &agents))
        },
        || {
            // What it says at its end is said before its logs are read.
            let stopped = stop(engine, &sidecars);
            let saved = save_logs(engine, &sidecars, folder);
            let removed = stopped.and_then(|()| remove_containers(engine, &sidecars));
            (saved, removed)
        },
    )?;
    for (group, (saved, result)) in [(agents, without_agents), (sidecars, without_sidecars)] {
        // Logs are a courtesy: a full disk must not keep a bottle running.
        failures.extend(saved.err());
        match result {
            Ok(()) => removed.containers.extend(group.into_iter().map(|c| c.name)),
            Err(failure) => failures.push(failure),
        }
    }
    match remove_networks(engine, &labels) {
        Ok(names) => removed.networks = names,
        Err(failure) => failures.push(failure),
    }
    if failures.is_empty()
        && let Err(failure) = files::remove_while_up(folder)
    {
        failures.push(failure);
    }
    // After the container that holds them: nobody pushes any more. Its failure is loud, and the key stays written down.
    if let Err(failure) = keys::revoke(request.home, request.slug) {
        failures.push(failure);
    }
    match one_of(failures) {
        Some(failure) => {
            Err(failure.while_doing(format!("removing the bottle `{}`", request.slug)))
        }
        None => Ok(removed),
    }
}

/// Removes containers and networks with these labels, whatever they are.
///
/// # Errors
/// Every failure on the way, after all that could be removed has been.
pub fn remove_labelled(engine: &Engine, labels: &Labels) -> Result<Vec<String>> {
    let found = containers::list(engine, labels)?;
    let without = remove_containers(engine, &found);
    let names = remove_networks(engine, labels);
    without.and(names)
}

/// What a sidecar has recorded but not written would be lost with a kill.
fn stop(engine: &Engine, group: &[Container]) -> Result<()> {
    let running: Vec<&str> = group
        .iter()
        .filter(|container| container.state == "running")
        .map(|container| container.id.as_str())
        .collect();
    if running.is_empty() {
        return Ok(());
    }
    let stop = engine
        .call(["stop", &format!("--time={SIDECAR_GRACE}")])
        .args(running);
    // That it is gone already is no failure, and what else is wrong the removal will say.
    stop.within(Duration::from_secs(30)).output().map(drop)
}

fn remove_containers(engine: &Engine, group: &[Container]) -> Result<()> {
    if group.is_empty() {
        return Ok(());
    }
    let ids = group.iter().map(|container| container.id.as_str());
    let output = engine
        .call(["rm", "--force", "--volumes"])
        .args(ids)
        .output()?;
    let gone = ["No such container", "already in progress"];
    done_or_gone("docker rm", &output, &gone)
}

fn remove_networks(engine: &Engine, labels: &Labels) -> Result<Vec<String>> {
    let names = containers::networks(engine, labels)?;
    let removals: Vec<Result<()>> = thread::scope(|scope| {
        let threads: Vec<_> = names
            .iter()
            .map(|name| scope.spawn(|| remove_network(engine, name)))
            .collect();
        let panicked = |_| Err(Failure::failed("a thread of bottle-run panicked"));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .collect()
    });
    match one_of(removals.into_iter().filter_map(Result::err).collect()) {
        Some(failure) => Err(failure),
        None => Ok(names),
    }
}

fn remove_network(engine: &Engine, name: &str) -> Result<()> {
    let output = engine.call(["network", "rm", name]).output()?;
    done_or_gone(
        "docker network rm",
        &output,
        &["not found", "No such network"],
    )
}

/// Success, or nothing but what was to be achieved anyway.
fn done_or_gone(what: &str, output: &Output, gone: &[&str]) -> Result<()> {
    let is_gone = |line: &str| gone.iter().any(|text| line.contains(text));
    if output.status.success() || output.stderr.lines().all(is_gone) && !output.stderr.is_empty() {
        return Ok(());
    }
    Err(failure_of(what, output))
}

/// Appends what the containers printed to `compose.log`, each line with its time and its role. A bottle whose folder was
/// deleted has no place for it.
fn save_logs(engine: &Engine, found: &[Container], folder: &Path) -> Result<()> {
    let ran: Vec<&Container> = found
        .iter()
        .filter(|container| container.state != "created")
        .collect();
    if ran.is_empty() || !folder.is_dir() {
        return Ok(());
    }
    let path = folder.join("compose.log");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .at("open", &path)?;
    for container in ran {
        let output = engine
            .call(["logs", "--timestamps", "--", &container.id])
            .output()?;
        let mut text = String::new();
        for line in String::from_utf8_lossy(&output.stdout)
            .lines()
            .chain(output.stderr.lines())
        {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{} | {line}", container.role());
        }
        // Whole, so that the logs of two containers do not run into each other.
        file.write_all(text.as_bytes()).at("write", &path)?;
    }
    Ok(())
}

/// Writes down when the bottle ended, and how its audit did.
///
/// # Errors
/// When it cannot be written.
pub fn note_stopped(request: &Request<'_>) -> Result<()> {
    let Some(mut metadata) = request.home.metadata(request.slug)? else {
        return Ok(());
    };
    if metadata.started_at.is_none() || metadata.stopped_at.is_some() {
        return Ok(());
    }
    let folder = request.home.folder(request.slug)?;
    // Kept where only the host writes: the sidecar could cut its own file short, and no line after it would know.
    let audit = audit::verify(request.slug, &folder.join("audit"), None);
    metadata.audit_head = audit
        .ok()
        .and_then(|verified| verified.head)
        .or(metadata.audit_head);
    metadata.stopped_at = OffsetDateTime::now_utc().format(&Rfc3339).ok();
    let path = folder.join("metadata.json");
    state::write_atomic(&path, state::to_json(&metadata)?.as_bytes(), 0o600)
}

/// All failures as one, each still readable.
fn one_of(mut failures: Vec<Failure>) -> Option<Failure> {
    if failures.len() < 2 {
        return failures.pop();
    }
    let texts: Vec<String> = failures.iter().map(Failure::chain).collect();
    Some(Failure::new(Kind::Failed, texts.join("; and ")))
}
