//! The files: lines that each name the hash of the line before, so that one taken out or changed shows.
//!
//! A full file is closed and kept under a number; the chain goes on in a new one. When there would be more files
//! than the audit may have, a record says what is given up, and only then is the oldest removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bottle_plan::audit::{self, CURRENT_FILE, Dropped, Head};
use bottle_plan::policy::AuditRules;

use super::record::Record;

/// The last line is looked for in this much of the end of a file; lines are shorter.
const TAIL: u64 = audit::MAX_LINE as u64 + 1;

/// How much the audit may take.
#[derive(Clone, Copy, Debug)]
pub struct AuditLimits {
    /// A file that has reached this many bytes is closed.
    pub file_bytes: u64,
    /// How many files there may be, the one that is written to among them.
    pub files: u32,
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self::of(&AuditRules::default())
    }
}

impl AuditLimits {
    /// What the rules come to for each file.
    pub(crate) fn of(rules: &AuditRules) -> Self {
        let files = rules.files.max(1);
        Self {
            file_bytes: rules.max_bytes / u64::from(files),
            files,
        }
    }
}

/// The open file and where its chain stands.
pub(super) struct Chain {
    folder: PathBuf,
    limits: AuditLimits,
    file: File,
    /// What the file holds in whole lines.
    length: u64,
    /// Whether a failed write may have left part of a line behind that.
    torn: bool,
    /// The numbers of the closed files, oldest first.
    closed: Vec<u32>,
    /// The closed file whose removal has been recorded.
    given_up: Option<u32>,
    head: Head,
}

impl Chain {
    /// Opens or creates the files in `folder` and goes on after their last line.
    pub(super) fn open(folder: &Path, limits: AuditLimits) -> io::Result<Self> {
        let mut closed: Vec<u32> = fs::read_dir(folder)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| audit::closed_file_number(&name))
            .collect();
        closed.sort_unstable();
        let mut file = open_current(folder)?;
        let mut length = file.metadata()?.len();
        let torn = length > 0 && {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            last != *b"\n"
        };
        if torn {
            // A crash cut the last line off. It stays, as a line, and is part of the chain like any other.
            file.write_all(b"\n")?;
            length += 1;
        }
        let names = closed.iter().map(|&number| audit::closed_file(number));
        let newest_first: Vec<PathBuf> = names
            .chain([CURRENT_FILE.into()])
            .rev()
            .map(|name| folder.join(name))
            .collect();
        Ok(Self {
            head: resume(&newest_first)?,
            folder: folder.to_owned(),
            limits,
            file,
            length,
            torn: false,
            closed,
            given_up: None,
        })
    }

    /// Closes a full file, and removes the oldest when there are too many; `note` makes the record that says so.
    /// Call it again after an error: it goes on where it stopped.
    pub(super) fn make_room(&mut self, note: impl FnOnce(Dropped) -> Record) -> io::Result<()> {
        if self.length >= self.limits.file_bytes {
            self.close_file()?;
        }
        let Some(&oldest) = self.closed.first() else {
            return Ok(());
        };
        if self.closed.len() < self.limits.files.max(1) as usize {
            return Ok(());
        }
        let path = self.folder.join(audit::closed_file(oldest));
        if self.given_up != Some(oldest) {
            let end = resume(std::slice::from_ref(&path))?;
            let dropped = Dropped {
                through: end.seq.saturating_sub(1),
                hash: end.prev,
            };
            let (lines, head) = self.lines(&[note(dropped)]);
            self.append(&lines, head)?;
            // Never the other way round: what is gone without a word looks like tampering.
            self.sync()?;
            self.given_up = Some(oldest);
        }
        fs::remove_file(&path)?;
        self.closed.remove(0);
        Ok(())
    }

    fn close_file(&mut self) -> io::Result<()> {
        self.sync()?;
        let number = self.closed.last().map_or(1, |last| last.saturating_add(1));
        let current = self.folder.join(CURRENT_FILE);
        let full = self.folder.join(audit::closed_file(number));
        fs::rename(&current, &full)?;
        match open_current(&self.folder) {
            Ok(file) => self.file = file,
            Err(error) => {
                // As it was, so that the next try finds what this one found.
                fs::rename(&full, &current)?;
                return Err(error);
            }
        }
        self.length = 0;
        self.closed.push(number);
        File::open(&self.folder)?.sync_all()
    }

    /// Numbers and chains the records: their lines, and where the chain stands once those are in the file.
    pub(super) fn lines(&self, records: &[Record]) -> (Vec<u8>, Head) {
        let mut out = Vec::with_capacity(records.len() * 512);
        let mut head = self.head.clone();
        for record in records {
            let start = out.len();
            record.write(&mut out, &head);
            head.pass(&out[start..]);
            out.push(b'\n');
        }
        (out, head)
    }

    /// Appends lines, all of them or none.
    pub(super) fn append(&mut self, lines: &[u8], head: Head) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
        }
        self.torn = true;
        self.file.write_all(lines)?;
        self.torn = false;
        self.length += lines.len() as u64;
        self.head = head;
        Ok(())
    }

    /// Brings everything to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn open_current(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(folder.join(CURRENT_FILE))
}

/// Where the chain stands after the files: the hash of their very last line, and the number of their last record,
/// which may lie some torn lines, or even a file, before that.
fn resume(newest_first: &[PathBuf]) -> io::Result<Head> {
    let mut prev = None;
    for path in newest_first {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let start = file.metadata()?.len().saturating_sub(TAIL);
        let mut end = scan(&mut file, start)?;
        if start > 0 && end.number.is_none() {
            end = scan(&mut file, 0)?;
        }
        prev = prev.or(end.hash);
        if let (Some(number), Some(prev)) = (end.number, &prev) {
            return Ok(Head {
                seq: number.saturating_add(1),
                prev: prev.clone(),
            });
        }
    }
    Ok(prev.map_or_else(Head::default, |prev| Head { seq: 0, prev }))
}

/// The end of a part of a file: its last line's hash, its last record's number.
#[derive(Default)]
struct End {
    hash: Option<String>,
    number: Option<u64>,
}

fn scan(file: &mut File, start: u64) -> io::Result<End> {
    file.seek(SeekFrom::Start(start))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    if start > 0 {
        // Most likely the middle of a line.
        reader.read_until(b'\n', &mut line)?;
        line.clear();
    }
    let mut end = End::default();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        end.hash = Some(audit::hash(text));
        end.number = audit::parse(text).map(|record| record.seq).or(end.number);
        line.clear();
    }
    Ok(end)
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
