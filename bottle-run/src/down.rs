//! Down: everything `up` makes, removed in inverse order. Gone already is done.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use bottle_plan::failure::{Failure, Kind, PathContext as _, Result};
use bottle_plan::state::{self, StateHome};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::containers::{self, Container, Labels};
use crate::engine::Engine;
use crate::files;
use crate::lock::BottleLock;

/// How long a sidecar may take to write its last records.
const SIDECAR_GRACE: u32 = 5;

/// What was removed.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Removed {
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
    let mut removed = remove(engine, request, &folder)?;
    if request.purge && folder.is_dir() {
        fs::remove_dir_all(&folder).at("remove", &folder)?;
        removed.state = true;
    } else if folder.is_dir() {
        note_stopped(request)?;
    }
    if removed.nothing() && !folder.is_dir() {
        return Err(
            Failure::not_found(format!("there is no bottle `{}`", request.slug))
                .hint("bottle-run list shows what there is"),
        );
    }
    Ok(removed)
}

/// As [`down`], for whoever holds the lock already.
///
/// # Errors
/// Every failure on the way, after all that could be removed has been.
pub fn remove(engine: &Engine, request: &Request<'_>, folder: &Path) -> Result<Removed> {
    let labels = Labels::of_bottle(request.home_label, request.slug);
    let mut removed = Removed::default();
    let mut failures = Vec::new();

    let found = containers::list(engine, &labels)?;
    if folder.is_dir() && !found.is_empty() {
        // Logs are a courtesy: a full disk must not keep a bottle running.
        if let Err(failure) = save_logs(engine, &found, folder) {
            failures.push(failure);
        }
    }
    // The agent first: it never runs without the sidecar that records what it does.
    let (agents, sidecars): (Vec<_>, Vec<_>) = found.into_iter().partition(|c| c.role() == "agent");
    for group in [agents, sidecars] {
        let is_sidecar = group.first().is_some_and(|c| c.role() != "agent");
        match remove_containers(engine, &group, is_sidecar) {
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
    match one_of(failures) {
        Some(failure) => {
            Err(failure.while_doing(format!("removing the bottle `{}`", request.slug)))
        }
        None => Ok(removed),
    }
}

fn remove_containers(engine: &Engine, group: &[Container], is_sidecar: bool) -> Result<()> {
    if group.is_empty() {
        return Ok(());
    }
    let ids = || group.iter().map(|container| container.id.as_str());
    if is_sidecar && group.iter().any(|container| container.state == "running") {
        // What it has recorded but not written would be lost with a kill. That it is gone already is no failure.
        let stop = engine
            .call(["stop", &format!("--time={SIDECAR_GRACE}")])
            .args(ids());
        let _ = stop.within(Duration::from_secs(30)).output();
    }
    let output = engine
        .call(["rm", "--force", "--volumes"])
        .args(ids())
        .output()?;
    let only_gone = output
        .stderr
        .lines()
        .all(|line| line.contains("No such container") || line.contains("already in progress"));
    if output.status.success() || only_gone {
        return Ok(());
    }
    Err(crate::engine::failure_of("docker rm", &output))
}

fn remove_networks(engine: &Engine, labels: &Labels) -> Result<Vec<String>> {
    let names = containers::networks(engine, labels)?;
    if names.is_empty() {
        return Ok(names);
    }
    let output = engine.call(["network", "rm"]).args(&names).output()?;
    let only_gone = output
        .stderr
        .lines()
        .all(|line| line.contains("not found") || line.contains("No such network"));
    if output.status.success() || only_gone {
        return Ok(names);
    }
    Err(crate::engine::failure_of("docker network rm", &output))
}

/// Appends what the containers printed to `compose.log`, each line with its time and its role.
fn save_logs(engine: &Engine, found: &[Container], folder: &Path) -> Result<()> {
    let path = folder.join("compose.log");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .at("open", &path)?;
    for container in found
        .iter()
        .filter(|container| container.state != "created")
    {
        let output = engine
            .call(["logs", "--timestamps", "--", &container.id])
            .output()?;
        for line in String::from_utf8_lossy(&output.stdout)
            .lines()
            .chain(output.stderr.lines())
        {
            writeln!(file, "{} | {line}", container.role()).at("write", &path)?;
        }
    }
    Ok(())
}

fn note_stopped(request: &Request<'_>) -> Result<()> {
    let Some(mut metadata) = request.home.metadata(request.slug)? else {
        return Ok(());
    };
    if metadata.started_at.is_none() || metadata.stopped_at.is_some() {
        return Ok(());
    }
    metadata.stopped_at = OffsetDateTime::now_utc().format(&Rfc3339).ok();
    let path = request.home.folder(request.slug)?.join("metadata.json");
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
