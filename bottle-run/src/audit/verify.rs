//! Whether the audit is what was written: nothing changed, nothing missing, nothing cut off.
//!
//! The chain shows what was done to the files afterwards, by somebody who does not write all of it anew. Whoever
//! can do that (a sidecar that was taken over) is shown only by a hash that was kept elsewhere: `--head`.

use std::fmt::Write as _;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use bottle_plan::audit::{Decision, Dropped, GENESIS, Head, Record, parse};
use bottle_plan::audit_files::{self as files, Lines};
use bottle_plan::explain::counted;
use bottle_plan::failure::{PathContext as _, Result, printable};
use serde::Serialize;

/// The schema tag of [`Verified`].
pub const VERIFY_SCHEMA: &str = "bottle.audit-verify/v1";

/// How long a line may take to be finished.
const PATIENCE: Duration = Duration::from_millis(200);

/// A list of findings is not longer than this.
const MAX_FINDINGS: usize = 100;

/// The result.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// Always [`VERIFY_SCHEMA`].
    pub schema: &'static str,
    /// The bottle.
    pub slug: String,
    /// Whether nothing is wrong.
    pub intact: bool,
    /// Files that were read.
    pub files: usize,
    /// Records in them.
    pub records: u64,
    /// The first record's number.
    pub first: Option<u64>,
    /// The last record's number.
    pub last: Option<u64>,
    /// The hash of the last line: kept elsewhere, it proves later that nothing before it was changed.
    pub head: Option<String>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is not wrong and yet worth knowing.
    pub notes: Vec<String>,
}

/// What kind of wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A line was changed, put in, or moved.
    Tampering,
    /// Records are missing in the middle.
    Gap,
    /// Records are missing at the beginning or the end.
    Truncation,
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What kind.
    pub kind: Kind,
    /// The file's name.
    pub file: String,
    /// The line in it, from 1.
    pub line: u64,
    /// What it is.
    pub message: String,
}

/// Reads every file in `folder`; `expected` is a hash that was kept from before.
///
/// # Errors
/// When the folder cannot be read.
pub fn verify(slug: &str, folder: &Path, expected: Option<&str>) -> Result<Verified> {
    let mut walk = Walk::new(expected);
    let paths = files::list(folder)?;
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        walk.place = (name.into_owned(), 0);
        if let Err(failure) = walk.file(path) {
            walk.place.1 += 1;
            walk.report(
                Kind::Tampering,
                format!("the file cannot be read: {}", failure.chain()),
            );
        }
    }
    Ok(walk.finish(slug, paths.len()))
}

/// Where the check is, and what it found so far.
struct Walk<'a> {
    expected: Option<&'a str>,
    /// Whether `expected` was met.
    met: bool,
    /// File and line.
    place: (String, u64),
    head: Head,
    records: u64,
    /// The first record's number, what it names, and its place.
    first: Option<(u64, String, (String, u64))>,
    last: Option<u64>,
    /// Lines since the last record that are none: cut off by a crash, if the next record knows them.
    strange: Vec<(String, u64)>,
    dropped: Vec<Dropped>,
    closed: bool,
    findings: Vec<Finding>,
    notes: Vec<String>,
}

