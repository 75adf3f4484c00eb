//! What no git would say: pushes written byte for byte.

use bottle_tests::Done;
use serde_json::json;

use crate::fixture::{EXAMPLE, Fixture, HOST};
use crate::review::{agent, head, operator, push, refused, request_for, wait_for_request, work};

const ZERO: &str = "0000000000000000000000000000000000000000";
const SAYS: &str = "\0report-status side-band-64k agent=x";

/// Sends packets (an empty one is a flush), a flush, and a pack of what `revs` says; prints what comes back without its framing.
const CLIENT: &str = r#"
import json, subprocess, sys, urllib.error, urllib.request
what = json.loads(sys.argv[1])
packet = lambda line: b"%04x" % (len(line) + 4) + line if line else b"0000"
body = b"".join(packet(line.encode()) for line in what["lines"]) + b"0000"
body += subprocess.run(["git", "pack-objects", "-q", "--stdout", *what["how"]], input=what["revs"].encode(), stdout=subprocess.PIPE, check=True).stdout
request = urllib.request.Request(what["url"], data=body, headers={"Content-Type": "application/x-git-receive-pack-request"})
try:
    answer = urllib.request.urlopen(request).read()
except urllib.error.HTTPError as error:
    answer = packet(b"status %d" % error.code)
at = 0
while at + 4 <= len(answer):
    size = int(answer[at:at + 4], 16)
    text = answer[at + 4:at + size]
    sys.stdout.buffer.write(text[1:] if text[:1] in (b"\1", b"\2", b"\3") else text)
    at += max(size, 4)
"#;

/// Pushes to a repository from `~/CLONE` in these words. The pack holds what is reachable from `revs`.
fn say(f: &Fixture, repo: &str, clone: &str, lines: &[String], revs: &str) -> String {
    send(f, repo, clone, lines, (&["--revs"], revs))
}

fn send(f: &Fixture, repo: &str, clone: &str, lines: &[String], pack: (&[&str], &str)) -> String {
    let what = json!({
        "url": format!("http://git-gate:9418/{repo}.git/git-receive-pack"),
        "lines": lines,
        "how": pack.0,
        "revs": pack.1,
    });
    let script = "cd; cd \"$1\"; exec python3 -c \"$2\" \"$3\"";
    let what = what.to_string();
    let done = f
        .asks
        .exec(&["sh", "-euc", script, "sh", clone, CLIENT, &what]);
    done.ok()
}

/// Whatever the answer, the upstream has heard of nothing.
fn unheard(f: &Fixture, repo: &str, push: impl FnOnce() -> String) -> String {
    let seen = || {
        let refs = f.upstream.git(&format!("git -C {repo}.git for-each-ref"));
        (f.upstream.contacts(), refs.ok())
    };
    let before = seen();
    let said = push();
    assert_eq!(seen(), before, "the upstream has heard of it: {said}");
    assert!(!said.contains("ok refs/"), "{said}");
    said
}

