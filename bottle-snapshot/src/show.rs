//! Snapshots for people.

use std::fmt::Write as _;

use bottle_plan::failure::{Result, printable};
use bottle_plan::resume::no_snapshot;
use bottle_plan::snapshot::{Snapshot, Snapshots, Wanted};
use bottle_run::bottle::Home;
use serde::Serialize;

/// The schema tag of [`List`].
pub const LIST_SCHEMA: &str = "bottle.snapshot-list/v1";

/// Snapshots of a home.
#[derive(Debug, Serialize)]
pub struct List {
    /// Always [`LIST_SCHEMA`].
    pub schema: &'static str,
    /// By bottle, oldest first.
    pub snapshots: Vec<Snapshot>,
}

impl List {
    /// These.
    #[must_use]
    pub fn of(snapshots: Vec<Snapshot>) -> Self {
        Self {
            schema: LIST_SCHEMA,
            snapshots,
        }
    }
}

/// All snapshots, or those of one bottle.
///
/// # Errors
/// When a record cannot be read.
pub fn list(home: &Home, slug: Option<&str>) -> Result<List> {
    let mut snapshots = Vec::new();
    let bottles = home.state.bottles().into_iter().map(|bottle| bottle.slug);
    for bottle in bottles.filter(|bottle| slug.is_none_or(|slug| slug == bottle)) {
        snapshots.extend(Snapshots::read(&home.state, &bottle)?.snapshots);
    }
    if let (Some(slug), true) = (slug, snapshots.is_empty()) {
        let wanted: Wanted = slug.parse()?;
        return Err(no_snapshot(&Snapshots::default(), &wanted));
    }
    Ok(List::of(snapshots))
}

/// One snapshot.
///
/// # Errors
/// Not found, when it is not recorded.
pub fn find(home: &Home, wanted: &Wanted) -> Result<Snapshot> {
    let snapshots = Snapshots::read(&home.state, &wanted.slug)?;
    let found = snapshots.find(wanted.number).cloned();
    found.ok_or_else(|| no_snapshot(&snapshots, wanted))
}

/// As a table; ends with a newline.
#[must_use]
pub fn table(list: &List) -> String {
    if list.snapshots.is_empty() {
        return "no snapshots\n".to_owned();
    }
    let rows: Vec<[String; 6]> = list.snapshots.iter().map(row).collect();
    let head = ["SNAPSHOT", "MADE", "FROM", "ADDED", "FILES", "MESSAGE"].map(str::to_owned);
    let mut widths = [0; 6];
    for row in rows.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in [&head].into_iter().chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn row(one: &Snapshot) -> [String; 6] {
    let from = match &one.parent {
        Some(parent) => format!("{}@{}", parent.slug, parent.number),
        None => "its image".to_owned(),
    };
    let changes = &one.changes;
    let cells = [
        format!("{}@{}", one.slug, one.number),
        one.created_at
            .get(..19)
            .unwrap_or(&one.created_at)
            .replace('T', " "),
        from,
        bytes(one.added),
        format!(
            "+{} ~{} -{}",
            changes.added, changes.changed, changes.deleted
        ),
        one.message.clone().unwrap_or_default(),
    ];
    // A snapshot may have come from another host: nothing in its line steers the terminal.
    cells.map(|cell| printable(&cell).replace(['\n', '\t'], " "))
}

/// Bytes as people read them.
#[must_use]
pub fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count;
    let mut rest = 0;
    let mut unit = 0;
    while value >= 1000 && unit + 1 < units.len() {
        rest = value % 1000 / 100;
        value /= 1000;
        unit += 1;
    }
    match unit {
        0 => format!("{value} B"),
        _ => format!("{value}.{rest} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(84_573_356), "84.5 MB");
    }
}
