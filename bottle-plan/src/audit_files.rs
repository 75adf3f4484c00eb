//! The files of an audit, in the order of its chain, and their lines.
//!
//! They were written by a sidecar that faces the agent, so they are read as the work of an enemy: no link is followed,
//! and no line is held that is longer than a record can be.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::audit::{CURRENT_FILE, closed_file_number};
use crate::failure::{Failure, PathContext as _, Result};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

/// The paths there are, oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut closed = Vec::new();
    for entry in fs::read_dir(folder).at("read", folder)? {
        let name = entry.at("read", folder)?.file_name();
        if let Some(number) = name.to_str().and_then(closed_file_number) {
            closed.push((number, folder.join(name)));
        }
    }
    closed.sort_unstable();
    let mut paths: Vec<PathBuf> = closed.into_iter().map(|(_, path)| path).collect();
    let current = folder.join(CURRENT_FILE);
    if current.symlink_metadata().is_ok() {
        paths.push(current);
    }
    Ok(paths)
}

/// No line is read further than this. Far above [`crate::audit::MAX_LINE`]: a loss of power can leave a
/// stretch of zeros, and the chain goes on behind it.
const MAX_READ: usize = 1 << 20;

/// An open file of the audit.
#[derive(Debug)]
pub struct Lines {
    reader: BufReader<File>,
    /// Device and number: what it is, whatever it is called by now.
    pub identity: (u64, u64),
    line: Vec<u8>,
}

impl Lines {
    /// Opens it if it is a plain file. A link or a pipe put in its place is refused, and does not make us wait.
    ///
    /// # Errors
    /// When it cannot be opened, or is refused.
    pub fn open(path: &Path) -> Result<Self> {
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(O_NOFOLLOW | O_NONBLOCK)
            .open(path)
            .at("open", path)?;
        let metadata = file.metadata().at("read", path)?;
        if !metadata.is_file() {
            return Err(Failure::refused(format!(
                "{} is not a plain file",
                path.display()
            )));
        }
        Ok(Self {
            reader: BufReader::with_capacity(64 * 1024, file),
            identity: (metadata.dev(), metadata.ino()),
            line: Vec::new(),
        })
    }

    /// The next whole line, without its end. What there is of an unfinished one is kept until the rest comes.
    ///
    /// # Errors
    /// When it cannot be read, or a line is longer than any record can be.
    #[allow(clippy::should_implement_trait, reason = "a line is lent, not given")]
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.line.last() == Some(&b'\n') {
            self.line.clear();
        }
        let room = u64::try_from(MAX_READ - self.line.len()).unwrap_or(0);
        (&mut self.reader)
            .take(room)
            .read_until(b'\n', &mut self.line)?;
        if self.line.len() >= MAX_READ {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a line is longer than {MAX_READ} bytes"),
            ));
        }
        Ok(self.line.strip_suffix(b"\n"))
    }

    /// The unfinished line at the end, after [`Self::next`] found no whole one.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.line
    }
}
