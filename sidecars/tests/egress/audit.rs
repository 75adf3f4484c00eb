//! The audit under stress: floods, full files, a full disk, a crash.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bottle_plan::audit::{CURRENT_FILE, Decision, Record, closed_file, hash, parse};
use bottle_sidecar::AuditLimits;
use bottle_sidecar::egress::{Running, start};
use serde_json::json;

use crate::world::{Message, World, connect, read_message, settings, slots};

/// A request that is refused. Each host is a kind of denial of its own, so different ones are not counted as a flood.
fn denied(host: impl std::fmt::Display) -> String {
    format!("GET http://{host}.test/x HTTP/1.1\r\nhost: {host}.test\r\n\r\n")
}

fn world() -> World {
    World::new(&json!([{"source": "demo.yaml:1", "host": "api.example.com", "ports": [443]}]))
}

/// A second proxy in the same world, with an audit of its own.
fn proxy(world: &World, audit: &Path, limits: AuditLimits) -> Running {
    let mut settings = settings(world.dir.path());
    settings.audit_dir = audit.to_owned();
    settings.audit_limits = Some(limits);
    settings.status_socket = world.dir.path().join("second.sock");
    start(settings, Box::new(world.network.clone()), &slots).unwrap()
}

fn ask(running: &Running, raw: &str) -> Message {
    let mut stream = connect(running.bound().proxy);
    stream.write_all(raw.as_bytes()).unwrap();
    read_message(&mut stream, true).expect("no answer")
}

/// Every record of every file, oldest first; panics where the chain breaks within what is there.
fn chain(folder: &Path) -> Vec<Record<'static>> {
    let closed = (1..200).map(closed_file).map(|name| folder.join(name));
    let files = closed.chain([folder.join(CURRENT_FILE)]);
    let (mut prev, mut records) = (None, Vec::new());
    for text in files.filter_map(|file| fs::read(file).ok()) {
        for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            if let Some(record) = parse(line) {
                if let Some(prev) = &prev {
                    assert_eq!(record.prev, *prev);
                }
                records.push(record);
            }
            prev = Some(hash(line));
        }
    }
    records
}

#[test]
fn a_flood_of_denials_is_counted() {
    let world = world();
    let audit = tempfile::tempdir().unwrap();
    let running = proxy(&world, audit.path(), AuditLimits::default());
    let mut stream = connect(running.bound().proxy);
    for _ in 0..3000 {
        stream.write_all(denied("evil").as_bytes()).unwrap();
        assert_eq!(
            read_message(&mut stream, true).unwrap().reason(),
            "host_not_allowed"
        );
    }
    drop(stream);
    running.stop();
    let records = chain(audit.path());
    assert!(records.len() < 100, "{}", records.len());
    let denials = records
        .iter()
        .filter(|record| record.decision == Decision::Deny);
    assert_eq!(denials.map(|record| record.count).sum::<u64>(), 3000);
    let summary = records.iter().find(|record| record.count > 1).unwrap();
    assert_eq!(summary.host.as_deref(), Some("evil.test"));
    assert_eq!(summary.path, None);
}

#[test]
fn full_files_are_closed_and_the_oldest_removed() {
    let world = world();
    let audit = tempfile::tempdir().unwrap();
    let limits = AuditLimits {
        file_bytes: 4000,
        files: 3,
    };
    for _ in 0..2 {
        let running = proxy(&world, audit.path(), limits);
        for n in 0..40 {
            ask(&running, &denied(n));
        }
        running.stop();
    }
    assert_eq!(fs::read_dir(audit.path()).unwrap().count(), 3);
    let records = chain(audit.path());
    let first = &records[0];
    assert!(first.seq > 0);
    let word = records.iter().filter_map(|record| record.dropped.as_ref());
    assert!(
        word.clone()
            .any(|word| word.through + 1 == first.seq && word.hash == first.prev),
        "{first:?}"
    );
}

