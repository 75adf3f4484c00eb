//! The near end: stdin and stdout of a call of the engine, connected to a session's socket.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;

use super::names::Place;

/// Connects to the session, starting it when there is none, and passes bytes until either side ends.
pub(super) fn attach(name: &str, command: &[String]) -> io::Result<()> {
    let stream = connect(&Place::of(name)?, name, command)?;
    let mut keys = stream.try_clone()?;
    thread::spawn(move || {
        let _ = pass(&mut io::stdin(), &mut keys);
        // Nobody is there any more; the session is not told to end by that.
        let _ = keys.shutdown(Shutdown::Both);
    });
    let mut output = stream;
    match pass(&mut output, &mut unbuffered_stdout()?) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn connect(place: &Place, name: &str, command: &[String]) -> io::Result<UnixStream> {
    let _lock = place.lock()?;
    if let Ok(stream) = UnixStream::connect(place.socket()) {
        return Ok(stream);
    }
    place.remove();
    let mut holder = Command::new("/proc/self/exe")
        .args(["session", "hold", name, "--"])
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // One line says that it listens; none, that it ended.
    let mut line = String::new();
    if let Some(pipe) = holder.stdout.take() {
        BufReader::new(pipe).read_line(&mut line)?;
    }
    if line.is_empty() {
        holder.wait()?;
        return Err(io::Error::other("the session could not be started"));
    }
    UnixStream::connect(place.socket())
}

/// Passes on what comes as it comes. Not `io::copy`: between a socket and a pipe it splices, and the kernel then waits
/// for more than a prompt.
pub(super) fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The standard library's own waits for the end of a line, which a prompt does not have.
pub(super) fn unbuffered_stdout() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}
