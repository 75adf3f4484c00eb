//! What an agent does all day, and that it works.

use std::fs;
use std::thread;

use bottle_tests::engine::{docker, wait_for};

use crate::fixture::{EXAMPLE, Fixture, HOST};

pub(crate) fn clone_fetch_and_push(f: &Fixture) {
    let done = f.push_after(
        "flow",
        "echo hello > new.txt; git add .; git commit -qm 'a new file'",
    );
    assert!(done.status.success(), "{}", done.stderr);
    assert!(
        done.stderr.contains("handed them to git.example.com"),
        "{}",
        done.stderr
    );
    let here = f.agent("git -C ~/flow rev-parse HEAD").ok();
    assert_eq!(f.upstream.oid("demo", "refs/heads/agent/flow"), here.trim());
    // The branch grows, and what others push to the upstream is there at the next fetch.
    let _ = f.upstream.git("cd /tmp/demo; echo more > more.txt; git add .; git commit -qm upstream; git push -q /srv/git/demo.git main").ok();
    let script = "cd ~/flow; git fetch -q; git merge -q --no-edit origin/main; test -f more.txt; git push -q origin agent/flow";
    let _ = f.agent(script).ok();
    let here = f.agent("git -C ~/flow rev-parse HEAD").ok();
    assert_eq!(f.upstream.oid("demo", "refs/heads/agent/flow"), here.trim());
    // Protocol v2, and the identity of the manifest.
    let trace = f
        .agent("cd ~/flow; GIT_TRACE_PACKET=1 git ls-remote origin 2>&1")
        .ok();
    assert!(trace.contains("version 2"), "{trace}");
    let author = f.agent("git -C ~/flow log -1 --format=%ae").ok();
    assert_eq!(author.trim(), "agent@example.com");
}

pub(crate) fn a_mirror_is_indexed_and_still_up_to_date(f: &Fixture) {
    f.clone("indexed");
    let mirror = f
        .home
        .state(&f.bottle.slug)
        .join("git-gate/mirrors/demo.git");
    wait_for("the mirror's bitmap and its graph of commits", || {
        let packs = fs::read_dir(mirror.join("objects/pack")).expect("the mirror's packs");
        let mut names = packs.flatten().map(|entry| entry.file_name());
        mirror.join("objects/info/commit-graph").is_file()
            && names.any(|name| name.to_string_lossy().ends_with(".bitmap"))
    });
    // What is newer than both is pushed, fetched and cloned like the rest.
    let url = f.upstream.url(HOST, "demo");
    let script =
        "echo 1 > indexed; git add .; git commit -qm indexed; git push -q origin agent/indexed";
    let _ = f.agent(&format!("cd ~/indexed; {script}")).ok();
    let _ = f.upstream.git("cd /tmp/demo; echo 2 > later; git add .; git commit -qm later; git push -q /srv/git/demo.git main").ok();
    let script = format!(
        "rm -rf ~/again; git clone -q {url} ~/again; test -f ~/again/later; cd ~/again; git fsck --full --strict; \
         test $(git rev-parse origin/agent/indexed) = $(git -C ~/indexed rev-parse HEAD)"
    );
    let _ = f.agent(&script).ok();
}

pub(crate) fn every_spelling_leads_to_the_gate(f: &Fixture) {
    for url in [
        format!("git@{HOST}:/srv/git/demo.git"),
        format!("git@{HOST}:/srv/git/demo"),
        format!("git@{HOST}:srv/git/demo.git"),
        format!("ssh://git@{HOST}/srv/git/demo.git"),
        format!("ssh://git@{HOST}:22/srv/git/demo"),
        format!("ssh://{HOST}/srv/git/demo"),
        format!("https://{HOST}/srv/git/demo.git"),
        format!("https://{HOST}/srv/git/demo"),
        "http://git-gate:9418/demo".to_owned(),
    ] {
        let listed = f.agent(&format!("git ls-remote {url} refs/heads/main"));
        assert!(
            listed.stdout.contains("refs/heads/main"),
            "{url}: {}",
            listed.stderr
        );
    }
    // What only begins like it is another repository, and none of the gate's.
    let other = f.agent(&format!(
        "GIT_TRACE_CURL=1 git ls-remote https://{HOST}/srv/git/demo-other"
    ));
    assert!(
        other
            .stderr
            .contains(&format!("https://{HOST}/srv/git/demo-other.git")),
        "{}",
        other.stderr
    );
    // The key is nowhere the agent can look.
    let found = f.agent("ls -a ~ /etc/bottle; env; cat ~/.gitconfig").ok();
    assert!(
        !found.contains("PRIVATE KEY") && !found.contains(".ssh"),
        "{found}"
    );
}