/// A mount that does not outlive its test.
struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Needs a file system that can be filled, so it needs root.
#[test]
fn a_full_disk_stops_everything_until_there_is_room() {
    let world = world();
    let audit = tempfile::tempdir().unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k,mode=700", "none"])
        .arg(audit.path())
        .stderr(Stdio::null())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        // Past libtest's capture: a test that tests nothing must be seen.
        let mut stderr = std::io::stderr();
        let _ = writeln!(
            stderr,
            "SKIPPED: a_full_disk_… cannot mount a tmpfs here (needs root)"
        );
        return;
    }
    let _mount = Mount(audit.path());
    let running = proxy(&world, audit.path(), AuditLimits::default());
    assert_eq!(ask(&running, &denied("first")).reason(), "host_not_allowed");
    let ballast = audit.path().join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[b'x'; 4096]).is_ok() {}
    drop(file);

    // Some more lines may fit into the page the file already has.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut host = 0;
    let mut next = || {
        host += 1;
        (host, ask(&running, &denied(host)))
    };
    let full = loop {
        let (tries, answer) = next();
        if answer.reason() == "audit_unavailable" {
            break answer;
        }
        // Far fewer than the writer's queue has places: it is the failed write that closes the gate.
        assert!(tries < 200, "nothing was refused");
    };
    assert_eq!(full.status(), 503);
    // Tunnels to allowed destinations too: nothing is connected to.
    let before = world.network.log().len();
    let connect = "CONNECT api.example.com:443 HTTP/1.1\r\nhost: api.example.com:443\r\n\r\n";
    assert_eq!(ask(&running, connect).status(), 503);
    assert_eq!(world.network.log().len(), before);

    fs::remove_file(&ballast).unwrap();
    while next().1.reason() == "audit_unavailable" {
        assert!(Instant::now() < deadline, "it did not recover");
        sleep(Duration::from_millis(50));
    }
    running.stop();
    let records = chain(audit.path());
    // What was refused before the gate closed is in it, and no line is torn.
    assert!(records.len() > 2);
    let numbers: Vec<u64> = records.iter().map(|record| record.seq).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn where_the_operator_says_so_requests_go_on_and_what_is_lost_is_counted() {
    let audit = tempfile::tempdir().unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k,mode=700", "none"])
        .arg(audit.path())
        .stderr(Stdio::null())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        let mut stderr = std::io::stderr();
        let _ = writeln!(
            stderr,
            "SKIPPED: where_the_operator_… cannot mount a tmpfs here (needs root)"
        );
        return;
    }
    let _mount = Mount(audit.path());
    let world = world();
    let policy = world.dir.path().join("policy.json");
    let mut document: serde_json::Value =
        serde_json::from_slice(&fs::read(&policy).unwrap()).unwrap();
    document["audit"] = json!({"max_bytes": 256 << 20, "files": 4, "on_full": "allow"});
    fs::write(&policy, document.to_string()).unwrap();
    let running = proxy(&world, audit.path(), AuditLimits::default());
    let ballast = audit.path().join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[b'x'; 4096]).is_ok() {}
    drop(file);
    // Twice what the writer's queue has places for: nothing waits for the disk.
    const REQUESTS: u64 = 2100;
    let mut stream = connect(running.bound().proxy);
    for host in 0..REQUESTS {
        stream.write_all(denied(host).as_bytes()).unwrap();
        let reason = read_message(&mut stream, true).unwrap().reason();
        assert_eq!(reason, "host_not_allowed");
    }
    drop(stream);
    fs::remove_file(&ballast).unwrap();
    assert_eq!(ask(&running, &denied("last")).reason(), "host_not_allowed");
    running.stop();
    let records = chain(audit.path());
    let lost: u64 = records
        .iter()
        .filter(|record| record.reason == "audit_lost")
        .map(|record| record.count)
        .sum();
    let kept: u64 = records
        .iter()
        .filter(|record| record.decision == Decision::Deny)
        .map(|record| record.count)
        .sum();
    assert!(lost > 1000, "{lost}");
    assert_eq!(lost + kept, REQUESTS + 1);
    let numbers: Vec<u64> = records.iter().map(|record| record.seq).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_killed_sidecar_goes_on_after_its_torn_line() {
    let world = world();
    let dir = tempfile::tempdir().unwrap();
    for file in ["policy.json", "mitmproxy-ca.pem"] {
        fs::copy(world.dir.path().join(file), dir.path().join(file)).unwrap();
    }
    let log = dir.path().join(CURRENT_FILE);
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let socket = dir.path().join("status.sock");
    for round in 0..2 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bottle-sidecar"))
            .args(["egress", "--https-port=0", "--http-port=0", "--dns-port=0"])
            .args(["--proxy-port", &port.port().to_string(), "--config-dir"])
            .arg(dir.path())
            .arg("--audit-dir")
            .arg(dir.path())
            .arg("--status-socket")
            .arg(&socket)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut stream = loop {
            match TcpStream::connect(port) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(Duration::from_millis(20));
        };
        stream.write_all(denied(round).as_bytes()).unwrap();
        read_message(&mut stream, true).unwrap();
        while chain(dir.path()).len() <= round {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if round == 0 {
            let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
            file.write_all(b"{\"schema\":\"bottle.audit/v1\",\"ti")
                .unwrap();
        }
    }
    let numbers: Vec<u64> = chain(dir.path()).iter().map(|record| record.seq).collect();
    assert_eq!(numbers, [0, 1]);
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 3);
}
