//! Snapshots over a bottle's life: lineage, housekeeping, forks, what goes on after a resume, and at what memory.

use std::fs;
use std::thread;

use bottle_tests::engine::docker;
use bottle_tests::snapshot::{recorded, resume, sh, snapshot, status};
use bottle_tests::terminal::{Terminal, need_tmux};
use bottle_tests::upstream::git_image;
use bottle_tests::{Bottle, Home, Upstream, need_engine, tools};
use serde_json::Value;

const PLAIN: &str = "image: debian:trixie-slim\n";

fn home() -> Home {
    let home = Home::new();
    home.bottle("web", PLAIN);
    home
}

/// The numbers of the snapshots in a document.
fn numbers_of(list: &Value) -> Vec<u64> {
    assert_eq!(list["schema"], "bottle.snapshot-list/v1");
    let snapshots = list["snapshots"].as_array().expect("a list");
    let numbers = snapshots.iter().map(|one| one["number"].as_u64());
    numbers.collect::<Option<_>>().expect("numbers")
}

#[test]
fn each_knows_where_it_comes_from_and_the_old_ones_go() {
    if !need_engine("each_knows_where_it_comes_from_and_the_old_ones_go") {
        return;
    }
    let home = home();
    let slug = home.slug("kin");
    let bottle = home.up("web", &slug);
    let commit = |args: &[&str]| snapshot(&home, &[&["commit", &slug], args].concat()).json();
    let changes = |one: &Value, what: &str| one["changes"][what].as_u64().expect("a number");
    // What it counts itself is what the engine, which is slow at it, would have counted.
    let diff = docker(["diff", &bottle.agent()]).ok();
    let first = commit(&[]);
    for (what, letter) in [("added", 'A'), ("changed", 'C'), ("deleted", 'D')] {
        let told = diff.lines().filter(|line| line.starts_with(letter)).count();
        assert_eq!(changes(&first, what), told as u64, "{what} of {diff}");
    }
    // What a start writes is in the first; the rest is what is done here.
    sh(
        &bottle,
        "cd /workspace; head -c 3000000 /dev/urandom > new; touch a b c",
    );
    let script = "rm /etc/debian_version; echo changed > /etc/issue";
    let _ = docker(["exec", "--user=0", &bottle.agent(), "sh", "-c", script]).ok();
    let second = commit(&["--no-pause", "--message", "three and one"]);
    assert_eq!(second["message"], "three and one");
    assert_eq!(changes(&second, "added"), changes(&first, "added") + 4);
    assert_eq!(changes(&second, "deleted"), changes(&first, "deleted") + 1);
    assert!(changes(&second, "changed") > changes(&first, "changed"));
    let size = |one: &Value| one["added"].as_u64().expect("a number");
    assert!(size(&second) >= size(&first) + 3_000_000, "{second:#}");
    // Both grew from the image; what is started from one of them grows from that one.
    assert_eq!(
        (&first["parent"], &second["parent"]),
        (&Value::Null, &Value::Null)
    );
    home.down(&slug);
    let (again, _) = resume(&home, &["--resume", &format!("{slug}@1")], &slug);
    sh(&again, "echo x > /workspace/x");
    let third = commit(&[]);
    assert_eq!(third["parent"]["number"], 1);
    assert!(again.exec(&["test", "-e", "/workspace/new"]).code() == 1);
    let shown = snapshot(&home, &["show", &format!("{slug}@3")]).json();
    assert_eq!(shown, third);
    let fourth = commit(&["--squash"]);
    assert_eq!(
        (
            fourth["squashed"].as_bool(),
            fourth["layers"].as_array().map(Vec::len)
        ),
        (Some(true), Some(1))
    );
    let table = snapshot(&home, &["list", &slug]).ok();
    assert!(
        table.contains("three and one") && table.lines().count() == 5,
        "{table}"
    );

    // It runs from the first, which therefore stays, and so does the last one.
    let pruned = snapshot(&home, &["prune", &slug, "--keep", "1"]);
    assert_eq!(pruned.code(), 5, "{}", pruned.stderr);
    home.down(&slug);
    assert_eq!(snapshot(&home, &["prune", &slug, "--keep", "0"]).code(), 2);
    let pruned = snapshot(&home, &["--json", "prune", &slug, "--keep", "2"]).json();
    assert_eq!(numbers_of(&pruned), [1, 2]);
    assert_eq!(recorded(&home, &slug), 2);
    let listed = snapshot(&home, &["--json", "list", &slug]).json();
    assert_eq!(numbers_of(&listed), [3, 4]);
    let latest = [
        "image",
        "inspect",
        "--format={{.Id}}",
        &format!("bottle-snapshot-{slug}:latest"),
    ];
    assert_eq!(
        docker(latest).ok().trim(),
        fourth["image"].as_str().expect("an id")
    );
    let removed = snapshot(&home, &["--json", "rm", &slug]).json();
    assert_eq!(numbers_of(&removed), [4]);
    assert_eq!(snapshot(&home, &["rm", &slug]).code(), 5, "the last one");
    let collected = snapshot(&home, &["--json", "gc"]).json();
    assert_eq!(collected["schema"], "bottle.snapshot-gc/v1");
    assert_eq!(collected["recovered"], serde_json::json!([]));
    // A number is never used twice.
    let (last, _) = resume(&home, &["--resume", &slug], &slug);
    assert_eq!(commit(&[])["number"], 5);
    assert_eq!(status(&last), "running");
}

