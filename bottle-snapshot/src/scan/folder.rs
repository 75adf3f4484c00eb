//! A layer as the engine keeps it: a folder with the changed files, which only root can read.
//!
//! It is the fastest way by far: nobody has to pack the layer and send it through a pipe. The folder of a finished layer
//! does not change any more, and nothing in it is followed, opened for writing, or waited for.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{PathContext as _, Result};
use nix::fcntl::OFlag;

use super::unpack::Unpacker;
use super::{BUFFER, Report};
use crate::engine::Image;
use crate::needles::Needles;

/// The folder of an image's uppermost layer, when it lies on this machine and we may read it.
#[must_use]
pub fn of(image: &Image) -> Option<PathBuf> {
    let driver = image.graph_driver.as_ref()?;
    if driver.name != "overlay2" && driver.name != "overlay" {
        return None;
    }
    let path = PathBuf::from(driver.data.as_ref()?.get("UpperDir")?);
    fs::read_dir(&path).ok()?;
    Some(path)
}

/// Searches all files below `root`, their names, and where links lead.
///
/// # Errors
/// When something cannot be read.
pub fn search(needles: &Needles, root: &Path, place: &str) -> Result<Report> {
    let mut search = Search {
        needles,
        root,
        place,
        buffer: vec![0; BUFFER],
        report: Report::default(),
    };
    search.folder(root)?;
    Ok(search.report)
}

struct Search<'a> {
    needles: &'a Needles,
    root: &'a Path,
    place: &'a str,
    buffer: Vec<u8>,
    report: Report,
}

impl Search<'_> {
    /// Without recursion: how deep it goes is the agent's choice.
    fn folder(&mut self, root: &Path) -> Result<()> {
        let mut todo = vec![root.to_owned()];
        while let Some(folder) = todo.pop() {
            for entry in fs::read_dir(&folder).at("read", &folder)? {
                let path = entry.at("read", &folder)?.path();
                let kind = fs::symlink_metadata(&path)
                    .at("look at", &path)?
                    .file_type();
                self.name(&path);
                if kind.is_dir() {
                    todo.push(path);
                } else if kind.is_symlink() {
                    let target = fs::read_link(&path).at("read", &path)?;
                    let found = self.needles.find(target.as_os_str().as_bytes());
                    self.note(&found, &path, "where it leads: ");
                } else if kind.is_file() {
                    self.file(&path)?;
                }
            }
        }
        Ok(())
    }

    fn name(&mut self, path: &Path) {
        let inside = path.strip_prefix(self.root).unwrap_or(path);
        let found = self.needles.find(inside.as_os_str().as_bytes());
        if !found.is_empty() {
            // The name holds the value, so it cannot be told.
            self.report
                .note(&found, self.place, "the name of a file", 0);
        }
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOATIME;
        let open = |flags: OFlag| {
            OpenOptions::new()
                .read(true)
                .custom_flags(flags.bits())
                .open(path)
        };
        let mut file: File = open(flags)
            .or_else(|_| open(OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK))
            .at("read", path)?;
        let mut scanner = self.needles.scanner();
        let mut unpacker: Option<Unpacker<'_>> = None;
        let mut first = true;
        loop {
            let count = file.read(&mut self.buffer).at("read", path)?;
            if count == 0 {
                break;
            }
            let bytes = &self.buffer[..count];
            if first {
                unpacker = Unpacker::for_file(self.needles, bytes);
                first = false;
            }
            scanner.feed(bytes);
            if let Some(unpacker) = &mut unpacker {
                unpacker.feed(bytes);
            }
            self.report.bytes += count as u64;
        }
        let found = scanner.take();
        self.note(&found, path, "");
        if let Some(unpacker) = unpacker {
            self.report.unpacked += 1;
            let found = unpacker.finish();
            self.note(&found, path, "unpacked, ");
        }
        Ok(())
    }

    fn note(&mut self, found: &[crate::needles::Found], path: &Path, how: &str) {
        if found.is_empty() {
            return;
        }
        let inside = path.strip_prefix(self.root).unwrap_or(path);
        let file = super::layer::shown_name(self.needles, inside.as_os_str().as_bytes());
        self.report
            .note(found, self.place, &format!("{how}{file}"), 0);
    }
}
