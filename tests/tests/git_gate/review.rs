//! The operator looks at pushes, and lets through what the rules refuse.

use std::thread;

use bottle_tests::Done;
use bottle_tests::engine::{docker, wait_for};
use serde_json::{Value, json};

use crate::fixture::{EXAMPLE, Fixture, HOST, audit};

/// Clones a repository and commits on a branch of the case's own.
pub(crate) fn work(f: &Fixture, repo: &str, case: &str, script: &str) {
    let url = f.upstream.url(HOST, repo);
    let script = format!(
        "rm -rf ~/{case}; git clone -q {url} ~/{case}; cd ~/{case}; git checkout -qb agent/{case}; {script}; \
         git add -A; git commit -qm 'work on {case}'"
    );
    let _ = agent(f, &script).ok();
}

pub(crate) fn agent(f: &Fixture, script: &str) -> Done {
    f.asks.exec(&["sh", "-euc", script])
}

pub(crate) fn push(f: &Fixture, case: &str, to: &str) -> Done {
    agent(f, &format!("cd ~/{case}; git push origin HEAD:{to}"))
}

pub(crate) fn head(f: &Fixture, case: &str) -> String {
    let id = agent(f, &format!("git -C ~/{case} rev-parse HEAD")).ok();
    id.trim().to_owned()
}

pub(crate) fn operator(f: &Fixture, args: &[&str]) -> Done {
    f.home.tool("bottle-run").args(args.iter().copied()).run()
}

/// The request that waits for this object to be pushed.
pub(crate) fn request_for(f: &Fixture, object: &str) -> Option<String> {
    let list = operator(f, &["requests", "--json"]).json();
    let requests = list["requests"].as_array().cloned().unwrap_or_default();
    let found = requests
        .iter()
        .find(|asked| asked["request"]["ask"]["object"] == object);
    found.and_then(|asked| asked["request"]["id"].as_str().map(str::to_owned))
}

pub(crate) fn wait_for_request(f: &Fixture, object: &str) -> String {
    wait_for("the request", || request_for(f, object).is_some());
    request_for(f, object).expect("it is there")
}

/// Asks at the desk and does not wait; gives the request's id.
fn ask(f: &Fixture, what: &Value) -> String {
    let script = "import sys, urllib.request as u; \
                  print(u.urlopen(u.Request('http://supervise:9100/requests/push', data=sys.argv[1].encode())).read().decode())";
    let mut what = what.clone();
    what["wait"] = json!(0);
    let said = f
        .asks
        .exec(&["python3", "-c", script, &what.to_string()])
        .json();
    said["id"].as_str().expect("an id").to_owned()
}

/// The id of the denial that the gate told the agent.
fn denial(done: &Done) -> String {
    let rest = done.stderr.split("request_push {\"denial\": \"").nth(1);
    let id = rest.and_then(|rest| rest.split('"').next());
    id.unwrap_or_else(|| panic!("no denial to ask about: {}", done.stderr))
        .to_owned()
}

pub(crate) fn refused(done: &Done, reason: &str) {
    assert!(!done.status.success(), "it went through: {}", done.stderr);
    assert!(
        done.stderr.contains(&format!("refused ({reason})")),
        "{reason}: {}",
        done.stderr
    );
}

fn records(f: &Fixture, method: &str, object: &str) -> Vec<Value> {
    let mut records = audit(&f.home, &f.asks);
    records.retain(|record| {
        let path = record["path"].as_str().unwrap_or_default();
        record["method"] == method && path.ends_with(object)
    });
    records
}

