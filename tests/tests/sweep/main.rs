//! Killed at every call of the engine, by every signal: `gc` finds all that is left, and nothing is lost.
//!
//! `BOTTLE_SWEEP=all` sends each signal at each call. Otherwise every call gets SIGKILL and, in turn, one of the others.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod points;
mod runner;
mod snapshots;
mod trouble;

use std::fs;
use std::time::Duration;

use bottle_tests::engine::wait_within;
use bottle_tests::fake::{FakeDocker, Rule};
use bottle_tests::{Done, Home};
use serde_json::Value;

const KILL: i32 = 9;

fn home() -> Home {
    let home = Home::new();
    home.bottle("web", "image: debian:trixie-slim\n");
    home
}

fn at(call: u32, signal: i32) -> FakeDocker {
    FakeDocker::killing(signal, Rule::for_call(call))
}

fn run(home: &Home, engine: &FakeDocker, args: &[&str], stdin: &str) -> Done {
    home.tool("bottle-run")
        .env("BOTTLE_DOCKER", engine.program())
        .args(args.iter().copied())
        .stdin(stdin)
        .run()
}

/// `gc` once the orphans of a killed runner have ended, and what is left then.
fn collect(home: &Home, slug: &str, point: &str) {
    let lock = home.state(slug).join("lock");
    if let Ok(lock) = fs::File::open(&lock) {
        // As gc itself would have to wait: whoever holds it is a docker client in its last call.
        wait_within(Duration::from_secs(120), "the last client", || {
            lock.try_lock().is_ok()
        });
        drop(lock);
    }
    let done = home.tool("bottle-run").args(["gc", "--json"]).run();
    let collected: Value = serde_json::from_str(&done.stdout)
        .unwrap_or_else(|error| panic!("{point}: {error}: {}", done.stderr));
    let mine = |list: &Value| -> Vec<Value> {
        let list = list.as_array().expect("a list").iter();
        list.filter(|entry| entry["slug"] == slug)
            .cloned()
            .collect()
    };
    assert_eq!(mine(&collected["failed"]), Vec::<Value>::new(), "{point}");
}

fn nothing_is_left(home: &Home, slug: &str, point: &str) {
    assert_eq!(home.left_of(slug), Vec::<String>::new(), "{point}");
    let state = home.state(slug);
    for secret in ["egress", "override.json", "seccomp.json"] {
        assert!(!state.join(secret).exists(), "{point}: {secret} is left");
    }
    assert!(
        state.join("metadata.json").exists(),
        "{point}: its metadata is lost"
    );
    let journal = home
        .path()
        .join("state/.journal")
        .join(format!("{slug}.jsonl"));
    assert!(!journal.exists(), "{point}: its journal is still open");
}
