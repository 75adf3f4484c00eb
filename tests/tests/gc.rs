//! What a crash leaves, `gc` removes; what lives, or is somebody else's, it leaves alone.

#![allow(clippy::expect_used, clippy::panic)]

use std::fs;

use bottle_tests::engine::{docker, labelled, need_engine, sweep};
use bottle_tests::fake::{FakeDocker, Rule};
use bottle_tests::{Done, Home};
use serde_json::{Value, json};

fn home() -> Home {
    let home = Home::new();
    home.bottle("web", "image: debian:trixie-slim\n");
    home
}

fn gc(home: &Home, args: &[&str]) -> Value {
    let call = home.tool("bottle-run").args(["gc", "--json"]);
    call.args(args.iter().copied()).run().json()
}

fn names(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("a list");
    let name =
        |found: &Value| format!("{} {}", found["kind"].as_str()?, found["name"].as_str()?).into();
    list.iter().filter_map(name).collect()
}

/// `up`, killed at the call of the engine that has these arguments; the call itself goes on.
fn killed_at(home: &Home, slug: &str, args: &[&str]) -> Done {
    let engine = FakeDocker::killing(9, Rule::for_args(args));
    let compose = home.render(&home.plan("web", slug));
    let done = home
        .tool("bottle-run")
        .env("BOTTLE_DOCKER", engine.program())
        .args(["up"])
        .stdin(compose)
        .run();
    assert_eq!(done.code(), 137, "{}", done.stderr);
    // An orphan of the client looks for its script for as long as it lives, and holds the lock as long.
    let _ = home.tool("bottle-run").args(["list"]).run().ok();
    let lock = fs::File::open(home.state(slug).join("lock")).expect("a lock file");
    lock.lock().expect("the orphan ends");
    done
}

