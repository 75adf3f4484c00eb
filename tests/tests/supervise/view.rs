//! The screen, driven by tmux as a person would: 80 by 24, without colour.

use std::process::Command;

use bottle_tests::engine::wait_for;
use bottle_tests::tools;
use serde_json::json;

use crate::{Fixture, hand_in, send, status};

struct Screen(String);

impl Screen {
    fn start(f: &Fixture) -> Self {
        let screen = Self(f.home.slug("view"));
        let command = format!(
            "env -i PATH=\"$PATH\" TERM=vt100 BOTTLE_HOME={} {} watch --by tmux",
            f.home.path().display(),
            tools::tool("bottle-run").display()
        );
        screen.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-s",
            "v",
            "-x",
            "80",
            "-y",
            "24",
            &command,
        ]);
        screen
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-L")
            .arg(&self.0)
            .args(args)
            .output()
            .expect("tmux runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn shows(&self, text: &str) -> String {
        let mut last = String::new();
        wait_for(&format!("`{text}` on the screen"), || {
            last = self.tmux(&["capture-pane", "-p", "-t", "v"]);
            last.contains(text)
        });
        last
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", "-t", "v", key]);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

pub(crate) fn the_view_shows_and_decides(f: &Fixture) {
    if Command::new("tmux").arg("-V").output().is_err() {
        bottle_tests::engine::note_skipped("the_view_shows_and_decides", "there is no tmux");
        return;
    }
    let url = "https://api.example.com/echo/view";
    let id = hand_in(
        &f.bottle,
        "egress",
        json!({"url": url, "methods": ["PUT"], "reason": "seen \u{1b}[2J on the screen"}),
    );
    let screen = Screen::start(f);
    let all = screen.shows(&id);
    // What differs from run to run is taken out, and the rest is compared.
    let title = all.lines().next().expect("a line");
    assert!(title.contains("Requests: 1 waiting"), "{all}");
    for part in ["Grants", "Bottles", "Traffic", "q quit", "> r-", "running"] {
        screen.shows(part);
    }
    assert!(all.lines().all(|line| line.chars().count() <= 80), "{all}");
    screen.press("Enter");
    let page = screen.shows("it says");
    assert!(page.contains("\\u{1b}[2J on the screen"), "{page}");
    screen.press("1");
    screen.shows("Approve?");
    screen.press("y");
    screen.shows("once");
    wait_for("the approval", || {
        status(&f.bottle, &id)["status"] == "approved"
    });
    assert_eq!(send(&f.bottle, "PUT", url).0, 200);

    let id = hand_in(&f.bottle, "question", json!({"question": "shall I?"}));
    screen.shows(&id);
    screen.press("d");
    screen.shows("Deny it?");
    screen.press("y");
    wait_for("the refusal", || {
        status(&f.bottle, &id)["status"] == "denied"
    });
    screen.press("q");
    wait_for("the end", || screen.tmux(&["list-sessions"]).is_empty());
}
