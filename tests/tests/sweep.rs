//! Killed at every call of the engine, by every signal: `gc` finds all that is left, and nothing is lost.
//!
//! `BOTTLE_SWEEP=all` sends each signal at each call. Otherwise every call gets SIGKILL and, in turn, one of the others.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bottle_tests::engine::{docker, need_engine, wait_within};
use bottle_tests::fake::{FakeDocker, Logged, Rule, Script};
use bottle_tests::{Done, Home};
use serde_json::{Value, json};

const KILL: i32 = 9;
const OTHERS: [i32; 3] = [15, 2, 1];

/// Side by side: most of this is waiting for the engine.
const AT_ONCE: usize = 3;

fn home() -> Home {
    let home = Home::new();
    home.bottle("web", "image: debian:trixie-slim\n");
    home
}

fn behind(rules: Vec<Rule>) -> FakeDocker {
    FakeDocker::new(&Script {
        rules,
        real: Some("docker".to_owned()),
        ..Script::default()
    })
}

fn at(call: u32, signal: i32) -> FakeDocker {
    behind(vec![Rule {
        call: Some(call),
        kill_parent: Some(signal),
        pass_on: true,
        ..Rule::default()
    }])
}

fn run(home: &Home, engine: &FakeDocker, args: &[&str], stdin: &str) -> Done {
    home.tool("bottle-run")
        .env("BOTTLE_DOCKER", engine.program())
        .args(args.iter().copied())
        .stdin(stdin)
        .run()
}

/// Every point: the number of a call, and the signal that comes there.
fn points(calls: RangeInclusive<usize>) -> Vec<(u32, i32)> {
    let all = std::env::var_os("BOTTLE_SWEEP").is_some_and(|value| value == "all");
    let [first, last] =
        [*calls.start(), *calls.end()].map(|call| u32::try_from(call).expect("few"));
    let signals = |call: u32| -> Vec<i32> {
        let other = OTHERS[call as usize % OTHERS.len()];
        if all {
            [&[KILL], &OTHERS[..]].concat()
        } else {
            vec![KILL, other]
        }
    };
    (first..=last)
        .flat_map(|call| signals(call).into_iter().map(move |signal| (call, signal)))
        .collect()
}

/// Runs `at_point` at each, some side by side, and says how many recovered.
fn sweep(what: &str, calls: usize, at_point: &(dyn Fn(u32, i32) + Sync)) {
    sweep_part(what, 1..=calls, AT_ONCE, at_point);
}

