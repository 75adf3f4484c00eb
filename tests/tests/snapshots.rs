//! Snapshots on the real engine: frozen, proved, gone on from, forked, moved, and never with a secret inside.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

use bottle_tests::engine::docker;
use bottle_tests::fake::{Rule, Script};
use bottle_tests::second::SecondEngine;
use bottle_tests::snapshot::{killing_at, purge, recorded, resume, sh, snapshot, status, unnamed};
use bottle_tests::{Call, FakeDocker, Home, need_engine};
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

#[test]
fn what_was_built_survives_and_nothing_else_does() {
    if !need_engine("what_was_built_survives_and_nothing_else_does") {
        return;
    }
    let home = home();
    let slug = home.slug("life");
    let bottle = home.up("web", &slug);
    sh(&bottle, "echo built > /workspace/work; echo $$ > ~/dotfile");
    let placeholder = sh(&bottle, "echo $TEST_TOKEN");
    let ca = sh(&bottle, "cat /etc/bottle/egress-ca.pem");
    let sleeper = sh(&bottle, "sleep 1000 >/dev/null 2>&1 & echo $!");

    // The handle on stdin does as well as the name.
    let handle = bottle.handle.to_string();
    let made = home
        .tool("bottle-snapshot")
        .args(["commit", "-", "--message", "first"])
        .stdin(handle)
        .run()
        .json();
    assert_eq!(made["schema"], "bottle.snapshot/v1");
    assert_eq!(
        (&made["number"], &made["message"]),
        (&1.into(), &"first".into())
    );
    assert!(
        made["changes"]["added"]
            .as_u64()
            .is_some_and(|count| count > 0),
        "{made}"
    );
    let proof = &made["proof"];
    let names: Vec<&str> = proof["values"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|value| value["name"].as_str())
        .collect();
    assert_eq!(names, ["GIVEN", "TEST_TOKEN", "the CA's key"]);
    assert!(!proof.to_string().contains(TOKEN));
    // The agent goes on as if nothing had been.
    assert_eq!(status(&bottle), "running");
    sh(&bottle, &format!("kill -0 {}", sleeper.trim()));

    // All the engine keeps of it: no value, in no corner.
    let inspected = docker(["image", "inspect", made["image"].as_str().expect("an id")]).ok();
    assert!(
        !inspected.contains(TOKEN) && !inspected.contains(GIVEN),
        "{inspected}"
    );
    let labels: Value = serde_json::from_str(&inspected).expect("JSON");
    let labels = &labels[0]["Config"]["Labels"];
    assert_eq!(labels["bottle.snapshot.slug"], slug.as_str());
    assert_eq!(labels["bottle.snapshot.plan"], bottle.handle["plan_digest"]);

    home.down(&slug);
    // The policy is today's, and what is different is told.
    home.bottle("web", &WEB.replace("api.example.com", "other.example.com"));
    let (again, said) = resume(&home, &["--resume", &slug], &slug);
    assert!(
        said.contains("other.example.com") && said.contains("going on from the snapshot"),
        "{said}"
    );
    assert_eq!(sh(&again, "cat /workspace/work"), "built\n");
    assert_ne!(sh(&again, "echo $TEST_TOKEN"), placeholder);
    let new_ca = sh(&again, "cat /etc/bottle/egress-ca.pem");
    assert_ne!(new_ca, ca);
    let line = ca.lines().nth(5).expect("a line of the old CA");
    let trusted =
        format!("! grep -rqF '{line}' /etc/ssl/certs /etc/bottle /usr/local/share/ca-certificates");
    sh(&again, &trusted);

    // The second grows from the first, whose layer is proved already.
    let second = snapshot(&home, &["commit", &slug]).json();
    assert_eq!(second["parent"]["id"], made["id"]);
    assert_eq!(
        second["proof"]["inherited"],
        serde_json::json!([made["layers"][1]])
    );
    let verified = snapshot(&home, &["verify", &format!("{slug}@1")]);
    assert!(
        verified.json()["searched"]
            .as_object()
            .is_some_and(|parts| parts.len() > 2)
    );

    // Another bottle from the first, while this one runs.
    let fork = home.slug("fork");
    let from = format!("{slug}@1");
    let (forked, _) = resume(&home, &["--from", &from, "--slug", &fork], &fork);
    assert_eq!(sh(&forked, "cat /workspace/work"), "built\n");
    assert_ne!(sh(&forked, "cat /etc/bottle/egress-ca.pem"), new_ca);
    home.down(&fork);

    // What runs is not removed by accident.
    assert_eq!(snapshot(&home, &["rm", &from]).code(), 5);

    // Nothing to go on from any more: said, and begun again from the image.
    home.down(&slug);
    for one in [&second, &made] {
        let id = one["image"].as_str().expect("an id");
        let _ = docker(["image", "rm", "--force", id]).ok();
    }
    let (fresh, said) = resume(&home, &["--resume", &slug], &slug);
    assert!(said.contains("does not have the snapshot"), "{said}");
    assert_eq!(fresh.exec(&["test", "-e", "/workspace/work"]).code(), 1);
    assert_eq!(snapshot(&home, &["rm", &from]).code(), 0);
    assert_eq!(snapshot(&home, &["rm", &slug]).code(), 5, "the last one");
    assert_eq!(snapshot(&home, &["rm", &slug, "--force"]).code(), 0);
    assert_eq!(unnamed(&slug), Vec::<String>::new());
}

