//! What is not one request and one answer: conversations, events, uploads.

use std::fs;

use bottle_tests::engine::{docker, note_skipped};
use serde_json::{Value, json};

use super::{API, API_TOKEN, Fixture, assert_paid_with, headers, said};

const NODE: &str = "node /usr/local/lib/clients/client.mjs";

/// A conversation in both directions under the subprotocol the destination chose, by the proxy and without.
fn converses(f: &Fixture, client: &str) {
    let before = f.arrived_at(API, "/ws").len();
    let script = format!("{client} wss://api.example.com/ws");
    for done in [f.sh(&script), f.sh_direct(&script)] {
        let (_, last) = said(&done);
        assert_eq!(
            last,
            json!({"status": 1000, "protocol": "quince.v2", "got": [5, 100_000, 3]})
        );
    }
    let arrived = f.arrived_at(API, "/ws");
    assert_eq!(arrived.len() - before, 2);
    for request in &arrived {
        assert_paid_with(request, API_TOKEN);
    }
}

pub(crate) fn node_websocket(f: &Fixture) {
    converses(f, &format!("{NODE} websocket"));
}

pub(crate) fn python_websockets(f: &Fixture) {
    converses(f, "python3 /usr/local/lib/clients/client.py websockets");
}

/// An event that came later than this was held back, or the machine had something else to do.
const SOON_US: u64 = 50_000;

/// The destination sends an event only after the client said that it has the one before: whoever holds one back stops the
/// stream. And each is soon there. That is asked of the half of them and of the best of the first ones: a proxy that
/// waits for more would make all of them late, a busy machine only some.
pub(crate) fn events_arrive_before_the_next_is_sent(f: &Fixture) {
    let events = |id: &str| format!("{NODE} events 'https://api.example.com/stepped?n=20&id={id}'");
    let mut firsts = [u64::MAX; 2];
    for (round, way) in (0..6).map(|round| (round, ["proxy", "transparent"][round % 2])) {
        let script = events(&format!("{way}-{round}"));
        let done = match way {
            "proxy" => f.sh(&script),
            _ => f.sh_direct(&script),
        };
        let (_, last) = said(&done);
        let delays = last["delays"].as_array().expect("delays").clone();
        let mut delays: Vec<u64> = delays.iter().filter_map(Value::as_u64).collect();
        assert_eq!(delays.len(), 20, "{last}");
        let first = delays[0];
        firsts[round % 2] = firsts[round % 2].min(first);
        delays.sort_unstable();
        let (median, worst) = (delays[10], delays[19]);
        eprintln!("events by {way}: first after {first} us, median {median} us, worst {worst} us");
        assert!(
            median < SOON_US,
            "by {way} half of the events came after {median} us"
        );
    }
    assert!(firsts.iter().all(|first| *first < SOON_US), "{firsts:?} us");
    let broken = f.internet.events_of("broken");
    assert!(!Value::from(broken).to_string().contains("held back"));
}

pub(crate) fn a_client_that_waits_to_be_asked_uploads(f: &Fixture) {
    for way in ["", "--noproxy '*'"] {
        let script = format!(
            "head -c 3000000 /dev/zero | curl -sSv {way} --http1.1 --expect100-timeout 60 -H 'Expect: 100-continue' \
             --data-binary @- https://api.example.com/upload?mark=asked"
        );
        let done = f.sh(&script);
        assert_eq!(done.stdout, "3000000", "{}", done.stderr);
        assert!(done.stderr.contains("< HTTP/1.1 100"), "{}", done.stderr);
    }
    for request in f.arrived("asked") {
        assert_paid_with(&request, API_TOKEN);
        // It was asked by the sidecar, which decided by the head alone.
        assert!(headers(&request, "expect").is_empty());
    }
    let refused = f.sh(
        "head -c 3000000 /dev/zero | curl -sSv --http1.1 --expect100-timeout 60 -H 'Expect: 100-continue' \
         --data-binary @- https://api.example.com/elsewhere",
    );
    assert!(
        refused.stdout.contains("path_not_allowed"),
        "{}",
        refused.stdout
    );
    assert!(
        !refused.stderr.contains("< HTTP/1.1 100"),
        "{}",
        refused.stderr
    );
}

/// Much more than the sidecar may take up, in both protocols, and down.
pub(crate) fn a_large_upload_takes_no_memory(f: &Fixture) {
    let Some(before) = peak_kib(f) else {
        note_skipped(
            "a_large_upload_takes_no_memory",
            "cannot look into the sidecar's process",
        );
        return;
    };
    let up = "head -c 31000000 /dev/zero > /tmp/upload; for way in --http1.1 --http2 --http1.1 --http2; do \
              curl -sS $way --data-binary @/tmp/upload https://api.example.com/upload; echo; done";
    assert_eq!(f.sh(up).ok(), "31000000\n".repeat(4));
    let down = "curl -sS 'https://api.example.com/bytes?n=268435456' | wc -c";
    assert_eq!(f.sh(down).ok().trim(), "268435456");
    let after = peak_kib(f).expect("it was there before");
    eprintln!(
        "the sidecar's memory: at most {before} KiB before, {after} KiB after 124 MB up and 268 MB down"
    );
    assert!(
        after < before + (16 << 10),
        "{before} KiB before, {after} KiB after"
    );
}

/// The most memory the sidecar ever had.
fn peak_kib(f: &Fixture) -> Option<u64> {
    let pid = docker(["inspect", "--format={{.State.Pid}}", &f.bottle.egress()]).ok();
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