/// The same for some of the calls, so many side by side.
fn sweep_part(
    what: &str,
    calls: RangeInclusive<usize>,
    at_once: usize,
    at_point: &(dyn Fn(u32, i32) + Sync),
) {
    assert!(!calls.is_empty(), "{what}: no calls of the engine");
    let points = points(calls);
    let next = Mutex::new(points.iter());
    let recovered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let point = next.lock().ok().and_then(|mut next| next.next());
                    let Some((call, signal)) = point else { break };
                    at_point(*call, *signal);
                    recovered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    let recovered = recovered.into_inner();
    println!("{what}: {} points, {recovered} recovered", points.len());
    assert_eq!(recovered, points.len(), "{what}");
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

#[test]
fn up_recovers_from_a_signal_at_any_call() {
    if !need_engine("up_recovers_from_a_signal_at_any_call") {
        return;
    }
    let calls = calls_of_up(&home()).len();
    sweep("up", calls, &|call, signal| {
        // A home of its own: `gc` looks at all that is in one.
        up_at("up", &home(), call, signal);
    });
}

/// What is put into a bottle, from the archive of files to the values that a pipe brings: the calls that `up` does not make
/// for a bottle without them, and those that carry more for this one.
#[test]
fn provisioning_recovers_from_a_signal_at_any_call() {
    if !need_engine("provisioning_recovers_from_a_signal_at_any_call") {
        return;
    }
    let full = || {
        let home = Home::with_env(&[("TEST_GIVEN", "given-to-the-agent-0123456789abcdef")]);
        home.bottle(
            "web",
            "image: debian:trixie-slim\nenv: {GIVEN: '${TEST_GIVEN}'}\nskills: [review]\nsupervise: true\n\
             workspace: {from: cwd, mode: copy}\n",
        );
        home.write("skills/review/SKILL.md", "how to review\n");
        fs::write(home.cwd().join("file"), "work\n").expect("written");
        home
    };
    let calls = calls_of_up(&full());
    let first = calls
        .iter()
        .position(|call| call.args.iter().any(|arg| arg == "cp"));
    let first = first.expect("files are copied") + 1;
    sweep_part(
        "provision",
        first..=calls.len(),
        AT_ONCE,
        &|call, signal| {
            up_at("provision", &full(), call, signal);
        },
    );
}

/// The calls of the engine that a whole `up` of the bottle `web` makes.
fn calls_of_up(home: &Home) -> Vec<Logged> {
    let whole = behind(Vec::new());
    let slug = home.slug("u0");
    let file = home.render(&home.plan("web", &slug));
    let _ = run(home, &whole, &["up"], &file).ok();
    home.down(&slug);
    whole.calls()
}

fn up_at(what: &str, home: &Home, call: u32, signal: i32) {
    let slug = home.slug(&format!("u{call}-{signal}"));
    let point = format!("{what}, call {call}, signal {signal}");
    let file = home.render(&home.plan("web", &slug));
    let engine = at(call, signal);
    let done = run(home, &engine, &["up"], &file);
    match done.code() {
        // The signal came after the last moment at which it could still undo: the handle was printed.
        0 => {
            assert_ne!(signal, KILL, "{point}");
            assert_eq!(done.clone().json()["slug"], slug.as_str(), "{point}");
            home.down(&slug);
        }
        137 => assert_eq!(signal, KILL, "{point}: {}", done.stderr),
        code => {
            assert_eq!(
                (code, done.stdout.as_str()),
                (1, ""),
                "{point}: {}",
                done.stderr
            );
            assert_eq!(
                home.left_of(&slug),
                Vec::<String>::new(),
                "{point}, before gc"
            );
        }
    }
    collect(home, &slug, &point);
    nothing_is_left(home, &slug, &point);
}

#[test]
fn down_recovers_from_a_signal_at_any_call() {
    if !need_engine("down_recovers_from_a_signal_at_any_call") {
        return;
    }
    let home = home();
    let whole = behind(Vec::new());
    let first = home.up("web", &home.slug("d0"));
    let _ = run(&home, &whole, &["down", &first.slug], "").ok();
    let calls = whole.calls().len();
    sweep("down", calls, &|call, signal| {
        // A home of its own: `gc` looks at all that is in one.
        let home = &self::home();
        let slug = home.slug(&format!("d{call}-{signal}"));
        let point = format!("down, call {call}, signal {signal}");
        let bottle = home.up("web", &slug);
        // What the audit and the logs are kept for must outlive every way to end.
        assert_eq!(bottle.exec(&["true"]).code(), 0, "{point}");
        let engine = at(call, signal);
        let _ = run(home, &engine, &["down", &slug], "");
        collect(home, &slug, &point);
        nothing_is_left(home, &slug, &point);
        let audit = fs::read_dir(home.state(&slug).join("audit")).expect("the audit");
        assert!(audit.count() > 0, "{point}: the audit is lost");
    });
}

#[test]
fn exec_harms_nothing_when_it_is_killed() {
    if !need_engine("exec_harms_nothing_when_it_is_killed") {
        return;
    }
    let home = home();
    let bottle = home.up("web", &home.slug("e"));
    let whole = behind(Vec::new());
    let args = ["exec", &bottle.slug, "--", "true"];
    let _ = run(&home, &whole, &args, "").ok();
    // The last call is the client that `exec` becomes: whoever called us is its parent.
    let calls = whole.calls().len() - 1;
    sweep("exec", calls, &|call, signal| {
        let point = format!("exec, call {call}, signal {signal}");
        let _ = run(&home, &at(call, signal), &args, "");
        let done = home.tool("bottle-run").args(["gc", "--json"]).run().json();
        assert_eq!(done["removed"], json!([]), "{point}");
        assert_eq!(bottle.exec(&["true"]).code(), 0, "{point}");
    });
}

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
    let count = record["snapshots"].as_array().map_or(0, Vec::len);
    (images, count)
}