#[test]
fn a_person_chooses_on_the_terminal() {
    let name = "a_person_chooses_on_the_terminal";
    if !need_engine(name) || !need_tmux(name) {
        return;
    }
    let home = home();
    let slugs = ["one", "two"].map(|name| home.slug(name));
    let _bottles: Vec<Bottle> = slugs.iter().map(|slug| home.up("web", slug)).collect();
    let terminal = Terminal::start(&home, "pick", 100, 30);
    // Neither stdin nor stdout is the terminal.
    terminal.types("bottle-snapshot commit < /dev/null > made.json; echo \"done with $?\"");
    terminal.waits_for("freeze which bottle? [1-2]");
    terminal.types("7");
    terminal.types("2");
    terminal.waits_for("done with 0");
    let made = fs::read(home.cwd().join("made.json")).expect("it was written");
    let made: Value = serde_json::from_slice(&made).expect("nothing but the snapshot");
    assert_eq!(made["slug"], slugs[1].as_str());
    assert_eq!(
        (recorded(&home, &slugs[0]), recorded(&home, &slugs[1])),
        (0, 1)
    );
    let refused = home
        .tool("bottle-snapshot")
        .args(["commit", "--no-input"])
        .run();
    assert_eq!(refused.code(), 2, "{}", refused.stderr);
}

#[test]
fn the_front_end_freezes_and_goes_on() {
    if !need_engine("the_front_end_freezes_and_goes_on") {
        return;
    }
    let home = home();
    let slug = home.slug("short");
    let bottle = home.up("web", &slug);
    sh(&bottle, "echo kept > /workspace/work");
    let tools = tools::tool("bottle-run");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", tools.parent().expect("a folder").display());
    let front = |args: &[&str]| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/bottle");
        let call = home.program("setsid").args(["--wait", script]);
        call.args(args.iter().copied()).env("PATH", &path).run()
    };
    let made = front(&["commit", &slug, "--message", "by hand"]).json();
    assert_eq!(made["message"], "by hand");
    let _ = front(&["stop", &slug]).ok();
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
    let resumed = front(&["resume", &slug, "--no-attach"]);
    assert_eq!(resumed.stdout.trim(), slug, "{}", resumed.stderr);
    let again = Bottle::started(&home, &slug, Value::Null);
    assert_eq!(sh(&again, "cat /workspace/work"), "kept\n");
}

#[test]
fn several_begin_from_one_at_once() {
    if !need_engine("several_begin_from_one_at_once") {
        return;
    }
    let home = home();
    let slug = home.slug("root");
    let bottle = home.up("web", &slug);
    sh(&bottle, "echo shared > /workspace/work");
    let made = snapshot(&home, &["commit", &slug]).json();
    let forks: Vec<Bottle> = thread::scope(|scope| {
        let started: Vec<_> = (0..3)
            .map(|number| {
                let (home, slug) = (&home, &slug);
                scope.spawn(move || {
                    let fork = home.slug(&format!("fork{number}"));
                    resume(home, &["--from", slug, "--slug", &fork], &fork).0
                })
            })
            .collect();
        started
            .into_iter()
            .map(|one| one.join().expect("it starts"))
            .collect()
    });
    let mut authorities = vec![sh(&bottle, "cat /etc/bottle/egress-ca.pem")];
    for (number, fork) in forks.iter().enumerate() {
        assert_eq!(sh(fork, "cat /workspace/work"), "shared\n");
        sh(fork, &format!("echo {number} > /workspace/work"));
        authorities.push(sh(fork, "cat /etc/bottle/egress-ca.pem"));
    }
    // Each on its own, with a CA of its own.
    for (number, fork) in forks.iter().enumerate() {
        assert_eq!(sh(fork, "cat /workspace/work"), format!("{number}\n"));
    }
    authorities.sort();
    authorities.dedup();
    assert_eq!(authorities.len(), 4);
    let child = snapshot(&home, &["commit", &forks[0].slug]).json();
    assert_eq!(child["parent"]["id"], made["id"]);
    for fork in &forks {
        home.down(&fork.slug);
    }
}

