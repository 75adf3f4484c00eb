//! `bottle-snapshot`: `commit` and `import`.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;

use bottle_tests::engine::{docker, need_engine};
use bottle_tests::fake::FakeDocker;
use bottle_tests::{Done, Home};
use serde_json::Value;

use crate::points::sweep_part;
use crate::{at, home};

/// `bottle-snapshot` behind an engine that sends a signal.
fn freeze(home: &Home, engine: &FakeDocker, args: &[&str]) -> Done {
    home.tool("bottle-snapshot")
        .env("BOTTLE_DOCKER", engine.program())
        .args(args.iter().copied())
        .run()
}

/// The images of a bottle's snapshots, named or not, and how many are on record.
fn frozen(home: &Home, slug: &str) -> (BTreeSet<String>, usize) {
    let filter = format!("label=bottle.snapshot.slug={slug}");
    let args = ["images", "--quiet", "--no-trunc", "--filter", &filter];
    let images = docker(args).ok().lines().map(str::to_owned).collect();
    let record = fs::read(home.state(slug).join("snapshots.json")).unwrap_or_default();
    let record: Value = serde_json::from_slice(&record).unwrap_or_default();
    let snapshots = record["snapshots"].as_array();
    if let Some(newest) = snapshots.and_then(|snapshots| snapshots.last()) {
        let latest = format!("bottle-snapshot-{slug}:latest");
        let id = docker(["image", "inspect", "--format={{.Id}}", &latest]).ok();
        assert_eq!(id.trim(), newest["image"].as_str().expect("an id"));
    }
    (images, snapshots.map_or(0, Vec::len))
}

#[test]
fn commit_recovers_from_a_signal_at_any_call() {
    if !need_engine("commit_recovers_from_a_signal_at_any_call") {
        return;
    }
    let home = home();
    let bottle = home.up("web", &home.slug("c"));
    let slug = bottle.slug.as_str();
    let whole = FakeDocker::behind(Vec::new());
    let _ = freeze(&home, &whole, &["commit", slug]).ok();
    // Orphans of the client still look for their script.
    let engines = Mutex::new(Vec::new());
    // One at a time: it is one bottle.
    sweep_part("commit", 1..=whole.calls().len(), 1, &|call, signal| {
        let point = format!("commit, call {call}, signal {signal}");
        let (_, before) = frozen(&home, slug);
        let engine = at(call, signal);
        let done = freeze(&home, &engine, &["commit", slug]);
        engines.lock().expect("whole").push(engine);
        assert_eq!(
            done.code() == 0,
            !done.stdout.is_empty(),
            "{point}: {}",
            done.stderr
        );
        let collected = home.tool("bottle-snapshot").args(["gc"]).run();
        assert_eq!(collected.code(), 0, "{point}: {}", collected.stderr);
        let (images, after) = frozen(&home, slug);
        assert!(
            after == before + 1 || after == before && done.code() != 0,
            "{point}: {before}, then {after}"
        );
        assert_eq!(images.len(), after, "{point}: an image nobody knows");
        assert!(
            !home.state(slug).join("snapshot-journal.json").exists(),
            "{point}: its journal is still open"
        );
        assert_eq!(
            bottle.exec(&["true"]).code(),
            0,
            "{point}: the agent does not go on"
        );
    });
    let removed = home
        .tool("bottle-snapshot")
        .args(["rm", slug, "--all", "--force"])
        .run();
    assert_eq!(removed.code(), 0, "{}", removed.stderr);
}

#[test]
fn import_recovers_from_a_signal_at_any_call() {
    if !need_engine("import_recovers_from_a_signal_at_any_call") {
        return;
    }
    let home = home();
    let slug = home.slug("i");
    let _ = home.up("web", &slug);
    let snapshot = |args: &[&str]| {
        let call = home.tool("bottle-snapshot");
        call.args(args.iter().copied()).run()
    };
    let _ = snapshot(&["commit", &slug]).ok();
    let file = home.cwd().join("moved.tar.zst");
    let path = file.to_str().expect("UTF-8");
    assert_eq!(snapshot(&["export", &slug, "-o", path]).code(), 0);
    let remove = |moved: &str, point: &str| {
        let removed = snapshot(&["rm", moved, "--force"]);
        assert_eq!(removed.code(), 0, "{point}: {}", removed.stderr);
        let down = ["down", moved, "--purge"];
        let _ = home.tool("bottle-run").args(down).run().ok();
    };
    let moved = home.slug("i-moved");
    let whole = FakeDocker::behind(Vec::new());
    let _ = freeze(&home, &whole, &["import", path, "--slug", &moved]).ok();
    remove(&moved, "whole");
    let engines = Mutex::new(Vec::new());
    sweep_part("import", 1..=whole.calls().len(), 1, &|call, signal| {
        let point = format!("import, call {call}, signal {signal}");
        let engine = at(call, signal);
        let done = freeze(&home, &engine, &["import", path, "--slug", &moved]);
        engines.lock().expect("whole").push(engine);
        let collected = snapshot(&["gc"]);
        assert_eq!(collected.code(), 0, "{point}: {}", collected.stderr);
        match frozen(&home, &moved).1 {
            0 => {
                assert_ne!(done.code(), 0, "{point}");
                assert!(!home.state(&moved).exists(), "{point}: half a bottle");
            }
            _ => remove(&moved, &point),
        }
        assert_eq!(frozen(&home, &slug).1, 1, "{point}: the first is harmed");
    });
    remove(&slug, "the end");
}
