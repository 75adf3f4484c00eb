//! Where sessions are: a socket and a note for each, in the container's memory.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bottle_plan::frame::is_session_name;
use serde_json::{Value, json};

/// On the tmpfs that only the agent's user can enter.
const FOLDER: &str = "/run/bottle/session";

/// The files of one session.
#[derive(Clone, Debug)]
pub(super) struct Place {
    name: String,
}

impl Place {
    pub(super) fn of(name: &str) -> io::Result<Self> {
        if !is_session_name(name) {
            let why = format!("`{name}` is not a session's name");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(FOLDER)?;
        Ok(Self {
            name: name.to_owned(),
        })
    }

    fn file(&self, ending: &str) -> PathBuf {
        Path::new(FOLDER).join(format!("{}.{ending}", self.name))
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.file("sock")
    }

    /// Held while a session is looked for and started, so that two terminals at once start one.
    pub(super) fn lock(&self) -> io::Result<File> {
        let file = File::create(self.file("lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// Says what the session runs and how many terminals it has.
    pub(super) fn note(&self, command: &[String], clients: usize) -> io::Result<()> {
        let text = json!({
            "name": self.name,
            "pid": std::process::id(),
            "command": command,
            "terminals": clients,
        });
        let new = self.file("new");
        fs::write(&new, text.to_string())?;
        fs::rename(new, self.file("json"))
    }

    pub(super) fn remove(&self) {
        for ending in ["sock", "json"] {
            let _ = fs::remove_file(self.file(ending));
        }
    }
}

/// Prints the sessions whose holders live, as one JSON array.
pub(super) fn print() -> io::Result<()> {
    let mut notes: Vec<Value> = Vec::new();
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let note = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        notes.extend(note.filter(lives));
    }
    notes.sort_by_key(|note| note["name"].to_string());
    writeln!(io::stdout(), "{}", Value::from(notes))
}

fn lives(note: &Value) -> bool {
    note["pid"]
        .as_u64()
        .is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
}
