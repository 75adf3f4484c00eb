//! What was begun and not ended yet, written down before it is begun: how `gc` finishes what a kill -9 left.
//!
//! Containers, networks and volumes need no entry: each is born with the labels `bottle.home` and `bottle.slug`, in the
//! same call that makes it, and an entry could only disagree with them. What has an entry is what no label can say: that a
//! start was not finished, and resources that are not in the engine (a key at a forge) or have no label yet (an image that
//! a commit is still making).
//!
//! The journal lies beside the bottles' folders, not in them (`state/.journal/SLUG.jsonl`): it outlives a folder that
//! somebody deletes. It is written under the bottle's lock, and is no longer there when nothing is open.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::state::{self, StateHome};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const FOLDER: &str = ".journal";
const SUFFIX: &str = ".jsonl";

/// A start: until its end, whatever runs was not handed over to anybody.
pub const START: &str = "start";

/// A removal: once begun, it is to be finished.
pub const STOP: &str = "stop";

/// A bottle that was made for a check, its state folder too.
pub const CHECK: &str = "check";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Begin(Entry),
    End { id: u64 },
}

/// Something that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number in this journal.
    pub id: u64,
    /// What kind of thing: [`START`], [`STOP`], [`CHECK`], or one with an undo function in [`crate::gc::UNDO`].
    pub kind: String,
    /// What its undo function needs to find it again; never a secret.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub what: Value,
}

/// The journal of one bottle.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: PathBuf,
    path: PathBuf,
}

impl Journal {
    /// The journal of `slug`, whether there is one or not.
    ///
    /// # Errors
    /// When `slug` is not a slug.
    pub fn of(home: &StateHome, slug: &str) -> Result<Self> {
        bottle_plan::slug::check(slug)?;
        let folder = home.path().join(FOLDER);
        Ok(Self {
            path: folder.join(format!("{slug}{SUFFIX}")),
            folder,
        })
    }

