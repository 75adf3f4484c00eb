//! What is being done, written down before it is done, so that whoever comes after a kill can finish or undo it.

use std::fs;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{PathContext as _, Result};
use bottle_plan::snapshot::{SNAPSHOT_JOURNAL_FILE, Snapshot};
use bottle_plan::state;
use bottle_run::engine::Engine;
use serde::{Deserialize, Serialize};

use crate::engine;

/// The schema tag of [`Journal`].
pub const JOURNAL_SCHEMA: &str = "bottle.snapshot-journal/v1";

/// A commit, an import, a push or a pull that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// Always [`JOURNAL_SCHEMA`].
    pub schema: String,
    /// The snapshot's id, which its image carries as a label.
    pub id: String,
    /// Its number.
    pub number: u32,
    /// The container that is frozen meanwhile; none but for a commit.
    pub container: String,
    /// Whether the engine freezes it for us; one that was frozen before stays so.
    pub pauses: bool,
    /// For an import or a pull: the image that is taken in. All else of the bottle was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<String>,
    /// Names that the engine's images have only meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl Journal {
    /// What is done with a snapshot that there is already, and with no container; `names` are given for a while.
    #[must_use]
    pub fn of(snapshot: &Snapshot, names: Vec<String>) -> Self {
        Self {
            schema: JOURNAL_SCHEMA.to_owned(),
            id: snapshot.id.clone(),
            number: snapshot.number,
            container: String::new(),
            pauses: false,
            imported: None,
            names,
        }
    }

    /// What was begun in `folder`, if anything.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = path(folder);
        match fs::read(&path) {
            Ok(bytes) => state::parse_document(&bytes, JOURNAL_SCHEMA)
                .map(Some)
                .map_err(|failure| failure.while_doing(format!("reading {}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", &path),
        }
    }

    /// Writes it down.
    ///
    /// # Errors
    /// When that fails; then nothing may be begun.
    pub fn write(&self, folder: &Path) -> Result<()> {
        state::write_atomic(&path(folder), state::to_json(self)?.as_bytes(), 0o600)
    }

    /// Takes the names away that were given for a while.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn remove_names(&self, engine: &Engine) -> Result<()> {
        let removed = |name: &String| engine::remove_image(engine, name);
        self.names.iter().try_for_each(removed)
    }

    /// It is done, or undone.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn close(folder: &Path) -> Result<()> {
        let path = path(folder);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).at("remove", &path)
            }
            _ => Ok(()),
        }
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(SNAPSHOT_JOURNAL_FILE)
}
