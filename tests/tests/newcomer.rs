//! A fresh clone and the README alone: the demo in one command, then a bottle on a repository of one's own. The commands
//! are taken from the page as they stand, and what the README shows of the demo is compared with what it prints.

#![allow(clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bottle_tests::page::{self, Block, blocks};
use bottle_tests::{Call, Home, engine, need_engine, tools};

/// A copy of what is checked in or will be, in a user's home; the tools are built already.
struct Newcomer {
    home: Home,
    clone: PathBuf,
}

impl Newcomer {
    fn new() -> Self {
        let home = Home::new();
        let clone = home.user().join("bottle");
        fs::create_dir(&clone).expect("a folder");
        let copy = "git ls-files -z --cached --others --exclude-standard | \
                    tar --create --null --no-recursion --ignore-failed-read --files-from=- | \
                    tar --extract --directory=\"$1\"";
        let _ = Call::new("sh")
            .cwd(page::root())
            .args(["-c", copy, "sh"])
            .args([&clone])
            .run()
            .ok();
        std::os::unix::fs::symlink(home.path(), home.user().join(".bottle")).expect("a link");
        let newcomer = Self { home, clone };
        // Building takes minutes, and this suite is run by what was built; setting up is for a machine.
        let built = newcomer.home.user().join("built");
        fs::create_dir(&built).expect("a folder");
        tools::install(&built);
        newcomer.stand_in("setup", "");
        newcomer.stand_in(
            "build",
            &format!(
                "to=target/bottle\n[ \"$1\" != --to ] || to=$2\nmkdir -p \"$to\"\ncp -P {}/* \"$to\"\n",
                built.display()
            ),
        );
        newcomer
    }

