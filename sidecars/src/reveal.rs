//! Everything a program in the agent's place can read of itself, for the host to search.
//!
//! What must not be found is a secret, so it cannot be given to a search that runs in there: the bytes go out instead.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Larger files are programs and packages.
const MOST_FILE: u64 = 1 << 20;

/// All of it together.
const MOST: u64 = 32 << 20;

/// Where configuration, keys and leftovers are.
const FOLDERS: [&str; 7] = [
    "/etc",
    "/home",
    "/root",
    "/run",
    "/srv",
    "/tmp",
    "/var/lib/bottle",
];

/// Writes it all to stdout.
pub(crate) fn run() -> io::Result<()> {
    let mut out = Limited {
        out: io::stdout().lock(),
        left: MOST,
    };
    for process in list("/proc".as_ref()) {
        for name in ["environ", "cmdline"] {
            out.copy(&process.join(name))?;
        }
    }
    for folder in FOLDERS {
        out.walk(folder.as_ref())?;
    }
    out.out.flush()
}

struct Limited<W> {
    out: W,
    left: u64,
}

impl<W: Write> Limited<W> {
    fn walk(&mut self, folder: &Path) -> io::Result<()> {
        for path in list(folder) {
            let Ok(found) = fs::symlink_metadata(&path) else {
                continue;
            };
            if found.is_dir() {
                self.walk(&path)?;
            } else if found.is_file() && found.len() <= MOST_FILE {
                self.copy(&path)?;
            }
        }
        Ok(())
    }

    /// What cannot be read is not revealed.
    fn copy(&mut self, path: &Path) -> io::Result<()> {
        let Ok(file) = File::open(path) else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        let _ = file.take(MOST_FILE.min(self.left)).read_to_end(&mut bytes);
        self.left -= bytes.len() as u64;
        self.out.write_all(&bytes)?;
        self.out.write_all(b"\0\n")
    }
}

fn list(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
