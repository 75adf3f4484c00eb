//! What `bottle-snapshot` does when the engine, or another command, is at a certain point: with an engine that follows a
//! script.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use bottle_tests::fake::{Rule, Script};
use bottle_tests::{FakeDocker, Home, tools};
use serde_json::{Value, json};

fn says(args: &[&str], stdout: &Value) -> Rule {
    Rule {
        stdout: stdout.to_string(),
        ..Rule::for_args(args)
    }
}

fn fails(args: &[&str], stderr: &str) -> Rule {
    Rule {
        exit: 1,
        stderr: stderr.to_owned(),
        ..Rule::for_args(args)
    }
}

fn image(number: u32) -> String {
    format!("sha256:{number:064}")
}

fn recorded(number: u32) -> Value {
    json!({
        "schema": "bottle.snapshot/v1", "id": format!("{number:016}"), "slug": "s", "number": number,
        "image": image(number), "tag": format!("bottle-snapshot-s:{number}"), "created_at": "2026-11-26T10:00:00Z",
        "agent": "web", "plan_digest": image(0), "layers": [image(0)], "base_layers": 1, "size": 1, "added": 0,
        "changes": {"added": 0, "changed": 0, "deleted": 0},
        "proof": {"searched_at": "2026-11-26T10:00:00Z", "values": [], "forms": [], "patterns": 0, "searched": {}},
    })
}

#[test]
fn a_prune_that_is_refused_has_removed_nothing() {
    let home = Home::new();
    home.bottle("web", "image: debian:trixie-slim\n");
    let _ = home.plan("web", "s");
    let snapshots: Vec<Value> = (1..=3).map(recorded).collect();
    let record = json!({"schema": "bottle.snapshots/v1", "next": 4, "snapshots": snapshots});
    let file = home.state("s").join("snapshots.json");
    fs::write(&file, record.to_string()).expect("written");
    let user = Rule {
        stdout: "somebody\n".to_owned(),
        ..Rule::for_args(&["ps", &format!("--filter=ancestor={}", image(2))])
    };
    let engine = FakeDocker::new(&Script {
        rules: vec![
            user,
            fails(&["image", "inspect"], "Error: No such image: x"),
        ],
        ..Script::default()
    });
    let done = home
        .tool("bottle-snapshot")
        .env("BOTTLE_DOCKER", engine.program())
        .args(["prune", "s", "--keep", "1"])
        .run();
    done.no_product(5, "the second is in use");
    assert!(done.stderr.contains("somebody"), "{}", done.stderr);
    let left: Value = serde_json::from_slice(&fs::read(&file).expect("there")).expect("JSON");
    assert_eq!(left, record);
}

#[test]
fn a_bottle_that_was_started_anew_meanwhile_is_searched_for_its_new_secrets() {
    let home = Home::new();
    home.bottle("web", "image: debian:trixie-slim\n");
    let plan = home.state("s").join("plan.json");
    let started = home.plan("web", "s");
    fs::write(&plan, started).expect("written");
    let (label, value) = home
        .label()
        .split_once('=')
        .map(|(l, v)| (l.to_owned(), v.to_owned()))
        .expect("a label");
    let container = json!([{
        "Id": "c1", "Name": "/bottle-s-agent", "Image": image(1), "State": {"Status": "running", "Paused": false},
        "Config": {"Labels": {label: value}},
    }]);
    let engine = FakeDocker::new(&Script {
        rules: vec![
            Rule {
                stdout: "Docker version 28.2.2, build e6534b4\n".to_owned(),
                ..Rule::for_args(&["--version"])
            },
            says(&["container", "inspect"], &container),
            Rule {
                stdout: json!([{"Id": image(1), "RootFS": {"Layers": [image(2)]}}]).to_string(),
                ..fails(
                    &["image", "inspect"],
                    "Error: No such image: bottle-snapshot-s:1",
                )
            },
            fails(&["exec"], "Error: No such container: bottle-s-agent"),
        ],
        ..Script::default()
    });
    let lock = fs::File::create(home.state("s").join("lock")).expect("a lock file");
    lock.lock().expect("nobody has it");
    let mut child = Command::new(tools::tool("bottle-snapshot"))
        .args(["commit", "s"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.user())
        .env("BOTTLE_HOME", home.path())
        .env("BOTTLE_DOCKER", engine.program())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says something");
    assert!(line.contains("waiting for another command"), "{line}");
    // The other command is a `down` and an `up`.
    home.bottle(
        "web",
        "image: debian:trixie-slim\nenv: {NEW: '${NEW_SECRET}'}\n",
    );
    fs::write(&plan, home.plan("web", "s")).expect("written");
    drop(lock);
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(2), "{rest}");
    assert!(rest.contains("the value of NEW is not to be had"), "{rest}");
}