pub(crate) fn shallow_and_partial_clones(f: &Fixture) {
    let url = f.upstream.url(HOST, "demo");
    let script = format!(
        "rm -rf ~/s1 ~/s2; git clone -q --depth 1 {url} ~/s1; test $(git -C ~/s1 rev-list --count HEAD) = 1; \
         git -C ~/s1 fetch -q --unshallow; test $(git -C ~/s1 rev-list --count HEAD) -ge 3; \
         git clone -q --filter=blob:none --no-checkout {url} ~/s2; git -C ~/s2 checkout -q main; test -f ~/s2/src/main.txt; \
         cd ~/s1; git checkout -qb agent/shallow; echo x > x; git add x; git commit -qm x; git push -q origin agent/shallow"
    );
    let _ = f.agent(&script).ok();
}

pub(crate) fn a_repository_of_sha256(f: &Fixture) {
    let make = "git init -q --bare --object-format=sha256 sha256.git; git init -q --object-format=sha256 /tmp/sha256; cd /tmp/sha256; \
                git config user.name Upstream; git config user.email up@example.com; echo 1 > 1; git add .; git commit -qm 1; \
                git push -q /srv/git/sha256.git main";
    let _ = f.upstream.git(make).ok();
    let url = f.upstream.url(HOST, "sha256");
    let work = format!(
        "rm -rf ~/sha256; git clone -q {url} ~/sha256; cd ~/sha256; git checkout -qb agent/long; echo 2 > 2; git add .; \
         git commit -qm 2; git push -q origin agent/long; git rev-parse HEAD"
    );
    let head = f.agent(&work).ok();
    assert_eq!(head.trim().len(), 64, "{head}");
    assert_eq!(
        f.upstream.oid("sha256", "refs/heads/agent/long"),
        head.trim()
    );
    let before = f.upstream.contacts();
    let secret = format!(
        "cd ~/sha256; mkdir -p a; echo {EXAMPLE} > a/s; git add .; git commit -qm s; git push origin agent/long"
    );
    let done = f.agent(&secret);
    assert!(
        done.stderr.contains("refused (git_secret)") && done.stderr.contains("a/s"),
        "{}",
        done.stderr
    );
    let done = f.agent("cd ~/sha256; git reset -q --hard HEAD~1; git commit -q --amend -m other; git push --force origin agent/long");
    assert!(
        done.stderr.contains("refused (git_force)"),
        "{}",
        done.stderr
    );
    assert_eq!(f.upstream.contacts(), before);
}

pub(crate) fn fetches_at_the_same_time_share_one(f: &Fixture) {
    let url = f.upstream.url(HOST, "demo");
    let before = f.upstream.contacts();
    // A hook-free way to make the upstream slow: it is paused while all of them ask.
    f.upstream.pause(true);
    let script = format!(
        "for n in 1 2 3 4 5 6; do git ls-remote {url} > /tmp/ls-$n 2>&1 & done; sleep 2; wait; cat /tmp/ls-*"
    );
    let out = thread::scope(|scope| {
        let asking = scope.spawn(|| f.agent(&script).ok());
        thread::sleep(std::time::Duration::from_secs(3));
        f.upstream.pause(false);
        asking.join().expect("the agent answers")
    });
    assert_eq!(out.matches("refs/heads/main").count(), 6, "{out}");
    let contacts = f.upstream.contacts() - before;
    assert!(contacts <= 2, "{contacts} connections for six fetches");
}

