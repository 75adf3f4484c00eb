//! `scripts/bottle`: the first ten minutes of a person, and what a script gets instead.

#![allow(clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::path::PathBuf;

use bottle_tests::engine::{need_engine, note_skipped, wait_within};
use bottle_tests::terminal::{PATIENCE, Terminal, need_tmux};
use bottle_tests::typed::{Helps, calls};
use bottle_tests::{Done, Home, tools};

fn script() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../scripts/bottle")
}

/// The front end without a terminal: `setsid` takes it away.
fn bottle(home: &Home, args: &[&str]) -> Done {
    let tools = tools::tool("bottle-run");
    let folder = tools.parent().expect("a tool is in a folder").to_owned();
    let path = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    home.program("setsid")
        .args(["--wait".into(), script().into_os_string()])
        .args(args.iter().copied())
        .env("PATH", path)
        .run()
}

#[test]
fn a_script_gets_codes_and_names_instead_of_questions() {
    let home = Home::new();
    let help = bottle(&home, &["--help"]).ok();
    for command in [
        "init", "start", "attach", "diff", "pull", "commit", "resume", "stop",
    ] {
        assert!(help.contains(&format!("\n  {command}")), "{command}");
    }
    assert_eq!(bottle(&home, &[]).code(), 2);
    assert_eq!(bottle(&home, &["frobnicate"]).code(), 2);

    // Nothing there: what to type first.
    let empty = bottle(&home, &["start"]);
    assert_eq!(empty.code(), 4, "{}", empty.stderr);
    assert!(
        empty.stderr.contains("hint: bottle init"),
        "{}",
        empty.stderr
    );
    let asked = bottle(&home, &["init"]);
    assert_eq!(asked.code(), 2, "{}", asked.stderr);

    let init = [
        "init",
        "web",
        "--yes",
        "--agent",
        "shell",
        "--allow",
        "api.example.com",
    ];
    let _ = bottle(&home, &init).ok();
    let written = fs::read_to_string(home.path().join("bottles/web.yaml")).expect("written");
    assert!(
        written.contains("template: shell") && written.contains("api.example.com"),
        "{written}"
    );
    assert_eq!(bottle(&home, &init).code(), 5);
    let explained = bottle(&home, &["check", "web"]);
    assert!(
        explained.stderr.contains("api.example.com"),
        "{}",
        explained.stderr
    );
    for bad in [
        vec!["init", "Web!", "--yes"],
        vec!["init", "a", "--yes", "--allow", "x: {y}"],
        vec!["init", "a", "--yes", "--agent", "no such"],
        vec!["init", "a", "--yes", "--workspace", "all"],
        vec!["init", "a", "--yes", "--agent"],
        vec!["init", "a", "--yes", "--workspace="],
        vec!["init", "a", "b", "--yes"],
        vec!["init", "a", "--yes", "--agnet", "shell"],
    ] {
        let done = bottle(&home, &bad);
        assert_eq!(done.code(), 2, "{bad:?}: {}", done.stderr);
        assert!(
            done.stderr.starts_with("bottle: "),
            "{bad:?}: {}",
            done.stderr
        );
        assert!(done.stderr.contains("\nhint: "), "{bad:?}: {}", done.stderr);
        assert!(!home.path().join("bottles/a.yaml").exists(), "{bad:?}");
    }

    // The tool's own code and words.
    let unknown = bottle(&home, &["init", "a", "--yes", "--agent", "nosuch"]);
    assert_eq!(unknown.code(), 4, "{}", unknown.stderr);
    assert!(!home.path().join("bottles/a.yaml").exists());

    // Several: the names, to choose from.
    let _ = bottle(&home, &["init", "other", "--yes", "--agent", "shell"]).ok();
    let which = bottle(&home, &["start"]);
    assert_eq!(which.code(), 2, "{}", which.stderr);
    assert!(which.stderr.contains("other web"), "{}", which.stderr);
}

