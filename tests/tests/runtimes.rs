//! Other runtimes and other engines: the same check, on an engine of the test's own.

#![allow(clippy::expect_used, clippy::panic)]

use bottle_tests::engine::{need_engine, note_skipped};
use bottle_tests::second::SecondEngine;
use bottle_tests::{Done, Home};
use serde_json::Value;

const IMAGE: &str = "debian:trixie-slim";

fn engine(test: &str) -> Option<SecondEngine> {
    if !need_engine(test) {
        return None;
    }
    match SecondEngine::start() {
        Ok(engine) => {
            engine.lend(IMAGE);
            Some(engine)
        }
        Err(why) => {
            note_skipped(test, &why);
            None
        }
    }
}

fn failed(done: &Done) -> Vec<String> {
    let card: Value = serde_json::from_str(&done.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", done.stderr));
    let lines = card["lines"].as_array().expect("lines").iter();
    let failed = lines.filter(|line| line["verdict"] == "fail");
    failed
        .map(|line| format!("{}/{}: {}", line["category"], line["name"], line["seen"]))
        .collect()
}

#[test]
fn under_gvisor_the_same_check_passes() {
    let test = "under_gvisor_the_same_check_passes";
    let Some(engine) = engine(test) else { return };
    if !engine.has_runsc() {
        note_skipped(test, "there is no runsc; scripts/setup --tests installs it");
        return;
    }
    let home = Home::new();
    let done = engine
        .beside(&home, "bottle-run")
        .args(["check", "--json"])
        .run();
    assert_eq!(failed(&done), Vec::<String>::new());
    assert_eq!(done.code(), 0, "{}", done.stderr);
    let card: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert!(
        card["on"]["runtime"]
            .as_str()
            .is_some_and(|name| name.starts_with("runsc")),
        "{card:#}"
    );
    let left = engine.docker(["ps", "--all", "--quiet"]);
    assert_eq!(left.stdout, "");
}

#[test]
fn an_engine_without_the_runtime_says_what_it_has() {
    let test = "an_engine_without_the_runtime_says_what_it_has";
    if !need_engine(test) {
        return;
    }
    let home = Home::new();
    home.bottle("web", "image: debian:trixie-slim\nruntime: kata\n");
    let file = home.render(&home.plan("web", &home.slug("kata")));
    let done = home.tool("bottle-run").args(["up"]).stdin(file).run();
    done.no_product(2, "no Kata");
    assert!(
        done.stderr.contains("has no runtime `kata`"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("runc"), "{}", done.stderr);
    assert!(done.stderr.contains("\nhint: "), "{}", done.stderr);
}

#[test]
fn an_engine_that_crashes_under_a_bottle_leaves_nothing_once_it_is_back() {
    let test = "an_engine_that_crashes_under_a_bottle";
    let Some(mut engine) = engine(test) else {
        return;
    };
    let home = Home::new();
    home.bottle("web", "image: debian:trixie-slim\nruntime: runc\n");
    let slug = home.slug("crash");
    let file = home.render(&home.plan("web", &slug));
    let _ = engine
        .beside(&home, "bottle-run")
        .args(["up"])
        .stdin(file)
        .run()
        .ok();
    engine.crash();
    let dead = engine.docker(["version"]);
    assert!(!dead.status.success());
    let told = home
        .tool("bottle-run")
        .env("DOCKER_HOST", engine.host())
        .args(["down", &slug])
        .run();
    assert_eq!(told.code(), 1, "{}", told.stderr);
    assert!(told.stderr.contains("hint: "), "{}", told.stderr);
    engine.crash_and_return();
    // The removal that could not be made is begun, and is finished now.
    let done = engine
        .beside(&home, "bottle-run")
        .args(["gc", "--json"])
        .run()
        .json();
    assert_eq!(done["failed"], serde_json::json!([]), "{done:#}");
    let left = engine.docker([
        "ps",
        "--all",
        "--quiet",
        "--filter",
        &format!("label={}", home.label()),
    ]);
    assert_eq!(left.stdout, "");
    assert!(!home.state(&slug).join("egress").exists());
}
