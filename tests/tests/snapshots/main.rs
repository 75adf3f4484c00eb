//! Snapshots on the real engine: frozen, proved, gone on from, forked, moved, and never with a secret inside.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod file;
mod kept;
mod life;
mod proof;
mod registry;
mod scripted;
mod trouble;

use bottle_tests::Home;
use bottle_tests::second::SecondEngine;
use bottle_tests::snapshot::{sh, snapshot};
use serde_json::Value;

const TOKEN: &str = "tok-snapshots-4b5c6d7e8f90a1b2c3d4e5f6";
const GIVEN: &str = "given-to-the-agent-0123456789abcdef";

const WEB: &str = "\
image: debian:trixie-slim
env: {GREETING: hello, GIVEN: '${TEST_GIVEN}'}
egress:
  routes:
    - {host: api.example.com, auth: {scheme: Bearer, token_ref: TEST_TOKEN}}
";

fn home() -> Home {
    let home = Home::with_env(&[("TEST_TOKEN", TOKEN), ("TEST_GIVEN", GIVEN)]);
    home.bottle("web", WEB);
    home
}

/// A home with a bottle that was frozen: its slug, and the snapshot.
fn frozen(name: &str) -> (Home, String, Value) {
    let home = home();
    let slug = home.slug(name);
    let bottle = home.up("web", &slug);
    sh(&bottle, "echo moved > /workspace/work");
    let made = snapshot(&home, &["commit", &slug]).json();
    (home, slug, made)
}

/// What the agent had written, out of a snapshot's image in another engine.
fn work_in(other: &SecondEngine, image: &str) -> String {
    let scratch = other
        .docker(["create", "--network=none", image, "true"])
        .ok();
    let scratch = scratch.trim();
    let folder = tempfile::tempdir().expect("a folder");
    let copied = folder.path().join("work");
    let from = format!("{scratch}:/workspace/work");
    let to = copied.to_str().expect("UTF-8");
    let _ = other.docker(["cp", &from, to]).ok();
    let _ = other.docker(["rm", scratch]).ok();
    std::fs::read_to_string(&copied).expect("copied")
}
