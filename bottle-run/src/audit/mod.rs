//! A bottle's audit: shown, counted, checked. Works on the state folder alone, so for stopped bottles too.
//!
//! What is in the folder was written by a sidecar that faces the agent. It is read as the work of an enemy: no
//! link is followed, no line is held that is longer than a record can be, nothing reaches the terminal as it is.

mod show;
mod summary;
mod verify;

use std::path::PathBuf;

use bottle_plan::audit::{Decision, Record};
use bottle_plan::failure::{Failure, Result};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::bottle::Home;

pub use show::{Show, show};
pub use summary::{SUMMARY_SCHEMA, Summary, summarise};
pub use verify::{Finding, Kind, VERIFY_SCHEMA, Verified, verify};

/// Which records are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Only what was not let through.
    pub denied: bool,
    /// Only what began at or after this.
    pub since: Option<OffsetDateTime>,
}

impl Filter {
    fn fits(&self, record: &Record<'_>) -> bool {
        let refused = matches!(record.decision, Decision::Deny | Decision::Error);
        let late = self.since.is_none_or(|since| {
            // A time that cannot be read is shown rather than hidden.
            OffsetDateTime::parse(&record.time, &Rfc3339).map_or(true, |time| time >= since)
        });
        late && (refused || !self.denied)
    }
}

/// A time as it is given on the command line: `90s`, `10m`, `2h`, `1d` before now, or RFC 3339.
///
/// # Errors
/// When it is neither.
pub fn parse_since(text: &str) -> Result<OffsetDateTime> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let unit = text.chars().next_back().and_then(|unit| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(60 * 60),
        'd' => Some(24 * 60 * 60),
        _ => None,
    });
    let seconds = unit.and_then(|unit: i64| {
        let number: u32 = text.get(..text.len() - 1)?.parse().ok()?;
        i64::from(number).checked_mul(unit)
    });
    seconds
        .and_then(|seconds| OffsetDateTime::now_utc().checked_sub(Duration::seconds(seconds)))
        .ok_or_else(|| {
            Failure::invalid(format!("`{text}` is not a time"))
                .hint("90s, 10m, 2h, 1d, or 2026-11-23T16:00:00Z")
        })
}

/// The folders of a bottle's audit, a chain each: egress, and git-gate where it has one.
///
/// # Errors
/// Not found, when there is no such bottle, or it has never been started.
pub fn folders(home: &Home, slug: &str) -> Result<Vec<PathBuf>> {
    let first = folder(home, slug)?;
    let gate = home.state.folder(slug)?.join("git-gate/audit");
    let gate = gate.is_dir().then_some(gate);
    Ok(std::iter::once(first).chain(gate).collect())
}

/// The folder of the egress sidecar's audit.
///
/// # Errors
/// Not found, when there is no such bottle, or it has never been started.
pub fn folder(home: &Home, slug: &str) -> Result<PathBuf> {
    let folder = home.state.folder(slug)?.join("audit");
    if folder.is_dir() {
        return Ok(folder);
    }
    // Says what bottles there are.
    home.plan(slug)?;
    Err(Failure::not_found(format!("`{slug}` has no audit yet"))
        .hint("it begins when the bottle is started"))
}
