//! When something is broken: the upstream is as it was, or has exactly what was checked.

use std::thread;
use std::time::{Duration, Instant};

use bottle_tests::engine::{docker, wait_for};

use crate::fixture::{Fixture, HOST};

pub(crate) fn the_upstream_is_down(f: &Fixture) {
    f.clone("down");
    let _ = f
        .agent("cd ~/down; echo x > down; git add .; git commit -qm down")
        .ok();
    f.upstream.stop();
    let fetched = f.agent("cd ~/down; git fetch");
    let pushed = f.agent("cd ~/down; git push origin agent/down");
    f.upstream.start_again();
    assert!(
        !fetched.status.success() && fetched.stderr.contains("cannot fetch from git.example.com"),
        "{}",
        fetched.stderr
    );
    assert!(
        !pushed.status.success() && pushed.stderr.contains("refused (upstream_unreachable)"),
        "{}",
        pushed.stderr
    );
    let _ = f.agent("cd ~/down; git push -q origin agent/down").ok();
    assert_ne!(f.upstream.oid("demo", "refs/heads/agent/down"), "");
}

pub(crate) fn an_upstream_that_says_nothing(f: &Fixture) {
    f.clone("mute");
    let _ = f
        .agent("cd ~/mute; echo x > mute; git add .; git commit -qm mute")
        .ok();
    // It takes the connection, and does not say a word.
    f.upstream.pause(true);
    let began = Instant::now();
    let pushed = f.agent("cd ~/mute; git push origin agent/mute");
    let took = began.elapsed();
    f.upstream.pause(false);
    assert!(
        !pushed.status.success() && pushed.stderr.contains("refused (upstream_unreachable)"),
        "{}",
        pushed.stderr
    );
    assert!(pushed.stderr.contains("timed out"), "{}", pushed.stderr);
    assert!(took < Duration::from_secs(25), "it took {took:?}");
    let _ = f.agent("cd ~/mute; git push -q origin agent/mute").ok();
    assert_ne!(f.upstream.oid("demo", "refs/heads/agent/mute"), "");
}

pub(crate) fn another_host_key(f: &Fixture) {
    let url = f.upstream.url("false.example.com", "demo");
    let done = f.agent(&format!("git ls-remote {url}"));
    assert!(!done.status.success(), "{}", done.stdout);
    assert!(
        done.stderr.contains("Host key verification failed"),
        "{}",
        done.stderr
    );
}

pub(crate) fn the_gate_dies_in_the_middle_of_a_push(f: &Fixture) {
    let hook = "/srv/git/demo.git/hooks/pre-receive";
    // The upstream holds the push until it is told to go on, and then takes it.
    let write = format!(
        "printf '#!/bin/sh\\ntouch /tmp/holding\\nwhile [ -e /tmp/hold ]; do sleep 0.1; done\\n' > {hook}; chmod +x {hook}; touch /tmp/hold; rm -f /tmp/holding"
    );
    f.clone("dies");
    let _ = f
        .agent("cd ~/dies; echo x > dies; git add .; git commit -qm dies")
        .ok();
    let head = f
        .agent("git -C ~/dies rev-parse HEAD")
        .ok()
        .trim()
        .to_owned();
    let _ = f.upstream.git(&write).ok();
    let pushed = thread::scope(|scope| {
        let push = scope.spawn(|| f.agent("cd ~/dies; timeout 60 git push origin agent/dies"));
        wait_for("the upstream to hold the push", || {
            f.upstream.git("test -e /tmp/holding").status.success()
        });
        let _ = docker(["kill", &f.gate()]).ok();
        let _ = f.upstream.git("rm /tmp/hold").ok();
        push.join().expect("the agent's git ends")
    });
    assert!(!pushed.status.success(), "{pushed:?}");
    // Whatever sshd still had in hand has come to its end.
    wait_for("the upstream's hook", || {
        !f.upstream
            .git("pgrep -f [h]ooks/pre-receive")
            .status
            .success()
    });
    thread::sleep(Duration::from_millis(300));
    let _ = f.upstream.git(&format!("rm -f {hook}")).ok();
    let there = f.upstream.oid("demo", "refs/heads/agent/dies");
    assert!(
        there.is_empty() || there == head,
        "{there} was never checked"
    );
    f.restart_gate();
    // The gate finds out by itself what the upstream has, and the push can be made again.
    let again = f.agent("cd ~/dies; git fetch -q; git push origin agent/dies");
    assert!(again.status.success(), "{}", again.stderr);
    assert_eq!(f.upstream.oid("demo", "refs/heads/agent/dies"), head);
    let left = docker([
        "exec",
        &f.gate(),
        "find",
        "/var/lib/bottle/mirrors",
        "-name",
        "tmp_objdir*",
        "-o",
        "-name",
        "*.lock",
    ])
    .ok();
    assert_eq!(left, "", "quarantines and locks are cleared");
    let _ = f
        .agent(&format!("git ls-remote {}", f.upstream.url(HOST, "demo")))
        .ok();
}