#[test]
fn a_killed_start_is_found_shown_and_removed() {
    if !need_engine("a_killed_start_is_found_shown_and_removed") {
        return;
    }
    let home = home();
    let slug = home.slug("start");
    killed_at(&home, &slug, &["compose", "up"]);
    assert_ne!(home.left_of(&slug), Vec::<String>::new());

    let would = gc(&home, &["--dry-run"]);
    assert_eq!(would["dry_run"], true);
    let would = names(&would["removed"]);
    assert!(
        would.contains(&format!("network bottle-{slug}-internal")),
        "{would:?}"
    );
    assert_ne!(
        home.left_of(&slug),
        Vec::<String>::new(),
        "a dry run removed something"
    );

    let done = gc(&home, &[]);
    assert_eq!(names(&done["removed"]), would);
    assert_eq!(done["failed"], json!([]));
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
    assert!(
        !home.state(&slug).join("egress").exists(),
        "the CA's key is left"
    );
    assert!(
        gc(&home, &[])["removed"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
    // And the slug is as good as new.
    let again = home.up("web", &slug);
    assert_eq!(again.exec(&["true"]).code(), 0);
}

#[test]
fn an_agent_that_was_started_and_never_handed_over_is_dead() {
    if !need_engine("an_agent_that_was_started_and_never_handed_over_is_dead") {
        return;
    }
    let home = home();
    let slug = home.slug("canary");
    killed_at(&home, &slug, &["probe"]);
    let agent = format!("bottle-{slug}-agent");
    let state = docker(["inspect", "--format={{.State.Status}}", &agent]).ok();
    assert_eq!(state.trim(), "running");
    assert!(
        !gc(&home, &[])["removed"]
            .as_array()
            .expect("a list")
            .is_empty()
    );
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
}

#[test]
fn what_lives_is_left_alone() {
    if !need_engine("what_lives_is_left_alone") {
        return;
    }
    let home = home();
    let bottle = home.up("web", &home.slug("alive"));
    let planned = home.slug("planned");
    let _ = home.plan("web", &planned);
    // Somebody else's, with labels that look like ours.
    let label = format!("bottle.test={}", home.slug("theirs"));
    let strangers = home.slug("theirs");
    let labelled_as = format!("--label={label}");
    let _ = docker([
        "network",
        "create",
        &labelled_as,
        "--label=bottle.slug=x",
        "--label=bottle.home=0000",
        &strangers,
    ])
    .ok();

    let done = gc(&home, &[]);
    let kept = done["kept"].as_array().expect("a list");
    assert_eq!(done["removed"], json!([]));
    assert!(
        kept.iter().any(|kept| kept["slug"] == bottle.slug.as_str()),
        "{kept:?}"
    );
    assert_eq!(bottle.exec(&["true"]).code(), 0);
    assert!(
        home.state(&planned).exists(),
        "a reservation of today is gone"
    );
    assert!(docker(["network", "inspect", &strangers]).status.success());
    sweep(&label);
    // One that somebody works on is alive too, whatever its containers do.
    let lock = fs::File::open(home.state(&bottle.slug).join("lock")).expect("a lock file");
    lock.lock().expect("nobody has it");
    let _ = docker(["stop", "--time=1", &bottle.agent()]).ok();
    let done = gc(&home, &[]);
    assert_eq!(done["removed"], json!([]));
    assert_eq!(done["kept"][0]["why"], "somebody is working on it");
    drop(lock);
    // And when nobody does, its agent is dead, and so is it.
    assert!(
        !gc(&home, &[])["removed"]
            .as_array()
            .expect("a list")
            .is_empty()
    );
    assert_eq!(home.left_of(&bottle.slug), Vec::<String>::new());
    assert!(
        home.state(&bottle.slug).join("audit").exists(),
        "the audit is gone"
    );
}

#[test]
fn the_folder_may_be_gone() {
    if !need_engine("the_folder_may_be_gone") {
        return;
    }
    let home = home();
    let slug = home.slug("nofolder");
    killed_at(&home, &slug, &["compose", "up"]);
    let alive = home.up("web", &home.slug("other"));
    fs::remove_dir_all(home.state(&slug)).expect("a folder");
    fs::remove_dir_all(home.state(&alive.slug)).expect("a folder");
    let done = gc(&home, &[]);
    assert_eq!(done["failed"], json!([]));
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
    assert!(!home.state(&slug).exists(), "gc made a folder");
    assert_ne!(
        home.left_of(&alive.slug),
        Vec::<String>::new(),
        "a bottle that runs was removed"
    );
    home.down(&alive.slug);
}

#[test]
fn a_check_that_was_killed_leaves_nothing_for_long() {
    if !need_engine("a_check_that_was_killed_leaves_nothing_for_long") {
        return;
    }
    let home = home();
    // The first probe beside the outside: both bottle and outside are there.
    let engine = FakeDocker::killing(9, Rule::for_args(&["run", "--rm"]));
    let done = home
        .tool("bottle-run")
        .env("BOTTLE_DOCKER", engine.program())
        .args(["check"])
        .run();
    assert_eq!(done.code(), 137, "{}", done.stderr);
    bottle_tests::engine::wait_for("the last client", || {
        gc(&home, &["--dry-run"])["kept"] == json!([])
    });
    let done = gc(&home, &[]);
    assert_eq!(done["failed"], json!([]));
    assert_eq!(labelled(&home.label()), Vec::<String>::new());
    let state = fs::read_dir(home.path().join("state")).expect("a folder");
    let left: Vec<_> = state
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_another_version_began_is_told_and_kept() {
    if !need_engine("what_another_version_began_is_told_and_kept") {
        return;
    }
    let home = home();
    let entry =
        "{\"event\":\"begin\",\"id\":1,\"kind\":\"from-the-future\",\"what\":{\"key\":7}}\n";
    let path = home.write("state/.journal/some-slug.jsonl", entry);
    for folder in [
        home.path().join("state"),
        home.path().join("state/.journal"),
    ] {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("ours");
    }
    let done = home.tool("bottle-run").args(["gc"]).run();
    assert_eq!(done.code(), 1, "{}", done.stderr);
    assert!(
        done.stderr
            .contains("does not know how to undo `from-the-future`"),
        "{}",
        done.stderr
    );
    assert_eq!(fs::read_to_string(&path).expect("still there"), entry);
    assert!(!home.state("some-slug").exists());
}
