//! What a layer changes of those below it, counted in the folders the engine keeps them in.
//!
//! The engine's own answer, `docker container diff`, compares every file of the container with every file of its image: it
//! takes as long as a small commit, and takes the time from it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use bottle_plan::failure::{PathContext as _, Result};
use bottle_plan::snapshot::Changes;

use super::folder;
use crate::engine::Image;

/// Counts what the uppermost layer of `image` changes; nothing when we cannot look into its folders. What is on the way to
/// a changed file counts as changed, as it does for the engine.
///
/// # Errors
/// When something cannot be read.
pub fn of(image: &Image) -> Option<Result<Changes>> {
    let upper = folder::of(image)?;
    let data = image.graph_driver.as_ref()?.data.as_ref()?;
    let below = data.get("LowerDir").map(String::as_str).unwrap_or_default();
    let below = below.split(':').filter(|path| !path.is_empty());
    Some(count(upper, below.map(PathBuf::from).collect()))
}

/// `below` from the uppermost to the lowest.
fn count(upper: PathBuf, below: Vec<PathBuf>) -> Result<Changes> {
    let mut changes = Changes::default();
    // Without recursion: how deep it goes is the agent's choice.
    let mut todo = vec![(upper, below)];
    while let Some((folder, below)) = todo.pop() {
        let hides = is_opaque(&folder);
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&folder).at("read", &folder)? {
            let name = entry.at("read", &folder)?.file_name();
            let path = folder.join(&name);
            let found = fs::symlink_metadata(&path).at("look at", &path)?;
            let (was_there, folders) = look(&below, &name)?;
            match (is_whiteout(&found), was_there) {
                (true, _) => changes.deleted += 1,
                (false, true) => changes.changed += 1,
                (false, false) => changes.added += 1,
            }
            if found.is_dir() {
                todo.push((path, folders));
            }
            names.insert(name);
        }
        if hides {
            changes.deleted += visible(&below)?.difference(&names).count() as u64;
        }
    }
    Ok(changes)
}

/// Whether there was something of this name, and the folders it was made of, from the uppermost down.
fn look(below: &[PathBuf], name: &OsString) -> Result<(bool, Vec<PathBuf>)> {
    let mut folders = Vec::new();
    for folder in below {
        let path = folder.join(name);
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).at("look at", &path),
        };
        if !found.is_dir() {
            return Ok((!folders.is_empty() || !is_whiteout(&found), folders));
        }
        let hides = is_opaque(&path);
        folders.push(path);
        if hides {
            break;
        }
    }
    Ok((!folders.is_empty(), folders))
}

/// The names in a folder that these layers make up.
fn visible(folders: &[PathBuf]) -> Result<BTreeSet<OsString>> {
    let (mut names, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for folder in folders {
        for entry in fs::read_dir(folder).at("read", folder)? {
            let name = entry.at("read", folder)?.file_name();
            let path = folder.join(&name);
            let found = fs::symlink_metadata(&path).at("look at", &path)?;
            if is_whiteout(&found) {
                gone.insert(name);
            } else if !gone.contains(&name) {
                names.insert(name);
            }
        }
    }
    Ok(names)
}

/// How overlayfs writes that something of a layer below is gone.
fn is_whiteout(found: &Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == 0
}

/// Whether a folder takes the place of those below it instead of being laid over them.
fn is_opaque(folder: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::getxattr(folder, "trusted.overlay.opaque", &mut value) == Ok(1) && value == *b"y"
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::{Mode, SFlag, mknod};
    use rustix::fs::{XattrFlags, setxattr};

    use super::*;

    fn write(root: &Path, names: &[&str]) {
        for name in names {
            let path = root.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, "x").expect("written");
        }
    }

    fn counted(root: &Path) -> (u64, u64, u64) {
        let below = ["second", "first"].map(|name| root.join(name));
        let changes = count(root.join("top"), below.into()).expect("readable");
        (changes.added, changes.changed, changes.deleted)
    }

    #[test]
    fn what_is_new_and_what_was_there_is_told_apart_over_several_layers() {
        let root = tempfile::tempdir().expect("temp dir");
        let root = root.path();
        write(root, &["first/etc/issue", "first/etc/a/b", "second/srv/x"]);
        // `srv` and `etc` are on the way; `etc/a` was a folder and is a file.
        write(
            root,
            &["top/etc/issue", "top/etc/new", "top/srv/y", "top/etc/a"],
        );
        assert_eq!(counted(root), (2, 4, 0));
    }

    #[test]
    fn a_link_below_is_not_followed() {
        let root = tempfile::tempdir().expect("temp dir");
        let root = root.path();
        write(root, &["elsewhere/file", "top/link/file", "second/x"]);
        fs::create_dir_all(root.join("first")).expect("made");
        std::os::unix::fs::symlink(root.join("elsewhere"), root.join("first/link"))
            .expect("a link");
        // The link is a folder now, and what is in it is new.
        assert_eq!(counted(root), (1, 1, 0));
    }

    #[test]
    fn what_is_gone_is_counted_and_hides_what_is_below_it() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().expect("temp dir");
        let root = root.path();
        write(
            root,
            &[
                "first/a",
                "first/b",
                "first/c/d",
                "first/e/f",
                "first/e/g",
                "second/x",
            ],
        );
        write(root, &["top/b", "top/e/g"]);
        let gone = |path: &str| {
            mknod(&root.join(path), SFlag::S_IFCHR, Mode::empty(), 0).expect("a whiteout");
        };
        gone("top/a");
        gone("second/b");
        gone("second/c");
        write(root, &["top/c/d"]);
        setxattr(
            root.join("top/e"),
            "trusted.overlay.opaque",
            b"y",
            XattrFlags::empty(),
        )
        .expect("set");
        // New: b, c, c/d. On the way or rewritten: e, e/g. Gone: a, and e/f with the old folder.
        assert_eq!(counted(root), (3, 2, 2));
    }
}
