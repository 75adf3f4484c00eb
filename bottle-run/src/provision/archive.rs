//! Entries of the one tar that fills the agent's container.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use bottle_plan::failure::{Failure, PathContext as _, Result};

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

/// A folder of the host, as it is: links stay links (and lead nowhere but into the container), devices and sockets
/// are left out.
pub(super) fn tree<W: Write>(
    archive: &mut tar::Builder<W>,
    from: &Path,
    to: &Path,
    owner: Owner,
) -> Result<()> {
    let root = fs::symlink_metadata(from).at("read", from)?;
    entry(archive, from, to, &root, owner)?;
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
            tree(archive, &path, &target, owner)?;
        } else {
            entry(archive, &path, &target, &found, owner)?;
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
) -> Result<()> {
    let kind = found.file_type();
    let mode = found.permissions().mode() & 0o777;
    if kind.is_dir() {
        let mut header = header(tar::EntryType::Directory, mode | 0o700, owner, 0);
        return archive
            .append_data(&mut header, target.join(""), io::empty())
            .map_err(broken);
    }
    if kind.is_symlink() {
        let to = fs::read_link(path).at("read", path)?;
        let mut header = header(tar::EntryType::Symlink, 0o777, owner, 0);
        return archive.append_link(&mut header, target, to).map_err(broken);
    }
    if kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device() {
        return Ok(());
    }
    let opened = File::open(path).at("read", path)?;
    // The size is taken from the open file, and exactly as much is copied: one that changes meanwhile cannot shift
    // the rest of the archive.
    let size = opened.metadata().at("read", path)?.len();
    let mut header = header(tar::EntryType::Regular, mode | 0o400, owner, size);
    let mut exact = opened.take(size).chain(io::repeat(0)).take(size);
    archive
        .append_data(&mut header, target, &mut exact)
        .map_err(broken)
}
