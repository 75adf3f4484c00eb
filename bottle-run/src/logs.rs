//! What the containers print, made harmless for the terminal it is shown on.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::Stdio;
use std::thread;

use bottle_plan::failure::{Failure, PathContext as _, Result, printable};
use bottle_plan::handle::Containers;

use crate::bottle::Home;
use crate::engine::Engine;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The bottle.
    pub slug: &'a str,
    /// Only this part.
    pub role: Option<&'a str>,
    /// Goes on until the containers end or the reader goes away.
    pub follow: bool,
    /// Lines from the end.
    pub tail: Option<u32>,
    /// Bytes as they came; for files and pipes.
    pub raw: bool,
}

/// Prints the logs of the running containers, or what was kept of them when they were removed.
///
/// # Errors
/// Not found, when there is neither.
pub fn logs(engine: &Engine, home: &Home, request: &Request<'_>) -> Result<()> {
    let plan = home.plan(request.slug)?;
    let names = Containers::of(&plan);
    let wanted: Vec<_> = std::iter::once(("agent", names.agent.as_str()))
        .chain(names.sidecars())
        .filter(|(role, _)| request.role.is_none_or(|only| only == *role))
        .collect();
    if wanted.is_empty() {
        let role = request.role.unwrap_or_default();
        return Err(
            Failure::not_found(format!("the bottle `{}` has no {role}", request.slug))
                .hint("its manifest decides which sidecars it has"),
        );
    }
    let exists = engine
        .call(["container", "inspect", "--format={{.Name}}", "--"])
        .args(wanted.iter().map(|(_, name)| name))
        .output()?;
    if exists.text().is_empty() {
        return kept(&plan.state.join("compose.log"), request);
    }
    thread::scope(|scope| {
        let readers: Vec<_> = wanted
            .iter()
            .map(|(role, name)| scope.spawn(move || follow(engine, role, name, request)))
            .collect();
        readers.into_iter().try_for_each(|reader| {
            reader
                .join()
                .unwrap_or_else(|_| Err(Failure::failed("a reader of logs panicked")))
        })
    })
}

fn follow(engine: &Engine, role: &str, name: &str, request: &Request<'_>) -> Result<()> {
    let mut client = engine.command();
    client.arg("logs");
    if request.follow {
        client.arg("--follow");
    }
    if let Some(lines) = request.tail {
        client.arg(format!("--tail={lines}"));
    }
    client
        .args(["--", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let cannot = |error| Failure::failed("cannot run the engine's client").because(error);
    let mut child = client.spawn().map_err(cannot)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let printed = thread::scope(|scope| {
        let err = scope.spawn(|| err.map_or(Ok(()), |pipe| print(role, pipe, request.raw)));
        let out = out.map_or(Ok(()), |pipe| print(role, pipe, request.raw));
        out.and(err.join().unwrap_or(Ok(())))
    });
    if printed.is_err() {
        // Nobody reads any more; the client would follow for ever.
        let _ = child.kill();
    }
    let _ = child.wait();
    Ok(())
}

fn print(role: &str, pipe: impl Read, raw: bool) -> std::io::Result<()> {
    lines(pipe, |line| {
        let mut out = std::io::stdout().lock();
        if raw {
            return out.write_all(line);
        }
        let text = String::from_utf8_lossy(line);
        let text = printable(text.trim_end_matches(['\n', '\r']));
        writeln!(out, "{role} | {text}")
    })
}

/// A longer line comes in pieces: an agent that never ends one must not fill our memory.
const LONGEST_LINE: u64 = 1 << 20;

/// Each line with its end, as it comes.
fn lines(
    pipe: impl Read,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while reader
        .by_ref()
        .take(LONGEST_LINE)
        .read_until(b'\n', &mut line)?
        > 0
    {
        each(&line)?;
        line.clear();
    }
    Ok(())
}

fn kept(path: &std::path::Path, request: &Request<'_>) -> Result<()> {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::not_found(format!(
                "`{}` has no logs: it is not running",
                request.slug
            ))
            .hint("logs are kept in compose.log when a bottle is removed"));
        }
        Err(error) => return Err(error).at("read", path),
    };
    let fits = |line: &&str| {
        request
            .role
            .is_none_or(|role| line.starts_with(&format!("{role} |")))
    };
    let lines: Vec<&str> = text.lines().filter(fits).collect();
    let first = request
        .tail
        .map_or(0, |count| lines.len().saturating_sub(count as usize));
    let mut shown = String::new();
    for line in &lines[first..] {
        match request.raw {
            true => shown.push_str(line),
            false => shown.push_str(&printable(line)),
        }
        shown.push('\n');
    }
    bottle_plan::tool::emit(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_an_end_comes_in_pieces() {
        let whole = 2 * LONGEST_LINE + 10;
        let mut pieces = Vec::new();
        let endless = std::io::repeat(b'x').take(whole).chain(&b"\nlast"[..]);
        lines(endless, |line| {
            pieces.push(line.len() as u64);
            Ok(())
        })
        .expect("reads");
        assert_eq!(pieces, [LONGEST_LINE, LONGEST_LINE, 11, 4]);
    }
}