    fn stand_in(&self, script: &str, does: &str) {
        let path = self.clone.join("scripts").join(script);
        fs::write(&path, format!("#!/bin/sh\nset -eu\n{does}")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// Runs what is typed, one shell for all of it, from the top of the clone.
    fn types(&self, text: &str) -> bottle_tests::Done {
        let script = self.home.user().join("typed");
        fs::write(&script, format!("set -euo pipefail\n{text}\n")).expect("written");
        self.home
            .program("bash")
            .cwd(&self.clone)
            .args([script])
            .run()
    }
}

/// Blocks of the README that say that they are run here.
fn ours(clone: &Path) -> Vec<Block> {
    let text = fs::read_to_string(clone.join("README.md")).expect("the README");
    let mut found = blocks(&text);
    found.retain(|block| {
        let why = block.not_run.as_deref().unwrap_or_default();
        why.contains("newcomer.rs")
    });
    found
}

/// Ids, digests and long numbers are others each time.
fn without_ids(line: &str) -> String {
    let id = |part: &str| {
        let request = part.strip_prefix("r-").or(part.strip_prefix("g-"));
        request.is_some_and(|rest| rest.len() == 8)
            || part
                .strip_prefix("demo-")
                .is_some_and(|rest| rest.parse::<u32>().is_ok())
            || (part.len() > 8 && part.bytes().filter(u8::is_ascii_digit).count() > 5)
    };
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut out = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let end = rest
            .find(|c| is_part(c) != is_part(first))
            .unwrap_or(rest.len());
        let (part, more) = rest.split_at(end);
        out.push_str(if id(part) { "ID" } else { part });
        rest = more;
    }
    out
}

#[test]
fn the_demo_is_one_command_and_prints_what_the_readme_shows() {
    if !need_engine("the_demo_is_one_command") {
        return;
    }
    let newcomer = Newcomer::new();
    let blocks = ours(&newcomer.clone);
    let demo: Vec<&Block> = blocks
        .iter()
        .filter(|block| block.text.iter().any(|line| line.contains("scripts/demo")))
        .collect();
    assert_eq!(demo.len(), 1, "one block with the demo");
    assert_eq!(demo[0].text, ["scripts/demo"], "one command");
    let done = newcomer.types("scripts/demo");
    assert_eq!(done.code(), 0, "{}{}", done.stdout, done.stderr);

    // What goes to stderr is where it was printed, in a terminal; here only its lines count.
    let printed: Vec<String> = [done.stdout.as_str(), &done.stderr]
        .join("\n")
        .lines()
        .map(without_ids)
        .collect();
    let shown = blocks.iter().filter(|block| block.language == "console");
    let mut lines = 0;
    for line in shown
        .flat_map(|block| &block.text)
        .filter(|line| !line.is_empty())
    {
        lines += 1;
        let wanted = [without_ids(line)];
        assert!(
            printed.iter().any(|printed| page::same(&wanted, printed)),
            "the demo does not print: {line}\n{}",
            printed.join("\n")
        );
    }
    assert!(lines > 10, "the README shows {lines} lines of the demo");

    // The recording is one of this demo: what is typed in it, and what is said above that.
    let recorded = recorded(&newcomer.clone);
    assert!(recorded.len() > 20, "{recorded:?}");
    for line in recorded {
        let wanted = [without_ids(&line)];
        assert!(
            printed.iter().any(|printed| page::same(&wanted, printed)),
            "docs/demo.svg is of another demo; scripts/record-demo makes it anew: {line}"
        );
    }
}

/// The headings and the commands of docs/demo.svg.
fn recorded(clone: &Path) -> Vec<String> {
    let svg = fs::read_to_string(clone.join("docs/demo.svg")).expect("the recording");
    let texts = svg
        .lines()
        .filter_map(|line| line.strip_suffix("</text>")?.split_once('>'));
    let texts = texts.map(|(_, text)| text.replace("&lt;", "<").replace("&gt;", ">"));
    texts
        .map(|text| text.replace("&amp;", "&"))
        .filter(|text| text.starts_with("# ") || text.starts_with("$ "))
        .collect()
}

#[test]
fn a_repository_of_ones_own_is_nine_commands_away() {
    if !need_engine("a_repository_of_ones_own_is_nine_commands_away") {
        return;
    }
    let newcomer = Newcomer::new();
    let blocks = ours(&newcomer.clone);
    let typed: Vec<&Block> = blocks
        .iter()
        .filter(|block| block.text.iter().any(|line| line.contains("bottle init")))
        .collect();
    assert_eq!(typed.len(), 1, "one block begins with a manifest");
    let lines = &typed[0].text;
    assert!(lines.len() < 10, "{} commands", lines.len());

    let _ = newcomer
        .types(
            "mkdir -p ~/src/app && cd ~/src/app && git init --quiet && echo one > a.txt && git add .\n\
             git -c user.name=Ann -c user.email=ann@example.com commit --quiet --message first",
        )
        .ok();
    let done = newcomer.types(&lines.join("\n"));
    assert_eq!(done.code(), 0, "{}{}", done.stdout, done.stderr);
    // What changed, and the branch with it; the folder is as it was.
    assert!(done.stdout.contains("+hello"), "{}", done.stdout);
    let pulled = newcomer
        .types("cd ~/src/app && git show bottle/app:hello.txt && git status --short && ls")
        .ok();
    assert_eq!(pulled, "hello\na.txt\n");
    let manifest =
        fs::read_to_string(newcomer.home.path().join("bottles/app.yaml")).expect("a manifest");
    let first = manifest.lines().next().unwrap_or_default();
    let schema = first
        .strip_prefix("# yaml-language-server: $schema=")
        .expect("for an editor");
    let schema =
        fs::read(newcomer.home.path().join("bottles").join(schema)).expect("the schema is there");
    let schema: serde_json::Value = serde_json::from_slice(&schema).expect("JSON");
    assert!(schema["properties"]["egress"].is_object(), "{schema}");
    // Stopped: nothing runs, the audit is kept.
    assert_eq!(
        engine::labelled(&newcomer.home.label()),
        Vec::<String>::new()
    );
    assert!(
        newcomer
            .home
            .state("app")
            .join("audit/audit.jsonl")
            .is_file()
    );
}

/// An id is a request, a grant, a bottle of the demo, or a long number; nothing else is made equal.
#[test]
fn only_ids_are_made_equal() {
    for (line, same) in [
        ("r-k2m9abcd", "ID"),
        ("approve g-k2m9abcd now", "approve ID now"),
        ("demo-6420", "ID"),
        ("demo-app", "demo-app"),
        ("method_not_allowed", "method_not_allowed"),
        ("\"66120a5392299-5\"", "\"ID\""),
        ("api.example.com 403", "api.example.com 403"),
    ] {
        assert_eq!(without_ids(line), same);
    }
}

/// A block of commands is no `console` block, whose lines would be taken for output.
#[test]
fn the_readme_has_what_these_tests_read() {
    let found = ours(&page::root());
    assert_eq!(found.len(), 3, "{found:?}");
    let shown: Vec<&Block> = found
        .iter()
        .filter(|block| block.language == "console")
        .collect();
    assert_eq!(shown.len(), 1);
    let text: Vec<&String> = shown[0]
        .text
        .iter()
        .filter(|line| line.starts_with("$ "))
        .collect();
    assert!(text.len() >= 4, "{text:?}");
}