#[test]
fn a_planted_secret_is_found_wherever_it_is() {
    if !need_engine("a_planted_secret_is_found_wherever_it_is") {
        return;
    }
    let home = home();
    let slug = home.slug("plant");
    let bottle = home.up("web", &slug);
    let head = 1_048_576 - 20;
    let plants = [
        ("a file", "printf %s \"$S\" > p".to_owned(), "raw"),
        (
            "base64, first alignment",
            "printf %s \"$S\" | base64 -w0 > p".to_owned(),
            "base64",
        ),
        (
            "base64, second alignment",
            "printf x%s \"$S\" | base64 -w0 > p".to_owned(),
            "base64",
        ),
        (
            "base64, third alignment",
            "printf xx%s \"$S\" | base64 -w0 > p".to_owned(),
            "base64",
        ),
        (
            "base64 in lines",
            "printf 'a line before it, %s' \"$S\" | base64 > p".to_owned(),
            "base64",
        ),
        (
            "hex",
            "printf %s \"$S\" | od -An -tx1 | tr -d ' \\n' > p".to_owned(),
            "hex",
        ),
        (
            "a tar in a file",
            "printf %s \"$S\" > q; tar cf p q; rm q".to_owned(),
            "raw",
        ),
        (
            "a compressed tar",
            "printf %s \"$S\" > q; tar czf p q; rm q".to_owned(),
            "raw",
        ),
        (
            "a border of what is read at once",
            format!("head -c {head} /dev/zero > p; printf %s \"$S\" >> p"),
            "raw",
        ),
        ("the name of a file", "touch \"$S\"".to_owned(), "raw"),
        ("where a link leads", "ln -s \"$S\" p".to_owned(), "raw"),
    ];
    for (place, script, form) in plants {
        // Given by stdin: what is in an argument is in the engine's events.
        let script =
            format!("read -r S; mkdir -p /workspace/planted; cd /workspace/planted; {script}");
        let planted = home
            .tool("bottle-run")
            .args(["exec", &slug, "--", "sh", "-c", &script])
            .stdin(format!("{TOKEN}\n"))
            .run();
        assert_eq!(planted.code(), 0, "{place}: {}", planted.stderr);
        let done = snapshot(&home, &["commit", &slug]);
        assert_eq!(
            (done.code(), done.stdout.as_str()),
            (3, ""),
            "{place}: {}",
            done.stderr
        );
        assert!(
            done.stderr.contains(&format!("TEST_TOKEN ({form})")),
            "{place}: {}",
            done.stderr
        );
        assert!(!done.stderr.contains(TOKEN), "{place}: the value is told");
        if place.starts_with("a border") {
            let told = format!("at byte {head} of workspace/planted/p");
            assert!(done.stderr.contains(&told), "{}", done.stderr);
        }
        assert_eq!(unnamed(&slug), Vec::<String>::new(), "{place}");
        sh(&bottle, "rm -r /workspace/planted");
    }
    let done = snapshot(&home, &["commit", &slug, "--message", TOKEN]);
    assert_eq!(done.code(), 3, "in the message: {}", done.stderr);
    // An environment that was written with it is in the image's configuration, whatever the files are.
    home.bottle(
        "leaky",
        &WEB.replace("GREETING: hello", &format!("GREETING: '{TOKEN}'")),
    );
    let leaky = home.slug("leaky");
    let _leaky = home.up("leaky", &leaky);
    let done = snapshot(&home, &["commit", &leaky]);
    assert_eq!(done.code(), 3, "in the environment: {}", done.stderr);
    assert!(
        done.stderr.contains("the image's configuration"),
        "{}",
        done.stderr
    );
    assert_eq!(unnamed(&leaky), Vec::<String>::new());
    home.down(&leaky);
    // What the agent was given is looked for too, and a clean one is let through after all that.
    sh(&bottle, "printenv GIVEN > /workspace/given");
    assert_eq!(snapshot(&home, &["commit", &slug]).code(), 3);
    assert_eq!(
        snapshot(&home, &["commit", &slug, "--not-secret", "GIVEN"]).code(),
        0
    );

    // A secret that was known to nobody when its layer was made, and is deleted since, is still in that layer.
    sh(
        &bottle,
        "printf late-secret-0123456789abcdef > /workspace/late",
    );
    assert_eq!(
        snapshot(&home, &["commit", &slug, "--not-secret", "GIVEN"]).code(),
        0
    );
    home.down(&slug);
    let (again, _) = resume(&home, &["--resume", &slug], &slug);
    sh(&again, "rm /workspace/late /workspace/given");
    let with = |args: &[&str]| {
        let call = home
            .tool("bottle-snapshot")
            .env("TEST_TOKEN", "late-secret-0123456789abcdef");
        call.args(args.iter().copied()).run()
    };
    let done = with(&["commit", &slug]);
    assert_eq!(done.code(), 3, "{}", done.stderr);
    assert!(done.stderr.contains("workspace/late"), "{}", done.stderr);
    // One layer has no layer below it.
    let done = with(&["commit", &slug, "--squash"]);
    assert_eq!(done.code(), 0, "{}", done.stderr);
}

