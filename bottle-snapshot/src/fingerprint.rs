//! Whether an earlier proof was for the same values, without keeping the values.
//!
//! A layer that was proved to hold none of today's values need not be searched again. So each proof leaves behind what
//! its values hash to under a key of the bottle's own: in the state folder, readable for its owner alone, and never in an
//! archive or an image.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bottle_plan::failure::{Failure, PathContext as _, Result};
use bottle_plan::resume::SNAPSHOTS_FOLDER;
use bottle_plan::snapshot::{Parent, ValueKind};
use bottle_plan::state;
use bottle_run::bottle::Home;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::values::Value;

const KEY_FILE: &str = "fingerprint.key";
const FILE: &str = "fingerprints.json";

/// The key fingerprints are made with.
#[derive(Debug)]
pub struct Fingerprints {
    key: Zeroizing<Vec<u8>>,
}

impl Fingerprints {
    /// That of a bottle; made when there is none.
    ///
    /// # Errors
    /// When it can neither be read nor made.
    pub fn open(home: &Home, slug: &str) -> Result<Self> {
        let folder = home.state.folder(slug)?.join(SNAPSHOTS_FOLDER);
        state::private_dir(&folder)?;
        if let Some(known) = Self::read(&folder)? {
            return Ok(known);
        }
        let mut key = Zeroizing::new(vec![0; 32]);
        getrandom::fill(&mut key).map_err(|error| {
            Failure::failed(format!("the system gives no random bytes: {error}"))
        })?;
        state::write_atomic(&folder.join(KEY_FILE), &key, 0o600)?;
        Ok(Self { key })
    }

    fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(KEY_FILE);
        match fs::read(&path) {
            Ok(key) if key.len() == 32 => Ok(Some(Self {
                key: Zeroizing::new(key),
            })),
            // Without the right key nothing counts as proved, which is safe.
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", &path),
        }
    }

    /// Whether the proof of `parent` was for all of `values`. A CA key it was not for is newer than it, or another
    /// bottle's: the agent of the parent cannot have seen it.
    ///
    /// # Errors
    /// When what is there cannot be read.
    pub fn cover(home: &Home, parent: &Parent, values: &[Value]) -> Result<bool> {
        let folder = home.state.folder(&parent.slug)?.join(SNAPSHOTS_FOLDER);
        let path = folder.join(parent.number.to_string()).join(FILE);
        let (Some(key), Ok(bytes)) = (Self::read(&folder)?, fs::read(path)) else {
            return Ok(false);
        };
        let Ok(recorded) = serde_json::from_slice::<Recorded>(&bytes) else {
            return Ok(false);
        };
        Ok(recorded.id == parent.id
            && values
                .iter()
                .filter(|value| value.kind != ValueKind::CaKey)
                .all(|value| recorded.values.contains(&key.of(value))))
    }

    /// Notes the values that were proved to be absent.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn write(&self, folder: &Path, id: &str, values: &[Value]) -> Result<()> {
        let recorded = Recorded {
            id: id.to_owned(),
            values: values.iter().map(|value| self.of(value)).collect(),
        };
        let text = state::to_json(&recorded)?;
        state::write_atomic(&folder.join(FILE), text.as_bytes(), 0o600)
    }

    fn of(&self, value: &Value) -> String {
        let mut hash = Sha256::new();
        hash.update(self.key.as_slice());
        hash.update(value.bytes.as_slice());
        format!("{:x}", hash.finalize())
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    id: String,
    values: BTreeSet<String>,
}
