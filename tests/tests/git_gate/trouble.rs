//! When something is broken: the upstream is as it was, or has exactly what was checked.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use bottle_tests::engine::{docker, wait_for, wait_within};

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

/// Quarantines of a mirror, as the host sees them.
fn quarantines(f: &Fixture) -> Vec<String> {
    let mirror = f
        .home
        .state(&f.bottle.slug)
        .join("git-gate/mirrors/demo.git/objects");
    let entries = fs::read_dir(mirror).expect("the mirror").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with("tmp_objdir-"))
        .collect()
}

pub(crate) fn the_gate_dies_while_it_scans(f: &Fixture) {
    f.clone("scanned");
    // Words that gitleaks has to look at more closely, and enough of them to be caught at it.
    let script = "cd ~/scanned; python3 -c 'for n in range(300000): print(f\"api_key_{n} = password[{n}] # token secret\")' > words; \
                  git add .; git commit -qm words";
    let _ = f.agent(script).ok();
    let before = (f.upstream.contacts(), f.refs());
    let scans = || {
        let seen = docker(["top", &f.gate(), "-eo", "pid,comm"]);
        seen.stdout.contains("gitleaks")
    };
    let pushed = thread::scope(|scope| {
        let push =
            scope.spawn(|| f.agent("cd ~/scanned; timeout 60 git push origin agent/scanned"));
        wait_within(Duration::from_secs(30), "gitleaks", scans);
        let _ = docker(["kill", &f.gate()]).ok();
        push.join().expect("the agent's git ends")
    });
    assert!(!pushed.status.success(), "{pushed:?}");
    assert_eq!((f.upstream.contacts(), f.refs()), before, "it got there");
    assert_eq!(quarantines(f).len(), 1, "what the gate was at is not left");
    f.restart_gate();
    assert_eq!(quarantines(f), Vec::<String>::new());
    // What was half looked at is no more in the mirror than anything else that was not pushed.
    let again = f.agent("cd ~/scanned; git push origin agent/scanned");
    assert!(again.status.success(), "{}", again.stderr);
    let head = f.agent("git -C ~/scanned rev-parse HEAD").ok();
    let there = f.upstream.oid("demo", "refs/heads/agent/scanned");
    assert_eq!(there, head.trim());
    assert_eq!(quarantines(f), Vec::<String>::new());
}

pub(crate) fn a_push_waits_for_the_first_fetch(f: &Fixture) {
    // More commits than a push may bring, which are all new to a mirror that is empty.
    let history = "cd /tmp/demo; git checkout -q main; for n in $(seq 25); do git commit -q --allow-empty -m $n; done; \
                   git push -q /srv/git/demo.git main";
    let _ = f.upstream.git(history).ok();
    f.clone("first");
    let _ = f
        .agent("cd ~/first; git fetch -q; echo x > first; git add .; git commit -qm first")
        .ok();
    // As the gate leaves it that is killed in its first fetch: made, and with nothing in it.
    let _ = docker(["kill", &f.gate()]).ok();
    let mirror = f
        .home
        .state(&f.bottle.slug)
        .join("git-gate/mirrors/demo.git");
    for name in ["filled", "packed-refs", "refs/heads", "refs/tags"] {
        let path = mirror.join(name);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
    f.upstream.pause(true);
    f.restart_gate();
    let pushed = thread::scope(|scope| {
        let push = scope.spawn(|| f.agent("cd ~/first; git push origin agent/first"));
        // Until the agent's git has asked; it stays open as long as the gate waits for the upstream.
        wait_for("the push", || {
            let seen = docker(["exec", &f.gate(), "cat", "/proc/net/tcp"]);
            seen.stdout.lines().any(|line| {
                let mut words = line.split_whitespace().skip(1);
                // Ours is 9418, and 01 is open.
                words.next().is_some_and(|ours| ours.ends_with(":24CA"))
                    && words.nth(1) == Some("01")
            })
        });
        f.upstream.pause(false);
        push.join().expect("the agent's git ends")
    });
    assert!(pushed.status.success(), "{}", pushed.stderr);
    let head = f.agent("git -C ~/first rev-parse HEAD").ok();
    let there = f.upstream.oid("demo", "refs/heads/agent/first");
    assert_eq!(there, head.trim());
}
