//! The file: lines that each name the hash of the line before, so that one taken out or changed shows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::record::Record;

/// The last line is looked for in this much of the end of the file; lines are far shorter.
const TAIL: u64 = 64 * 1024;

/// The open file and where its chain stands.
pub(super) struct Chain {
    file: File,
    /// What the file holds in whole lines.
    length: u64,
    /// Whether a failed write may have left part of a line behind that.
    torn: bool,
    seq: u64,
    prev: String,
}

/// What the chain needs of a line it did not write itself.
#[derive(Deserialize)]
struct Tail {
    seq: u64,
}

impl Chain {
    /// Opens or creates the file and goes on after its last line.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let mut length = file.metadata()?.len();
        let start = length.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        if !tail.is_empty() && !tail.ends_with(b"\n") {
            // A crash cut the last line off. It stays, as a line, and is part of the chain like any other.
            file.write_all(b"\n")?;
            tail.push(b'\n');
            length += 1;
        }
        let mut lines = tail.split(|&b| b == b'\n').rev().skip(1).peekable();
        let prev = lines
            .peek()
            .map_or_else(|| "0".repeat(64), |line| hash(line));
        let last: Option<Tail> = lines.find_map(|line| serde_json::from_slice(line).ok());
        let seq = last.map_or(0, |tail| tail.seq.saturating_add(1));
        Ok(Self {
            file,
            length,
            torn: false,
            seq,
            prev,
        })
    }

    /// Numbers and chains the records; the result must be appended before the next call.
    pub(super) fn lines(&mut self, records: &[Record]) -> Vec<u8> {
        let mut out = Vec::with_capacity(records.len() * 512);
        for record in records {
            let start = out.len();
            record.write(&mut out, self.seq, &self.prev);
            self.prev = hash(&out[start..]);
            self.seq += 1;
            out.push(b'\n');
        }
        out
    }

    /// Appends lines, all of them or none.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        self.torn = true;
        self.file.write_all(lines)?;
        self.torn = false;
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Brings everything to the disk, as far as it can.
    pub(super) fn sync(&self) {
        if let Err(error) = self.file.sync_data() {
            eprintln!("bottle-sidecar: audit could not be synced: {error}");
        }
    }
}

/// SHA-256 of a line without its line end, in hexadecimal.
fn hash(line: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let hash = digest(&SHA256, line);
    let digits = hash.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::Way;
    use super::*;

    fn write(path: &Path, ids: &[&str]) {
        let mut chain = Chain::open(path).unwrap();
        let records: Vec<_> = ids
            .iter()
            .map(|id| Record::new("demo".into(), (*id).into(), Way::Proxy))
            .collect();
        let lines = chain.lines(&records);
        chain.append(&lines).unwrap();
    }

    fn check(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        let mut prev = "0".repeat(64);
        let mut numbers = Vec::new();
        for line in text.lines() {
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(line) {
                assert_eq!(value["prev"], prev, "{line}");
                numbers.push(value["seq"].as_u64().unwrap());
            }
            prev = hash(line.as_bytes());
        }
        numbers
    }

    #[test]
    fn goes_on_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        write(&path, &["a", "b"]);
        write(&path, &["c"]);
        assert_eq!(check(&path), [0, 1, 2]);
    }

    #[test]
    fn goes_on_after_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        write(&path, &["a", "b"]);
        let length = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 9)
            .unwrap();
        write(&path, &["c"]);
        assert_eq!(check(&path), [0, 1]);
    }
}