impl<'a> Walk<'a> {
    fn new(expected: Option<&'a str>) -> Self {
        Self {
            expected,
            met: false,
            place: (String::new(), 0),
            head: Head::default(),
            records: 0,
            first: None,
            last: None,
            strange: Vec::new(),
            dropped: Vec::new(),
            closed: false,
            findings: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let mut lines = Lines::open(path)?;
        while let Some(line) = lines.next().at("read", path)? {
            self.place.1 += 1;
            self.line(line);
        }
        if !lines.rest().is_empty() {
            // Perhaps the sidecar is writing it at this very moment.
            sleep(PATIENCE);
            while let Some(line) = lines.next().at("read", path)? {
                self.place.1 += 1;
                self.line(line);
            }
        }
        if !lines.rest().is_empty() {
            self.place.1 += 1;
            self.report(
                Kind::Truncation,
                "the file ends in the middle of a line: the sidecar was killed while it wrote, or the end was cut off",
            );
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) {
        match parse(line) {
            Some(record) => {
                self.record(&record);
                self.head.pass(line);
            }
            None => {
                self.strange.push(self.place.clone());
                self.head.pass_torn(line);
            }
        }
        self.met |= self.expected == Some(self.head.prev.as_str());
    }

    fn record(&mut self, record: &Record<'_>) {
        self.records += 1;
        self.closed = record.reason == "audit_closed" && record.decision == Decision::Note;
        self.dropped.extend(record.dropped.clone());
        let strange = std::mem::take(&mut self.strange);
        if self.first.is_none() {
            self.first = Some((record.seq, record.prev.to_string(), self.place.clone()));
            // Whether that is the beginning is known at the end, when all that was dropped is known.
        } else if record.seq == self.head.seq && record.prev == self.head.prev {
            for (file, line) in strange {
                let text = "was cut off by a crash; the chain goes on behind it";
                self.notes.push(format!("{file}:{line} {text}"));
            }
        } else {
            self.misfit(record, &strange);
        }
        // Goes on from what the record says, so that one fault is one finding.
        self.last = Some(record.seq);
        self.head.seq = record.seq;
    }

    fn misfit(&mut self, record: &Record<'_>, strange: &[(String, u64)]) {
        let (next, seq) = (self.head.seq, record.seq);
        let after = next.saturating_add(strange.len() as u64);
        let one_changed = seq == after && !strange.is_empty();
        if let (true, Some((file, line))) = (one_changed || seq == next, strange.first()) {
            let message =
                format!("{file}:{line} is no record, and not what the line after it knows");
            self.report(Kind::Tampering, message);
        } else if seq == next {
            self.report(
                Kind::Tampering,
                "the line before this one is not the one this one knows: one of both was changed",
            );
        } else if seq < next {
            let message = format!(
                "record {seq} comes after record {}: moved, repeated, or put in",
                next - 1
            );
            self.report(Kind::Tampering, message);
        } else if record.prev == self.head.prev {
            let message = format!(
                "record {seq} follows record {} directly: numbers were changed",
                next.saturating_sub(1)
            );
            self.report(Kind::Tampering, message);
        } else {
            let message = match seq - 1 {
                last if last == next => format!("record {next} is missing before this line"),
                last => format!("records {next} to {last} are missing before this line"),
            };
            self.report(Kind::Gap, message);
        }
    }

    fn report(&mut self, kind: Kind, message: impl Into<String>) {
        let (file, line) = self.place.clone();
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding {
                kind,
                file,
                line,
                message: message.into(),
            });
        }
    }

    fn finish(mut self, slug: &str, files: usize) -> Verified {
        let head = (files > 0 && self.head.prev != GENESIS).then(|| self.head.prev.clone());
        if let Some((file, line)) = self.strange.first().cloned() {
            self.place = (file, line);
            self.report(
                Kind::Truncation,
                "the last lines are no records, and nothing after them knows them",
            );
        }
        self.check_beginning();
        if self.expected.is_some() && !self.met {
            self.report(
                Kind::Truncation,
                "the line whose hash was kept (by --head, or by `down`) is not there: what led to it was cut off or written anew",
            );
        }
        if self.records > 0 && !self.closed {
            self.notes.push(
                "the end is open: the bottle runs, its sidecar was killed, or lines are missing at the end".into(),
            );
        }
        Verified {
            schema: VERIFY_SCHEMA,
            slug: slug.to_owned(),
            intact: self.findings.is_empty(),
            files,
            records: self.records,
            first: self.first.map(|(seq, _, _)| seq),
            last: self.last,
            head,
            findings: self.findings,
            notes: self.notes,
        }
    }

    fn check_beginning(&mut self) {
        let Some((seq, prev, place)) = self.first.clone() else {
            return;
        };
        if seq == 0 && prev == GENESIS {
            return;
        }
        let known = self
            .dropped
            .iter()
            .any(|dropped| dropped.through.checked_add(1) == Some(seq) && dropped.hash == prev);
        self.place = place;
        if known {
            let message = format!(
                "records 0 to {} are gone: the audit had reached its size, and a later record says so",
                seq.saturating_sub(1)
            );
            self.notes.push(message);
        } else if seq == 0 {
            self.report(Kind::Tampering, "the first record names a line before it");
        } else {
            let message = format!(
                "records 0 to {} are missing, and no record says why",
                seq - 1
            );
            self.report(Kind::Truncation, message);
        }
    }
}

impl Verified {
    /// The result for a person.
    #[must_use]
    pub fn text(&self) -> String {
        let range = match (self.first, self.last) {
            (Some(first), Some(last)) => format!(" ({first} to {last})"),
            _ => String::new(),
        };
        let verdict = if self.intact { "intact" } else { "NOT intact" };
        let mut text = format!(
            "{}: {verdict}, {}{range} in {}\n",
            self.slug,
            counted(self.records, "record"),
            counted(self.files as u64, "file")
        );
        // Writing to a string does not fail.
        for finding in &self.findings {
            let kind = format!("{:?}", finding.kind).to_lowercase();
            let message = printable(&finding.message);
            let _ = writeln!(text, "{kind}  {}:{}  {message}", finding.file, finding.line);
        }
        for note in &self.notes {
            let _ = writeln!(text, "note  {}", printable(note));
        }
        if let Some(head) = &self.head {
            let _ = writeln!(text, "head  {head}");
        }
        text
    }
}
