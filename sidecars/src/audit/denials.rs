//! The last denials, where the supervise sidecar can read them: what makes a request out of a denial's id.
//!
//! It is a courtesy and not the audit: bounded, not synced, and lost without harm.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bottle_plan::policy::Scheme;
use bottle_plan::supervise::{DENIALS_FILE, Denial, OLD_DENIALS_FILE};

use super::record::Record;
use crate::program::say;

/// Two files of this size: some two thousand denials.
const FILE_BYTES: u64 = 256 * 1024;
/// Longer paths are not written down; the agent then says itself what it wants.
const MAX_PATH: usize = 512;

/// The files.
pub(super) struct Denials {
    folder: PathBuf,
    file: File,
    size: u64,
}

impl Denials {
    /// Nothing when there is no such folder: the agent of this bottle cannot ask.
    pub(super) fn open(folder: &Path) -> Option<Self> {
        if !folder.is_dir() {
            return None;
        }
        let file = append(&folder.join(DENIALS_FILE));
        let opened = file.and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((size, file)) => Some(Self {
                folder: folder.to_owned(),
                file,
                size,
            }),
            Err(error) => {
                say!("denials cannot be asked about: {error}");
                None
            }
        }
    }

    /// Writes down what of `records` can be asked for.
    pub(super) fn note(&mut self, records: &[Record]) {
        let mut lines = Vec::new();
        for denial in records.iter().filter_map(denial) {
            // A vector takes what it is given.
            let _ = serde_json::to_writer(&mut lines, &denial);
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return;
        }
        if self.size >= FILE_BYTES {
            self.turn();
        }
        if self.file.write_all(&lines).is_ok() {
            self.size += lines.len() as u64;
        }
    }

    fn turn(&mut self) {
        let path = self.folder.join(DENIALS_FILE);
        let turned = fs::rename(&path, self.folder.join(OLD_DENIALS_FILE));
        if let Ok(file) = turned.and_then(|()| append(&path)) {
            self.file = file;
            self.size = 0;
        }
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn denial(record: &Record) -> Option<Denial> {
    if !record.reason.can_be_granted() {
        return None;
    }
    let host = record.host.as_deref()?;
    let path = record.path.clone().filter(|path| {
        path.len() <= MAX_PATH
            && path.starts_with('/')
            && path.bytes().all(|b| (b'!'..=b'~').contains(&b))
    });
    Some(Denial {
        id: record.id.clone(),
        scheme: if record.plain_http {
            Scheme::Http
        } else {
            Scheme::Https
        },
        host: host.to_owned(),
        port: record.port?,
        method: record
            .method
            .as_ref()
            .map(|method| method.as_str().to_owned()),
        path,
        reason: record.reason.code().to_owned(),
    })
}
