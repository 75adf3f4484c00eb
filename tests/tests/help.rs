//! Every command of every tool, walked as a newcomer would: its help has examples, says what each flag is for, and fits
//! the screen; its completions answer; its version can be read by a machine.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;

use bottle_tests::run::Call;
use bottle_tests::typed::{Helps, calls};
use bottle_tests::{Home, tools};

/// Tools with a command line of clap's; the sidecar reads its few words by hand.
fn names() -> Vec<&'static str> {
    let all = [
        "bottle-plan",
        "bottle-ca",
        "bottle-render",
        "bottle-run",
        "bottle-snapshot",
    ];
    let folder = tools::tool("bottle-plan");
    all.into_iter()
        .filter(|name| folder.with_file_name(name).is_file())
        .collect()
}

const WIDTH: usize = 100;

/// The commands that `help` lists below `path`.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        // A description that goes on in the next line is indented further.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The help of every command, by what is typed to reach it.
fn helps() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for tool in names() {
        let mut todo = vec![vec![]];
        while let Some(path) = todo.pop() {
            let help = Call::new(tools::tool(tool))
                .args(path.iter().map(String::as_str))
                .args(["--help"])
                .run()
                .ok();
            for command in commands(&help) {
                todo.push([path.as_slice(), &[command]].concat());
            }
            let typed = [vec![tool.to_owned()], path].concat().join(" ");
            found.push((typed, help));
        }
    }
    found
}

