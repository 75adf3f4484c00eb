//! Snapshots on their way: by a registry, to Podman, and what a file from a stranger may not do.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bottle_tests::engine::{docker, note_skipped, skip, wait_within};
use bottle_tests::registry::Registry;
use bottle_tests::second::SecondEngine;
use bottle_tests::snapshot::{killing_at, purge, recorded, sh, snapshot, unnamed};
use bottle_tests::{Call, Done, FakeDocker, Home, need_engine, tools};
use serde_json::{Value, json};

const TOKEN: &str = "tok-moved-4b5c6d7e8f90a1b2c3d4e5f6";

const WEB: &str = "\
image: debian:trixie-slim
egress:
  routes:
    - {host: api.example.com, auth: {scheme: Bearer, token_ref: TEST_TOKEN}}
";

/// A home with a bottle that was frozen: its slug, and the snapshot.
fn frozen(name: &str) -> (Home, String, Value) {
    let home = Home::with_env(&[("TEST_TOKEN", TOKEN)]);
    home.bottle("web", WEB);
    let slug = home.slug(name);
    let bottle = home.up("web", &slug);
    sh(&bottle, "echo moved > /workspace/work");
    let made = snapshot(&home, &["commit", &slug]).json();
    (home, slug, made)
}

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

/// What a push or a pull must not leave in the engine.
fn left_in_the_engine(place: &str) -> Vec<String> {
    let repo = place.rsplit_once(':').expect("a tag").0;
    let named = docker(["image", "ls", "--all", "--quiet", repo]).ok();
    let filter = "label=bottle.snapshot.documents";
    let documents = docker(["image", "ls", "--all", "--quiet", "--filter", filter]).ok();
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
    assert_eq!(
        (done.code(), done.stdout.as_str()),
        (0, ""),
        "{}",
        done.stderr
    );
    assert_eq!(left_in_the_engine(&place), Vec::<String>::new());
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
    let scratch = other.docker(["create", "--network=none", tag, "true"]).ok();
    let copied = there.cwd().join("work");
    let from = format!("{}:/workspace/work", scratch.trim());
    let _ = other
        .docker(["cp", &from, copied.to_str().expect("UTF-8")])
        .ok();
    assert_eq!(fs::read_to_string(&copied).expect("copied"), "moved\n");

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
    assert_eq!(left_in_the_engine(&place), Vec::<String>::new());
    assert_eq!(recorded(&home, &slug), 2);

    // Nobody there.
    drop(registry);
    assert_eq!(code(&["push", &slug, &place]), 1);
    assert_eq!(code(&["push", &slug, &place, "--force"]), 1);
    assert_eq!(code(&["push", &slug, "demo:1"]), 2);
    assert_eq!(left_in_the_engine(&place), Vec::<String>::new());
}