#[test]
fn mirrors_and_audit_go_on_after_a_resume() {
    if !need_engine("mirrors_and_audit_go_on_after_a_resume") {
        return;
    }
    let home = Home::new();
    let upstream = Upstream::start(&home);
    upstream.repository("demo");
    let host = "git.example.com";
    home.bottle(
        "gated",
        &format!(
            "image: {}\ngit-gate:\n  user: {{name: Agent, email: agent@example.com}}\n  repos:\n    demo:\n      url: {}\n      host_key: \"{}\"\n      key: {{provider: static, path: {}}}\n",
            git_image(),
            upstream.url(host, "demo"),
            upstream.host_key,
            upstream.key.display()
        ),
    );
    let slug = home.slug("gate");
    let network = format!("bottle-{slug}-egress");
    let bottle = home.up("gated", &slug);
    upstream.join(&network, &[host]);
    let url = upstream.url(host, "demo");
    let push = "git push -q origin agent/work 2>&1";
    sh(
        &bottle,
        &format!(
            "set -e; git clone -q {url} ~/demo; cd ~/demo; git checkout -qb agent/work; echo 1 > one; git add .; git commit -qm one; {push}"
        ),
    );
    let asked = |bottle: &Bottle| {
        // A request that is denied, and on record.
        let egress = bottle.address("/networks/addresses/egress");
        let request =
            r"CONNECT denied.example.net:443 HTTP/1.1\r\nHost: denied.example.net:443\r\n\r\n";
        let script =
            format!("exec 3<>/dev/tcp/{egress}/3128; printf '{request}' >&3; head -n 1 <&3");
        bottle.exec(&["bash", "-c", &script]).ok()
    };
    assert!(asked(&bottle).contains("403"));
    assert_eq!(snapshot(&home, &["commit", &slug]).code(), 0);
    upstream.leave(&network);
    home.down(&slug);
    let audit = |folder: &str| -> Vec<Value> {
        let text = fs::read_to_string(home.state(&slug).join(folder).join("audit.jsonl"));
        let text = text.expect("the audit");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let before = audit("audit");
    let mirror = || {
        let found = bottle_tests::Call::new("git")
            .args(["-c", "safe.directory=*", "--git-dir"])
            .args([home.state(&slug).join("git-gate/mirrors/demo.git")])
            .args(["count-objects"])
            .run();
        found.ok()
    };
    let objects = mirror();

    let (again, _) = resume(&home, &["--resume", &slug], &slug);
    upstream.join(&network, &[host]);
    assert_eq!(mirror(), objects, "the mirror began anew");
    // The clone the agent had, by the gate it had, to the same branch.
    sh(
        &again,
        &format!(
            "set -e; cd ~/demo; git fetch -q; echo 2 > two; git add .; git commit -qm two; {push}"
        ),
    );
    let here = sh(&again, "git -C ~/demo rev-parse HEAD");
    assert_eq!(upstream.oid("demo", "refs/heads/agent/work"), here.trim());
    assert!(asked(&again).contains("403"));
    upstream.leave(&network);
    home.down(&slug);
    let after = audit("audit");
    assert_eq!(after[..before.len()], before[..]);
    assert!(after.len() > before.len());
    let verified = home
        .tool("bottle-run")
        .args(["audit", "verify", &slug])
        .run();
    assert_eq!(verified.code(), 0, "{}{}", verified.stdout, verified.stderr);
}

/// Calls `bottle-snapshot` and gives the most memory it had, in KiB; its own, not that of the engine's client.
fn most_memory(home: &Home, args: &str) -> u64 {
    let program = tools::tool("bottle-snapshot");
    let script = format!(
        "{} {args} > made & pid=$!; while grep VmHWM /proc/$pid/status 2> /dev/null; do sleep 0.02; done; wait $pid",
        program.display()
    );
    let text = home.program("bash").args(["-c", &script]).run().ok();
    let last = text.lines().last().expect("it was seen running");
    let number = last.split_whitespace().nth(1).expect("a number");
    number.parse().expect("a number")
}

/// `BOTTLE_LARGE` MiB, 96 unless given: what is slow about more is the debug build.
#[test]
fn a_large_layer_takes_no_more_memory_than_a_small_one() {
    if !need_engine("a_large_layer_takes_no_more_memory_than_a_small_one") {
        return;
    }
    let large = std::env::var("BOTTLE_LARGE").unwrap_or_else(|_| "96".to_owned());
    let home = home();
    let slug = home.slug("mem");
    let bottle = home.up("web", &slug);
    let measured = |size: &str, number: u32| -> Vec<(&str, u64)> {
        sh(
            &bottle,
            &format!("head -c {size}M /dev/urandom > /workspace/large"),
        );
        let file = format!("{number}.tar.zst");
        let moved = home.slug(&format!("mem{number}"));
        let found = vec![
            ("commit", most_memory(&home, &format!("commit {slug}"))),
            ("verify", most_memory(&home, &format!("verify {slug}"))),
            (
                "export",
                most_memory(&home, &format!("export {slug} -o {file}")),
            ),
            (
                "import",
                most_memory(&home, &format!("import {file} --slug {moved}")),
            ),
        ];
        fs::remove_file(home.cwd().join(file)).expect("it was written");
        found
    };
    let small = measured("1", 1);
    let much = measured(&large, 2);
    println!("KiB at 1 MiB: {small:?}; at {large} MiB: {much:?}");
    for ((what, small), (_, much)) in small.into_iter().zip(much) {
        assert!(
            much < small + 24 * 1024,
            "{what}: {small} KiB, then {much} KiB"
        );
    }
}
