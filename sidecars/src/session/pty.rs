//! The pseudo terminal, and how a command comes to be on it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::agent_env::{CANNOT_RUN, NOT_THERE};

/// The holder's end of a pseudo terminal.
pub(super) struct Pty {
    master: OwnedFd,
    name: CString,
}

impl Pty {
    pub(super) fn open() -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        Ok(Self { master, name })
    }

    /// The same end once more, to be read or written.
    pub(super) fn file(&self) -> io::Result<File> {
        Ok(File::from(self.master.try_clone()?))
    }

    pub(super) fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(self.master.as_fd(), size)?)
    }

    /// Starts the command with this terminal as its own. Another process of ours opens it first: a session's leader
    /// without a terminal gets the one it opens, and no `unsafe` is needed for it.
    pub(super) fn start(&self, command: &[String]) -> io::Result<Child> {
        Command::new("/proc/self/exe")
            .args(["session", "child", &self.name.to_string_lossy(), "--"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }
}

/// The exit code as a shell has it.
pub(super) fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Takes the terminal and becomes the command.
pub(super) fn become_child(terminal: &str, program: &str, rest: &[String]) -> ExitCode {
    if let Err(error) = take_terminal(terminal) {
        let _ = writeln!(io::stderr(), "bottle: cannot take {terminal}: {error}");
        return ExitCode::from(CANNOT_RUN);
    }
    let error = Command::new(program).args(rest).exec();
    // On the terminal by now, where the person is.
    let _ = write!(io::stderr(), "bottle: cannot run {program}: {error}\r\n");
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound {
        NOT_THERE
    } else {
        CANNOT_RUN
    })
}

fn take_terminal(terminal: &str) -> io::Result<()> {
    rustix::process::setsid()?;
    let terminal = File::options().read(true).write(true).open(terminal)?;
    rustix::stdio::dup2_stdin(&terminal)?;
    rustix::stdio::dup2_stdout(&terminal)?;
    rustix::stdio::dup2_stderr(&terminal)?;
    Ok(())
}