    /// The slugs that have one.
    #[must_use]
    pub fn slugs(home: &StateHome) -> Vec<String> {
        let entries = fs::read_dir(home.path().join(FOLDER));
        let names = entries.into_iter().flatten().flatten();
        names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(SUFFIX).map(str::to_owned))
            .filter(|slug| bottle_plan::slug::check(slug).is_ok())
            .collect()
    }

    /// Writes down that something is begun, on the disk before this returns. The caller then begins it.
    ///
    /// # Errors
    /// When it cannot be written: then it must not be begun.
    pub fn begin(&self, kind: &str, what: Value) -> Result<u64> {
        state::private_dir(&self.folder)?;
        let id = self.last_id()? + 1;
        self.append(&Line::Begin(Entry {
            id,
            kind: kind.to_owned(),
            what,
        }))?;
        Ok(id)
    }

    /// Writes down that it is over: done, or undone. A journal in which nothing is open is removed.
    ///
    /// # Errors
    /// When it cannot be written; it then counts as open, and is undone again, which does no harm.
    pub fn end(&self, id: u64) -> Result<()> {
        if self.open()?.iter().any(|entry| entry.id != id) {
            return self.append(&Line::End { id });
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).at("remove", &self.path)
            }
            _ => Ok(()),
        }
    }

    /// Ends all open entries of a kind.
    ///
    /// # Errors
    /// As [`Journal::end`].
    pub fn end_all(&self, kinds: &[&str]) -> Result<()> {
        let open = self.open()?;
        let mut ended = open
            .iter()
            .filter(|entry| kinds.contains(&entry.kind.as_str()));
        ended.try_for_each(|entry| self.end(entry.id))
    }

    /// What was begun and not ended, oldest first. A last line that was cut off was never acted on.
    ///
    /// # Errors
    /// When the file cannot be read, or another line than the last is none.
    pub fn open(&self) -> Result<Vec<Entry>> {
        let mut open: Vec<Entry> = Vec::new();
        for line in self.lines()? {
            match line {
                Line::Begin(entry) => open.push(entry),
                Line::End { id } => open.retain(|entry| entry.id != id),
            }
        }
        Ok(open)
    }

    fn last_id(&self) -> Result<u64> {
        let ids = self.lines()?.into_iter().map(|line| match line {
            Line::Begin(entry) => entry.id,
            Line::End { id } => id,
        });
        Ok(ids.max().unwrap_or(0))
    }

    fn lines(&self) -> Result<Vec<Line>> {
        self.whole_lines()?
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| {
                serde_json::from_slice(line).map_err(|error| {
                    Failure::failed(format!("{} is damaged", self.path.display()))
                        .because(error)
                        .hint("look at it, then remove it: what is in the engine is found by its labels")
                })
            })
            .collect()
    }

    /// What is there, up to the last end of a line. Behind it is what a kill or a full disk cut off, perhaps in the middle
    /// of a character.
    fn whole_lines(&self) -> Result<Vec<u8>> {
        let mut bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).at("read", &self.path),
        };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(whole.map_or(0, |at| at + 1));
        Ok(bytes)
    }

    fn append(&self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line)
            .map_err(|error| Failure::failed("cannot write the journal as JSON").because(error))?;
        text.push('\n');
        // What was cut off must not swallow the line after it.
        let length = self.whole_lines()?.len() as u64;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&self.path)
            .at("open", &self.path)?;
        let written = file.set_len(length).and_then(|()| {
            use std::os::unix::fs::FileExt as _;
            file.write_all_at(text.as_bytes(), length)?;
            (&file).flush()?;
            file.sync_all()
        });
        written.at("write", &self.path)?;
        fs::File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .at("sync", &self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn journal() -> (tempfile::TempDir, Journal) {
        let root = tempfile::tempdir().expect("temp dir");
        let home = StateHome::open(&root.path().join("home")).expect("opens");
        let journal = Journal::of(&home, "s").expect("a slug");
        (root, journal)
    }

    #[test]
    fn what_was_begun_is_open_until_it_ends() {
        let (_root, journal) = journal();
        assert_eq!(journal.open().expect("reads"), vec![]);
        let one = journal.begin(START, Value::Null).expect("writes");
        let two = journal.begin("key", json!({"id": 7})).expect("writes");
        journal.end(one).expect("writes");
        let open = journal.open().expect("reads");
        assert_eq!(open.len(), 1);
        assert_eq!((open[0].id, open[0].kind.as_str()), (two, "key"));
        assert_eq!(open[0].what["id"], 7);
        journal.end(two).expect("removes");
        assert!(!journal.path.exists());
        journal.end(two).expect("nothing to do");
    }

    #[test]
    fn a_line_that_was_cut_off_is_as_if_it_had_not_begun() {
        let (_root, journal) = journal();
        let one = journal.begin(START, Value::Null).expect("writes");
        let mut text = fs::read(&journal.path).expect("reads");
        // In the middle of an `é`.
        text.extend_from_slice(b"{\"event\":\"begin\",\"id\":2,\"what\":\"caf\xc3");
        fs::write(&journal.path, text).expect("writes");
        assert_eq!(journal.open().expect("reads").len(), 1);
        let two = journal.begin(STOP, Value::Null).expect("writes over it");
        let ids: Vec<u64> = journal
            .open()
            .expect("reads")
            .iter()
            .map(|e| e.id)
            .collect();
        assert_eq!(ids, [one, two]);
    }

    #[test]
    fn a_damaged_journal_is_an_error_and_not_an_empty_one() {
        let (_root, journal) = journal();
        journal.begin(START, Value::Null).expect("writes");
        fs::write(&journal.path, "nonsense\n").expect("writes");
        let failure = journal.open().expect_err("damaged");
        assert!(
            failure.chain().contains("is damaged"),
            "{}",
            failure.chain()
        );
    }

    #[test]
    fn a_slug_is_never_a_path() {
        let root = tempfile::tempdir().expect("temp dir");
        let home = StateHome::at(root.path());
        assert!(Journal::of(&home, "../x").is_err());
    }
}
