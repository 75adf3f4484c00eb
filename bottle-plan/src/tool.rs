//! What the `main` of every tool does the same way: the product on stdout, failures on stderr, the exit code.

mod usage;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use crate::failure::{Failure, Kind, PathContext as _, Result};

/// Turns a result into messages and an exit code.
#[must_use]
pub fn finish(tool: &str, as_json: bool, result: Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // Nowhere is left to say that stderr is gone.
            let _ = io::stderr().write_all(failure.render(tool, as_json).as_bytes());
            ExitCode::from(failure.kind().code())
        }
    }
}

/// Writes a finished document to stdout. A reader that has gone away is not an error: `tool | head` is silent.
///
/// # Errors
/// When stdout cannot be written to for another reason, such as a full disk.
pub fn emit(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed("cannot write to stdout").because(error))
        }
        _ => Ok(()),
    }
}

/// As [`emit`], for output that goes on: says whether anybody still reads.
///
/// # Errors
/// As [`emit`].
pub fn emit_open(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed("cannot write to stdout").because(error)),
    }
}

/// A message for the person at the terminal.
pub fn say(tool: &str, text: &str) {
    let _ = writeln!(io::stderr(), "{tool}: {}", crate::failure::printable(text));
}

/// Reads a document from stdin.
///
/// # Errors
/// When stdin is a terminal or empty: `hint` then says how the tool is meant to be used.
pub fn read_stdin(what: &str, hint: &str) -> Result<Vec<u8>> {
    use std::io::{IsTerminal as _, Read as _};
    let mut bytes = Vec::new();
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(
            Failure::invalid(format!("{what} is expected on stdin, which is a terminal"))
                .hint(hint),
        );
    }
    stdin
        .lock()
        .take(MAX_DOCUMENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::IsADirectory => Kind::Invalid,
                _ => Kind::Failed,
            };
            Failure::new(kind, "cannot read stdin")
                .because(error)
                .hint(hint)
        })?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(
            Failure::invalid(format!("{what} is expected on stdin, which is empty")).hint(hint),
        );
    }
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(Failure::invalid(format!(
            "stdin is longer than {MAX_DOCUMENT_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

/// Far above any plan; keeps `yes | bottle-render` from eating the memory.
const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// What to do when there is no `bottle-sidecar`, or no `bottle-services` beside it.
pub const SIDECAR_HINT: &str = "build it with scripts/build, and keep bottle-sidecar and bottle-services beside the other tools, \
     or beside the bottle-sidecar that BOTTLE_SIDECAR names";

/// `$BOTTLE_SIDECAR`, or `bottle-sidecar` beside this program; whether it is there is for the caller to find out.
///
/// # Errors
/// When this program cannot tell where it is.
pub fn sidecar() -> Result<PathBuf> {
    match std::env::var_os("BOTTLE_SIDECAR").filter(|path| !path.is_empty()) {
        Some(path) => Ok(PathBuf::from(path)),
        None => std::env::current_exe()
            .map(|program| program.with_file_name("bottle-sidecar"))
            .at("find", Path::new("this program")),
    }
}

/// `bottle-services` beside [`sidecar`]: what supervise and git-gate run.
///
/// # Errors
/// As [`sidecar`].
pub fn services() -> Result<PathBuf> {
    sidecar().map(|path| path.with_file_name("bottle-services"))
}

/// What the parser of the command line answered instead of arguments: help or the version, or what is wrong with it.
#[must_use]
pub fn not_parsed(tool: &str, text: &str, is_error: bool) -> ExitCode {
    if is_error {
        finish(tool, wants_json(), Err(usage::failure(tool, text)))
    } else {
        let version = text.strip_prefix(tool).map(str::trim);
        let text = match version {
            Some(version) if wants_json() && !version.contains('\n') => {
                format!("{}\n", json!({"tool": tool, "version": version}))
            }
            _ => text.to_owned(),
        };
        finish(tool, false, emit(&text).map(|()| 0))
    }
}

fn wants_json() -> bool {
    std::env::args_os().any(|arg| arg == "--json")
}