pub(crate) fn a_held_push_goes_on_when_it_is_approved(f: &Fixture) {
    work(
        f,
        "held",
        "yes",
        "printf 'first\\nesc \\033]52;c;eA==\\007 end\\n' > shown.txt; echo '* -diff' > .gitattributes",
    );
    let object = head(f, "yes");
    let before = f.upstream.contacts();
    let (done, id) = thread::scope(|scope| {
        let pushing = scope.spawn(|| push(f, "yes", "agent/yes"));
        let id = wait_for_request(f, &object);
        let page = operator(f, &["requests", "show", &id]).ok();
        for part in [
            "push to refs/heads/agent/yes of held",
            &object,
            "work on yes (Agent <agent@example.com>)",
            "shown.txt",
            "2 files changed",
            "+first",
            "+esc \\u{1b}]52;c;eA==\\u{7} end",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains('\u{1b}'), "{page:?}");
        assert_eq!(
            f.upstream.contacts(),
            before,
            "the upstream has heard of it"
        );
        assert_eq!(records(f, "HOLD", &object)[0]["rule"], id.as_str());
        let said = operator(f, &["approve", &id, "--uses", "1", "--by", "maria"]);
        assert_eq!(said.code(), 0, "{}", said.stderr);
        let words = format!("may push {object} to refs/heads/agent/yes of held");
        assert!(said.stderr.contains(&words), "{}", said.stderr);
        assert!(!said.stderr.contains("warning"), "{}", said.stderr);
        (pushing.join().expect("git ends"), id)
    });
    assert!(done.status.success(), "{}", done.stderr);
    let waits = format!("refs/heads/agent/yes waits for the operator ({id})");
    assert!(done.stderr.contains(&waits), "{}", done.stderr);
    assert_eq!(f.upstream.oid("held", "refs/heads/agent/yes"), object);
    let grant = id.replace("r-", "g-");
    for method in ["PUSH", "FORWARD"] {
        assert_eq!(records(f, method, &object)[0]["rule"], grant.as_str());
    }
    wait_for("both ends of the grant on record", || {
        let audit = audit(&f.home, &f.asks);
        let has = |reason: &str| {
            audit.iter().any(|record| {
                record["reason"] == reason && record["rule"] == format!("{grant} by maria")
            })
        };
        has("grant_begun") && has("grant_ended")
    });
    let grants = operator(f, &["grants", "--all"]).ok();
    let line = grants.lines().find(|line| line.contains(&grant));
    assert!(
        line.is_some_and(|line| line.contains("used up")),
        "{grants}"
    );
    let verified = operator(f, &["audit", "verify", &f.asks.slug]);
    assert_eq!(verified.code(), 0, "{}{}", verified.stdout, verified.stderr);
}

pub(crate) fn a_held_push_ends_with_the_operators_no(f: &Fixture) {
    work(f, "held", "no", "echo x > no");
    let object = head(f, "no");
    let before = f.upstream.contacts();
    let done = thread::scope(|scope| {
        let pushing = scope.spawn(|| push(f, "no", "agent/no"));
        let id = wait_for_request(f, &object);
        let _ = operator(f, &["deny", &id, "--why", "the tests are missing"]).ok();
        pushing.join().expect("git ends")
    });
    refused(&done, "git_review_denied");
    assert!(
        done.stderr.contains("the tests are missing"),
        "{}",
        done.stderr
    );
    assert_eq!(f.upstream.contacts(), before);
    // What holds a secret is not even shown.
    work(f, "held", "no-secret", &format!("echo {EXAMPLE} > s"));
    let object = head(f, "no-secret");
    refused(&push(f, "no-secret", "agent/no-secret"), "git_secret");
    assert_eq!(request_for(f, &object), None);
}

pub(crate) fn nobody_answers_and_a_later_push_goes_through(f: &Fixture) {
    work(f, "brief", "late", "echo x > late");
    let object = head(f, "late");
    let before = f.upstream.contacts();
    let done = push(f, "late", "agent/late");
    refused(&done, "git_review_pending");
    assert!(
        done.stderr.contains("push the same commit again"),
        "{}",
        done.stderr
    );
    let id = wait_for_request(f, &object);
    // The same again is the same request.
    refused(&push(f, "late", "agent/late"), "git_review_pending");
    assert_eq!(wait_for_request(f, &object), id);
    assert_eq!(f.upstream.contacts(), before);
    let _ = operator(f, &["approve", &id]).ok();
    // Neither another ref nor another object: the approval is for what was looked at.
    refused(&push(f, "late", "agent/late-2"), "git_review_pending");
    let _ = agent(f, "cd ~/late; git commit -q --allow-empty -m more").ok();
    refused(&push(f, "late", "agent/late"), "git_review_pending");
    let _ = agent(f, &format!("cd ~/late; git reset -q --hard {object}")).ok();
    // The gate may have been killed in between.
    let gate = format!("bottle-{}-git-gate", f.asks.slug);
    let _ = docker(["kill", &gate]).ok();
    let _ = docker(["start", &gate]).ok();
    let _ = docker(["exec", &gate, "/bottle-sidecar", "health", "--wait", "20"]).ok();
    let done = push(f, "late", "agent/late");
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(f.upstream.oid("brief", "refs/heads/agent/late"), object);
}

pub(crate) fn a_client_that_hangs_up_is_not_pushed_for(f: &Fixture) {
    work(f, "held", "gone", "echo x > gone");
    let object = head(f, "gone");
    let script = "cd ~/gone; timeout -s KILL 4 git push origin HEAD:agent/gone";
    let done = agent(f, script);
    assert!(!done.status.success(), "{}", done.stderr);
    let id = wait_for_request(f, &object);
    wait_for("the end of the held push", || {
        let ended = records(f, "PUSH", &object);
        ended
            .iter()
            .any(|record| record["reason"] == "git_review_pending")
    });
    let _ = operator(f, &["approve", &id]).ok();
    assert_eq!(f.upstream.oid("held", "refs/heads/agent/gone"), "");
    let done = push(f, "gone", "agent/gone");
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(f.upstream.oid("held", "refs/heads/agent/gone"), object);
}