pub(crate) fn what_the_upstream_says_comes_back(f: &Fixture) {
    let hook = "/srv/git/demo.git/hooks/pre-receive";
    let write = format!(
        "printf '#!/bin/sh\\necho \"house rule 7: no work on Sundays\" >&2\\nexit 1\\n' > {hook}; chmod +x {hook}"
    );
    let _ = f.upstream.git(&write).ok();
    let done = f.push_after(
        "sunday",
        "echo x > sunday; git add .; git commit -qm sunday",
    );
    let _ = f.upstream.git(&format!("rm {hook}")).ok();
    assert!(!done.status.success());
    assert!(
        done.stderr
            .contains("remote: house rule 7: no work on Sundays"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("refused (git_upstream_refused)"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("pre-receive hook declined"),
        "{}",
        done.stderr
    );
    assert_eq!(f.upstream.oid("demo", "refs/heads/agent/sunday"), "");
    // Nothing of it stayed behind, and the next try goes through.
    let again = f.agent("cd ~/sunday; git push -q origin agent/sunday");
    assert!(again.status.success(), "{}", again.stderr);
}

pub(crate) fn two_pushes_at_once(f: &Fixture) {
    f.clone("two");
    let script = "cd ~/two; rm -rf ~/two-b; cp -r ~/two ~/two-b; \
         echo a > a; git add .; git commit -qm a; cd ~/two-b; echo b > b; git add .; git commit -qm b; \
         (git -C ~/two push origin agent/two > /tmp/two-a 2>&1; echo $? >> /tmp/two-a) & \
         (git -C ~/two-b push origin agent/two > /tmp/two-b 2>&1; echo $? >> /tmp/two-b) & wait; \
         tail -n 1 /tmp/two-a /tmp/two-b; git -C ~/two rev-parse HEAD; git -C ~/two-b rev-parse HEAD; cat /tmp/two-a /tmp/two-b >&2";
    let done = f.agent(script);
    let lines: Vec<&str> = done.stdout.lines().collect();
    let codes: Vec<&&str> = lines
        .iter()
        .filter(|line| line.len() <= 3 && !line.is_empty())
        .collect();
    assert_eq!(
        codes.iter().filter(|code| ***code == "0").count(),
        1,
        "exactly one wins: {done:?}"
    );
    let tip = f.upstream.oid("demo", "refs/heads/agent/two");
    assert!(
        lines.contains(&tip.as_str()),
        "{tip} is one of both: {done:?}"
    );
}

pub(crate) fn several_refs_are_all_or_nothing(f: &Fixture) {
    f.clone("several");
    let commit = "cd ~/several; echo x > several; git add .; git commit -qm several";
    let _ = f.agent(commit).ok();
    f.assert_push_refused(
        "several",
        "git push --atomic origin HEAD:refs/heads/agent/s-1 HEAD:refs/heads/main",
        "git_ref_not_allowed",
    );
    f.assert_push_refused(
        "several",
        "git push origin HEAD:refs/heads/agent/s-1 HEAD:refs/heads/main",
        "git_ref_not_allowed",
    );
    assert_eq!(f.upstream.oid("demo", "refs/heads/agent/s-1"), "");
    let _ = f.agent("cd ~/several; git push -q --atomic origin HEAD:refs/heads/agent/s-1 HEAD:refs/heads/agent/s-2").ok();
    assert_eq!(
        f.upstream.oid("demo", "refs/heads/agent/s-1"),
        f.upstream.oid("demo", "refs/heads/agent/s-2")
    );
    // The upstream takes one and not the other: none.
    let hook = "/srv/git/demo.git/hooks/update";
    let _ = f
        .upstream
        .git(&format!(
            "printf '#!/bin/sh\\ntest \"$1\" != refs/heads/agent/s-4\\n' > {hook}; chmod +x {hook}"
        ))
        .ok();
    let _ = f
        .agent("cd ~/several; git commit -q --allow-empty -m again")
        .ok();
    let done = f.agent("cd ~/several; git push --atomic origin HEAD:refs/heads/agent/s-3 HEAD:refs/heads/agent/s-4");
    let _ = f.upstream.git(&format!("rm {hook}")).ok();
    assert!(!done.status.success(), "{}", done.stderr);
    assert_eq!(f.upstream.oid("demo", "refs/heads/agent/s-3"), "");
}

pub(crate) fn every_decision_is_on_record(f: &Fixture) {
    let _ = f
        .push_after("record", "echo r > r; git add .; git commit -qm r")
        .ok();
    let oid = f.upstream.oid("demo", "refs/heads/agent/record");
    let path = format!("/demo/refs/heads/agent/record@{oid}");
    let audit = f.audit();
    for what in ["PUSH", "FORWARD"] {
        let found = audit
            .iter()
            .find(|record| record["method"] == what && record["path"] == path.as_str());
        let record = found.unwrap_or_else(|| panic!("no {what} of {path}"));
        assert_eq!(
            (&record["decision"], &record["way"]),
            (&"allow".into(), &"git".into()),
            "{record}"
        );
        assert_eq!(record["host"], HOST);
    }
    let shown = f
        .home
        .tool("bottle-run")
        .args(["audit", &f.bottle.slug])
        .run()
        .ok();
    assert!(shown.contains("PUSH git.example.com"), "{shown}");
    assert!(!shown.contains(crate::fixture::TOKEN));
    // Its log names the program that is in there, which is not egress's.
    let log = docker(["logs", &f.gate()]).stderr;
    assert!(
        log.contains("bottle-services: git-gate listens on"),
        "{log}"
    );
    assert!(!log.contains("bottle-sidecar: "), "{log}");
    let verified = f
        .home
        .tool("bottle-run")
        .args(["audit", "verify", &f.bottle.slug])
        .run();
    assert!(
        verified.status.success(),
        "{}{}",
        verified.stdout,
        verified.stderr
    );
}
