//! `bottle-run logs`: what was kept of a bottle that is gone, by container, and harmless for a terminal.

#![allow(clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;

use bottle_tests::fake::Script;
use bottle_tests::{Done, FakeDocker, Home};

/// A bottle with supervise that was stopped, and the logs that were kept of it.
fn stopped() -> Home {
    let home = Home::new();
    home.bottle("web", "image: x\nsupervise: true\n");
    let plan = home.plan("web", "one");
    let state = home.state("one");
    fs::write(state.join("plan.json"), plan).expect("the plan");
    let kept =
        "agent | one\nagent | two\x1b]52;c;aGk=\x07\negress | listens\nsupervise | listens\n";
    fs::write(state.join("compose.log"), kept).expect("the logs");
    home
}

fn logs(home: &Home, args: &[&str]) -> Done {
    // An engine that knows no container.
    let engine = FakeDocker::new(&Script::default());
    home.tool("bottle-run")
        .env("BOTTLE_DOCKER", engine.program())
        .args(["logs", "one"])
        .args(args.iter().copied())
        .run()
}

#[test]
fn each_container_has_its_own() {
    let home = stopped();
    assert_eq!(logs(&home, &[]).ok().lines().count(), 4);
    assert_eq!(logs(&home, &["egress"]).ok(), "egress | listens\n");
    assert_eq!(logs(&home, &["supervise"]).ok(), "supervise | listens\n");
    let last = logs(&home, &["--tail", "2"]).ok();
    assert_eq!(last, "egress | listens\nsupervise | listens\n");
}

#[test]
fn a_container_that_a_bottle_does_not_have_is_said() {
    let home = stopped();
    let done = logs(&home, &["git-gate"]);
    done.no_product(4, "git-gate");
    assert!(done.stderr.contains("has no git-gate"), "{}", done.stderr);
    logs(&home, &["nosuch"]).no_product(2, "nosuch");
}

#[test]
fn what_would_reach_the_clipboard_is_shown_as_text() {
    let home = stopped();
    let shown = logs(&home, &["agent"]).ok();
    assert!(
        !shown.contains('\x1b') && !shown.contains('\x07'),
        "{shown:?}"
    );
    assert!(shown.contains("52;c;aGk="), "{shown:?}");
    let raw = logs(&home, &["agent", "--raw"]).ok();
    assert!(raw.contains("\x1b]52;c;aGk=\x07"), "{raw:?}");
}