pub(crate) fn a_grant_lifts_the_ref_rule_for_one_push(f: &Fixture) {
    work(f, "plain", "ref", "echo x > ref");
    let before = (
        f.upstream.contacts(),
        f.upstream.oid("plain", "refs/heads/main"),
    );
    let done = push(f, "ref", "main");
    refused(&done, "git_ref_not_allowed");
    let now = (
        f.upstream.contacts(),
        f.upstream.oid("plain", "refs/heads/main"),
    );
    assert_eq!(now, before, "the upstream has heard of it");
    let id = ask(f, &json!({"denial": denial(&done), "reason": "a release"}));
    let page = operator(f, &["requests", "show", &id]).ok();
    for part in ["git_ref_not_allowed", "+x", "\"a release\""] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let _ = operator(f, &["approve", &id, "--uses", "1"]).ok();
    let done = push(f, "ref", "main");
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(f.upstream.oid("plain", "refs/heads/main"), head(f, "ref"));
    let _ = agent(f, "cd ~/ref; git commit -q --allow-empty -m more").ok();
    refused(&push(f, "ref", "main"), "git_ref_not_allowed");
}

pub(crate) fn a_grant_lifts_no_secret_and_no_force(f: &Fixture) {
    work(f, "plain", "lift", &format!("echo {EXAMPLE} > s"));
    let any = json!({"repo": "plain", "ref": "refs/heads/release", "reason": "why"});
    let id = ask(f, &any);
    let page = operator(f, &["requests", "show", &id]).ok();
    assert!(page.contains("any content"), "{page}");
    let _ = operator(f, &["approve", &id]).ok();
    refused(&push(f, "lift", "release"), "git_secret");
    work(f, "plain", "lift-2", "echo x > lift");
    let done = push(f, "lift-2", "release");
    assert!(done.status.success(), "{}", done.stderr);
    let _ = agent(f, "cd ~/lift-2; git commit -q --amend -m other").ok();
    let done = agent(f, "cd ~/lift-2; git push --force origin HEAD:release");
    refused(&done, "git_force");
    let done = agent(f, "cd ~/lift-2; git push origin :release");
    refused(&done, "git_delete");
    // What is no repository of the gate's cannot be asked for.
    let script = "import urllib.request as u, urllib.error as e\ntry:\n u.urlopen('http://supervise:9100/requests/push', \
                  data=b'{\"repo\": \"other\", \"ref\": \"refs/heads/x\"}')\nexcept e.HTTPError as x: print(x.code, x.read().decode())";
    let said = f.asks.exec(&["python3", "-c", script]).ok();
    assert!(said.starts_with("400") && said.contains("held"), "{said}");
}

pub(crate) fn a_protected_path_is_seen_before_it_is_allowed(f: &Fixture) {
    work(
        f,
        "plain",
        "ci",
        "echo on: always > .github/workflows/ci.yml",
    );
    let object = head(f, "ci");
    let wish = json!({"repo": "plain", "ref": "refs/heads/agent/ci", "object": object, "reason": "a faster build"});
    let id = ask(f, &wish);
    let page = operator(f, &["requests", "show", &id]).ok();
    assert!(page.contains("git-gate has not seen this object"), "{page}");
    let _ = operator(f, &["approve", &id]).ok();
    let done = push(f, "ci", "agent/ci");
    refused(&done, "git_protected_path");
    let id = ask(
        f,
        &json!({"denial": denial(&done), "reason": "a faster build"}),
    );
    let page = operator(f, &["requests", "show", &id]).ok();
    for part in [
        ".github/workflows/ci.yml (.github/workflows/**)",
        "+on: always",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let _ = operator(f, &["approve", &id]).ok();
    let done = push(f, "ci", "agent/ci");
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(f.upstream.oid("plain", "refs/heads/agent/ci"), object);
}

pub(crate) fn a_grant_that_is_taken_back_lifts_nothing(f: &Fixture) {
    work(f, "plain", "back", "echo x > back");
    let wish = json!({"repo": "plain", "ref": "refs/heads/back", "reason": "why"});
    let id = ask(f, &wish);
    let said = operator(f, &["approve", &id, "--until-down"]);
    assert!(!said.stderr.contains("warning"), "{}", said.stderr);
    let revoked = operator(f, &["revoke", &id.replace("r-", "g-")]);
    assert_eq!(revoked.code(), 0, "{}", revoked.stderr);
    refused(&push(f, "back", "back"), "git_ref_not_allowed");
    // And one whose time is over.
    let id = ask(
        f,
        &json!({"repo": "plain", "ref": "refs/heads/back", "reason": "again"}),
    );
    let _ = operator(f, &["approve", &id, "--for", "2s"]).ok();
    wait_for("the end of the grant", || {
        !operator(f, &["grants"])
            .ok()
            .contains(&id.replace("r-", "g-"))
    });
    refused(&push(f, "back", "back"), "git_ref_not_allowed");
}
