//! The state home: one private folder a bottle, every file written whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, PathContext, Result};
use crate::slug;

/// The schema tag of [`Metadata`].
pub const METADATA_SCHEMA: &str = "bottle.metadata/v1";

/// What is known about a bottle whether it runs or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Always [`METADATA_SCHEMA`].
    pub schema: String,
    /// The bottle.
    pub slug: String,
    /// The agent's name.
    pub name: String,
    /// The range its networks are cut from, reserved as long as the folder is there.
    pub subnet: String,
    /// When the folder was made, RFC 3339.
    pub created_at: String,
    /// When it was last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it was last stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<String>,
    /// Digest of the plan it was last started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    /// Hash of the last audit record when it was last stopped: what shows that lines were cut off since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_head: Option<String>,
    /// Kept by `gc` and `down --purge` although nothing runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preserved: bool,
    /// What it was planned from, so that it can be planned again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// What was asked for when a bottle was planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The one file it was planned from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// Bottles that replaced the agent's own choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bottles: Vec<String>,
    /// The folder the user stood in.
    pub cwd: PathBuf,
    /// The folder that was given to the agent to work on, beside the manifest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<PathBuf>,
}

/// `path` as the system knows it, also where its last parts are not there yet. Two ways to one home must not be two
/// homes: its bottles would be seen by one of them alone.
#[must_use]
pub fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing = Vec::new();
    for known in absolute.ancestors() {
        if let Ok(real) = fs::canonicalize(known) {
            return missing
                .iter()
                .rev()
                .fold(real, |real, part| real.join(part));
        }
        match known.file_name() {
            Some(name) => missing.push(name),
            None => break,
        }
    }
    absolute
}

/// `$BOTTLE_HOME/state`.
#[derive(Clone, Debug)]
pub struct StateHome {
    path: PathBuf,
}

impl StateHome {
    /// Opens (and makes, 0700) the state home below `home`.
    ///
    /// # Errors
    /// When it cannot be made, is a symlink, or somebody else may write to it.
    pub fn open(home: &Path) -> Result<Self> {
        let path = home.join("state");
        if !home.exists() {
            private_dir(home)?;
        }
        private_dir(&path)?;
        Ok(Self { path })
    }

    /// The home without making anything; for tools that only look.
    #[must_use]
    pub fn at(home: &Path) -> Self {
        Self {
            path: home.join("state"),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of `slug`, which is checked first: a slug is never a path.
    ///
    /// # Errors
    /// When `slug` is not a slug.
    pub fn folder(&self, slug: &str) -> Result<PathBuf> {
        slug::check(slug)?;
        Ok(self.path.join(slug))
    }

    /// The metadata of `slug`, or nothing when there is no such bottle.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn metadata(&self, slug: &str) -> Result<Option<Metadata>> {
        let path = self.folder(slug)?.join("metadata.json");
        match fs::read(&path) {
            Ok(bytes) => parse_document(&bytes, METADATA_SCHEMA)
                .map(Some)
                .map_err(|failure| failure.while_doing(format!("reading {}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", &path),
        }
    }

    /// Every bottle with a readable metadata file, by slug. Broken ones are left out: `gc` deals with them.
    #[must_use]
    pub fn bottles(&self) -> Vec<Metadata> {
        let mut found: Vec<Metadata> = fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|slug| self.metadata(&slug).ok().flatten())
            .collect();
        found.sort_by(|a, b| a.slug.cmp(&b.slug));
        found
    }

    /// A lock over the whole state home, held until the file is dropped.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn lock(&self) -> Result<File> {
        let path = self.path.join(".lock");
        let file = open_lock_file(&path)?;
        file.lock().at("lock", &path)?;
        Ok(file)
    }
}

/// Opens a lock file without following a symlink; it is never written to.
///
/// # Errors
/// When it cannot be opened.
pub fn open_lock_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .at("open", path)
}

/// Makes `path` 0700, or checks that what is there is a folder of ours that others cannot write to.
///
/// # Errors
/// When it cannot be made, or is not private.
pub fn private_dir(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path);
            made.at("create", path)
        }
        Err(error) => Err(error).at("read", path),
        Ok(found) if found.file_type().is_symlink() => Err(Failure::invalid(format!(
            "{} is a symbolic link",
            path.display()
        ))
        .hint("name the folder it points to instead")),
        Ok(found) if !found.is_dir() => Err(Failure::invalid(format!(
            "{} is not a folder",
            path.display()
        ))),
        Ok(found) if found.mode() & 0o022 != 0 => Err(Failure::invalid(format!(
            "{} can be written to by others (mode {:o})",
            path.display(),
            found.mode() & 0o777
        ))
        .hint(format!("chmod go-w {}", path.display()))),
        Ok(found) if found.uid() != nix::unistd::geteuid().as_raw() => Err(Failure::invalid(
            format!("{} belongs to another user", path.display()),
        )
        .hint("give a folder of your own with --home or BOTTLE_HOME")),
        Ok(_) => Ok(()),
    }
}

