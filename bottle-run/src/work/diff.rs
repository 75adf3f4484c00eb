//! `diff`: what `pull` would take over, to be looked at first.

use std::io::{BufRead as _, BufReader};

use bottle_plan::failure::{Failure, Result, printable};
use bottle_plan::git::PLAIN_DIFF;
use bottle_plan::plan::Plan;
use serde::Serialize;

use super::git::failed;
use super::{Incoming, fetch, origin};
use crate::engine::Engine;

/// The schema tag of [`Diff`].
pub const DIFF_SCHEMA: &str = "bottle.diff/v1";

/// The most commits that are told one by one.
const MOST_COMMITS: &str = "--max-count=1000";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Only these paths, from the top of the workspace; none: all.
    pub paths: &'a [String],
    /// Lines a file instead of the lines themselves.
    pub stat: bool,
    /// Only what the agent committed.
    pub committed: bool,
    /// How it is shown.
    pub shown: Shown,
}

/// How a difference is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As git has it, for a file or `git apply`.
    Bytes,
    /// Harmless for a terminal, with colours or without.
    Terminal {
        /// With colours.
        colour: bool,
    },
}

/// What the agent changed.
#[derive(Debug, Serialize)]
pub struct Diff {
    /// Always [`DIFF_SCHEMA`].
    pub schema: &'static str,
    /// The bottle.
    pub slug: String,
    /// The commit the work began at; none: there was none, and all is new.
    pub base: Option<String>,
    /// The agent's branch.
    pub branch: Option<String>,
    /// Whether there is work that was not committed.
    pub uncommitted: bool,
    /// The agent's commits, newest first, a thousand at most.
    pub commits: Vec<Commit>,
    /// The files that differ.
    pub files: Vec<ChangedFile>,
}

/// A commit of the agent's.
#[derive(Debug, Serialize)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// The first line of its message.
    pub subject: String,
}

/// A file that differs.
#[derive(Debug, Serialize)]
pub struct ChangedFile {
    /// Where it is; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Lines that are new; none for a binary file.
    pub added: Option<u64>,
    /// Lines that are gone; none for a binary file.
    pub removed: Option<u64>,
}

/// Gives `show` the difference, piece by piece.
///
/// # Errors
/// Not found, when the bottle does not run; failed, when what came out of it is not whole.
pub fn diff(
    engine: &Engine,
    plan: &Plan,
    request: &Request<'_>,
    say: &dyn Fn(&str),
    show: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let incoming = get(engine, plan, request, say)?;
    let Some(tip) = incoming.tip.as_deref() else {
        return Ok(());
    };
    let kind = if request.stat {
        "--stat=100"
    } else {
        "--patch"
    };
    let mut args = compare(&incoming, tip, kind);
    args.extend(pathspecs(request.paths));
    let file = incoming.folder.join("diff");
    let create = |error| Failure::failed("cannot keep the difference").because(error);
    let kept = std::fs::File::create(&file).map_err(create)?;
    let output = incoming.git.call(&args).output_into(kept, super::MOST)?;
    if !output.status.success() {
        return Err(failed(&["diff"], &output));
    }
    let mut lines = BufReader::new(std::fs::File::open(&file).map_err(create)?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).map_err(create)? > 0 {
        match request.shown {
            Shown::Bytes => show(&line)?,
            Shown::Terminal { colour } => {
                show(for_terminal(&line, colour && !request.stat).as_bytes())?;
            }
        }
        line.clear();
    }
    Ok(())
}

/// The same for machines.
///
/// # Errors
/// As [`diff`].
pub fn document(
    engine: &Engine,
    plan: &Plan,
    request: &Request<'_>,
    say: &dyn Fn(&str),
) -> Result<Diff> {
    let incoming = get(engine, plan, request, say)?;
    let mut diff = Diff {
        schema: DIFF_SCHEMA,
        slug: plan.slug.clone(),
        base: incoming.base.clone(),
        branch: incoming.branch.clone(),
        uncommitted: incoming.has_uncommitted(),
        commits: commits(&incoming)?,
        files: Vec::new(),
    };
    if let Some(tip) = incoming.tip.as_deref() {
        let mut args = compare(&incoming, tip, "--numstat");
        args.insert(1, "-z".to_owned());
        args.extend(pathspecs(request.paths));
        let output = incoming.git.call(&args).output()?;
        if !output.status.success() {
            return Err(failed(&["diff"], &output));
        }
        let entries = output.stdout.split(|byte| *byte == 0);
        diff.files = entries.filter_map(changed_file).collect();
    }
    Ok(diff)
}

