//! A page of the documentation, taken apart: the blocks that are commands, what is shown under them, and whether a test
//! runs them. `<!-- not run: why -->` above a block takes it out, `<!-- page not run: why -->` all below it. The lines of
//! a comment that begins with `<!-- run before` are run and not shown.

use std::path::{Path, PathBuf};

/// One block of a page.
#[derive(Debug)]
pub struct Block {
    /// Where it begins.
    pub line: usize,
    /// What stands behind its fence: `sh` is commands, `console` commands with what they print.
    pub language: String,
    /// What is in it.
    pub text: Vec<String>,
    /// What an indented block right below it shows as its output.
    pub output: Option<Vec<String>>,
    /// Why nobody runs it.
    pub not_run: Option<String>,
}

/// The top of the repository.
///
/// # Panics
/// When this crate is not in a workspace.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("the workspace").to_owned()
}

fn comment(line: &str, what: &str) -> Option<String> {
    let inside = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    let why = inside.strip_prefix(what)?.trim();
    Some(why.to_owned()).filter(|why| !why.is_empty())
}

/// The commands of a page, in their order.
///
/// # Panics
/// Never: a fence that is open has a block.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block> {
    #[derive(PartialEq)]
    enum In {
        Text,
        Fence,
        Setup,
        Output,
    }
    let mut blocks: Vec<Block> = Vec::new();
    let (mut place, mut block_comment, mut page_comment) = (In::Text, None, None);
    // Whether nothing but empty lines came since the last fence.
    let mut below = false;
    for (index, line) in page.lines().enumerate() {
        let new = |language: &str, not_run| Block {
            line: index + 1,
            language: language.to_owned(),
            text: Vec::new(),
            output: None,
            not_run,
        };
        match place {
            In::Fence | In::Setup => {
                let end = if place == In::Fence { "```" } else { "-->" };
                if line.starts_with(end) {
                    below = place == In::Fence;
                    place = In::Text;
                } else {
                    let block = blocks.last_mut().expect("one is open");
                    block.text.push(line.to_owned());
                }
                continue;
            }
            In::Output | In::Text => {}
        }
        if let Some(language) = line.strip_prefix("```") {
            blocks.push(new(language, block_comment.take().or(page_comment.clone())));
            place = In::Fence;
        } else if line.starts_with("<!-- run before") {
            blocks.push(new("sh", None));
            place = In::Setup;
        } else if let Some(printed) = line.strip_prefix("    ")
            && (below || place == In::Output)
        {
            place = In::Output;
            let block = blocks.last_mut().expect("it is below one");
            block
                .output
                .get_or_insert_default()
                .push(printed.to_owned());
        } else if !line.trim().is_empty() {
            place = In::Text;
            block_comment = comment(line, "not run:");
            page_comment = comment(line, "page not run:").or(page_comment);
        }
        below &= line.trim().is_empty();
    }
    blocks.retain(|block| block.language == "sh" || block.language == "console");
    blocks
}

/// A command and the lines shown under it.
#[derive(Debug)]
pub struct Shown {
    /// Where it stands.
    pub line: usize,
    /// What is typed.
    pub command: String,
    /// What is shown under it.
    pub expected: Vec<String>,
}

/// The commands of a `console` block.
///
/// # Panics
/// When something is shown before the first command.
#[must_use]
pub fn commands(block: &Block) -> Vec<Shown> {
    let mut commands: Vec<Shown> = Vec::new();
    for (index, line) in block.text.iter().enumerate() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push(Shown {
                line: block.line + index + 1,
                command: command.to_owned(),
                expected: Vec::new(),
            }),
            (None, Some(last)) => last.expected.push(line.clone()),
            (None, None) => panic!("line {}: output before a command", block.line + index + 1),
        }
    }
    commands
}

/// Whether `line` is what is shown: `…` is anything, and runs of blanks are one.
fn fits(shown: &str, line: &str) -> bool {
    let one_blank = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, line) = (one_blank(shown), one_blank(line));
    let mut parts = shown.split('…').map(str::trim);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether the output is what is shown; a line `…` alone is any number of lines.
#[must_use]
pub fn same(expected: &[String], output: &str) -> bool {
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let expected: Vec<&str> = expected
        .iter()
        .map(String::as_str)
        .filter(|line| !line.trim().is_empty())
        .collect();
    matches_lines(&expected, &lines)
}

fn matches_lines(expected: &[&str], lines: &[&str]) -> bool {
    match (expected.split_first(), lines.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((&"…", more)), _) => {
            (0..=lines.len()).any(|skipped| matches_lines(more, &lines[skipped..]))
        }
        (Some((shown, more)), Some((line, rest))) => fits(shown, line) && matches_lines(more, rest),
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_compared_line_by_line() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        for (shown, printed, fits) in [
            ("a b", "a   b\n", true),
            ("a … d", "a b c d\n", true),
            ("a … d", "a b c\n", false),
            ("sha256:…", "sha256:00\n", true),
            ("a\n…\nz", "a\nb\nc\nz\n", true),
            ("a\n…\nz", "a\nb\n", false),
            ("a", "a\nb\n", false),
            ("a\n…", "a\n", true),
            ("", "something\n", false),
        ] {
            assert_eq!(same(&lines(shown), printed), fits, "{shown:?} {printed:?}");
        }
    }

    /// A fence inside a comment's reach, and prose between that takes it away.
    #[test]
    fn a_comment_holds_for_the_next_block() {
        let page = "<!-- not run: why -->\n```sh\na\n```\n```sh\nb\n```\n<!-- page not run: all -->\n\n```console\n$ c\n```\n";
        let found = blocks(page);
        let marks: Vec<Option<&str>> = found.iter().map(|block| block.not_run.as_deref()).collect();
        assert_eq!(marks, [Some("why"), None, Some("all")]);
    }

    #[test]
    fn what_is_below_a_block_is_its_output() {
        let page = "```sh\na\n```\n\n    one\n    two\n\n    three\nprose\n\n    no output\n<!-- run before\nb\n-->\n```sh\nc\n```\nprose\n\n    nor this\n";
        let found = blocks(page);
        let texts: Vec<&str> = found.iter().map(|block| block.text[0].as_str()).collect();
        assert_eq!(texts, ["a", "b", "c"]);
        let output = found[0].output.as_deref().unwrap_or_default();
        assert_eq!(output, ["one", "two", "three"]);
        assert!(found[1].output.is_none() && found[2].output.is_none());
    }
}