#[test]
fn a_slip_of_the_fingers_is_answered_with_what_was_meant() {
    let home = Home::new();
    home.bottle("web", "image: x\n");
    for (typed, meant) in [
        (vec!["strat"], "bottle start"),
        (vec!["stat"], "bottle start"),
        (vec!["help", "comit"], "bottle commit"),
        (vec!["atach"], "bottle attach"),
    ] {
        let done = bottle(&home, &typed);
        assert_eq!(done.code(), 2, "{typed:?}: {}", done.stderr);
        let hint = format!("hint: did you mean `{meant}`?");
        assert!(done.stderr.contains(&hint), "{typed:?}: {}", done.stderr);
    }
    // The flags of all tools may stand anywhere, and --home means for this what it means for them.
    for typed in [
        vec!["--json", "check", "wbe"],
        vec!["check", "--json", "wbe"],
    ] {
        let done = bottle(&home, &typed);
        assert_eq!(done.code(), 4, "{typed:?}: {}", done.stderr);
        assert!(done.stderr.starts_with('{'), "{typed:?}: {}", done.stderr);
    }
    let elsewhere = Home::new();
    elsewhere.bottle("there", "image: x\n");
    let folder = elsewhere.path().display().to_string();
    for typed in [
        vec!["--home", &folder, "check", "there"],
        vec!["check", "there", "--home", &folder],
    ] {
        assert_eq!(bottle(&home, &typed).code(), 0, "{typed:?}");
    }
    assert_eq!(bottle(&home, &["--home"]).code(), 2);
    assert_eq!(bottle(&home, &["check", "web", "--home="]).code(), 2);

    let nowhere = home
        .program("env")
        .args(["-u", "HOME", "-u", "BOTTLE_HOME"]);
    let done = nowhere
        .args([script().into_os_string(), "list".into()])
        .run();
    assert_eq!(done.code(), 2, "{}", done.stderr);
    assert!(
        done.stderr.contains("neither HOME nor BOTTLE_HOME"),
        "{}",
        done.stderr
    );
    let version = bottle(&home, &["--version", "--json"]).ok();
    assert!(version.starts_with("{\"tool\":\"bottle\","), "{version}");
}

