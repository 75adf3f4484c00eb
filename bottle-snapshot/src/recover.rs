//! After a kill: what was begun is finished if it is recorded, and undone if it is not.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bottle_plan::failure::Result;
use bottle_plan::resume::no_snapshot;
use bottle_plan::snapshot::{Snapshots, Wanted};
use bottle_run::bottle::Home;
use bottle_run::engine::Engine;
use bottle_run::lock::BottleLock;
use serde::Serialize;

use crate::engine;
use crate::image;
use crate::journal::Journal;
use crate::pulling;

/// An engine that is still committing tens of gigabytes is waited for; one that died in the middle is not.
const PATIENCE: Duration = Duration::from_secs(600);

/// Finishes or undoes what an earlier command left of the bottle; says whether there was one. The caller holds its lock.
///
/// # Errors
/// When the engine does not answer; then it is tried again next time.
pub fn recover(engine: &Engine, home: &Home, slug: &str, say: &dyn Fn(&str)) -> Result<bool> {
    let folder = home.state.folder(slug)?;
    let left = Journal::read(&folder)?;
    if let Some(journal) = &left {
        say("finishing what an earlier bottle-snapshot left");
        thaw(engine, journal, say)?;
        finish_or_undo(engine, home, slug, journal)?;
        if folder.is_dir() {
            Journal::close(&folder)?;
        }
    }
    sweep(engine, home, slug)?;
    Ok(left.is_some())
}

/// The folder of the bottle whose snapshot is `wanted`, its lock, and nothing left of an earlier command.
///
/// # Errors
/// Not found, when there is no such bottle; else as [`recover`].
pub fn ready(
    engine: &Engine,
    home: &Home,
    wanted: &Wanted,
    say: &dyn Fn(&str),
) -> Result<(PathBuf, BottleLock)> {
    let slug = wanted.slug.as_str();
    let folder = home.state.folder(slug)?;
    if !folder.is_dir() {
        return Err(no_snapshot(&Snapshots::default(), wanted));
    }
    let lock = wait_for_lock(&folder, slug, say)?;
    recover(engine, home, slug, say)?;
    Ok((folder, lock))
}

/// The lock of a bottle, which another command may have for a while.
///
/// # Errors
/// When there is none to be had.
pub fn wait_for_lock(folder: &Path, slug: &str, say: &dyn Fn(&str)) -> Result<BottleLock> {
    BottleLock::wait(folder, slug, || {
        say("waiting for another command to finish");
    })
}

/// The schema tag of [`Recovered`].
pub const RECOVERED_SCHEMA: &str = "bottle.snapshot-gc/v1";

/// What a look at all bottles came to.
#[derive(Clone, Debug, Serialize)]
pub struct Recovered {
    /// Always [`RECOVERED_SCHEMA`].
    pub schema: &'static str,
    /// The bottles with a command that had not ended: it was finished or undone.
    pub recovered: Vec<String>,
}

/// [`recover`] for every bottle of the home.
///
/// # Errors
/// The first failure, after all bottles were tried.
pub fn all(engine: &Engine, home: &Home, say: &dyn Fn(&str)) -> Result<Recovered> {
    let mut first = Ok(());
    let mut recovered = Vec::new();
    for bottle in home.state.bottles() {
        let folder = home.state.folder(&bottle.slug)?;
        let done = wait_for_lock(&folder, &bottle.slug, say)
            .and_then(|_lock| recover(engine, home, &bottle.slug, say));
        match done {
            Ok(true) => recovered.push(bottle.slug),
            Ok(false) => {}
            Err(failure) => first = first.and(Err(failure)),
        }
    }
    first.and(pulling::sweep(engine, &home.state))?;
    Ok(Recovered {
        schema: RECOVERED_SCHEMA,
        recovered,
    })
}

