//! Engines that cannot freeze, commands that are killed, disks that are full: a snapshot is there, or it is not.

use bottle_tests::engine::skip;
use bottle_tests::fake::{Rule, Script};
use bottle_tests::second::SecondEngine;
use bottle_tests::snapshot::{killing_at, purge, recorded, snapshot, status, unnamed};
use bottle_tests::{Call, FakeDocker, Home, need_engine};

use crate::{GIVEN, TOKEN, home};

#[test]
fn an_engine_that_cannot_freeze_changes_nothing() {
    if !need_engine("an_engine_that_cannot_freeze_changes_nothing") {
        return;
    }
    let home = home();
    let slug = home.slug("other");
    let bottle = home.up("web", &slug);
    let before = std::fs::read(home.state(&slug).join("metadata.json")).expect("it is there");
    let other = FakeDocker::new(&Script {
        rules: vec![Rule {
            stdout: "{\"version\":\"1.0\",\"name\":\"smol\"}\n".to_owned(),
            ..Rule::default()
        }],
        ..Script::default()
    });
    let done = home
        .tool("bottle-snapshot")
        .env("BOTTLE_DOCKER", other.program())
        .args(["commit", &slug])
        .run();
    done.no_product(1, "another engine");
    assert!(
        done.stderr.contains("neither Docker nor Podman"),
        "{}",
        done.stderr
    );
    // No engine at all, by any command that would change something.
    for program in ["/bin/true", "no-such-engine"] {
        for args in [
            &["commit", slug.as_str()][..],
            &["import", "/dev/null"],
            &["push", &slug, "registry.example.com/demo:1"],
            &["pull", "registry.example.com/demo:1"],
        ] {
            let done = home
                .tool("bottle-snapshot")
                .env("BOTTLE_DOCKER", program)
                .args(args.iter().copied())
                .run();
            let seen = (done.code(), done.stdout.as_str());
            assert_eq!(seen, (1, ""), "{program} {args:?}: {}", done.stderr);
            assert!(done.stderr.contains("hint: "), "{program}: {}", done.stderr);
        }
    }
    assert_eq!(
        std::fs::read(home.state(&slug).join("metadata.json")).expect("it is there"),
        before
    );
    assert!(!home.state(&slug).join("snapshots.json").exists());
    assert_eq!(status(&bottle), "running");
}

#[test]
fn killed_at_any_moment_there_is_a_snapshot_or_there_is_none() {
    if !need_engine("killed_at_any_moment_there_is_a_snapshot_or_there_is_none") {
        return;
    }
    let home = home();
    let slug = home.slug("kill");
    let bottle = home.up("web", &slug);
    let with = |engine: &FakeDocker, args: &[&str]| {
        let call = home
            .tool("bottle-snapshot")
            .env("BOTTLE_DOCKER", engine.program());
        call.args(args.iter().copied()).run()
    };
    let whole = killing_at(None);
    let _ = with(&whole, &["commit", &slug]).ok();
    let calls = u32::try_from(whole.calls().len()).expect("few");
    assert!(calls >= 8, "{calls}");
    let mut engines = Vec::new();
    for moment in 1..=calls {
        let before = recorded(&home, &slug);
        let engine = killing_at(Some(moment));
        let killed = with(&engine, &["commit", &slug]);
        killed.no_product(137, &format!("at call {moment}"));
        // Orphans still look for their script.
        engines.push(engine);
        let swept = snapshot(&home, &["gc"]);
        assert_eq!(swept.code(), 0, "at call {moment}: {}", swept.stderr);
        assert_eq!(status(&bottle), "running", "at call {moment}");
        let after = recorded(&home, &slug);
        assert!(after == before || after == before + 1, "at call {moment}");
        assert!(
            !home.state(&slug).join("snapshot-journal.json").exists(),
            "at call {moment}"
        );
        assert_eq!(unnamed(&slug), Vec::<String>::new(), "at call {moment}");
    }

    // The same for an export, which leaves no file of that name.
    let file = home.cwd().join("kill.tar.zst");
    let path = file.to_str().expect("UTF-8");
    for moment in 1..=2 {
        let engine = killing_at(Some(moment));
        let killed = with(&engine, &["export", &slug, "-o", path]);
        assert_eq!(killed.code(), 137, "at call {moment}: {}", killed.stderr);
        engines.push(engine);
        assert!(!file.exists(), "at call {moment}");
    }

    // And for an import, which leaves all of a bottle or nothing.
    assert_eq!(snapshot(&home, &["export", &slug, "-o", path]).code(), 0);
    let moved = home.slug("kill-moved");
    let whole = killing_at(None);
    let _ = with(&whole, &["import", path, "--slug", &moved]).ok();
    let calls = u32::try_from(whole.calls().len()).expect("few");
    purge(&home, &moved);
    for moment in 1..=calls {
        let engine = killing_at(Some(moment));
        let killed = with(&engine, &["import", path, "--slug", &moved]);
        assert_eq!(killed.code(), 137, "at call {moment}: {}", killed.stderr);
        engines.push(engine);
        assert_eq!(snapshot(&home, &["gc"]).code(), 0, "at call {moment}");
        match recorded(&home, &moved) {
            0 => assert!(!home.state(&moved).exists(), "at call {moment}"),
            _ => purge(&home, &moved),
        }
    }
    assert!(recorded(&home, &slug) >= 1, "the earlier ones are intact");
}

