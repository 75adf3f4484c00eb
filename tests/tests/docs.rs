//! The documentation, executed: every ```sh and ```console block of README.md and docs/ runs in order, a page in a home
//! of its own, and what is shown under a command is compared with what it printed. See [`bottle_tests::page`] for how a
//! block says that it is not run, and why.

#![allow(clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bottle_tests::page::{Block, blocks, commands, root, same};
use bottle_tests::typed::{Helps, calls};
use bottle_tests::{Call, Home, engine, need_engine, tools};

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

/// Runs a page's blocks in one shell and returns what did not come out as shown.
fn run_page(name: &str, blocks: &[Block]) -> Vec<String> {
    let home = Home::new();
    let work = tempfile::tempdir().expect("a folder");
    let bin = tempfile::tempdir().expect("a folder");
    tools::install(bin.path());
    let user = home.path().parent().expect("a folder").join("user");
    std::os::unix::fs::symlink(home.path(), user.join(".bottle")).expect("a link");
    // A page may make a home of its own, which is below TMPDIR: what it leaves there when it fails is removed as well.
    let mut script = String::from(
        "trap 'docker ps --all --quiet --filter label=bottle.page | xargs --no-run-if-empty docker rm --force
        for home in \"$TMPDIR\"/*/home; do
            [ ! -d \"$home/state\" ] || bottle-run --home \"$home\" --quiet down --purge $(ls \"$home/state\")
        done' EXIT\nset +e\n",
    );
    let mut shown = Vec::new();
    for block in blocks {
        let number = shown.len();
        if block.language == "sh" {
            // In this very shell: later blocks use its variables and functions.
            script.push_str(&format!(
                "{}\n{{\n{}\n}} > \"$OUT/{number}\" 2>&1 < /dev/null\nset +e +u +o pipefail\n",
                // What is shown below a block says whether it did what it should.
                if block.output.is_some() {
                    "set +e"
                } else {
                    "set -e"
                },
                block.text.join("\n")
            ));
            shown.push((block.line, block.text.join("\n"), block.output.clone()));
            continue;
        }
        for command in commands(block) {
            // In a subshell: what a command on the page leaves behind is files, as for a reader with two terminals.
            script.push_str(&format!(
                "( {} ) > \"$OUT/{}\" 2>&1 < /dev/null\n",
                command.command,
                shown.len()
            ));
            shown.push((command.line, command.command, Some(command.expected)));
        }
    }
    script.push_str(": > \"$OUT/end\"\n");
    let out = tempfile::tempdir().expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut call = Call::new("bash")
        .cwd(work.path())
        .env("HOME", &user)
        .env("BOTTLE_HOME", home.path())
        .env("OUT", out.path())
        .env("TMPDIR", work.path())
        .env("PATH", format!("{}:{path}", bin.path().display()))
        .stdin(script)
        .args(["-s"]);
    if let Some(sidecar) = tools::sidecar() {
        call = call.env("BOTTLE_SIDECAR", sidecar);
    }
    // What a page makes itself has this label; a run that was killed may have left it.
    engine::sweep("bottle.page");
    let done = call.run();
    engine::sweep("bottle.page");
    engine::sweep(&home.label());
    let mut wrong = Vec::new();
    if !out.path().join("end").exists() {
        // Where the shell left: the last thing that was begun.
        let begun = (0..shown.len())
            .rev()
            .find(|number| out.path().join(number.to_string()).exists());
        let begun = begun.unwrap_or_default();
        let output = fs::read_to_string(out.path().join(begun.to_string())).unwrap_or_default();
        wrong.push(format!(
            "{name}:{}: failed: {output}{}",
            shown[begun].0, done.stderr
        ));
    }
    for (number, (line, command, expected)) in shown.iter().enumerate() {
        let output = fs::read_to_string(out.path().join(number.to_string())).unwrap_or_default();
        if let Some(expected) = expected
            && !same(expected, &output)
        {
            wrong.push(format!(
                "{name}:{line}: $ {command}\n--- shown\n{}\n--- printed\n{output}",
                expected.join("\n")
            ));
        }
    }
    wrong
}

/// One page at a time, so that one that is wrong hides no other; `BOTTLE_PAGE=try.md` runs only that one.
#[test]
fn every_page_does_what_it_shows() {
    if !need_engine("every_page_does_what_it_shows") {
        return;
    }
    let only = std::env::var("BOTTLE_PAGE").ok();
    let (mut wrong, mut ran) = (Vec::new(), 0);
    for page in pages() {
        let name = page
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let text = fs::read_to_string(&page).expect("a page");
        let mut blocks = blocks(&text);
        blocks.retain(|block| block.not_run.is_none());
        if !blocks.is_empty() {
            ran += 1;
            wrong.extend(run_page(&name, &blocks));
        }
    }
    assert!(ran >= 10 || only.is_some(), "{ran} pages");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A command in an indented block is run by nobody: it is in a fence, or what is shown says that nothing is typed here.
#[test]
fn no_command_hides_in_an_indented_block() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        let (mut fence, mut marked, mut after) = (false, false, "");
        for (index, line) in text.lines().enumerate() {
            if line.starts_with("```") {
                fence = !fence;
            }
            let first = line.strip_prefix("    ").unwrap_or_default();
            let word = first.split(' ').next().unwrap_or_default();
            let command = word == "$"
                || word == "bottle"
                || word == "cargo"
                || word == "curl"
                || word == "docker"
                || word.starts_with("scripts/")
                || (word.starts_with("bottle-") && !word.ends_with(':'));
            // What a program printed may begin with its own name, below the fence of what was typed.
            let printed = after == "```" || first.contains(": ");
            if command && !fence && !marked && !printed {
                wrong.push(format!("{}:{}: {first}", page.display(), index + 1));
            }
            if !line.trim().is_empty() && !line.starts_with("    ") {
                marked = line.starts_with("<!-- not run:");
                after = line;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What no test runs is still typed by somebody: each command of ours, in a block or between two backticks, exists, and so do
/// its flags.
#[test]
fn every_command_on_a_page_exists() {
    let mut helps = Helps::default();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for (index, line) in text.lines().enumerate() {
            for call in calls(line) {
                seen += 1;
                if let Some(why) = helps.unknown(&call) {
                    let name = page.file_name().unwrap_or_default().display();
                    wrong.push(format!("{name}:{}: {}: {why}", index + 1, call.join(" ")));
                }
            }
        }
    }
    assert!(seen > 150, "{seen} commands");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All that is written for people: the pages, and what lies beside the README.
fn papers() -> Vec<PathBuf> {
    let beside = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];
    let beside = beside.map(|name| root().join(name));
    pages().into_iter().chain(beside).collect()
}

/// Whether a word is the path of something of ours that is not there. A part in capitals or with a star stands for any
/// name: what is before it counts.
fn is_gone(word: &str) -> bool {
    let any = |part: &str| {
        part.contains('*') || (part.len() > 1 && part.bytes().all(|b| b.is_ascii_uppercase()))
    };
    let parts: Vec<&str> = word.split('/').take_while(|part| !any(part)).collect();
    let Some(&top) = parts.first() else {
        return false;
    };
    let is_ours = ["docs", "scripts", "sidecars", "tests"].contains(&top)
        || (top.starts_with("bottle-") && root().join(top).is_dir());
    let path = parts.join("/");
    // cargo-fuzz makes it, when it has found something.
    let is_made = path == "sidecars/fuzz/artifacts";
    is_ours && parts.len() > 1 && !is_made && !root().join(path).exists()
}

/// A file that was moved or split is found under its new name, by whoever reads where it was.
#[test]
fn every_path_on_a_page_is_there() {
    let mut wrong = Vec::new();
    for paper in papers() {
        let text = fs::read_to_string(&paper).expect("a page");
        for (index, line) in text.lines().enumerate() {
            let in_path = |c: char| c.is_ascii_alphanumeric() || "_-./*".contains(c);
            let words = line.split(|c| !in_path(c));
            let words = words.map(|word| word.trim_end_matches(['.', '/']));
            for word in words.filter(|word| is_gone(word)) {
                wrong.push(format!("{}:{}: {word}", paper.display(), index + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_path_is_taken_for_one() {
    for (word, gone) in [
        ("tests/tests/docs.rs", false),
        ("tests/tests/nosuch.rs", true),
        ("bottle-plan/src/nosuch.rs", true),
        ("bottle-plan/providers/NAME/x", false),
        ("bottle-nosuch/src", false),
        ("scripts/bench.d/*.sh", false),
        ("scripts", false),
        ("repos/tests", false),
    ] {
        assert_eq!(is_gone(word), gone, "{word}");
    }
}

/// Every function there is, by name.
fn functions() -> BTreeSet<String> {
    fn below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                below(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                let names = text.split("fn ").skip(1);
                let names = names.filter_map(|rest| rest.split(['(', '<']).next());
                found.extend(names.map(str::to_owned));
            }
        }
    }
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root()).expect("the top").flatten() {
        if entry.path().join("Cargo.toml").is_file() {
            below(&entry.path(), &mut found);
        }
    }
    found
}

/// A promise whose test is gone is none. Where a line names a file of tests, the names in it are functions. The table of
/// attacks has a test of its own.
#[test]
fn every_test_on_a_page_is_there() {
    let functions = functions();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for paper in papers()
        .iter()
        .filter(|paper| !paper.ends_with("attacks.md"))
    {
        let text = fs::read_to_string(paper).expect("a page");
        for (index, line) in text.lines().enumerate() {
            let quoted = line.split('`').skip(1).step_by(2);
            let (files, names): (Vec<&str>, Vec<&str>) = quoted
                .map(|word| word.rsplit("::").next().unwrap_or(word))
                .filter(|word| word.matches('_').count() > 1 || word.ends_with(".rs"))
                .partition(|word| word.ends_with(".rs"));
            let is_name = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let tests = names.into_iter().filter(is_name);
            for name in tests.filter(|_| !files.is_empty() || line.contains(".rs::")) {
                seen += 1;
                if !functions.contains(name) {
                    wrong.push(format!("{}:{}: {name}", paper.display(), index + 1));
                }
            }
        }
    }
    assert!(seen > 10, "{seen} tests");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A newcomer finds each folder in the page that says where things are.
#[test]
fn every_folder_is_in_the_architecture() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page");
    let listed = Call::new("git")
        .cwd(root())
        .args(["ls-tree", "-d", "--name-only", "HEAD"])
        .run()
        .ok();
    assert!(listed.lines().count() > 8, "{listed}");
    for folder in listed.lines() {
        assert!(page.contains(&format!("`{folder}/`")), "{folder}");
    }
}

/// Of the README's folder, so that a page cannot be forgotten.
#[test]
fn every_page_is_linked_from_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    for page in pages() {
        let name = page
            .strip_prefix(root())
            .unwrap_or(Path::new(""))
            .display()
            .to_string();
        assert!(
            name == "README.md" || readme.contains(&format!("({name}")),
            "{name}"
        );
    }
}

/// The anchors of a page, as the usual forges make them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let headings = text.lines().filter(|line| {
        fenced ^= line.starts_with("```");
        !fenced && line.starts_with('#')
    });
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// A link leads to a file, and to a heading that is in it.
#[test]
fn every_link_leads_somewhere() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for paper in papers() {
        let text = fs::read_to_string(&paper).expect("a page");
        for (index, line) in text.lines().enumerate() {
            let links = line.split("](").skip(1);
            for link in links.filter_map(|rest| rest.split(')').next()) {
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = match file {
                    "" => paper.clone(),
                    file => paper.parent().expect("a folder").join(file),
                };
                seen += 1;
                let found = if anchor.is_empty() {
                    target.exists()
                } else {
                    fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor))
                };
                if !found {
                    wrong.push(format!("{}:{}: {link}", paper.display(), index + 1));
                }
            }
        }
    }
    assert!(seen > 80, "{seen} links");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