#[test]
fn commit_recovers_from_a_signal_at_any_call() {
    if !need_engine("commit_recovers_from_a_signal_at_any_call") {
        return;
    }
    let home = home();
    let bottle = home.up("web", &home.slug("c"));
    let slug = bottle.slug.as_str();
    let whole = behind(Vec::new());
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
    let whole = behind(Vec::new());
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

#[test]
fn a_client_that_hangs_is_ended_and_its_start_undone() {
    if !need_engine("a_client_that_hangs_is_ended_and_its_start_undone") {
        return;
    }
    let home = home();
    for (name, args) in [
        ("networks", &["network", "create"][..]),
        ("start", &["start"]),
    ] {
        let slug = home.slug(&format!("h-{name}"));
        let engine = behind(vec![Rule {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            hang: true,
            ..Rule::default()
        }]);
        let file = home.render(&home.plan("web", &slug));
        let done = home
            .tool("bottle-run")
            .env("BOTTLE_DOCKER", engine.program())
            .env("BOTTLE_DOCKER_TIMEOUT", "5")
            .args(["up"])
            .stdin(file)
            .run();
        assert_eq!(done.code(), 1, "{name}: {}", done.stderr);
        assert!(
            done.stderr.contains("no answer for"),
            "{name}: {}",
            done.stderr
        );
        collect(&home, &slug, name);
        nothing_is_left(&home, &slug, name);
    }
}

#[test]
fn a_full_disk_stops_a_start_and_no_removal() {
    if !need_engine("a_full_disk_stops_a_start_and_no_removal") {
        return;
    }
    let home = home();
    let slug = home.slug("full");
    let bottle = home.up("web", &slug);
    let state = home.path().join("state");
    let Some(disk) = SmallDisk::over(&state) else {
        bottle_tests::engine::note_skipped(
            "a_full_disk_stops_a_start_and_no_removal",
            "no tmpfs can be mounted here",
        );
        home.down(&slug);
        return;
    };
    disk.fill();
    let done = home.tool("bottle-run").args(["down", &slug]).run();
    // The containers are gone whatever the disk says; a file that could not be written is told.
    assert_eq!(home.left_of(&slug), Vec::<String>::new(), "{}", done.stderr);
    let plan = home
        .tool("bottle-plan")
        .args(["web", "--slug", &home.slug("new")])
        .run();
    assert_eq!(
        (plan.code(), plan.stdout.as_str()),
        (1, ""),
        "{}",
        plan.stderr
    );
    assert!(plan.stderr.contains("No space left"), "{}", plan.stderr);
    disk.empty();
    collect(&home, &slug, "full disk");
    drop(disk);
    drop(bottle);
}

/// A tmpfs of 4 MiB over a folder, with what was in it copied in.
struct SmallDisk {
    at: std::path::PathBuf,
    filler: std::path::PathBuf,
}

impl SmallDisk {
    fn over(folder: &std::path::Path) -> Option<Self> {
        let copy = folder.with_extension("copy");
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let done = std::process::Command::new(program).args(args).output();
            done.is_ok_and(|done| done.status.success())
        };
        let (folder_name, copy_name) = (folder.as_os_str(), copy.as_os_str());
        if !run("cp", &["-a".as_ref(), folder_name, copy_name]) {
            return None;
        }
        let mounted = run(
            "mount",
            &[
                "-t".as_ref(),
                "tmpfs".as_ref(),
                "-o".as_ref(),
                "size=4m,mode=0700".as_ref(),
                "small".as_ref(),
                folder_name,
            ],
        );
        if !mounted {
            return None;
        }
        let disk = Self {
            at: folder.to_owned(),
            filler: folder.join(".filler"),
        };
        let all = copy.join(".");
        run("cp", &["-a".as_ref(), all.as_os_str(), folder_name]).then_some(disk)
    }

    fn fill(&self) {
        // Ends with the last byte there is.
        let _ = fs::write(&self.filler, vec![0; 8 << 20]);
    }

    fn empty(&self) {
        fs::remove_file(&self.filler).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(&self.at)
            .output();
    }
}

#[test]
fn a_state_home_that_cannot_be_written_stops_a_start() {
    if !need_engine("a_state_home_that_cannot_be_written_stops_a_start") {
        return;
    }
    let home = home();
    let slug = home.slug("ro");
    let file = home.render(&home.plan("web", &slug));
    let state = home.path().join("state");
    let mount = |args: &[&str]| {
        let done = std::process::Command::new("mount")
            .args(args)
            .arg(&state)
            .output();
        done.is_ok_and(|done| done.status.success())
    };
    let bind = mount(&["--bind", state.to_str().expect("text")]);
    if !bind || !mount(&["-o", "remount,ro,bind"]) {
        bottle_tests::engine::note_skipped(
            "a_state_home_that_cannot_be_written_stops_a_start",
            "nothing can be mounted here",
        );
        return;
    }
    let done = home.tool("bottle-run").args(["up"]).stdin(file).run();
    let _ = std::process::Command::new("umount")
        .arg("--lazy")
        .arg(&state)
        .output();
    assert_eq!(
        (done.code(), done.stdout.as_str()),
        (1, ""),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("Read-only file system"),
        "{}",
        done.stderr
    );
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
}

#[test]
fn an_engine_that_is_stopped_in_the_middle_leaves_nothing_once_it_is_back() {
    if !need_engine("an_engine_that_is_stopped_in_the_middle") {
        return;
    }
    let home = home();
    let slug = home.slug("dead");
    // From the tenth call on, nobody answers.
    let dead = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?";
    let rules = (10..200).map(|call| Rule {
        call: Some(call),
        exit: 1,
        stderr: dead.to_owned(),
        ..Rule::default()
    });
    let engine = behind(rules.collect());
    let file = home.render(&home.plan("web", &slug));
    let done = run(&home, &engine, &["up"], &file);
    assert_eq!(
        (done.code(), done.stdout.as_str()),
        (1, ""),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("Cannot connect"), "{}", done.stderr);
    assert!(done.stderr.contains("hint: "), "{}", done.stderr);
    assert_ne!(
        home.left_of(&slug),
        Vec::<String>::new(),
        "nothing was begun before it was gone"
    );
    collect(&home, &slug, "engine gone");
    nothing_is_left(&home, &slug, "engine gone");
    let _ = docker(["version"]).ok();
}
