//! Reload, drain, audit, and the program around the proxy.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::two::runtime;
use crate::world::{Message, SECRET, Stream, World, ask, get, read_message, slots};

fn route(host: &str) -> Value {
    json!({"source": "demo.yaml:1", "host": host, "ports": [443]})
}

#[test]
fn a_reload_counts_from_the_next_request_on() {
    let world = World::new(&json!([route("api.example.com")]));
    let mut stream = world.tunnel("api.example.com", 443);
    assert_eq!(
        ask(&mut stream, &get("api.example.com", "/", "")).status(),
        200
    );

    fs::write(world.dir.path().join("policy.json"), "{").unwrap();
    let running = world.running.as_ref().unwrap();
    let problem = running.reload(&slots).unwrap_err().to_string();
    assert!(problem.contains("policy.json"), "{problem}");
    assert_eq!(
        ask(&mut stream, &get("api.example.com", "/", "")).status(),
        200
    );

    world.write_policy(&json!([route("other.example.com")]));
    running.reload(&slots).unwrap();
    assert_eq!(
        ask(&mut stream, &get("api.example.com", "/", "")).reason(),
        "host_not_allowed"
    );
    assert_eq!(
        world
            .request("other.example.com", &get("other.example.com", "/", ""))
            .status(),
        200
    );
}

#[test]
fn budgets_hold_and_survive_a_reload() {
    let mut limited = route("api.example.com");
    limited["limits"] = json!({"requests": 3, "bytes_out": 10});
    let world = World::new(&json!([limited.clone()]));
    let mut stream = world.tunnel("api.example.com", 443);
    assert_eq!(
        ask(&mut stream, &get("api.example.com", "/", "")).status(),
        200
    );
    world.write_policy(&json!([limited, route("other.example.com")]));
    world.running.as_ref().unwrap().reload(&slots).unwrap();
    let large = "POST / HTTP/1.1\r\nhost: api.example.com\r\ncontent-length: 11\r\n\r\n12345678901";
    assert_eq!(ask(&mut stream, large).reason(), "limit_bytes_out");
    let mut stream = world.tunnel("api.example.com", 443);
    assert_eq!(
        ask(&mut stream, &get("api.example.com", "/", "")).status(),
        200
    );
    let answer = ask(&mut stream, &get("api.example.com", "/", ""));
    assert_eq!(
        (answer.status(), answer.reason().as_str()),
        (429, "limit_requests")
    );
    let left: Vec<Value> = world.records(4).iter().map(|r| r["left"].clone()).collect();
    let requests: Vec<_> = left.iter().map(|left| left["requests"].clone()).collect();
    assert_eq!(requests, [2, 1, 0, 0]);
    assert_eq!(left[3]["bytes_out"], 10);
}

#[test]
fn stopping_ends_idle_connections_and_keeps_the_records() {
    let mut world = World::new(&json!([route("api.example.com")]));
    let mut stream = world.tunnel("api.example.com", 443);
    assert_eq!(
        ask(&mut stream, &get("api.example.com", "/", "")).status(),
        200
    );
    world.running.take().unwrap().stop();
    assert!(read_message(&mut stream, true).is_none());
    let records = world.records(2);
    assert_eq!(records.len(), 2);
    assert_eq!(records[1]["reason"], "audit_closed");
}

/// What is under way has a while to end by itself, and then ends all the same.
#[test]
fn stopping_waits_for_answers_and_not_for_ever() {
    let mut times = Vec::new();
    for is_endless in [false, true] {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let handler = move |_: &Message, stream: &mut dyn Stream| {
            let length = if is_endless { 100 } else { 4 };
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nab"
            )
            .unwrap();
            stream.flush().unwrap();
            let told = wait.lock().unwrap().recv_timeout(Duration::from_secs(20));
            told.is_ok() && stream.write_all(b"cd").is_ok()
        };
        let mut world = World::with(&json!([route("api.example.com")]), Arc::new(handler));
        let mut stream = world.tunnel("api.example.com", 443);
        stream
            .write_all(get("api.example.com", "/", "").as_bytes())
            .unwrap();
        assert_eq!(read_message(&mut stream, false).unwrap().status(), 200);
        let running = world.running.take().unwrap();
        let proxy = running.bound().proxy;
        let began = Instant::now();
        thread::scope(|scope| {
            let stopping = scope.spawn(|| running.stop());
            // Nobody new is let in meanwhile.
            while TcpStream::connect(proxy).is_ok() {
                assert!(began.elapsed() < Duration::from_secs(20));
                thread::sleep(Duration::from_millis(5));
            }
            if !is_endless {
                assert!(!stopping.is_finished(), "it did not wait");
                go.send(()).unwrap();
            }
            stopping.join().unwrap();
        });
        let took = began.elapsed();
        let mut body = Vec::new();
        let _ = stream.read_to_end(&mut body);
        // Who came at the last moment may be on record too.
        let records = world.records(2);
        let asked = records.iter().find(|record| record["method"] == "GET");
        let asked = &asked.expect("its record")["bytes_in"];
        let expected = if is_endless { "ab" } else { "abcd" };
        assert_eq!(
            (String::from_utf8_lossy(&body), asked),
            (expected.into(), &json!(expected.len())),
            "{records:?}"
        );
        let last = records.last().expect("records");
        assert_eq!(last["reason"], "audit_closed", "{records:?}");
        times.push(took);
        drop(go);
    }
    assert!(times[0] < times[1], "{times:?}");
}

