//! The records, one line each, as they are or for a person; perhaps as they come.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, sleep};
use std::time::Duration;

use bottle_plan::audit::{Decision, Record, parse};
use bottle_plan::audit_files::{self as files, Lines};
use bottle_plan::failure::{Failure, PathContext as _, Result, printable};

use super::Filter;

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(200);

/// How it is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Show {
    /// Which records.
    pub filter: Filter,
    /// Go on as more come.
    pub follow: bool,
    /// The lines as they are in the files.
    pub json: bool,
}

/// Writes the records in `folders`, a chain each, to stdout in the order of their times. `say` gets what is no record.
///
/// # Errors
/// When a file cannot be read, or stdout not be written to. A reader that has gone away ends it without an error.
pub fn show(folders: &[PathBuf], how: &Show, say: &dyn Fn(&str)) -> Result<()> {
    let stdout = io::stdout().lock();
    let colour = !how.json
        && stdout.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut out = io::BufWriter::new(stdout);
    let mut print = |path: &Path, line: &[u8]| -> Result<(), Stop> {
        match parse(line) {
            Some(record) if !how.filter.fits(&record) => return Ok(()),
            Some(_) if how.json => out.write_all(ascii(line).as_bytes())?,
            Some(record) => out.write_all(human(&record, colour).as_bytes())?,
            None => {
                say(&format!(
                    "{}: a line is no record; `bottle-run audit verify` says more",
                    path.display()
                ));
                return Ok(());
            }
        }
        out.write_all(b"\n")?;
        if how.follow {
            out.flush()?;
        }
        Ok(())
    };
    let shown = match folders {
        [folder] => walk(folder, how.follow, &mut print),
        _ if how.follow => follow_all(folders, &mut print),
        _ => in_time(folders, &mut print),
    };
    match shown.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => Ok(()),
        Err(Stop::Failure(failure)) => Err(failure),
        Err(Stop::Stdout(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Stop::Stdout(error)) => Err(Failure::failed("cannot write to stdout").because(error)),
    }
}

/// All lines of several chains, by their times. A line without a time stays behind the one before it.
fn in_time(folders: &[PathBuf], print: &mut Print<'_>) -> Result<(), Stop> {
    let mut lines: Vec<(String, PathBuf, Vec<u8>)> = Vec::new();
    for folder in folders {
        let mut time = String::new();
        walk(folder, false, &mut |path, line| {
            if let Some(record) = parse(line) {
                time = record.time.into_owned();
            }
            lines.push((time.clone(), path.to_owned(), line.to_vec()));
            Ok(())
        })?;
    }
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
        .iter()
        .try_for_each(|(_, path, line)| print(path, line))
}

/// What comes in several chains, as it comes.
fn follow_all(folders: &[PathBuf], print: &mut Print<'_>) -> Result<(), Stop> {
    let (send, lines) = mpsc::sync_channel::<Result<(PathBuf, Vec<u8>), Stop>>(256);
    for folder in folders {
        let folder = folder.clone();
        let send = send.clone();
        // Ends with this process; nobody who follows asks for another end.
        thread::spawn(move || {
            let gone = || Stop::Stdout(io::ErrorKind::BrokenPipe.into());
            let ended = walk(&folder, true, &mut |path, line| {
                send.send(Ok((path.to_owned(), line.to_vec())))
                    .map_err(|_| gone())
            });
            if let Err(stop) = ended {
                let _ = send.send(Err(stop));
            }
        });
    }
    drop(send);
    for line in lines {
        let (path, line) = line?;
        print(&path, &line)?;
    }
    Ok(())
}