#[test]
fn every_help_has_examples_and_fits() {
    let mut wrong = Vec::new();
    let helps = helps();
    assert!(helps.len() > 15, "{} commands", helps.len());
    for (typed, help) in &helps {
        if !help.lines().any(|line| line == "Examples:") {
            wrong.push(format!("{typed}: has no examples"));
        }
        let tool = typed.split(' ').next().unwrap_or_default();
        let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
        if !examples.contains(tool) {
            wrong.push(format!("{typed}: no example shows {tool}"));
        }
        for line in help.lines() {
            if line.chars().count() > WIDTH {
                wrong.push(format!("{typed}: longer than {WIDTH}: {line}"));
            }
            // clap indents the empty line before a list of values.
            let blank = line.trim().is_empty();
            if line.contains('\t') || (!blank && line != line.trim_end()) {
                wrong.push(format!("{typed}: a tab or a blank at the end: {line:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An example is copied: its commands exist and take these flags.
#[test]
fn every_example_can_be_typed() {
    let (mut known, mut wrong, mut seen) = (Helps::default(), Vec::new(), 0);
    for (typed, help) in helps() {
        let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
        let examples = examples.split("\n\n").next().unwrap_or_default();
        for call in examples.lines().flat_map(calls) {
            seen += 1;
            if let Some(why) = known.unknown(&call) {
                wrong.push(format!("{typed}: {}: {why}", call.join(" ")));
            }
        }
    }
    assert!(seen > 60, "{seen} examples");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A script's author reads them where the flags are: each command says them, in words of its own where they mean more.
#[test]
fn every_command_says_its_exit_codes() {
    let mut wrong = Vec::new();
    for (typed, help) in helps() {
        let codes = help.split("Exit codes: ").nth(1).unwrap_or_default();
        let gives_another = ["run", "exec", "attach"]
            .iter()
            .any(|command| typed == format!("bottle-run {command}"));
        let said: &[&str] = if gives_another {
            &["the command's own", "125 "]
        } else {
            &["0 ", "1 ", "2 "]
        };
        for code in said.iter().filter(|code| !codes.contains(**code)) {
            wrong.push(format!("{typed} does not say {code:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Most of what the sidecar does is called by the tools; what a person calls is in its help.
#[test]
fn the_sidecar_says_how_it_is_called_by_hand() {
    let Some(sidecar) = tools::sidecar() else {
        let why = "there is no bottle-sidecar; scripts/build makes it";
        return bottle_tests::engine::note_skipped("the_sidecar_says_how", why);
    };
    let help = Call::new(&sidecar).args(["--help"]).run().ok();
    for part in [
        "\n  bottle-sidecar check ",
        "\n  bottle-sidecar why ",
        "\nExit codes: 0 ",
    ] {
        assert!(help.contains(part), "{part:?}: {help}");
    }
    Call::new(&sidecar)
        .args(["nosuch"])
        .run()
        .no_product(2, "nosuch");
}

/// An error, the same in every tool: one line and a hint, no colour; one JSON object with `--json`; 2 for what is wrong.
#[test]
fn errors_look_the_same_everywhere() {
    let home = Home::new();
    for tool in names() {
        for no_color in [None, Some("1")] {
            let mut call = home.tool(tool).env("TERM", "xterm-256color");
            if let Some(value) = no_color {
                call = call.env("NO_COLOR", value);
            }
            let done = call.args(["--no-input", "--nosuch"]).run();
            assert_eq!(done.code(), 2, "{tool}: {}", done.stderr);
            assert!(
                done.stderr.starts_with(&format!("{tool}: ")),
                "{tool}: {}",
                done.stderr
            );
            assert!(!done.stderr.contains('\u{1b}'), "{tool}: {}", done.stderr);
            assert_eq!(done.stdout, "", "{tool}");
        }
        let done = home.tool(tool).args(["--json", "--nosuch"]).run();
        let error: serde_json::Value = serde_json::from_str(&done.stderr)
            .unwrap_or_else(|error| panic!("{tool}: {error}: {}", done.stderr));
        assert_eq!(
            (error["tool"].as_str(), error["code"].as_i64()),
            (Some(tool), Some(2))
        );
    }
    // Quiet is quiet about what went well, not about what did not.
    home.bottle("web", "image: x\n");
    let ok = home
        .tool("bottle-plan")
        .args(["web", "--check", "--quiet"])
        .run();
    assert_eq!(
        (ok.code(), ok.stderr.as_str(), ok.stdout.as_str()),
        (0, "", "")
    );
    let missing = home
        .tool("bottle-plan")
        .args(["nosuch", "--check", "--quiet"])
        .run();
    assert_eq!(missing.code(), 4);
    assert!(missing.stderr.contains("nosuch"), "{}", missing.stderr);
}

/// Each flag, argument and command has words beside it or in the line below.
#[test]
fn nothing_in_a_help_is_unexplained() {
    let mut wrong = Vec::new();
    for (typed, help) in helps() {
        let lines: Vec<&str> = help.lines().collect();
        let mut section = "";
        for (index, line) in lines.iter().enumerate() {
            if !line.starts_with(' ') {
                section = line;
            }
            if !matches!(section, "Options:" | "Arguments:" | "Commands:") {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            let is_entry = match section {
                "Options:" => line.trim_start().starts_with('-') && indent <= 6,
                _ => indent == 2,
            };
            let beside = line
                .trim_start()
                .split("  ")
                .filter(|part| !part.trim().is_empty())
                .count()
                > 1;
            let below = lines.get(index + 1).is_some_and(|next| {
                next.len() - next.trim_start().len() > indent && !next.trim_start().starts_with('-')
            });
            if is_entry && !beside && !below {
                wrong.push(format!("{typed}: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a script passes to one tool it can pass to all.
#[test]
fn flags_are_the_same_everywhere() {
    for (typed, help) in helps() {
        for flag in ["--json", "--quiet", "--no-input"] {
            assert!(help.contains(flag), "{typed} has no {flag}");
        }
    }
}

#[test]
fn versions_are_one_and_machines_can_read_them() {
    let mut versions = BTreeSet::new();
    for tool in names() {
        let said = Call::new(tools::tool(tool))
            .args(["--version", "--json"])
            .run()
            .json();
        assert_eq!(said["tool"], tool);
        let version = said["version"].as_str().unwrap_or_default().to_owned();
        let plain = Call::new(tools::tool(tool)).args(["--version"]).run().ok();
        assert_eq!(plain, format!("{tool} {version}\n"));
        versions.insert(version);
    }
    assert_eq!(versions.len(), 1, "{versions:?}");
}

#[test]
fn completions_know_the_bottles_and_agents_there_are() {
    let home = Home::new();
    home.bottle("web", "image: x\n");
    home.agent("writer", "bottle: web\n");
    let _ = home.plan("web", "one-1");
    let complete = |tool: &str, words: &[&str]| {
        let index = (words.len() + 1).to_string();
        home.tool(tool)
            .env("BOTTLE_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", index)
            .env("_CLAP_IFS", "\n")
            .args(["--", tool])
            .args(words.iter().copied())
            .args([""])
            .run()
            .ok()
    };
    // The word that is being completed is the last one.
    let first = complete("bottle-plan", &[]);
    assert!(first.contains("web") && first.contains("writer"), "{first}");
    let documents = complete("bottle-plan", &["schema"]);
    assert!(documents.contains("manifest"), "{documents}");
    let bottles = complete("bottle-plan", &["writer", "--bottle"]);
    assert!(
        bottles.contains("web") && !bottles.contains("writer"),
        "{bottles}"
    );
    // Wherever a help says that a bottle is named, its name is offered.
    let mut places: Vec<String> = ["bottle-plan --resume", "bottle-plan --from"]
        .map(str::to_owned)
        .into();
    for (typed, help) in helps() {
        let usage = help.lines().find_map(|line| line.strip_prefix("Usage: "));
        let usage = usage.unwrap_or_default().replace("[OPTIONS] ", "");
        let first = usage.strip_prefix(&typed).unwrap_or_default();
        let first = first.split_whitespace().next().unwrap_or_default();
        let named = first.trim_start_matches(['<', '[']);
        if named.starts_with("SLUG") || named == "OLD>" {
            places.push(typed);
        }
    }
    assert!(places.len() > 18, "{places:?}");
    for place in places {
        let mut words = place.split(' ');
        let tool = words.next().unwrap_or_default();
        let found = complete(tool, &words.collect::<Vec<_>>());
        assert!(
            found.lines().any(|line| line == "one-1"),
            "{place}: {found}"
        );
    }
}

#[test]
fn every_tool_has_completions_for_every_shell() {
    for tool in names() {
        for shell in ["bash", "zsh", "fish"] {
            let script = Call::new(tools::tool(tool))
                .args(["completions", shell])
                .run()
                .ok();
            assert!(
                script.contains("BOTTLE_COMPLETE"),
                "{tool} {shell}: {script}"
            );
            check_syntax(shell, &script);
        }
        let done = Call::new(tools::tool(tool))
            .args(["completions", "tcsh"])
            .run();
        assert_eq!(done.code(), 2, "{}", done.stderr);
    }
}

/// What a person has who presses Tab: the real shells, with the scripts as they are installed. A shell that is not there is
/// said to be.
#[test]
fn the_shells_complete_a_slug() {
    let home = Home::new();
    home.bottle("web", "image: x\n");
    let _ = home.plan("web", "one-1");
    let folder = tools::tool("bottle-run");
    let path = format!(
        "{}:{}",
        folder.parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let bash = r#"
        eval "$(bottle-run completions bash)"
        COMP_WORDS=(bottle-run exec on) COMP_CWORD=2 COMP_TYPE=9
        read -r -a how <<< "$(complete -p bottle-run)"
        for ((at = 0; at < ${#how[@]}; at++)); do [ "${how[at]}" != -F ] || function=${how[at + 1]}; done
        "$function" bottle-run on exec
        printf '%s\n' "${COMPREPLY[@]}""#;
    let fish = "bottle-run completions fish | source; complete --do-complete 'bottle-run exec on'";
    // A terminal of zsh's own: completion needs its line editor.
    let zsh = r#"
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell "PS1= ; autoload -Uz compinit && compinit -u -D; source <(bottle-run completions zsh); echo re''ady"
        zpty -r -m shell said '*ready*'
        zpty -w -n shell $'bottle-run exec on\t'
        zpty -r -m shell said '*one-1*' && print -r -- one-1"#;
    for (shell, script) in [("bash", bash), ("fish", fish), ("zsh", zsh)] {
        if !installed(shell) {
            bottle_tests::engine::note_skipped(
                "the_shells_complete_a_slug",
                &format!("{shell} is not installed"),
            );
            continue;
        }
        let done = home
            .program("timeout")
            .env("PATH", &path)
            .args(["20", shell, "-c", script])
            .run();
        let found = done
            .stdout
            .lines()
            .any(|line| line.split_whitespace().next() == Some("one-1"));
        assert!(found, "{shell}: {}{}", done.stdout, done.stderr);
    }
}

fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .any(|folder| folder.join(program).is_file())
}

/// The shell itself reads the script, where it is installed.
fn check_syntax(shell: &str, script: &str) {
    let flag = if shell == "fish" {
        "--no-execute"
    } else {
        "-n"
    };
    if installed(shell) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("script");
        fs::write(&file, script).expect("the script");
        let done = Call::new(shell).args([flag]).args([file]).run();
        assert_eq!(done.code(), 0, "{shell}: {}", done.stderr);
    }
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().expect("a folder");
    for tool in names() {
        let _ = Call::new(tools::tool(tool))
            .args(["man"])
            .args([folder.path()])
            .run()
            .ok();
    }
    for (typed, _) in helps() {
        let page = folder.path().join(typed.replace(' ', "-") + ".1");
        let text = fs::read_to_string(&page).unwrap_or_default();
        assert!(text.contains(".SH SYNOPSIS"), "{}", page.display());
    }
}