fn get(
    engine: &Engine,
    plan: &Plan,
    request: &Request<'_>,
    say: &dyn Fn(&str),
) -> Result<Incoming> {
    let repository = origin(engine, plan)?;
    fetch(engine, plan, repository.as_ref(), request.committed, say)
}

fn compare(incoming: &Incoming, tip: &str, kind: &str) -> Vec<String> {
    let of = [kind, incoming.base_or_nothing(), tip, "--"];
    PLAIN_DIFF
        .into_iter()
        .chain(of)
        .map(str::to_owned)
        .collect()
}

fn pathspecs(paths: &[String]) -> impl Iterator<Item = String> {
    paths.iter().map(|path| format!(":(top,literal){path}"))
}

fn commits(incoming: &Incoming) -> Result<Vec<Commit>> {
    let Some(head) = incoming
        .head
        .as_deref()
        .filter(|head| Some(*head) != incoming.base.as_deref())
    else {
        return Ok(Vec::new());
    };
    let range = match &incoming.base {
        Some(base) => format!("{base}..{head}"),
        None => head.to_owned(),
    };
    let log = [
        "log",
        "-z",
        "--format=%H %s",
        MOST_COMMITS,
        "--end-of-options",
        &range,
    ];
    let text = incoming.git.text(&log)?;
    let lines = text.split('\0').filter_map(|line| line.split_once(' '));
    Ok(lines
        .map(|(id, subject)| Commit {
            id: id.to_owned(),
            subject: subject.to_owned(),
        })
        .collect())
}

/// `added TAB removed TAB path`, `-` for both where the file is binary.
fn changed_file(entry: &[u8]) -> Option<ChangedFile> {
    let text = String::from_utf8_lossy(entry);
    let mut fields = text.splitn(3, '\t');
    let added = fields.next()?.parse().ok();
    let removed = fields.next()?.parse().ok();
    let path = fields.next()?.to_owned();
    Some(ChangedFile {
        path,
        added,
        removed,
    })
}

/// Control characters are made visible, and what marks a line in colour is ours alone.
pub(crate) fn for_terminal(line: &[u8], colour: bool) -> String {
    let text = String::from_utf8_lossy(line);
    let text = printable(text.trim_end_matches('\n'));
    let code = match text.as_bytes() {
        _ if !colour => None,
        [b'+', b'+', b'+', b' ', ..] | [b'-', b'-', b'-', b' ', ..] => Some("1"),
        [b'+', ..] => Some("32"),
        [b'-', ..] => Some("31"),
        [b'@', b'@', ..] => Some("36"),
        [b'd', b'i', b'f', b'f', ..] => Some("1"),
        _ => None,
    };
    match code {
        Some(code) => format!("\x1b[{code}m{text}\x1b[0m\n"),
        None => format!("{text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_in_a_difference_are_shown_not_obeyed() {
        let shown = for_terminal(b"+\x1b]52;c;eA==\x07\n", true);
        assert_eq!(shown, "\x1b[32m+\\u{1b}]52;c;eA==\\u{7}\x1b[0m\n");
        assert_eq!(for_terminal(b" same\n", true), " same\n");
        assert_eq!(for_terminal(b"-gone\n", false), "-gone\n");
    }

    #[test]
    fn binary_files_have_no_lines() {
        let file = changed_file(b"-\t-\tpicture\tone.png").expect("an entry");
        assert_eq!((file.path.as_str(), file.added), ("picture\tone.png", None));
        let file = changed_file(b"3\t0\ta").expect("an entry");
        assert_eq!((file.added, file.removed), (Some(3), Some(0)));
        assert!(changed_file(b"").is_none());
    }
}
