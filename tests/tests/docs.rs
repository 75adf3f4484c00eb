//! The documentation, executed: every ```sh and ```console block of README.md and docs/ runs in order, a page in a home
//! of its own, and what is shown under a command is compared with what it printed. A block that is not run says why in
//! a comment above it, `<!-- not run: … -->`; `<!-- page not run: … -->` holds for the blocks below it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use bottle_tests::{Call, Home, engine, need_engine, tools};

/// One block of a page.
#[derive(Debug)]
struct Block {
    line: usize,
    language: String,
    text: Vec<String>,
    not_run: Option<String>,
}

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("the workspace").to_owned()
}

fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = fs::read_dir(root().join("docs"))
        .expect("docs/ is there")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

fn comment(line: &str, what: &str) -> Option<String> {
    let inside = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    let why = inside.strip_prefix(what)?.trim();
    Some(why.to_owned()).filter(|why| !why.is_empty())
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut open, mut block_comment, mut page_comment) = (false, None, None);
    for (index, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(language), false) => {
                open = true;
                blocks.push(Block {
                    line: index + 1,
                    language: language.to_owned(),
                    text: Vec::new(),
                    not_run: block_comment.take().or(page_comment.clone()),
                });
            }
            (Some(_), true) => open = false,
            (None, true) => {
                let block = blocks.last_mut().expect("one is open");
                block.text.push(line.to_owned());
            }
            (None, false) => {
                page_comment = comment(line, "page not run:").or(page_comment);
                if !line.trim().is_empty() {
                    block_comment = comment(line, "not run:");
                }
            }
        }
    }
    blocks.retain(|block| block.language == "sh" || block.language == "console");
    blocks
}

/// A command and the lines shown under it.
#[derive(Debug)]
struct Shown {
    line: usize,
    command: String,
    expected: Vec<String>,
}

fn commands(block: &Block) -> Vec<Shown> {
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
fn same(expected: &[String], output: &str) -> bool {
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

/// Runs a page's blocks in one shell and returns what did not come out as shown.
fn run_page(name: &str, blocks: &[Block]) -> Vec<String> {
    let home = Home::new();
    let work = tempfile::tempdir().expect("a folder");
    let user = home.path().parent().expect("a folder").join("user");
    std::os::unix::fs::symlink(home.path(), user.join(".bottle")).expect("a link");
    let mut script = String::from("set +e\n");
    let mut shown = Vec::new();
    for block in blocks {
        if block.language == "sh" {
            script.push_str("set -e\n");
            script.push_str(&block.text.join("\n"));
            script.push_str(&format!(
                "\nset +e +u +o pipefail\necho {} > \"$OUT/reached\"\n",
                block.line
            ));
            continue;
        }
        for command in commands(block) {
            let number = shown.len();
            // In a subshell: what a command on the page leaves behind is files, as for a reader with two terminals.
            script.push_str(&format!(
                "( {} ) > \"$OUT/{number}\" 2>&1 < /dev/null\n",
                command.command
            ));
            shown.push(command);
        }
    }
    script.push_str("echo end > \"$OUT/reached\"\n");
    let out = tempfile::tempdir().expect("a folder");
    let folder = tools::tool("bottle-plan");
    let path = std::env::var("PATH").unwrap_or_default();
    let tools_first = format!("{}:{path}", folder.parent().expect("a folder").display());
    let mut call = Call::new("bash")
        .cwd(work.path())
        .env("HOME", &user)
        .env("BOTTLE_HOME", home.path())
        .env("OUT", out.path())
        .env("PATH", tools_first)
        .stdin(script)
        .args(["-s"]);
    if let Some(sidecar) = tools::sidecar() {
        call = call.env("BOTTLE_SIDECAR", sidecar);
    }
    let done = call.run();
    engine::sweep(&home.label());
    let mut wrong = Vec::new();
    let reached = fs::read_to_string(out.path().join("reached")).unwrap_or_default();
    if reached.trim() != "end" {
        wrong.push(format!(
            "{name}: a block after line {} failed: {}",
            reached.trim(),
            done.stderr
        ));
    }
    for (number, command) in shown.iter().enumerate() {
        let output = fs::read_to_string(out.path().join(number.to_string())).unwrap_or_default();
        if !same(&command.expected, &output) {
            wrong.push(format!(
                "{name}:{}: $ {}\n--- shown\n{}\n--- printed\n{output}",
                command.line,
                command.command,
                command.expected.join("\n")
            ));
        }
    }
    wrong
}

#[test]
fn every_page_does_what_it_shows() {
    if !need_engine("every_page_does_what_it_shows") {
        return;
    }
    if tools::sidecar().is_none() {
        bottle_tests::engine::note_skipped("docs", "bottle-sidecar is not built");
        return;
    }
    let (mut wrong, mut ran) = (Vec::new(), 0);
    for page in pages() {
        let name = page
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&page).expect("a page");
        let mut blocks = blocks(&text);
        blocks.retain(|block| block.not_run.is_none());
        if !blocks.is_empty() {
            ran += 1;
            wrong.extend(run_page(&name, &blocks));
        }
    }
    assert!(ran >= 4, "{ran} pages");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

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