#[test]
fn killed_on_the_way_nothing_is_left_by_half() {
    let Some(registry) = registry("killed_on_the_way_nothing_is_left_by_half") else {
        return;
    };
    let (home, slug, _) = frozen("way");
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
                left_in_the_engine(&place).is_empty()
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

/// Podman with a storage of its own.
struct Podman {
    folder: tempfile::TempDir,
}

impl Podman {
    fn new(test: &str) -> Option<Self> {
        let why = if tools::find("podman").is_none() {
            "podman is not installed; apt-get install podman"
        } else if !nix::unistd::geteuid().is_root() {
            "only root can have a storage of Podman's anywhere"
        } else {
            let folder = tempfile::tempdir_in("/var/tmp").expect("a temporary folder");
            let script = format!(
                "#!/bin/sh\nexec podman --root {0}/root --runroot {0}/run --storage-driver overlay \"$@\"\n",
                folder.path().display()
            );
            let program = folder.path().join("podman");
            fs::write(&program, script).expect("a file");
            let _ = Call::new("chmod")
                .args(["0755"])
                .args([&program])
                .run()
                .ok();
            let podman = Self { folder };
            let answers = podman.call(&["info"]);
            if answers.status.success() {
                return Some(podman);
            }
            note_skipped(
                test,
                &format!("podman does not work here: {}", answers.stderr),
            );
            return None;
        };
        note_skipped(test, why);
        None
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("podman")
    }

    fn call(&self, args: &[&str]) -> Done {
        Call::new(self.program()).args(args.iter().copied()).run()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.call(&["rmi", "--all", "--force"]);
        let mounted = self.folder.path().join("root/overlay");
        let _ = Call::new("umount")
            .args(["--quiet", "--lazy"])
            .args([&mounted])
            .run();
    }
}

#[test]
fn podman_loads_what_docker_exported() {
    let test = "podman_loads_what_docker_exported";
    if !need_engine(test) {
        return;
    }
    let Some(podman) = Podman::new(test) else {
        return;
    };
    let (home, slug, made) = frozen("pod");
    let file = home.cwd().join("pod.tar.zst");
    let path = file.to_str().expect("UTF-8");
    assert_eq!(snapshot(&home, &["export", &slug, "-o", path]).code(), 0);
    let id = made["image"].as_str().expect("an id");

    // Without our tools, as it is.
    let _ = podman.call(&["load", "--quiet", "--input", path]).ok();
    let tag = made["tag"].as_str().expect("a name");
    let loaded = podman
        .call(&["image", "inspect", "--format={{.Id}}", tag])
        .ok();
    assert_eq!(format!("sha256:{}", loaded.trim()), id);
    let mounted = podman.call(&["image", "mount", tag]).ok();
    let work = Path::new(mounted.trim()).join("workspace/work");
    assert_eq!(fs::read_to_string(work).expect("it is there"), "moved\n");
    let _ = podman.call(&["image", "unmount", tag]);
    let _ = podman.call(&["rmi", "--force", tag]).ok();

    // With them.
    let there = Home::new();
    let with = |args: &[&str]| {
        let call = there
            .tool("bottle-snapshot")
            .env("BOTTLE_DOCKER", podman.program());
        call.args(args.iter().copied()).run()
    };
    let taken = with(&["import", path]).json();
    assert_eq!(
        (&taken["image"], &taken["proof"]),
        (&made["image"], &made["proof"])
    );
    assert_eq!(with(&["import", path]).code(), 5);
    let proof = with(&["verify", &slug, "--allow-missing"]).json();
    let top = made["layers"][1].as_str().expect("a digest");
    assert!(proof["searched"][top].is_u64(), "{proof:#}");
    let back = there.cwd().join("back.tar.zst");
    let back = back.to_str().expect("UTF-8");
    assert_eq!(with(&["export", &slug, "-o", back]).code(), 0);
    let done = with(&["rm", &slug, "--force"]);
    assert_eq!(done.code(), 0, "{}", done.stderr);
    assert_eq!(podman.call(&["images", "--all", "--quiet"]).ok(), "");
    // And Docker takes back what Podman gave.
    let taken = snapshot(&home, &["import", back, "--slug", "back"]).json();
    assert_eq!(taken["image"], made["image"]);
}

#[test]
fn a_file_of_a_stranger_reaches_nothing() {
    if !need_engine("a_file_of_a_stranger_reaches_nothing") {
        return;
    }
    let (home, slug, made) = frozen("evil");
    let path = home.cwd().join("good.tar.zst");
    let path = path.to_str().expect("UTF-8");
    assert_eq!(snapshot(&home, &["export", &slug, "-o", path]).code(), 0);
    let folder = home.cwd().join("parts");
    fs::create_dir(&folder).expect("a folder");
    let tar = |args: &[&str]| {
        Call::new("tar")
            .args(args.iter().copied())
            .cwd(&folder)
            .run()
            .ok()
    };
    let _ = Call::new("zstd")
        .args(["-q", "-d", path, "-o", "../good.tar"])
        .cwd(&folder)
        .run()
        .ok();
    let _ = tar(&["-xf", "../good.tar"]);
    let names = tar(&["-tf", "../good.tar"]);
    let names: Vec<&str> = names.lines().collect();
    let documents = &names[..2];
    let blobs = &names[2..];
    fs::write(folder.join("extra"), "extra").expect("a file");
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).expect("a link");
    let whole = made["layers"][0]
        .as_str()
        .expect("a digest")
        .replace("sha256:", "blobs/sha256/");
    let edited = |from: &str, to: &str| {
        let text = fs::read_to_string(folder.join(documents[0])).expect("readable");
        assert!(text.contains(from), "{from}: {text}");
        fs::write(folder.join("edited"), text.replacen(from, to, 1)).expect("a file");
    };
    // What comes before the parts, what its names become, and the exit code.
    let as_document = format!("s,^edited$,{},", documents[0]);
    let cases: [(&str, Vec<&str>, &str, i32); 7] = [
        ("up and out", vec!["extra"], "s,^extra$,../../../extra,", 3),
        ("absolute", vec!["extra"], "s,^extra$,/tmp/bottle-extra,", 3),
        ("another name", vec!["extra"], "s,^x$,x,", 3),
        (
            "a link in place of a part",
            vec!["link"],
            &format!("s,^link$,{whole},"),
            2,
        ),
        ("a folder", vec!["blobs"], "s,^x$,x,", 2),
        ("documents behind the parts", vec![], "s,^x$,x,", 2),
        (
            "a part is missing",
            vec![],
            &format!("s,^{whole}$,oci-layout,"),
            2,
        ),
    ];
    for (what, first, transform, code) in cases {
        let order: Vec<&str> = if what.starts_with("documents") {
            blobs.iter().chain(documents).copied().collect()
        } else {
            documents
                .iter()
                .chain(&first)
                .chain(blobs)
                .copied()
                .collect()
        };
        let file = home.cwd().join("evil.tar");
        let flags = [
            "--format=ustar",
            "-P",
            "--no-recursion",
            "--transform",
            transform,
            "-cf",
            "../evil.tar",
        ];
        let _ = tar(&[&flags[..], &order].concat());
        let done = snapshot(
            &home,
            &["import", file.to_str().expect("UTF-8"), "--slug", "evil"],
        );
        assert_eq!(
            (done.code(), done.stdout.as_str()),
            (code, ""),
            "{what}: {}",
            done.stderr
        );
        assert!(!home.state("evil").exists(), "{what}");
        assert!(!Path::new("/tmp/bottle-extra").exists(), "{what}");
    }
    for (from, to, code) in [
        (slug.as_str(), "../../../etc", 2),
        (
            &whole.replace("blobs/sha256/", "sha256:"),
            "../../../../etc/passwd",
            2,
        ),
        (made["id"].as_str().expect("an id"), "0000000000000000", 3),
        ("\"number\": 1", "\"number\": 0", 2),
        ("bottle.snapshot/v1", "bottle.snapshot/v9", 2),
        ("\"slug\":", "\"more\": 1, \"slug\":", 2),
    ] {
        edited(from, to);
        let order: Vec<&str> = ["edited"]
            .iter()
            .chain(&documents[1..])
            .chain(blobs)
            .copied()
            .collect();
        let flags = [
            "--format=ustar",
            "-P",
            "--transform",
            &as_document,
            "-cf",
            "../evil.tar",
        ];
        let _ = tar(&[&flags[..], &order].concat());
        let file = home.cwd().join("evil.tar");
        // With its own name, which is in use: what is wrong must be noticed before.
        let args = ["import", file.to_str().expect("UTF-8"), "--slug", "evil"];
        let args = if from == slug { &args[..2] } else { &args[..] };
        let done = snapshot(&home, args);
        assert_eq!(
            (done.code(), done.stdout.as_str()),
            (code, ""),
            "{to}: {}",
            done.stderr
        );
        assert!(!home.state("evil").exists(), "{to}");
    }
    assert_eq!(recorded(&home, &slug), 1);
    assert_eq!(unnamed(&slug), Vec::<String>::new());
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
    assert_eq!(
        (done.code(), done.stdout.as_str()),
        (1, ""),
        "{}",
        done.stderr
    );
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
    assert_eq!(
        (done.code(), done.stdout.as_str()),
        (1, ""),
        "{}",
        done.stderr
    );
    assert!(!home.state("small").exists());
    let _ = exec("rm /workspace/full").ok();
    let taken = tool(&["import", path, "--slug", "small"]).json();
    assert_eq!(taken["image"], made["image"]);
}