/// Writes a file whole: a temporary one in the same folder with its mode from birth, fsync, rename, fsync of the folder.
///
/// # Errors
/// When any step fails; the old file is then still there, unless it was the last step.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)
        .at("write in", folder)?;
    // The umask may have taken bits away that the reader in the container needs.
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))
        .at("set the mode of", path)?;
    file.write_all(bytes).at("write", path)?;
    file.as_file().sync_all().at("write", path)?;
    file.persist(path)
        .map_err(|error| error.error)
        .at("write", path)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .at("sync", folder)
}

/// A document as pretty JSON with a final newline.
///
/// # Errors
/// Never for the documents of this crate; kept so that callers need not rely on it.
pub fn to_json<T: Serialize>(document: &T) -> Result<String> {
    serde_json::to_string_pretty(document)
        .map(|text| text + "\n")
        .map_err(|error| Failure::failed("cannot write the document as JSON").because(error))
}

/// Reads a document and checks its `schema` first, so that a newer one is named instead of misread.
///
/// # Errors
/// When it is not JSON, has another schema, or an unknown key.
pub fn parse_document<T: serde::de::DeserializeOwned>(bytes: &[u8], schema: &str) -> Result<T> {
    let value: serde_json::Value = serde_json::from_slice(bytes)
        .map_err(|error| Failure::invalid("this is not valid JSON").because(error))?;
    document_from_value(value, schema)
}

/// As [`parse_document`], from a value that was already read.
///
/// # Errors
/// When it has another schema, or an unknown key.
pub fn document_from_value<T: serde::de::DeserializeOwned>(
    value: serde_json::Value,
    schema: &str,
) -> Result<T> {
    match value.get("schema").and_then(serde_json::Value::as_str) {
        Some(found) if found == schema => {}
        Some(found) => return Err(Failure::other_document(found, schema, None)),
        None => {
            return Err(Failure::invalid(format!(
                "this is not a `{schema}` document: it has no `schema`"
            )));
        }
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let place = error.path().to_string();
        Failure::invalid(format!("the `{schema}` document is not valid at `{place}`"))
            .because(error.into_inner())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ways_to_a_folder_are_one() {
        let dir = tempfile::tempdir().expect("temp dir");
        let real = fs::canonicalize(dir.path()).expect("there");
        fs::create_dir(real.join("home")).expect("mkdir");
        std::os::unix::fs::symlink(real.join("home"), real.join("link")).expect("links");
        for way in ["home", "link", "home/../link", "link/."] {
            assert_eq!(real_path(&real.join(way)), real.join("home"), "{way}");
        }
        assert_eq!(
            real_path(&real.join("link/not/yet")),
            real.join("home/not/yet")
        );
        assert_eq!(
            real_path(Path::new("/nowhere/at/all")),
            Path::new("/nowhere/at/all")
        );
    }

    #[test]
    fn files_are_born_with_their_mode_and_replaced_whole() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("key");
        write_atomic(&path, b"one", 0o600).expect("writes");
        write_atomic(&path, b"two", 0o600).expect("writes");
        assert_eq!(fs::read(&path).expect("reads"), b"two");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
    }

    #[test]
    fn folders_of_others_are_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let open = dir.path().join("open");
        fs::create_dir(&open).expect("mkdir");
        fs::set_permissions(&open, Permissions::from_mode(0o777)).expect("chmod");
        assert!(
            private_dir(&open)
                .expect_err("refused")
                .chain()
                .contains("777")
        );
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).expect("symlink");
        assert!(
            private_dir(&link)
                .expect_err("refused")
                .chain()
                .contains("symbolic")
        );
    }

    #[test]
    fn a_slug_is_never_a_path() {
        let home = StateHome::at(Path::new("/h"));
        for bad in [
            "../x",
            "a/b",
            "",
            ".",
            "..",
            "-rf",
            "A",
            &"a".repeat(41),
            "a\n",
        ] {
            assert!(home.folder(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            home.folder("demo-1").expect("valid"),
            Path::new("/h/state/demo-1")
        );
    }

    #[test]
    fn another_schema_is_named() {
        let failure =
            parse_document::<Metadata>(br#"{"schema":"bottle.metadata/v9"}"#, METADATA_SCHEMA)
                .expect_err("unknown");
        assert!(failure.chain().contains("bottle.metadata/v9"));
    }
}
