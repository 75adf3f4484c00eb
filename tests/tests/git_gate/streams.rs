//! What is larger than the memory it goes through.

use std::time::Duration;

use bottle_tests::engine::{docker, inspected, wait_within};

use crate::fixture::{Fixture, HOST};
use crate::review::agent;

/// Files of a megabyte that nothing compresses, there and then pushed.
const FILES: usize = 64;

/// What the gate itself may have had in memory at any moment, KiB: far less than one of both.
const MOST: u64 = 40 * 1024;

/// What the container may have for the gate and all that it starts: a fraction of its limit.
const LIMIT: &str = "384m";

/// The most memory that the gate has had since it was started, KiB.
fn peak(gate: &str) -> u64 {
    let status = docker(["exec", gate, "cat", "/proc/1/status"]).ok();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.expect("its peak").split_whitespace().next();
    words.and_then(|word| word.parse().ok()).expect("a number")
}

pub(crate) fn a_large_repository_streams(f: &Fixture) {
    let gate = format!("bottle-{}-git-gate", f.asks.slug);
    let limits = |memory: &str| {
        let (memory, swap) = (
            format!("--memory={memory}"),
            format!("--memory-swap={memory}"),
        );
        let _ = docker(["update", &memory, &swap, &gate]).ok();
    };
    let files = format!(
        "mkdir -p big; for n in $(seq {FILES}); do head -c 1000000 /dev/urandom > big/$n; done; git add ."
    );
    let script =
        format!("cd /tmp/large; {files}; git commit -qm big; git push -q /srv/git/large.git main");
    let _ = f.upstream.git(&script).ok();
    // Whatever went through it before does not count.
    let _ = docker(["kill", &gate]).ok();
    limits(LIMIT);
    let _ = docker(["start", &gate]).ok();
    let _ = docker(["exec", &gate, "/bottle-sidecar", "health", "--wait", "20"]).ok();
    let idle = peak(&gate);
    let url = f.upstream.url(HOST, "large");
    let clone = format!(
        "rm -rf ~/large; git clone -q {url} ~/large; cd ~/large; test $(ls big | wc -l) = {FILES}"
    );
    let _ = agent(f, &clone).ok();
    let cloned = peak(&gate);
    // The mirror's index is written behind it, and is in the same memory.
    wait_within(Duration::from_secs(60), "the bitmap", || {
        let packs = "ls /var/lib/bottle/mirrors/large.git/objects/pack";
        let seen = docker(["exec", &gate, "sh", "-c", packs]);
        seen.stdout.contains(".bitmap")
    });
    let push = format!(
        "cd ~/large; git checkout -qb agent/large; {files}; git commit -qm more; git push -q origin agent/large; git rev-parse HEAD"
    );
    let head = agent(f, &push).ok();
    let pushed = peak(&gate);
    assert_eq!(
        f.upstream.oid("large", "refs/heads/agent/large"),
        head.trim()
    );
    limits("1g");
    let killed = inspected(&gate, "{{.State.OOMKilled}} {{.RestartCount}}");
    assert_eq!(killed, "false 0", "something had too little memory");
    assert!(
        cloned < MOST && pushed < MOST,
        "{idle} KiB at rest, {cloned} after the clone, {pushed} after the push"
    );
    let _ = agent(f, "rm -rf ~/large").ok();
}
