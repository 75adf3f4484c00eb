//! `health`: asks the running sidecar of this container how it is.

use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// How often a sidecar that is not there yet is looked for.
const LOOK: Duration = Duration::from_millis(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Status {
    ready: bool,
}

/// Succeeds as soon as the sidecar is ready; says what it waits for when the time is up.
pub(crate) fn check(socket: &Path, wait: Duration) -> Result<(), String> {
    let deadline = Instant::now() + wait;
    loop {
        let problem = match ask(socket) {
            Ok(Status { ready: true }) => return Ok(()),
            Ok(Status { ready: false }) => "the sidecar runs but is not ready".to_owned(),
            Err(error) => format!("the sidecar does not answer: {error}"),
        };
        if Instant::now() >= deadline {
            return Err(problem);
        }
        sleep(LOOK);
    }
}

fn ask(socket: &Path) -> io::Result<Status> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
