//! `attach` on a real terminal: tmux types, resizes and reads the screen.

#![allow(clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::process::Command;

use bottle_tests::engine::{need_engine, skip, wait_for};
use bottle_tests::{Home, tools};

/// A terminal of tmux's, gone with this value.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn start(home: &Home, width: u16, height: u16) -> Self {
        let terminal = Self {
            socket: home.slug("tmux"),
        };
        let (width, height) = (width.to_string(), height.to_string());
        let shell = "exec env -i PATH=\"$PATH\" PS1='ready> ' TERM=screen bash --norc --noprofile";
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-s",
            "t",
            "-x",
            &width,
            "-y",
            &height,
            shell,
        ]);
        terminal.waits_for("ready>");
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-L")
            .arg(&self.socket)
            .args(args)
            .output()
            .expect("tmux runs");
        assert!(
            output.status.success(),
            "tmux {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "t"])
    }

    fn types(&self, keys: &str) {
        self.tmux(&["send-keys", "-t", "t", keys, "Enter"]);
    }

    /// Types until the answer is there: a shell that has just shown its prompt may throw away what came before it read.
    fn asks(&self, keys: &str, answer: &str) {
        let mut polls = 0;
        wait_for(&format!("`{answer}` after `{keys}`"), || {
            if polls % 100 == 0 {
                self.types(keys);
            }
            polls += 1;
            self.screen().contains(answer)
        });
    }

    fn waits_for(&self, text: &str) {
        wait_for(
            &format!("`{text}` on the screen:\n{}", self.screen()),
            || self.screen().contains(text),
        );
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .args(["-L", &self.socket, "kill-server"])
            .output();
    }
}

#[test]
fn attach_is_a_real_terminal() {
    if !need_engine("attach_is_a_real_terminal") {
        return;
    }
    if Command::new("tmux").arg("-V").output().is_err() {
        skip("attach_is_a_real_terminal", "tmux is not installed");
        return;
    }
    let home = Home::new();
    home.bottle(
        "term",
        "image: debian:trixie-slim\ncommand: [bash, --norc]\nenv: {PS1: 'inside> '}\n",
    );
    let bottle = home.up("term", &home.slug("term"));

    let terminal = Terminal::start(&home, 100, 30);
    let run = tools::tool("bottle-run");
    terminal.types(&format!(
        "{} --home {} attach {}; echo \"left with $?\"",
        run.display(),
        home.path().display(),
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
    wait_for("sleep to run", sleeps);
    terminal.tmux(&["send-keys", "-t", "t", "C-c"]);
    wait_for("sleep to end", || !sleeps());
    terminal.asks("echo still $((40 + 2))", "still 42");
    terminal.tmux(&["resize-window", "-t", "t", "-x", "80", "-y", "24"]);
    terminal.asks("clear; stty size", "24 80");
    terminal.types("exit 7");
    terminal.waits_for("left with 7");
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
