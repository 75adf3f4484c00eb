//! Removing snapshots: first from the record, then from the engine, so that none is recorded that is not there.

use bottle_plan::failure::{Failure, Result};
use bottle_plan::resume::no_snapshot;
use bottle_plan::snapshot::{Snapshot, Snapshots, Wanted};
use bottle_run::bottle::Home;
use bottle_run::engine::Engine;

use crate::engine;
use crate::image;
use crate::recover::{self, mark_preserved, remove_folder};

/// Removes one snapshot, or with `keep` all but the newest so many.
///
/// # Errors
/// Not found, when it is not recorded; conflict, when a container runs from it, or it is what a resume would go on from
/// and there is no other, and it is not forced.
pub fn remove(
    engine: &Engine,
    home: &Home,
    wanted: &Wanted,
    which: Which,
    force: bool,
    say: &dyn Fn(&str),
) -> Result<Vec<Snapshot>> {
    let slug = wanted.slug.as_str();
    let (folder, _lock) = recover::ready(engine, home, wanted, say)?;
    let mut snapshots = Snapshots::read(&home.state, slug)?;
    let chosen: Vec<Snapshot> = match which {
        Which::One => {
            let one = snapshots.find(wanted.number);
            vec![
                one.cloned()
                    .ok_or_else(|| no_snapshot(&snapshots, wanted))?,
            ]
        }
        Which::All => snapshots.snapshots.clone(),
        Which::AllBut(keep) => {
            let count = snapshots.snapshots.len().saturating_sub(keep);
            snapshots.snapshots[..count].to_vec()
        }
    };
    if !force {
        // All of them before the first goes: what is refused has changed nothing.
        let others = snapshots.snapshots.len() > chosen.len();
        for one in &chosen {
            check_unused(engine, one, others)?;
        }
    }
    for one in &chosen {
        snapshots.snapshots.retain(|kept| kept.id != one.id);
        snapshots.write(&home.state, slug)?;
        forget(engine, &folder, one)?;
    }
    if !chosen.is_empty() {
        let latest = image::latest(slug);
        match snapshots.find(None) {
            // Its image may be gone from the engine, and its name then with it.
            Some(newest) if engine::image(engine, &newest.image)?.is_some() => {
                engine::tag(engine, &newest.image, &latest)?;
            }
            _ => engine::remove_image(engine, &latest)?,
        }
        recover::sweep(engine, home, slug)?;
        mark_preserved(home, slug, !snapshots.snapshots.is_empty())?;
    }
    Ok(chosen)
}

/// Which snapshots are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that is named.
    One,
    /// Every one of the bottle.
    All,
    /// All but the newest so many.
    AllBut(usize),
}

fn check_unused(engine: &Engine, one: &Snapshot, others: bool) -> Result<()> {
    let named = format!("{}@{}", one.slug, one.number);
    let filter = format!("--filter=ancestor={}", one.image);
    let output = engine
        .call(["ps", "--all", "--format={{.Names}}", filter.as_str()])
        .output()?;
    let users = output.text().lines().collect::<Vec<_>>().join(", ");
    if output.status.success() && !users.is_empty() {
        return Err(Failure::conflict(format!("{named} is in use: {users}"))
            .hint("stop it first; --force forgets the snapshot, and the engine keeps the image as long as it is used"));
    }
    if !others {
        return Err(Failure::conflict(format!(
            "{named} is the last snapshot of the bottle: without it nothing of its work is left"
        ))
        .hint(format!("bottle-snapshot rm {named} --force")));
    }
    Ok(())
}

fn forget(engine: &Engine, folder: &std::path::Path, one: &Snapshot) -> Result<()> {
    let named = engine::image(engine, &one.tag)?;
    if named.is_some_and(|(found, _)| found.id == one.image) {
        engine::remove_image(engine, &one.tag)?;
    }
    remove_folder(folder, one.number)
}
