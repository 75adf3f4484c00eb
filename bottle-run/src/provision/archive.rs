//! Entries of the one tar that fills the agent's container.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, PathContext as _, Result};
use nix::fcntl::OFlag;

/// Who owns an entry.
type Owner = (u32, u32);
pub(super) const ROOT: Owner = (0, 0);

fn header(kind: tar::EntryType, mode: u32, owner: Owner, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(u64::from(owner.0));
    header.set_gid(u64::from(owner.1));
    header.set_size(size);
    // A fixed time: the same plan gives the same container.
    header.set_mtime(1);
    header
}

pub(super) fn directory<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    owner: Owner,
) -> Result<()> {
    let mut header = header(tar::EntryType::Directory, mode, owner, 0);
    archive
        .append_data(&mut header, format!("{path}/"), io::empty())
        .map_err(broken)
}

pub(super) fn file<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    owner: Owner,
    bytes: &[u8],
) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, owner, bytes.len() as u64);
    archive
        .append_data(&mut header, path, bytes)
        .map_err(broken)
}

pub(super) fn broken(error: io::Error) -> Failure {
    Failure::failed("cannot write the archive").because(error)
}

/// A sparse file from this size on is left out: read to its end it would be as large as it says.
const LARGE: u64 = 1 << 30;

/// So many files that were left out get a line each.
const NAMED: usize = 10;

/// What of a folder was not copied, for the person who starts the bottle.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    lines: Vec<String>,
    more: usize,
}

impl LeftOut {
    fn note(&mut self, path: &Path, why: &str) {
        if self.lines.len() < NAMED {
            self.lines
                .push(format!("left out, {why}: {}", path.display()));
        } else {
            self.more += 1;
        }
    }

    /// One line each, and one for all the others.
    pub(super) fn lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("and {} more", self.more));
        }
        self.lines
    }
}

/// A folder of the host, as it is: links stay links (and lead nowhere but into the container), devices, sockets and
/// sparse giants are left out.
pub(super) fn tree<W: Write>(
    archive: &mut tar::Builder<W>,
    from: &Path,
    to: &Path,
    owner: Owner,
    left_out: &mut LeftOut,
) -> Result<()> {
    let root = fs::symlink_metadata(from).at("read", from)?;
    entry(archive, from, to, &root, owner, left_out)?;
    let mut names: Vec<_> = fs::read_dir(from)
        .at("read", from)?
        .collect::<io::Result<Vec<_>>>()
        .at("read", from)?
        .into_iter()
        .map(|found| found.file_name())
        .collect();
    names.sort();
    for name in names {
        let (path, target) = (from.join(&name), to.join(&name));
        let found = fs::symlink_metadata(&path).at("read", &path)?;
        if found.is_dir() {
            tree(archive, &path, &target, owner, left_out)?;
        } else {
            entry(archive, &path, &target, &found, owner, left_out)?;
        }
    }
    Ok(())
}

/// Some files of a folder, named from its top, with the folders they are in. One that is not there any more is none.
pub(super) fn some_of<W: Write>(
    archive: &mut tar::Builder<W>,
    from: &Path,
    to: &Path,
    names: &[PathBuf],
    owner: Owner,
    left_out: &mut LeftOut,
) -> Result<()> {
    let root = fs::symlink_metadata(from).at("read", from)?;
    entry(archive, from, to, &root, owner, left_out)?;
    let mut made = BTreeSet::new();
    for name in names {
        let (path, target) = (from.join(name), to.join(name));
        let found = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.at("read", &path)?,
        };
        let mut folders: Vec<&Path> = name.ancestors().skip(1).collect();
        folders.retain(|folder| !folder.as_os_str().is_empty());
        for folder in folders.into_iter().rev() {
            if made.insert(folder.to_owned()) {
                let path = from.join(folder);
                let found = fs::symlink_metadata(&path).at("read", &path)?;
                entry(archive, &path, &to.join(folder), &found, owner, left_out)?;
            }
        }
        if found.is_dir() {
            tree(archive, &path, &target, owner, left_out)?;
        } else {
            entry(archive, &path, &target, &found, owner, left_out)?;
        }
    }
    Ok(())
}

fn entry<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &Path,
    target: &Path,
    found: &fs::Metadata,
    owner: Owner,
    left_out: &mut LeftOut,
) -> Result<()> {
    let kind = found.file_type();
    let mode = found.permissions().mode() & 0o777;
    // The agent can use what it is given, whoever's it was and is.
    let (passable, readable) = if owner == ROOT {
        (0o755, 0o444)
    } else {
        (0o700, 0o400)
    };
    if kind.is_dir() {
        let mut header = header(tar::EntryType::Directory, mode | passable, owner, 0);
        return archive
            .append_data(&mut header, target.join(""), io::empty())
            .map_err(broken);
    }
    if kind.is_symlink() {
        let to = fs::read_link(path).at("read", path)?;
        let mut header = header(tar::EntryType::Symlink, 0o777, owner, 0);
        return archive.append_link(&mut header, target, to).map_err(broken);
    }
    if !kind.is_file() {
        left_out.note(path, "not a file, folder or link");
        return Ok(());
    }
    if found.len() >= LARGE && found.blocks().saturating_mul(512) < found.len() / 2 {
        left_out.note(path, "a sparse file");
        return Ok(());
    }
    // Opened without waiting and without following: between the look and the opening it may have become a pipe.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let opened = File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .at("read", path)?;
    let now = opened.metadata().at("read", path)?;
    if !now.is_file() {
        left_out.note(path, "not a file any more");
        return Ok(());
    }
    // The size is taken from the open file, and exactly as much is copied: one that changes meanwhile cannot shift
    // the rest of the archive.
    let size = now.len();
    let mut header = header(tar::EntryType::Regular, mode | readable, owner, size);
    let mut exact = opened.take(size).chain(io::repeat(0)).take(size);
    archive
        .append_data(&mut header, target, &mut exact)
        .map_err(broken)
}