pub(crate) fn what_a_push_says_of_before_is_looked_up(f: &Fixture) {
    // The operator is shown what changes from there: with a commit of its own as what was, an agent would show only the last.
    work(f, "brief", "before", "echo hidden > hidden");
    let script = "cd ~/before; echo shown > shown; git add .; git commit -qm second";
    let _ = agent(f, script).ok();
    let (new, name) = (head(f, "before"), "refs/heads/agent/before");
    let old = agent(f, "git -C ~/before rev-parse HEAD~1").ok();
    let line = format!("{} {new} {name}{SAYS}", old.trim());
    let said = unheard(f, "brief", || {
        say(f, "brief", "before", &[line], "HEAD\n^origin/main\n")
    });
    assert!(said.contains("refused (git_stale)"), "{said}");
    assert_eq!(request_for(f, &new), None, "the operator is asked");
    refused(&push(f, "before", "agent/before"), "git_review_pending");
    let id = wait_for_request(f, &new);
    let page = operator(f, &["requests", "show", &id]).ok();
    for part in ["+hidden", "+shown"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let _ = operator(f, &["deny", &id, "--why", "a test"]).ok();
}

pub(crate) fn one_ref_twice_in_a_push(f: &Fixture) {
    work(f, "plain", "twice", "echo 1 > twice");
    let script =
        "cd ~/twice; git rev-parse HEAD; git commit -q --allow-empty -m 2; git rev-parse HEAD";
    let heads = agent(f, script).ok();
    let lines = heads.lines().zip([SAYS, ""]);
    let lines: Vec<String> = lines
        .map(|(head, says)| format!("{ZERO} {head} refs/heads/agent/twice{says}"))
        .collect();
    let said = unheard(f, "plain", || {
        say(f, "plain", "twice", &lines, "HEAD\n^origin/main\n")
    });
    assert!(said.contains("refused (git_ref_invalid)"), "{said}");
}

pub(crate) fn a_name_with_an_end_of_line(f: &Fixture) {
    work(f, "plain", "ends", "echo 1 > ends");
    let head = head(f, "ends");
    for (name, reason) in [
        ("refs/heads/agent/ends\r".to_owned(), "git_ref_invalid"),
        (
            format!("refs/heads/agent/ends\n{ZERO} {head} refs/heads/release"),
            "git_ref_not_allowed",
        ),
    ] {
        let line = format!("{ZERO} {head} {name}{SAYS}");
        let said = unheard(f, "plain", || {
            say(f, "plain", "ends", &[line], "HEAD\n^origin/main\n")
        });
        assert!(said.contains(&format!("refused ({reason})")), "{said}");
    }
}

pub(crate) fn what_is_not_offered_opens_nothing(f: &Fixture) {
    work(f, "plain", "offers", "echo 1 > offers");
    let head = head(f, "offers");
    let revs = "HEAD\n^origin/main\n";
    // Options behind the commands, and the commands in a certificate.
    let options = [
        format!("{ZERO} {head} refs/heads/agent/offers{SAYS} push-options"),
        String::new(),
        "ci.skip".into(),
    ];
    let _ = unheard(f, "plain", || say(f, "plain", "offers", &options, revs));
    let main = f.upstream.oid("plain", "refs/heads/main");
    let certificate = [
        format!("push-cert{SAYS} push-cert=1"),
        "certificate version 0.1\n".into(),
        "pusher key 1700000000 +0000\n".into(),
        "nonce 1-1\n".into(),
        "\n".into(),
        format!("{main} {head} refs/heads/main\n"),
        "-----BEGIN SSH SIGNATURE-----\n".into(),
        "-----END SSH SIGNATURE-----\n".into(),
        "push-cert-end\n".into(),
    ];
    let _ = unheard(f, "plain", || say(f, "plain", "offers", &certificate, revs));
    let done = push(f, "offers", "agent/offers");
    assert!(done.status.success(), "{}", done.stderr);
}

pub(crate) fn a_history_that_is_cut_off(f: &Fixture) {
    // What lies behind the cut is neither sent nor looked at, if a push may say where its history begins.
    work(f, "plain", "cut", &format!("echo {EXAMPLE} > s"));
    let script = "cd ~/cut; git rm -q s; git commit -qm clean; git rev-parse HEAD";
    let tip = agent(f, script).ok();
    let tip = tip.trim();
    let objects = agent(
        f,
        "cd ~/cut; git rev-parse HEAD; git ls-tree -rt --format='%(objectname)' HEAD; git rev-parse 'HEAD^{tree}'",
    )
    .ok();
    let lines = [
        format!("shallow {tip}"),
        format!("{ZERO} {tip} refs/heads/agent/cut{SAYS}"),
    ];
    let said = unheard(f, "plain", || {
        send(f, "plain", "cut", &lines, (&[], &objects))
    });
    assert!(said.contains("ng refs/heads/agent/cut"), "{said}");
}

pub(crate) fn a_branch_that_is_called_like_an_object(f: &Fixture) {
    work(f, "plain", "called", "echo 1 > called");
    let new = head(f, "called");
    let main = f.upstream.oid("plain", "refs/heads/main");
    // Git would take the branch for the object: somebody else's commit would get there, and not the one that was checked.
    let branch = format!("git -C plain.git update-ref refs/heads/{new} {main}");
    let _ = f.upstream.git(&branch).ok();
    let _ = agent(f, "cd ~/called; git fetch -q").ok();
    let done = push(f, "called", "agent/called");
    let there = f.upstream.oid("plain", "refs/heads/agent/called");
    let away = format!("git -C plain.git update-ref -d refs/heads/{new}");
    let _ = f.upstream.git(&away).ok();
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(there, new);
    let _ = agent(f, "cd ~/called; git fetch -q --prune").ok();
    // An agent makes none of these itself, wherever it may push.
    for name in [new.as_str(), "HEAD", "refs/heads/main"] {
        refused(
            &push(f, "called", &format!("refs/heads/{name}")),
            "git_ref_invalid",
        );
    }
}

/// A clone that lends its objects from another, and a repository that says it does.
pub(crate) fn alternates(f: &Fixture) {
    let url = f.upstream.url(HOST, "plain");
    let lend = format!(
        "rm -rf ~/lender ~/lent; git clone -q {url} ~/lender; cd ~/lender; echo {EXAMPLE} > s; git add s; git commit -qm s; \
         git clone -q --shared ~/lender ~/lent; cd ~/lent; test -s .git/objects/info/alternates; \
         git remote set-url origin {url}; git checkout -qb agent/lent"
    );
    let _ = agent(f, &lend).ok();
    let refused_push = |clone: &str| -> Done {
        let before = f.upstream.contacts();
        let done = push(f, clone, &format!("agent/{clone}"));
        assert_eq!(f.upstream.contacts(), before, "{}", done.stderr);
        done
    };
    refused(&refused_push("lent"), "git_secret");

    // A repository in the tree: its alternates lead to the gate's keys and mirrors, its configuration to programs.
    let nest = "rm -rf inner; git init -q --bare inner; cd inner; \
         printf '/etc/bottle/keys\\n/var/lib/bottle/mirrors/brief.git/objects\\n' > objects/info/alternates; \
         git config core.fsmonitor 'touch /tmp/ran'; git config core.sshCommand 'touch /tmp/ran; false'; \
         printf '#!/bin/sh\\ntouch /tmp/ran\\n' > hooks/pre-receive; chmod +x hooks/pre-receive; \
         echo 'ref: refs/heads/main' > HEAD; cd ..; \
         mkdir -p objects/info; echo /etc/bottle/keys > objects/info/alternates; cp inner/config config; cp inner/HEAD HEAD";
    work(f, "plain", "nest", nest);
    let done = push(f, "nest", "agent/nest");
    assert!(done.status.success(), "{}", done.stderr);
    let gate = format!("bottle-{}-git-gate", f.asks.slug);
    let look = "ls /tmp; cat /var/lib/bottle/mirrors/*/objects/info/alternates 2> /dev/null; \
                grep -l fsmonitor.*touch /var/lib/bottle/mirrors/*/config || true";
    let found = bottle_tests::engine::docker(["exec", &gate, "sh", "-c", look]).ok();
    assert!(
        !found.contains("ran") && !found.contains("keys") && !found.contains("config"),
        "{found}"
    );
    let _ = agent(
        f,
        "cd ~/nest; git fetch -q; git ls-remote origin > /dev/null",
    )
    .ok();

    // What such a repository holds is looked at as well: its objects are packed one by one.
    let nest = format!(
        "rm -rf inner; git init -q --bare inner; echo 'token = {EXAMPLE}' | git --git-dir=inner hash-object -w --stdin"
    );
    work(f, "plain", "nest-secret", &nest);
    refused(&refused_push("nest-secret"), "git_secret");
}