/// Why showing ends before the end.
enum Stop {
    Failure(Failure),
    Stdout(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Stdout(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

type Print<'a> = dyn FnMut(&Path, &[u8]) -> Result<(), Stop> + 'a;

fn walk(folder: &Path, follow: bool, print: &mut Print<'_>) -> Result<(), Stop> {
    let mut last = None;
    loop {
        let Some((path, mut lines)) = next_file(folder, last)? else {
            if !follow {
                return Ok(());
            }
            sleep(POLL);
            continue;
        };
        loop {
            while let Some(line) = lines.next().at("read", &path)? {
                print(&path, line)?;
            }
            // A newer file means that nothing more comes to this one, but something may have come just before.
            if !follow {
                break;
            }
            if next_file(folder, Some(lines.identity))?.is_some() {
                while let Some(line) = lines.next().at("read", &path)? {
                    print(&path, line)?;
                }
                break;
            }
            sleep(POLL);
        }
        last = Some(lines.identity);
    }
}

/// The file after the one with this identity; the oldest if that is gone.
fn next_file(folder: &Path, last: Option<(u64, u64)>) -> Result<Option<(PathBuf, Lines)>> {
    let mut open = Vec::new();
    for path in files::list(folder)? {
        match Lines::open(&path) {
            Ok(lines) => open.push((path, lines)),
            // Renamed or removed since it was listed; the next look finds it as what it is now.
            Err(_) if !path.exists() => {}
            Err(failure) => return Err(failure),
        }
    }
    let position = open
        .iter()
        .position(|(_, lines)| Some(lines.identity) == last);
    let index = position.map_or(0, |position| position + 1);
    Ok(open.into_iter().nth(index))
}

/// The line as JSON without a character a terminal could act on: the sidecar writes none, and outside of strings
/// JSON has none.
fn ascii(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(line).chars() {
        if (' '..='~').contains(&c) {
            text.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // Writing to a string does not fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// One line for a person. Everything in it came from the agent or from a sidecar that faces it.
fn human(record: &Record<'_>, colour: bool) -> String {
    let (on, off) = match record.decision {
        _ if !colour => ("", ""),
        Decision::Allow => ("\x1b[32m", "\x1b[0m"),
        Decision::Deny => ("\x1b[31m", "\x1b[0m"),
        Decision::Error => ("\x1b[33m", "\x1b[0m"),
        Decision::Note => ("\x1b[2m", "\x1b[0m"),
    };
    let mut text = format!("{}  {on}{:5}{off} ", field(&record.time), record.decision);
    // Writing to a string does not fail.
    if let Some(method) = &record.method {
        let _ = write!(text, " {}", field(method));
    }
    if let Some(host) = &record.host {
        let _ = write!(text, " {}", field(host));
        if let Some(port) = record.port.filter(|port| *port != 443) {
            let _ = write!(text, ":{port}");
        }
        text.push_str(&record.path.as_deref().map(field).unwrap_or_default());
    }
    let _ = write!(text, "  {}", field(&record.reason));
    if let Some(status) = record.status {
        let _ = write!(text, " {status}");
    }
    if record.count > 1 {
        let _ = write!(text, " x{}", record.count);
    }
    for found in &record.dlp {
        let _ = write!(text, " [{}]", field(found));
    }
    if let Some(rule) = &record.rule {
        let _ = write!(text, "  {}", field(rule));
    }
    text
}

/// A field within its line.
fn field(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bottle_plan::audit::GENESIS;

    #[test]
    fn a_line_is_one_line_and_steers_nothing() {
        let text = format!(
            r#"{{"schema":"bottle.audit/v1","time":"T","seq":0,"id":"i","bottle":"b","way":"proxy",
               "method":"GET","host":"a\u001b]52;c;x\u0007\nallow","port":8443,"path":"/\u202ex","decision":"deny",
               "reason":"host_not_allowed","rule":null,"status":403,"bytes_in":0,"bytes_out":0,"ms":1,"slot":null,
               "dlp":["entropy"],"left":null,"count":3,"dropped":null,"prev":"{GENESIS}"}}"#
        );
        let record = parse(text.as_bytes()).expect("a record");
        let line = human(&record, false);
        assert_eq!(
            line,
            "T  deny   GET a\\u{1b}]52;c;x\\u{7} allow:8443/\\u{202e}x  host_not_allowed 403 x3 [entropy]"
        );
        assert!(human(&record, true).contains("\x1b[31mdeny \x1b[0m"));
    }
}
