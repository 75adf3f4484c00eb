//! What is written down of a key before it is made, and kept until it is gone.

use std::fs;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::state::{self, StateHome, private_dir, write_atomic};
use serde::{Deserialize, Serialize};

/// The schema tag of [`Record`].
pub const KEY_SCHEMA: &str = "bottle.deploy-key/v1";

/// Beside the bottles' folders, not in them: it outlives a folder that somebody deletes.
const FOLDER: &str = ".keys";

/// A deploy key that is at a forge, or may be: it is written before the forge is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Always [`KEY_SCHEMA`].
    pub schema: String,
    /// The bottle.
    pub slug: String,
    /// The repository's name at the gate.
    pub repo: String,
    /// `gitea`, `github` or `gitlab`.
    pub forge: String,
    /// The API.
    pub api: String,
    /// The repository's path there, `owner/name`.
    pub path: String,
    /// The host variable with the forge's token.
    pub token_env: String,
    /// The title it has there.
    pub title: String,
    /// Its public half, type and data: how it is found again when its number is not known.
    pub public: String,
    /// Its number there; none until the forge has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// When it was asked for, RFC 3339.
    pub created_at: String,
}

impl Record {
    /// Writes it, on the disk before this returns.
    ///
    /// # Errors
    /// When it cannot be written: then the forge must not be asked.
    pub fn write(&self, home: &StateHome) -> Result<()> {
        let folder = home.path().join(FOLDER);
        private_dir(&folder)?;
        write_atomic(&self.file(&folder), state::to_json(self)?.as_bytes(), 0o600)
    }

    /// Takes it away: the key is gone.
    ///
    /// # Errors
    /// When it cannot be removed; the key is then revoked once more, which does no harm.
    pub fn remove(&self, home: &StateHome) -> Result<()> {
        let path = self.file(&home.path().join(FOLDER));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).at("remove", &path)
            }
            _ => Ok(()),
        }
    }

    /// No slug has a dot, so that the names of two bottles cannot run into each other.
    fn file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.{}.json", self.slug, self.repo))
    }
}

/// All that are written down, of one bottle or of all.
///
/// # Errors
/// When one cannot be read: a key nobody knows of any more must not be lost in silence.
pub fn all(home: &StateHome, slug: Option<&str>) -> Result<Vec<Record>> {
    let folder = home.path().join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("read", &folder),
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.at("read", &folder)?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = fs::read(&path).at("read", &path)?;
        let record: Record =
            state::parse_document(&bytes, KEY_SCHEMA).map_err(|failure: Failure| {
                failure.while_doing(format!("reading {}", path.display()))
            })?;
        if slug.is_none_or(|slug| slug == record.slug) {
            records.push(record);
        }
    }
    records.sort_by(|a, b| (&a.slug, &a.repo).cmp(&(&b.slug, &b.repo)));
    Ok(records)
}