/// In each shell: the commands, the names behind `start`, the slugs behind `stop`; nothing of it asks the engine.
#[test]
fn completions_of_the_front_end_answer_in_each_shell() {
    let home = Home::new();
    home.bottle("web", "image: x\n");
    let _ = home.plan("web", "web-1");
    let bin = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(script(), bin.path().join("bottle")).expect("a link");
    let tools = tools::tool("bottle-run");
    let path = format!(
        "{}:{}:{}",
        bin.path().display(),
        tools.parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let bash = "source <(bottle completions bash); ask() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _bottle; \
        echo \"${COMPREPLY[*]}\"; }; ask bottle st; ask bottle start ''; ask bottle stop w";
    let fish = "bottle completions fish | source; for line in 'bottle st' 'bottle start ' 'bottle stop w'; \
        complete -C $line | string join ' '; end";
    // As a file in fpath, which is how a release brings it. A terminal of zsh's own: completion needs its line editor.
    fs::write(
        bin.path().join("_bottle"),
        bottle(&home, &["completions", "zsh"]).ok(),
    )
    .expect("written");
    let zsh = "zmodload zsh/zpty; zpty shell zsh -f -i
        zpty -w shell \"PS1= ; fpath=($FUNCTIONS \\$fpath); autoload -Uz compinit && compinit -u -D; echo re''ady\"
        zpty -r -m shell said '*ready*'
        zpty -w -n shell $'bottle stop w\\t'
        zpty -r -m shell said '*web-1*' && print -l 'start stop' web web-1";
    for (shell, text) in [("bash", bash), ("fish", fish), ("zsh", zsh)] {
        let found = home
            .program("sh")
            .args(["-c", &format!("command -v {shell}")])
            .run();
        if found.code() != 0 {
            let what = "completions_of_the_front_end_answer_in_each_shell";
            note_skipped(what, &format!("{shell} is not installed"));
            continue;
        }
        let call = home.program("timeout").args(["20", shell, "-c", text]);
        let done = call.env("PATH", &path).env("FUNCTIONS", bin.path()).run();
        assert_eq!(
            done.stdout, "start stop\nweb\nweb-1\n",
            "{shell}: {}",
            done.stderr
        );
    }
    assert_eq!(bottle(&home, &["completions", "tcsh"]).code(), 2);
}

/// Each command of the list has its own help, which says what it calls; nothing is asked or started for it.
#[test]
fn every_command_has_a_help_of_its_own() {
    let home = Home::new();
    let whole = bottle(&home, &["--help"]).ok();
    let list = whole.split("\n\n").nth(1).unwrap_or_default();
    let commands = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let commands: Vec<&str> = commands.collect();
    assert!(commands.len() > 10, "{commands:?}");
    let mut known = Helps::default();
    for command in commands {
        let help = bottle(&home, &[command, "--help"]).ok();
        assert_eq!(bottle(&home, &["help", command]).ok(), help);
        assert!(
            help.starts_with(&format!("usage: bottle {command} ")),
            "{help}"
        );
        assert!(help.contains("\nExit codes: "), "{help}");
        let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
        assert!(examples.contains(&format!("  bottle {command}")), "{help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 120, "{line}");
        }
        // The tools it calls are there, with these flags.
        let called = help.lines().find_map(|line| line.strip_prefix("  calls "));
        let called = calls(&called.unwrap_or_default().replace(',', " |"));
        assert!(!called.is_empty() || command == "completions", "{help}");
        for call in called {
            assert_eq!(known.unknown(&call), None, "{command}: {call:?}");
        }
    }
    // What comes after `--` is not for us.
    let done = bottle(&home, &["diff", "nosuch", "--", "--help"]);
    assert_eq!(done.code(), 4, "{}{}", done.stdout, done.stderr);
}

#[test]
fn a_person_is_asked_on_the_terminal() {
    let name = "a_person_is_asked_on_the_terminal";
    if !need_engine(name) || !need_tmux(name) {
        return;
    }
    let home = Home::new();
    for name in ["one", "two"] {
        home.bottle(
            name,
            "image: debian:trixie-slim\ncommand: [bash, --norc]\nenv: {PS1: 'inside> ', KEY: '?The key'}\n",
        );
    }
    let terminal = Terminal::start(&home, "front", 100, 40);
    terminal.types(&format!("alias bottle='{}'", script().display()));
    let slug = home.slug("front");

    // A name is missing: a list, and a number out of it. A secret is asked for, and not shown.
    terminal.types(&format!(
        "bottle start --slug {slug}; echo \"left with $?\""
    ));
    terminal.waits_for("2  two");
    terminal.types("7");
    terminal.waits_for("no such one");
    terminal.types("2");
    terminal.waits_for("The key:");
    terminal.types("hush-hush-hush");
    terminal.waits_for("inside>");
    assert!(!terminal.screen().contains("hush"), "{}", terminal.screen());
    terminal.asks("echo ${#KEY} letters", "14 letters");
    terminal.presses(&["C-p", "C-q"]);
    terminal.waits_for("left with 0");

    // The one that runs needs no name.
    terminal.types("clear; bottle attach; echo \"again with $?\"");
    terminal.waits_for("inside>");
    terminal.types("exit 3");
    terminal.waits_for("again with 3");
    terminal.types("clear; bottle stop; echo \"stopped with $?\"");
    terminal.waits_for("stopped with 0");
    wait_within(PATIENCE, "nothing to be left", || {
        home.left_of(&slug).is_empty()
    });

    // Ctrl-C at the question leaves nothing, and the terminal as it was.
    terminal.types(&format!(
        "clear; bottle start one --slug {slug}; echo \"over with $?\""
    ));
    terminal.waits_for("The key:");
    terminal.presses(&["C-c"]);
    terminal.waits_for("over with");
    terminal.asks("echo back $((40 + 2))", "back 42");
    assert!(home.left_of(&slug).is_empty());
}

#[test]
fn init_asks_for_a_first_manifest() {
    if !need_tmux("init_asks_for_a_first_manifest") {
        return;
    }
    let home = Home::new();
    let terminal = Terminal::start(&home, "init", 100, 40);
    terminal.types(&format!("alias bottle='{}'", script().display()));
    let answers = |again: bool, agent: &str| {
        // Nothing of the time before stands where the questions are waited for.
        terminal.asks("clear; echo empty $((40 + 2))", "empty 42");
        terminal.types("clear; bottle init; echo \"left with $?\"");
        terminal.waits_for("What shall the agent be called? [cwd]");
        terminal.types(if again { "web" } else { "" });
        terminal.waits_for("Which agent");
        terminal.types(agent);
        terminal.waits_for("the folder itself (mount), or none? [copy]");
        terminal.types("none");
        terminal.waits_for("Which other hosts");
        terminal.types("api.example.com *.example.org");
    };
    answers(false, "shell");
    terminal.waits_for("next: bottle start cwd");
    terminal.waits_for("left with 0");
    let written = fs::read_to_string(home.path().join("bottles/cwd.yaml")).expect("written");
    for line in [
        "agent_provider: {template: shell}",
        "workspace: {from: none}",
        "    - {host: 'api.example.com'}",
        "    - {host: '*.example.org'}",
    ] {
        assert!(written.contains(line), "{line}: {written}");
    }
    // What cannot be planned is not left behind.
    answers(true, "nosuch");
    terminal.waits_for("left with 4");
    assert!(!home.path().join("bottles/web.yaml").exists());
}

#[test]
fn what_is_asked_needs_somebody_to_ask() {
    if !need_engine("what_is_asked_needs_somebody_to_ask") {
        return;
    }
    let home = Home::new();
    home.bottle("ask", "image: debian:trixie-slim\nenv: {KEY: '?The key'}\n");
    let compose = home.render(&home.plan("ask", &home.slug("ask")));
    for args in [vec!["up"], vec!["up", "--no-input"]] {
        let call = home
            .program("setsid")
            .args(["--wait"])
            .args([tools::tool("bottle-run")]);
        let refused = call.args(args.iter().copied()).stdin(compose.clone()).run();
        assert_eq!(refused.code(), 2, "{}", refused.stderr);
        assert!(refused.stderr.contains("KEY: ${KEY}"), "{}", refused.stderr);
    }
}