#[test]
fn a_full_disk_leaves_nothing_by_half() {
    if !need_engine("a_full_disk_leaves_nothing_by_half") {
        return;
    }
    let home = home();
    let slug = home.slug("full");
    let bottle = home.up("web", &slug);
    assert_eq!(snapshot(&home, &["commit", &slug]).code(), 0);
    let limited = |blocks: u32, args: &str| {
        let program = bottle_tests::tools::tool("bottle-snapshot");
        let script = format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec {} {args}",
            program.display()
        );
        Call::new("bash")
            .args(["-c", &script])
            .env("BOTTLE_HOME", home.path())
            .env("HOME", home.cwd())
            .env("TEST_TOKEN", TOKEN)
            .env("TEST_GIVEN", GIVEN)
            .run()
    };
    let done = limited(0, &format!("commit {slug}"));
    assert_eq!(done.code(), 1, "{}", done.stderr);
    assert_eq!(recorded(&home, &slug), 1);
    assert_eq!(
        (status(&bottle).as_str(), unnamed(&slug).len()),
        ("running", 0)
    );
    let file = home.cwd().join("full.tar.zst");
    let done = limited(2000, &format!("export {slug} -o {}", file.display()));
    assert_eq!(done.code(), 1, "{}", done.stderr);
    assert_eq!(std::fs::read_dir(home.cwd()).expect("lists").count(), 0);
}

#[test]
fn an_engine_whose_disk_is_full_keeps_what_it_has() {
    let test = "an_engine_whose_disk_is_full_keeps_what_it_has";
    if !need_engine(test) {
        return;
    }
    let other = match SecondEngine::start_within(320) {
        Ok(other) => other,
        Err(why) => return skip(test, &why),
    };
    let home = Home::with_env(&[("DOCKER_HOST", &other.host())]);
    home.bottle("web", "image: debian:trixie-slim\n");
    other.lend("debian:trixie-slim");
    let slug = home.slug("small");
    let compose = home.render(&home.plan("web", &slug));
    let _ = other
        .beside(&home, "bottle-run")
        .args(["up"])
        .stdin(compose)
        .run()
        .ok();
    let tool = |args: &[&str]| {
        other
            .beside(&home, "bottle-snapshot")
            .args(args.iter().copied())
            .run()
    };
    let exec = |script: &str| {
        let call = other
            .beside(&home, "bottle-run")
            .args(["exec", &slug, "--", "sh", "-c"]);
        call.args([script]).run()
    };
    let made = tool(&["commit", &slug]).json();
    let file = home.cwd().join("small.tar.zst");
    let path = file.to_str().expect("UTF-8");
    assert_eq!(tool(&["export", &slug, "-o", path]).code(), 0);
    let images = || {
        other
            .docker(["image", "ls", "--all", "--quiet", "--no-trunc"])
            .ok()
    };
    let before = images();
    // So much that it is there once, and not twice.
    let _ = exec("head -c 150000000 /dev/urandom > /workspace/large").ok();
    let done = tool(&["commit", &slug]);
    done.no_product(1, "the disk is full");
    assert!(done.stderr.contains("no space left"), "{}", done.stderr);
    assert_eq!(tool(&["gc"]).code(), 0);
    assert_eq!(images(), before);
    let list = tool(&["--json", "list"]).json();
    assert_eq!(list["snapshots"], serde_json::json!([made]));
    assert!(!home.state(&slug).join("snapshot-journal.json").exists());
    assert_eq!(exec("echo still there").ok(), "still there\n");

    // The first is as it was, and an import that does not fit leaves nothing. (To read it, the engine packs it.)
    let _ = exec("rm /workspace/large").ok();
    assert_eq!(tool(&["verify", &slug]).code(), 0);
    assert_eq!(tool(&["rm", &slug, "--force"]).code(), 0);
    let _ = exec("cat /dev/zero > /workspace/full 2> /dev/null");
    let done = tool(&["import", path, "--slug", "small"]);
    done.no_product(1, "the disk is full");
    assert!(!home.state("small").exists());
    let _ = exec("rm /workspace/full").ok();
    let taken = tool(&["import", path, "--slug", "small"]).json();
    assert_eq!(taken["image"], made["image"]);
}