/// The engine goes on with a commit whose client is gone, and thaws the container at its end.
///
/// # Errors
/// When the engine does not answer.
pub fn thaw(engine: &Engine, journal: &Journal, say: &dyn Fn(&str)) -> Result<()> {
    if !journal.pauses {
        return Ok(());
    }
    let started = Instant::now();
    let mut told = false;
    loop {
        let container = engine::container(engine, &journal.container)?;
        if !container.is_some_and(|container| container.state.paused) {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            // Nobody commits for so long: the engine itself was killed meanwhile.
            let _ = engine
                .call(["unpause", journal.container.as_str()])
                .output()?;
            return Ok(());
        }
        if !told && started.elapsed() > Duration::from_secs(1) {
            say("the engine is still freezing the agent; waiting for it");
            told = true;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn finish_or_undo(engine: &Engine, home: &Home, slug: &str, journal: &Journal) -> Result<()> {
    journal.remove_names(engine)?;
    let snapshots = Snapshots::read(&home.state, slug)?;
    if let Some(recorded) = snapshots.snapshots.iter().find(|one| one.id == journal.id) {
        // A push may have been of an older one.
        let is_newest = snapshots.find(None) == Some(recorded);
        if is_newest && engine::image(engine, &recorded.image)?.is_some() {
            engine::tag(engine, &recorded.image, &image::latest(slug))?;
        }
        return mark_preserved(home, slug, true);
    }
    remove_named(engine, slug, journal, &snapshots)?;
    if let Some(image) = &journal.imported {
        // It may have been there before, under a name of somebody's.
        let unnamed = engine::image(engine, image)?
            .is_some_and(|(found, _)| found.repo_tags.unwrap_or_default().is_empty());
        if unnamed {
            engine::remove_image(engine, image)?;
        }
        return bottle_plan::planner::release(&home.state, slug);
    }
    remove_folder(&home.state.folder(slug)?, journal.number)?;
    mark_preserved(home, slug, !snapshots.snapshots.is_empty())
}

/// Takes the names away that the image of an unfinished commit may have got already, and gives the newest that is recorded
/// its own back.
///
/// # Errors
/// When the engine refuses.
pub fn remove_named(
    engine: &Engine,
    slug: &str,
    journal: &Journal,
    recorded: &Snapshots,
) -> Result<()> {
    let latest = image::latest(slug);
    for name in [&image::tag(slug, journal.number), &latest] {
        let named = engine::image(engine, name)?;
        if named.is_none_or(|(found, _)| found.label(image::ID) != Some(&journal.id)) {
            continue;
        }
        engine::remove_image(engine, name)?;
        if let Some(newest) = recorded.find(None).filter(|_| *name == latest)
            && engine::image(engine, &newest.image)?.is_some()
        {
            engine::tag(engine, &newest.image, &latest)?;
        }
    }
    Ok(())
}

/// Removes images and containers that were made for this bottle's snapshots and are in no record.
///
/// # Errors
/// When the engine does not answer.
pub fn sweep(engine: &Engine, home: &Home, slug: &str) -> Result<()> {
    let labels = [
        format!("{}={slug}", image::SLUG),
        format!("bottle.home={}", home.label),
    ];
    let found = engine::images_with(engine, &labels)?;
    if found.is_empty() {
        return Ok(());
    }
    let snapshots = Snapshots::read(&home.state, slug)?;
    let unknown = found
        .iter()
        .filter(|id| snapshots.snapshots.iter().all(|one| one.image != **id));
    for id in unknown {
        let Some((found, _)) = engine::image(engine, id)? else {
            continue;
        };
        // One with a name was given it by somebody who wants it.
        if found.repo_tags.unwrap_or_default().is_empty() {
            // That a container still runs from it is no failure: it goes with the next command.
            let _ = engine::remove_image(engine, id);
        }
    }
    Ok(())
}

/// Notes whether the state of a bottle is to be kept although nothing runs.
///
/// # Errors
/// When it cannot be written.
pub fn mark_preserved(home: &Home, slug: &str, preserved: bool) -> Result<()> {
    let Some(mut metadata) = home.state.metadata(slug)? else {
        return Ok(());
    };
    if metadata.preserved == preserved {
        return Ok(());
    }
    metadata.preserved = preserved;
    let path = home.state.folder(slug)?.join("metadata.json");
    let text = bottle_plan::state::to_json(&metadata)?;
    bottle_plan::state::write_atomic(&path, text.as_bytes(), 0o600)
}

/// The documents of a snapshot that is no more.
///
/// # Errors
/// When they cannot be removed.
pub fn remove_folder(state: &Path, number: u32) -> Result<()> {
    use bottle_plan::failure::PathContext as _;
    let folder = state
        .join(bottle_plan::resume::SNAPSHOTS_FOLDER)
        .join(number.to_string());
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).at("remove", &folder)
        }
        _ => Ok(()),
    }
}
