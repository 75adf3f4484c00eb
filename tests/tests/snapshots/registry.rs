//! A snapshot by way of a registry, which is not believed.

use std::time::Duration;

use bottle_tests::engine::{docker, note_skipped, skip, wait_within};
use bottle_tests::fake::Rule;
use bottle_tests::registry::Registry;
use bottle_tests::second::SecondEngine;
use bottle_tests::snapshot::{killing_at, purge, recorded, snapshot, unnamed};
use bottle_tests::{Call, Done, FakeDocker, Home, need_engine};
use serde_json::{Value, json};

use crate::{frozen, home, work_in};

fn registry(test: &str) -> Option<Registry> {
    if !need_engine(test) {
        return None;
    }
    match Registry::start() {
        Ok(registry) => Some(registry),
        Err(why) => {
            note_skipped(test, &why);
            None
        }
    }
}

const DOCUMENTS: &str = "bottle.snapshot.documents";

/// What a push or a pull of a snapshot must not leave in the engine.
fn left_in_the_engine(place: &str, made: &Value) -> Vec<String> {
    let repo = place.rsplit_once(':').expect("a tag").0;
    let named = docker(["image", "ls", "--all", "--quiet", repo]).ok();
    let id = made["id"].as_str().expect("an id");
    let filter = format!("label={DOCUMENTS}={id}");
    let documents = docker(["image", "ls", "--all", "--quiet", "--filter", &filter]).ok();
    named
        .lines()
        .chain(documents.lines())
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_is_pushed_here_is_pulled_there() {
    let test = "what_is_pushed_here_is_pulled_there";
    let Some(mut registry) = registry(test) else {
        return;
    };
    let other = match SecondEngine::start() {
        Ok(other) => other,
        Err(why) => return skip(test, &why),
    };
    registry.beside(&other);
    let (home, slug, made) = frozen("push");
    let place = registry.place("team/demo:1");
    let done = snapshot(&home, &["push", &slug, &place]);
    done.no_product(0, "push");
    // Once more, for a program: there it is already.
    let again = snapshot(&home, &["--json", "push", &slug, &place]).json();
    assert_eq!(again, made);
    assert_eq!(left_in_the_engine(&place, &made), Vec::<String>::new());
    assert!(!home.state(&slug).join("snapshot-journal.json").exists());

    let there = Home::with_env(&[("DOCKER_HOST", &other.host())]);
    let taken = snapshot(&there, &["pull", &place]).json();
    for part in ["id", "image", "layers", "proof", "plan_digest", "changes"] {
        assert_eq!(taken[part], made[part], "{part}");
    }
    let images = other
        .docker(["image", "ls", "--all", "--format={{.Repository}}"])
        .ok();
    let name = format!("bottle-snapshot-{slug}");
    assert!(images.lines().all(|line| line == name), "{images}");
    let tag = taken["tag"].as_str().expect("a name");
    assert_eq!(work_in(&other, tag), "moved\n");

    // Never over another bottle; and what it may do is for the manifests of the host it is on to say.
    let again = snapshot(&there, &["pull", &place]);
    assert_eq!(again.code(), 5, "{}", again.stderr);
    let resume = || there.tool("bottle-plan").args(["--resume", &slug]).run();
    assert_eq!(resume().code(), 4);
    there.bottle("web", "image: debian:trixie-slim\n");
    let plan = resume().json();
    assert_eq!(plan["resume"]["images"][0]["image"], made["image"]);
    assert_eq!(plan["egress"]["routes"], json!([]));
    let second = snapshot(&there, &["pull", &place, "--slug", "renamed"]).json();
    assert_eq!(second["tag"], "bottle-snapshot-renamed:1");
    let proof = snapshot(&there, &["verify", "renamed", "--allow-missing"]).json();
    assert!(
        proof["searched"]
            .as_object()
            .is_some_and(|parts| parts.len() > 2)
    );
}

#[test]
fn a_registry_is_not_believed_and_not_overwritten() {
    let test = "a_registry_is_not_believed_and_not_overwritten";
    let Some(registry) = registry(test) else {
        return;
    };
    let (home, slug, made) = frozen("strange");
    let first = format!("{slug}@1");
    let place = registry.place("demo:1");
    let code = |args: &[&str]| {
        let done = snapshot(&home, args);
        assert!(
            done.code() == 0 || done.stderr.contains("hint: "),
            "{args:?}: {}",
            done.stderr
        );
        done.code()
    };
    assert_eq!(code(&["push", &first, &place]), 0);
    // Once more does no harm; another snapshot there would.
    assert_eq!(code(&["push", &first, &place]), 0);
    assert_eq!(snapshot(&home, &["commit", &slug]).code(), 0);
    assert_eq!(code(&["push", &slug, &place]), 5);
    assert_eq!(code(&["push", &slug, &place, "--force"]), 0);
    let taken = snapshot(&home, &["pull", &place, "--slug", "forced"]).json();
    assert_eq!(taken["number"], 2);
    purge(&home, "forced");

    // Nothing there, half of it, and something else in its place.
    assert_eq!(
        code(&["pull", &registry.place("demo:none"), "--slug", "none"]),
        4
    );
    let stranger = registry.place("demo:plain");
    let _ = docker(["tag", made["image"].as_str().expect("an id"), &stranger]).ok();
    let _ = docker(["push", "--quiet", &stranger]).ok();
    let _ = docker(["rmi", &stranger]).ok();
    assert_eq!(code(&["pull", &stranger, "--slug", "plain"]), 4);
    let _ = docker(["tag", "debian:trixie-slim", &place]).ok();
    let _ = docker(["push", "--quiet", &place]).ok();
    assert_eq!(
        code(&["pull", &place, "--slug", "here"]),
        5,
        "a name of somebody's"
    );
    let _ = docker(["rmi", &place]).ok();
    assert_eq!(code(&["pull", &place, "--slug", "swapped"]), 3);
    assert_eq!(code(&["push", &slug, &place]), 5);
    for name in ["none", "plain", "here", "swapped"] {
        assert!(!home.state(name).exists(), "{name}");
    }
    assert_eq!(left_in_the_engine(&place, &made), Vec::<String>::new());
    assert_eq!(recorded(&home, &slug), 2);

    // Nobody there.
    drop(registry);
    assert_eq!(code(&["push", &slug, &place]), 1);
    assert_eq!(code(&["push", &slug, &place, "--force"]), 1);
    assert_eq!(code(&["push", &slug, "demo:1"]), 2);
    assert_eq!(left_in_the_engine(&place, &made), Vec::<String>::new());
}

#[test]
fn killed_on_the_way_nothing_is_left_by_half() {
    let Some(registry) = registry("killed_on_the_way_nothing_is_left_by_half") else {
        return;
    };
    let (home, slug, made) = frozen("way");
    let place = registry.place("demo:1");
    let with = |engine: &FakeDocker, args: &[&str]| -> Done {
        let call = home
            .tool("bottle-snapshot")
            .env("BOTTLE_DOCKER", engine.program());
        call.args(args.iter().copied()).run()
    };
    let pull = ["pull", place.as_str(), "--slug", "way"];
    let mut engines = Vec::new();
    for args in [
        &["push", slug.as_str(), place.as_str(), "--force"][..],
        &pull,
    ] {
        let whole = killing_at(None);
        let _ = with(&whole, args).ok();
        let calls = u32::try_from(whole.calls().len()).expect("few");
        assert!(calls >= 6, "{calls}");
        for moment in 1..=calls {
            let at = format!("{} at call {moment}", args[0]);
            if args[0] == "pull" && home.state("way").exists() {
                purge(&home, "way");
            }
            let engine = killing_at(Some(moment));
            let killed = with(&engine, args);
            assert_eq!(killed.code(), 137, "{at}: {}", killed.stderr);
            // Orphans still look for their script.
            engines.push(engine);
            // One of them may still be pulling the documents, of which no bottle knows yet.
            wait_within(Duration::from_secs(60), &at, || {
                let swept = snapshot(&home, &["gc"]);
                assert_eq!(swept.code(), 0, "{at}: {}", swept.stderr);
                left_in_the_engine(&place, &made).is_empty()
            });
            assert!(
                recorded(&home, "way") == 1 || !home.state("way").exists(),
                "{at}"
            );
            assert_eq!(unnamed(&slug), Vec::<String>::new(), "{at}");
            assert_eq!(recorded(&home, &slug), 1, "{at}");
        }
    }
}

/// The engine is everybody's: what another home has on its way is not ours to remove.
#[test]
fn gc_leaves_what_another_home_is_pulling() {
    if !need_engine("gc_leaves_what_another_home_is_pulling") {
        return;
    }
    let name = format!("localhost/bottle-test-{}:1-documents", std::process::id());
    let label = format!("--change=LABEL {DOCUMENTS}=\"somebody\"");
    let import = Call::new("docker").args(["image", "import", label.as_str(), "-", name.as_str()]);
    let an_empty_archive = vec![0; 1024];
    let _ = import.stdin(an_empty_archive).run().ok();
    let _ = snapshot(&home(), &["gc"]).ok();
    let there = docker(["image", "rm", &name]);
    assert_eq!(there.code(), 0, "{}", there.stderr);
}

#[test]
fn a_range_without_tls_is_looked_at_without_tls() {
    if !need_engine("a_range_without_tls_is_looked_at_without_tls") {
        return;
    }
    let (home, slug, _) = frozen("range");
    for (range, insecure) in [("192.0.2.0/24", true), ("198.51.100.0/24", false)] {
        let configured =
            json!({"InsecureRegistryCIDRs": [range, "127.0.0.0/8"], "IndexConfigs": {}});
        let engine = FakeDocker::behind(vec![
            Rule {
                stdout: configured.to_string(),
                ..Rule::for_args(&["info", "--format={{json .RegistryConfig}}"])
            },
            // Something else is there, so that nothing is pushed.
            Rule {
                stdout: "{}".to_owned(),
                ..Rule::for_args(&["manifest", "inspect"])
            },
        ]);
        let done = home
            .tool("bottle-snapshot")
            .env("BOTTLE_DOCKER", engine.program())
            .args(["push", &slug, "192.0.2.7:5000/demo:1"])
            .run();
        done.no_product(5, range);
        let calls = engine.calls();
        let mut looks = calls.iter().filter(|call| call.args[0] == "manifest");
        let look = looks.next().expect("it looked what is there");
        let without_tls = look.args.iter().any(|arg| arg == "--insecure");
        assert_eq!(without_tls, insecure, "{range}: {:?}", look.args);
    }
}
