//! `bottle-sidecar env`: the agent's variables that must not be in its container's configuration.
//!
//! Runs inside the agent's container. `docker inspect` and `docker commit` keep a container's environment for good, so
//! values of the host live in a file in the container's memory instead, and are put into the environment of each
//! command as it starts.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

/// On a tmpfs that only the agent's user can enter.
const FILE: &str = "/run/bottle/env";

/// The kernel takes no larger environment anyway.
const MAX_BYTES: u64 = 1 << 20;

/// What a shell returns for a command that is there but cannot be run, and for one that is not there.
const CANNOT_RUN: u8 = 126;
const NOT_THERE: u8 = 127;

/// `--store` reads `NAME=value` entries, each ended by a NUL, from stdin; `--print` writes them to stdout; `-- CMD…`
/// becomes that command with them.
pub(crate) fn run(args: &[String]) -> ExitCode {
    match args.split_first() {
        Some((flag, [])) if flag == "--store" => match store(Path::new(FILE)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&format!("cannot store the environment: {error}"), 1),
        },
        Some((flag, [])) if flag == "--print" => match print(Path::new(FILE)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&format!("cannot print the environment: {error}"), 1),
        },
        Some((flag, [program, rest @ ..])) if flag == "--" => become_command(program, rest),
        _ => complain(
            "usage: env --store < entries | env --print | env -- CMD…",
            2,
        ),
    }
}

fn store(path: &Path) -> io::Result<()> {
    let mut entries = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_BYTES)
        .read_to_end(&mut entries)?;
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(&new)?;
    file.write_all(&entries)?;
    fs::rename(&new, path)
}

/// For whoever has to know the values again, to see that a snapshot does not hold them.
fn print(path: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(&fs::read(path)?)?;
    out.flush()
}

fn become_command(program: &str, rest: &[String]) -> ExitCode {
    let entries = match fs::read(FILE) {
        Ok(entries) => entries,
        // A restarted container has an empty tmpfs; the command is told rather than run half equipped.
        Err(error) => return complain(&format!("cannot read {FILE}: {error}"), CANNOT_RUN),
    };
    let mut command = Command::new(program);
    command.args(rest);
    for (name, value) in parse(&entries) {
        command.env(name, value);
    }
    let error = command.exec();
    let code = if error.kind() == io::ErrorKind::NotFound {
        NOT_THERE
    } else {
        CANNOT_RUN
    };
    complain(&format!("cannot run {program}: {error}"), code)
}

fn parse(entries: &[u8]) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    entries.split(|byte| *byte == 0).filter_map(|entry| {
        let split = entry.iter().position(|byte| *byte == b'=')?;
        Some((
            OsStr::from_bytes(&entry[..split]),
            OsStr::from_bytes(&entry[split + 1..]),
        ))
    })
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "bottle: {text}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_anything_but_nul() {
        let entries = b"A=1\0B=two\nlines = and more\0EMPTY=\0broken\0";
        let read: Vec<_> = parse(entries)
            .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
            .collect();
        assert_eq!(
            read,
            [
                (&b"A"[..], &b"1"[..]),
                (b"B", b"two\nlines = and more"),
                (b"EMPTY", b"")
            ]
        );
    }
}