#[test]
fn records_are_chained() {
    let world = World::new(&json!([route("api.example.com")]));
    let mut stream = world.tunnel("api.example.com", 443);
    for _ in 0..5 {
        ask(&mut stream, &get("api.example.com", "/", ""));
    }
    world.records(5);
    let text = fs::read_to_string(world.dir.path().join("audit.jsonl")).unwrap();
    let mut prev = "0".repeat(64);
    for (number, line) in text.lines().enumerate() {
        let record: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&record["prev"], &record["seq"]),
            (&json!(prev), &json!(number))
        );
        let hash = ring::digest::digest(&ring::digest::SHA256, line.as_bytes());
        prev = hash
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
    }
}

fn sidecar(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bottle-sidecar"))
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn check_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.json");
    let file = path.to_str().unwrap();
    fs::write(
        &path,
        crate::world::policy(&json!([route("api.example.com")])).to_string(),
    )
    .unwrap();

    let output = sidecar(&["check", file]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("https://api.example.com:443") && said.contains("(demo.yaml:1)"),
        "{said}"
    );
    let output = sidecar(&["why", file, "GET", "https://api.example.com/x"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &answer["source"]),
        (Some(0), &json!("demo.yaml:1"))
    );
    let output = sidecar(&["why", file, "GET", "https://evil.test/x"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &answer["reason"]),
        (Some(3), &json!("host_not_allowed"))
    );

    fs::write(&path, r#"{"schema":"bottle.policy/v2"}"#).unwrap();
    let output = sidecar(&["check", file]);
    assert_eq!(output.status.code(), Some(2));
    // With the services it is the other of the two programs, whatever its file is called.
    let name = if cfg!(feature = "services") {
        "bottle-services: "
    } else {
        "bottle-sidecar: "
    };
    assert!(String::from_utf8_lossy(&output.stderr).starts_with(name));
}

/// The program itself: starts, is healthy, refuses, reloads, ends with 0.
#[test]
fn the_program() {
    let world = World::new(&json!([route("api.example.com")]));
    let dir = world.dir.path().join("program");
    fs::create_dir(&dir).unwrap();
    for file in ["policy.json", "mitmproxy-ca.pem"] {
        fs::copy(world.dir.path().join(file), dir.join(file)).unwrap();
    }
    let dir = dir.to_str().unwrap();
    let socket = format!("{dir}/status.sock");
    let health = |wait: &str| {
        sidecar(&["health", "--wait", wait, "--status-socket", &socket])
            .status
            .code()
    };
    assert_eq!(health("0"), Some(1));
    let mut child = Command::new(env!("CARGO_BIN_EXE_bottle-sidecar"))
        .args([
            "egress",
            "--config-dir",
            dir,
            "--audit-dir",
            dir,
            "--status-socket",
            &socket,
        ])
        .args([
            "--proxy-port",
            "0",
            "--https-port=0",
            "--http-port",
            "0",
            "--dns-port",
            "0",
        ])
        .env("EGRESS_TOKEN_0", SECRET)
        .spawn()
        .unwrap();
    assert_eq!(health("10"), Some(0));
    let pid = child.id().to_string();
    let signal = |name: &str| {
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    };
    signal("-HUP");
    assert_eq!(health("10"), Some(0));
    signal("-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(health("0"), Some(1));
    std::io::stdout().flush().unwrap();
}

/// What the operator takes back ends, whatever is the matter with the policy's file at that moment.
#[test]
fn a_grant_is_taken_back_while_the_policy_cannot_be_read() {
    let mut world = World::new(&json!([route("api.example.com")]));
    let folder = world.dir.path().join("grants");
    fs::create_dir(&folder).unwrap();
    world.restart();
    let apply = |world: &World| {
        let running = world.running.as_ref().unwrap();
        runtime().block_on(running.apply_grants(&slots))
    };
    let ask = |world: &World| {
        let head = "CONNECT other.example.com:443 HTTP/1.1\r\n\r\n";
        let mut stream = world.proxy();
        stream.write_all(head.as_bytes()).unwrap();
        read_message(&mut stream, false).unwrap().status()
    };
    let grant = json!({
        "schema": "bottle.grant/v1", "id": "g-00000001", "bottle": "demo-abcde", "plan_digest": "d",
        "request": "r-00000001", "request_sha256": "", "by": "somebody", "created_at": "2026-11-26T00:00:00Z",
        "scope": {"kind": "egress", "route": route("other.example.com")},
    });
    assert_eq!(ask(&world), 403);
    let file = folder.join("g-00000001.json");
    fs::write(&file, grant.to_string()).unwrap();
    // Nor is a policy that is being written taken over by the way.
    fs::write(world.dir.path().join("policy.json"), "{").unwrap();
    apply(&world).unwrap();
    assert_eq!(ask(&world), 200);
    fs::remove_file(&file).unwrap();
    apply(&world).unwrap();
    assert_eq!(ask(&world), 403);
    assert!(world.running.as_ref().unwrap().reload(&slots).is_err());
}
