//! What a bottle's audit recorded, for the commands that learn from it.

use std::path::{Path, PathBuf};

use crate::audit::{Record, parse};
use crate::audit_files::{self, Lines};
use crate::failure::{Failure, PathContext as _, Result};
use crate::state::StateHome;

/// The folder of a bottle's audit.
///
/// # Errors
/// Not found, when there is no such bottle, or it was never started.
pub fn folder(home: &StateHome, slug: &str) -> Result<PathBuf> {
    let folder = home.folder(slug)?.join("audit");
    if folder.is_dir() {
        return Ok(folder);
    }
    let failure = Failure::not_found(format!("`{slug}` has no audit here"));
    let known: Vec<String> = home
        .bottles()
        .into_iter()
        .map(|bottle| bottle.slug)
        .collect();
    Err(if known.is_empty() {
        failure.hint("start a bottle first: bottle-plan NAME | bottle-render | bottle-run up")
    } else {
        failure.hint(format!("there are: {}", known.join(", ")))
    })
}

/// Calls `see` with every record, oldest first; returns how many lines were none.
///
/// # Errors
/// When a file cannot be read.
pub fn each(folder: &Path, mut see: impl FnMut(Record<'static>)) -> Result<u64> {
    let mut unreadable = 0;
    for path in audit_files::list(folder)? {
        let mut lines = Lines::open(&path)?;
        while let Some(line) = lines.next().at("read", &path)? {
            match parse(line) {
                Some(record) => see(record),
                None => unreadable += 1,
            }
        }
    }
    Ok(unreadable)
}