#[test]
fn who_is_not_asked_is_told_what_there_is() {
    if !need_engine("who_is_not_asked_is_told_what_there_is") {
        return;
    }
    let home = home();
    let slug = home.slug("which");
    let bottle = home.up("web", &slug);
    // Without a terminal of its own the call has none to ask on.
    let program = bottle_tests::tools::tool("bottle-snapshot");
    let done = Call::new("setsid")
        .args(["--wait".into(), program.into_os_string(), "commit".into()])
        .env("BOTTLE_HOME", home.path())
        .env("HOME", home.cwd())
        .run();
    assert_eq!(done.code(), 2, "{}", done.stderr);
    assert!(done.stderr.contains(&slug), "{}", done.stderr);
    assert_eq!(snapshot(&home, &["commit", "no-such"]).code(), 4);

    // A value that is gone is no reason to look for fewer.
    let blind = |args: &[&str]| {
        let call = home
            .tool("bottle-snapshot")
            .env("TEST_TOKEN", "")
            .env("TEST_GIVEN", "");
        call.args(args.iter().copied()).run()
    };
    let plan = bottle.plan();
    assert!(plan.is_object());
    let _ = docker(["rm", "--force", &bottle.egress()]).ok();
    let done = blind(&["commit", &slug]);
    assert_eq!(done.code(), 2, "{}", done.stderr);
    assert!(done.stderr.contains("TEST_TOKEN"), "{}", done.stderr);
    let made = blind(&["commit", &slug, "--allow-missing"]).json();
    assert_eq!(made["proof"]["left_out"][0]["why"], "missing");
}

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
    assert_eq!(
        (done.code(), done.stdout.as_str()),
        (1, ""),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("neither Docker nor Podman"),
        "{}",
        done.stderr
    );
    // No engine at all, by any command that would change something.
    for program in ["/bin/true", "/bin/false", "no-such-engine"] {
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
        assert_eq!(
            (killed.code(), killed.stdout.as_str()),
            (137, ""),
            "at call {moment}: {}",
            killed.stderr
        );
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
fn moved_to_another_engine_it_is_the_same() {
    let name = "moved_to_another_engine_it_is_the_same";
    if !need_engine(name) {
        return;
    }
    let other = match SecondEngine::start() {
        Ok(other) => other,
        Err(why) => return bottle_tests::engine::skip(name, &why),
    };
    let home = home();
    let slug = home.slug("move");
    let bottle = home.up("web", &slug);
    sh(&bottle, "echo moved > /workspace/work");
    let made = snapshot(&home, &["commit", &slug]).json();
    let file = home.cwd().join("moved.tar.zst");
    let path = file.to_str().expect("UTF-8");
    assert_eq!(snapshot(&home, &["export", &slug, "-o", path]).code(), 0);
    assert_eq!(
        snapshot(&home, &["export", &slug, "-o", path]).code(),
        5,
        "never over another file"
    );

    let there = Home::with_env(&[("DOCKER_HOST", &other.host())]);
    let taken = snapshot(&there, &["import", path]).json();
    assert_eq!(
        (&taken["image"], &taken["proof"]),
        (&made["image"], &made["proof"])
    );
    assert_eq!(
        snapshot(&there, &["import", path]).code(),
        5,
        "never over another bottle"
    );
    let tag = taken["tag"].as_str().expect("a name");
    let scratch = other.docker(["create", "--network=none", tag, "true"]).ok();
    let copied = there.cwd().join("work");
    let from = format!("{}:/workspace/work", scratch.trim());
    let _ = other
        .docker(["cp", &from, copied.to_str().expect("UTF-8")])
        .ok();
    assert_eq!(std::fs::read_to_string(&copied).expect("copied"), "moved\n");
    // The bottle is known there under its name, and only the manifest is its owner's to bring.
    let planned = there.tool("bottle-plan").args(["--resume", &slug]).run();
    assert_eq!(planned.code(), 4, "{}", planned.stderr);
    there.bottle("web", WEB);
    let plan = there
        .tool("bottle-plan")
        .args(["--resume", &slug])
        .run()
        .json();
    assert_eq!(plan["resume"]["images"][0]["image"], made["image"]);

    // The same file without our tools.
    let _ = other.docker(["rm", scratch.trim()]).ok();
    assert_eq!(snapshot(&there, &["rm", &slug, "--force"]).code(), 0);
    let plain = there.cwd().join("plain.tar");
    let plain = plain.to_str().expect("UTF-8");
    let _ = Call::new("zstd")
        .args(["-q", "-d", path, "-o", plain])
        .run()
        .ok();
    let _ = other.docker(["load", "--quiet", "--input", plain]).ok();
    let loaded = other
        .docker(["image", "inspect", "--format", "{{.Id}}", tag])
        .ok();
    assert_eq!(loaded.trim(), made["image"].as_str().expect("an id"));

    // Changed on its way: refused, and nothing is left of it.
    let mut bytes = std::fs::read(plain).expect("reads");
    let at = bytes
        .windows(6)
        .position(|window| window == b"moved\n")
        .expect("the file is inside");
    bytes[at] = b'M';
    std::fs::write(plain, bytes).expect("writes");
    let changed = snapshot(&there, &["import", plain, "--slug", "changed"]);
    assert_eq!(changed.code(), 3, "{}", changed.stderr);
    assert!(!there.state("changed").exists());
    let bomb = snapshot(
        &there,
        &["import", path, "--slug", "bomb", "--max-size", "100000"],
    );
    assert_eq!(bomb.code(), 3, "{}", bomb.stderr);
    assert!(!there.state("bomb").exists());
    let junk = there.write("junk", "not an archive");
    assert_eq!(
        snapshot(&there, &["import", junk.to_str().expect("UTF-8")]).code(),
        2
    );
}
