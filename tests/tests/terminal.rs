//! `attach`, `exec` and sessions on a real terminal.

use bottle_tests::Home;
use bottle_tests::engine::{need_engine, wait_within};
use bottle_tests::terminal::{PATIENCE, Terminal, need_tmux};

#[test]
fn attach_is_a_real_terminal() {
    if !need_engine("attach_is_a_real_terminal") || !need_tmux("attach_is_a_real_terminal") {
        return;
    }
    let home = Home::new();
    home.bottle(
        "term",
        "image: debian:trixie-slim\ncommand: [bash, --norc]\nenv: {PS1: 'inside> '}\n",
    );
    let bottle = home.up("term", &home.slug("term"));

    let terminal = Terminal::start(&home, "tmux", 100, 30);
    terminal.types(&format!(
        "bottle-run attach {}; echo \"left with $?\"",
        bottle.slug
    ));
    terminal.waits_for("inside>");
    terminal.asks("stty size", "30 100");
    // Ctrl-C ends what runs inside, and neither the shell there nor bottle-run.
    terminal.types("sleep 1000");
    let sleeps = || {
        let commands = bottle.exec(&["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]);
        commands.stdout.contains("sleep 1000")
    };
    wait_within(PATIENCE, "sleep to run", sleeps);
    terminal.presses(&["C-c"]);
    wait_within(PATIENCE, "sleep to end", || !sleeps());
    terminal.asks("echo still $((40 + 2))", "still 42");
    let _ = terminal.tmux(&["resize-window", "-t", "t", "-x", "80", "-y", "24"]);
    terminal.asks("clear; stty size", "24 80");
    terminal.types("exit 7");
    terminal.waits_for("left with 7");
    home.down(&bottle.slug);
}

#[test]
fn a_session_outlives_its_terminal() {
    let name = "a_session_outlives_its_terminal";
    if !need_engine(name) || !need_tmux(name) {
        return;
    }
    let home = Home::new();
    home.bottle(
        "term",
        "image: debian:trixie-slim\ncommand: [bash, --norc]\nenv: {PS1: 'inside> '}\n",
    );
    let bottle = home.up("term", &home.slug("term"));
    let attach = format!(
        "clear; bottle-run attach {}; echo \"left with $?\"",
        bottle.slug
    );

    // Left by the keys, with a job that goes on.
    let first = Terminal::start(&home, "one", 100, 30);
    first.types(&attach);
    first.waits_for("inside>");
    first.asks("MARK=$((6 * 7)); echo is $MARK", "is 42");
    first.presses(&["C-p", "C-q"]);
    first.waits_for("left with 0");
    first.waits_for(&format!("bottle-run attach {}", bottle.slug));
    // The terminal is as it was: what is typed is shown, and Enter ends a line.
    first.asks("echo here $((40 + 1))", "here 41");

    // Back to it: the same shell. A lone Ctrl-P is its own, and brings the line before.
    first.types(&attach);
    first.waits_for("inside>");
    first.asks("clear; echo still $MARK", "still 42");

    // A second one beside it is another shell; both are listed.
    let second = Terminal::start(&home, "two", 90, 25);
    second.types(&format!(
        "bottle-run attach {} --session side; echo \"left with $?\"",
        bottle.slug
    ));
    second.waits_for("inside>");
    second.asks("echo none: $MARK.", "none: .");
    second.asks("stty size", "25 90");
    let listed = || {
        home.tool("bottle-run")
            .args(["--json", "list"])
            .run()
            .json()
    };
    let sessions = listed()["bottles"][0]["sessions"].clone();
    assert_eq!(sessions[0]["name"], "main");
    assert_eq!(sessions[1]["name"], "side");
    assert_eq!(sessions[1]["terminals"], 1);
    assert_eq!(sessions[0]["command"][0], "bash --norc");

    // The window is closed; the session goes on without it.
    second.close();
    wait_within(PATIENCE, "the session to be alone", || {
        listed()["bottles"][0]["sessions"][1]["terminals"] == 0
    });
    let third = Terminal::start(&home, "three", 80, 24);
    third.types(&format!(
        "bottle-run attach {} --session side --detach-keys 'ctrl-]'; echo \"left with $?\"",
        bottle.slug
    ));
    third.waits_for("inside>");
    third.asks("clear; stty size", "24 80");
    third.types("exit 7");
    third.waits_for("left with 7");
    let sessions = listed()["bottles"][0]["sessions"].clone();
    assert_eq!(sessions.as_array().map(Vec::len), Some(1), "{sessions}");

    // The first one has seen nothing of it.
    first.asks("clear; echo and $((MARK + 1))", "and 43");
    home.down(&bottle.slug);
    first.waits_for("left with");
}

#[test]
fn what_a_bottle_prints_does_not_reach_beyond_its_window() {
    let name = "what_a_bottle_prints_does_not_reach_beyond_its_window";
    if !need_engine(name) || !need_tmux(name) {
        return;
    }
    let home = Home::new();
    let script =
        r"printf '\033]52;c;aG9zdGlsZQ==\007\033]0;fine title\007shown\n\033[?1049h'; sleep 1000";
    home.bottle(
        "loud",
        &format!(
            "image: debian:trixie-slim\ncommand: [bash, -c, {}]\n",
            serde_json::json!(script)
        ),
    );
    let bottle = home.up("loud", &home.slug("loud"));
    let terminal = Terminal::start(&home, "tmux", 80, 24);
    let _ = terminal.tmux(&["set-option", "-g", "set-clipboard", "on"]);
    terminal.types(&format!(
        "bottle-run attach {}; echo \"left with $?\"",
        bottle.slug
    ));
    wait_within(PATIENCE, "the title", || {
        terminal
            .tmux(&["display-message", "-p", "-t", "t", "#{pane_title}"])
            .contains("fine title")
    });
    wait_within(PATIENCE, "the other screen", || {
        terminal
            .tmux(&["display-message", "-p", "-t", "t", "#{alternate_on}"])
            .trim()
            == "1"
    });
    assert_eq!(
        terminal.tmux(&["list-buffers"]),
        "",
        "nothing is in the clipboard"
    );
    // Leaving brings back the screen that the command, which goes on, has not.
    terminal.presses(&["C-p", "C-q"]);
    terminal.waits_for("left with 0");
    assert_eq!(
        terminal
            .tmux(&["display-message", "-p", "-t", "t", "#{alternate_on}"])
            .trim(),
        "0"
    );
    // With --raw the same bytes do what they do: the filter it was.
    terminal.types(&format!(
        r"clear; bottle-run exec --raw {} -- printf '\033]52;c;aG9zdGlsZQ==\007'",
        bottle.slug
    ));
    wait_within(PATIENCE, "the clipboard", || {
        !terminal.tmux(&["list-buffers"]).is_empty()
    });
    home.down(&bottle.slug);
}

#[test]
fn bytes_and_codes_pass_through_exec_unchanged() {
    if !need_engine("bytes_and_codes_pass_through_exec_unchanged") {
        return;
    }
    let home = Home::new();
    home.bottle("pipe", "image: debian:trixie-slim\n");
    let bottle = home.up("pipe", &home.slug("pipe"));
    let exec = |stdin: &[u8], command: &[&str]| {
        let call = home.tool("bottle-run").args(["exec", &bottle.slug, "--"]);
        call.args(command.iter().copied()).stdin(stdin).run()
    };
    // Not UTF-8, no final newline, a NUL: counted and hashed inside.
    let bytes: Vec<u8> = (0..=255u8).cycle().take(100_003).collect();
    let counted = exec(&bytes, &["sh", "-c", "wc -c; exit 42"]);
    assert_eq!((counted.stdout.trim(), counted.code()), ("100003", 42));
    let echoed = exec(b"a\0b\xe2\x82\xac\n\n", &["cat"]);
    assert_eq!(echoed.stdout.as_bytes(), b"a\0b\xe2\x82\xac\n\n");
    let killed = exec(b"", &["sh", "-c", "kill -KILL $$"]);
    assert_eq!(killed.code(), 128 + 9);
    let apart = exec(b"", &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(
        (apart.stdout.as_str(), apart.stderr.as_str()),
        ("out\n", "err\n")
    );
    home.down(&bottle.slug);
}
