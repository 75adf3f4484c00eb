//! The audit in numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use bottle_plan::audit::{Decision, parse};
use bottle_plan::audit_files::{self as files, Lines};
use bottle_plan::failure::{PathContext as _, Result, printable};
use serde::Serialize;

use super::Filter;

/// The schema tag of [`Summary`].
pub const SUMMARY_SCHEMA: &str = "bottle.audit-summary/v1";

/// What the records come to.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Always [`SUMMARY_SCHEMA`].
    pub schema: &'static str,
    /// The bottle.
    pub slug: String,
    /// The first record's time.
    pub from: Option<String>,
    /// The last record's time.
    pub to: Option<String>,
    /// Requests, connections and questions.
    pub requests: u64,
    /// Bytes of bodies from destinations.
    pub bytes_in: u64,
    /// Bytes of bodies to destinations.
    pub bytes_out: u64,
    /// The same by host, decision and reason; the most frequent first.
    pub groups: Vec<Group>,
    /// Lines that are no records.
    pub unreadable: u64,
}

/// What is alike.
#[derive(Debug, Serialize)]
pub struct Group {
    /// The host; `null` where none was known, or too many were asked for to tell them apart.
    pub host: Option<String>,
    /// What became of it.
    pub decision: Decision,
    /// Why.
    pub reason: String,
    /// How many.
    pub requests: u64,
    /// Bytes of bodies from it.
    pub bytes_in: u64,
    /// Bytes of bodies to it.
    pub bytes_out: u64,
    /// What was found, and in how many records.
    pub dlp: BTreeMap<String, u64>,
}

/// Counts the records in `folders`, a chain each.
///
/// # Errors
/// When a file cannot be read.
pub fn summarise(slug: &str, folders: &[PathBuf], filter: &Filter) -> Result<Summary> {
    let mut summary = Summary {
        schema: SUMMARY_SCHEMA,
        slug: slug.to_owned(),
        from: None,
        to: None,
        requests: 0,
        bytes_in: 0,
        bytes_out: 0,
        groups: Vec::new(),
        unreadable: 0,
    };
    let mut groups: BTreeMap<(Option<String>, Decision, String), Group> = BTreeMap::new();
    let mut paths = Vec::new();
    for folder in folders {
        paths.extend(files::list(folder)?);
    }
    for path in paths {
        let mut lines = Lines::open(&path)?;
        while let Some(line) = lines.next().at("read", &path)? {
            let Some(record) = parse(line) else {
                summary.unreadable += 1;
                continue;
            };
            if record.decision == Decision::Note || !filter.fits(&record) {
                continue;
            }
            let host = record.host.map(|host| host.into_owned());
            let reason = record.reason.into_owned();
            let key = (host.clone(), record.decision, reason.clone());
            let group = groups.entry(key).or_insert_with(|| Group {
                host,
                decision: record.decision,
                reason,
                requests: 0,
                bytes_in: 0,
                bytes_out: 0,
                dlp: BTreeMap::new(),
            });
            // The file may say anything; a sum must not end the program.
            let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
            add(&mut group.requests, record.count);
            add(&mut group.bytes_in, record.bytes_in);
            add(&mut group.bytes_out, record.bytes_out);
            for found in record.dlp {
                add(
                    group.dlp.entry(found.into_owned()).or_default(),
                    record.count,
                );
            }
            add(&mut summary.requests, record.count);
            add(&mut summary.bytes_in, record.bytes_in);
            add(&mut summary.bytes_out, record.bytes_out);
            let time = Some(record.time.into_owned());
            summary.from = match summary.from {
                Some(from) => time.clone().min(Some(from)),
                None => time.clone(),
            };
            summary.to = summary.to.max(time);
        }
    }
    summary.groups = groups.into_values().collect();
    summary
        .groups
        .sort_by_key(|group| std::cmp::Reverse(group.requests));
    Ok(summary)
}

impl Summary {
    /// The table for a person.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:>9}  {:8}  {:>11}  {:>11}  {:22}  HOST\n",
            "REQUESTS", "DECISION", "BYTES IN", "BYTES OUT", "REASON"
        );
        for group in &self.groups {
            let host = group.host.as_deref().unwrap_or("-");
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "{:>9}  {:8}  {:>11}  {:>11}  {:22}  {}",
                group.requests,
                group.decision,
                group.bytes_in,
                group.bytes_out,
                cell(&group.reason),
                cell(host)
            );
            for (found, count) in &group.dlp {
                let _ = write!(text, "  [{} x{count}]", cell(found));
            }
            text.push('\n');
        }
        let _ = writeln!(
            text,
            "{:>9}  {:8}  {:>11}  {:>11}",
            self.requests, "in all", self.bytes_in, self.bytes_out
        );
        text
    }
}

fn cell(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}
