//! Asking, answering, ending.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bottle_tests::engine::{note_skipped, wait_for};
use bottle_tests::tools;
use serde_json::{Value, json};

use crate::{Fixture, ask, body, hand_in, operator, send, status};

pub(crate) fn a_denial_becomes_a_grant_for_one_use(f: &Fixture) {
    let url = "https://api.example.com/echo/once";
    let denied = f.bottle.fetch(&["POST", url]);
    let denial = body(&denied);
    assert_eq!(denial["reason"], "path_not_allowed", "{denial}");
    let advice = denial["ask"].as_str().expect("advice");
    assert!(advice.contains("request_egress"), "{advice}");

    let id = hand_in(
        &f.bottle,
        "egress",
        json!({"denial": denial["id"], "reason": "to post it"}),
    );
    assert_eq!(status(&f.bottle, &id)["status"], "waiting");
    let list = operator(&f.home, &["requests"]).ok();
    assert!(
        list.contains(&id) && list.contains("POST to /echo/once of api.example.com"),
        "{list}"
    );

    let said = operator(&f.home, &["approve", &id[..6], "--uses", "1"]);
    assert_eq!(said.code(), 0, "{}", said.stderr);
    for words in [
        "may POST to /echo/once of api.example.com",
        "for 10 minutes, once",
    ] {
        assert!(said.stderr.contains(words), "{}", said.stderr);
    }
    assert!(!said.stderr.contains("warning"), "{}", said.stderr);
    assert_eq!(status(&f.bottle, &id)["status"], "approved");
    assert_eq!(
        send(&f.bottle, "GET", url),
        (403, "method_not_allowed".into())
    );
    assert_eq!(send(&f.bottle, "POST", url).0, 200);
    assert_eq!(
        send(&f.bottle, "POST", url),
        (403, "path_not_allowed".into())
    );

    let late = operator(&f.home, &["deny", &id]);
    assert_eq!(late.code(), 5, "{}", late.stderr);
    assert!(late.stderr.contains("was approved by"), "{}", late.stderr);
}

pub(crate) fn a_host_of_no_manifest_can_be_granted(f: &Fixture) {
    let url = "https://other.example.net/echo/new";
    assert_eq!(
        send(&f.bottle, "GET", url),
        (403, "host_not_allowed".into())
    );
    let wish = json!({"url": url, "methods": ["get"], "reason": "a new host"});
    let id = hand_in(&f.bottle, "egress", wish);
    // The test's Internet has private addresses, which only the operator can add.
    let editor = r#"sed -i 's|"ports"|"private": ["10.213.0.0/16"], "ports"|'"#;
    let approve = f
        .home
        .tool("bottle-run")
        .args(["approve", &id, "--edit"])
        .env("EDITOR", editor)
        .run();
    assert_eq!(approve.code(), 0, "{}", approve.stderr);
    assert!(
        approve
            .stderr
            .contains("also at the private addresses 10.213.0.0/16"),
        "{}",
        approve.stderr
    );
    assert_eq!(send(&f.bottle, "GET", url).0, 200);
    // Programs that know no proxy find it by its name.
    let direct = f.bottle.fetch(&["--direct", "GET", url]);
    assert_eq!(direct["status"], 200, "{direct}");
    assert_eq!(
        send(&f.bottle, "POST", url),
        (403, "method_not_allowed".into())
    );
}

pub(crate) fn a_grant_ends_by_the_clock_and_by_hand(f: &Fixture) {
    let url = "https://api.example.com/echo/ends";
    let id = hand_in(&f.bottle, "egress", json!({"url": url, "methods": ["PUT"]}));
    let _ = operator(&f.home, &["approve", &id, "--for", "4s"]).ok();
    assert_eq!(send(&f.bottle, "PUT", url).0, 200);
    wait_for("the end of the grant", || {
        send(&f.bottle, "PUT", url).0 == 403
    });

    let id = hand_in(
        &f.bottle,
        "egress",
        json!({"url": url, "methods": ["PUT"], "reason": "again"}),
    );
    let _ = operator(&f.home, &["approve", &id, "--until-down"]).ok();
    assert_eq!(send(&f.bottle, "PUT", url).0, 200);
    let grant = id.replace("r-", "g-");
    let revoked = operator(&f.home, &["--json", "revoke", &grant, "--by", "maria"]);
    assert!(
        revoked.stderr.contains("may no longer PUT"),
        "{}",
        revoked.stderr
    );
    let revoked = revoked.json();
    assert_eq!(revoked["schema"], "bottle.grant/v1");
    assert_eq!(
        (&revoked["id"], &revoked["ended"]["by"]),
        (&json!(grant), &json!("maria"))
    );
    assert_eq!(send(&f.bottle, "PUT", url).0, 403);
    assert_eq!(operator(&f.home, &["revoke", &grant]).code(), 5);
    assert_eq!(operator(&f.home, &["revoke", "g-zzzzzzzz"]).code(), 4);
}

pub(crate) fn a_no_is_told_with_its_why(f: &Fixture) {
    let wish = json!({"host": "far.example.org", "reason": "curious"});
    let id = hand_in(&f.bottle, "egress", wish);
    let _ = operator(
        &f.home,
        &["deny", &id, "--why", "use the mirror", "--by", "maria"],
    )
    .ok();
    let told = status(&f.bottle, &id);
    assert_eq!(
        (&told["status"], &told["text"]),
        (&json!("denied"), &json!("use the mirror"))
    );
    let shown = operator(&f.home, &["requests", "show", &id]).ok();
    assert!(shown.contains("by maria"), "{shown}");
}

pub(crate) fn a_question_is_answered(f: &Fixture) {
    let id = hand_in(
        &f.bottle,
        "question",
        json!({"question": "which branch?", "options": ["main", "next"]}),
    );
    assert_eq!(operator(&f.home, &["approve", &id]).code(), 2);
    let _ = operator(&f.home, &["answer", &id, "next"]).ok();
    let told = status(&f.bottle, &id);
    assert_eq!(
        (&told["status"], &told["text"]),
        (&json!("answered"), &json!("next"))
    );
}

pub(crate) fn nobody_answers_and_only_reading_is_left(f: &Fixture) {
    let url = "https://api.example.com/echo/unanswered";
    let wish = json!({"url": url, "methods": ["GET", "POST"]});
    let told = body(&ask(&f.reader, "egress", &wish));
    assert_eq!(told["status"], "approved", "{told}");
    assert!(
        told["message"]
            .as_str()
            .is_some_and(|text| text.contains("nobody answered")),
        "{told}"
    );
    assert_eq!(send(&f.reader, "GET", url).0, 200);
    assert_eq!(
        send(&f.reader, "POST", url),
        (403, "method_not_allowed".into())
    );
    let told = body(&ask(
        &f.reader,
        "egress",
        &json!({"url": url, "methods": ["DELETE"]}),
    ));
    assert_eq!(told["status"], "expired", "{told}");
    let id = told["id"].as_str().expect("an id");
    assert_eq!(operator(&f.home, &["approve", id]).code(), 5);
}

pub(crate) fn grants_are_in_the_list_and_in_the_audit(f: &Fixture) {
    let url = "https://api.example.com/echo/listed";
    let id = hand_in(
        &f.bottle,
        "egress",
        json!({"url": url, "methods": ["PATCH"]}),
    );
    let _ = operator(&f.home, &["approve", &id, "--by", "maria"]).ok();
    let grant = id.replace("r-", "g-");
    let list: Value = operator(&f.home, &["list", "--json"]).json();
    assert!(list.to_string().contains(&grant), "{list}");
    let list = operator(&f.home, &["list"]).ok();
    assert!(
        list.contains("PATCH to /echo/listed of api.example.com"),
        "{list}"
    );
    let plan = f
        .home
        .tool("bottle-plan")
        .args(["asks", "--slug", &f.bottle.slug, "--explain"])
        .run();
    assert!(
        plan.stderr.contains("PATCH to /echo/listed"),
        "{}",
        plan.stderr
    );
    wait_for("the audit", || {
        let audit = operator(&f.home, &["audit", &f.bottle.slug, "--json"]).stdout;
        audit.contains("grant_begun") && audit.contains(&format!("{grant} by maria"))
    });
    let verified = operator(&f.home, &["audit", "verify", &f.bottle.slug]);
    assert_eq!(verified.code(), 0, "{}{}", verified.stdout, verified.stderr);
    let _ = operator(&f.home, &["revoke", &grant]).ok();
}

pub(crate) fn a_grant_becomes_a_line_of_the_manifest(f: &Fixture) {
    let grant_of = |wish: Value| {
        let id = hand_in(&f.bottle, "egress", wish);
        let _ = operator(&f.home, &["approve", &id, "--by", "maria"]).ok();
        id.replace("r-", "g-")
    };
    let more = grant_of(json!({
        "url": "https://api.example.com/echo/for-good", "methods": ["PUT"], "reason": "each time",
    }));
    let other = grant_of(json!({"host": "far.example.org", "methods": ["GET"], "paths": ["/v1"]}));
    let path = f.home.path().join("bottles/asks.yaml");
    let before = fs::read_to_string(&path).expect("a manifest");
    let now = || fs::read_to_string(&path).expect("a manifest");
    assert!(before.contains("# the way in"), "{before}");

    // Seen first, and made only when somebody says so.
    let seen = operator(&f.home, &["promote", &other]);
    assert_eq!(seen.code(), 2, "{}", seen.stderr);
    assert!(seen.stderr.contains("--yes"), "{}", seen.stderr);
    assert_eq!(now(), before);
    let made = operator(&f.home, &["promote", &other, "--yes"]);
    assert_eq!(
        (made.code(), &made.stdout),
        (0, &seen.stdout),
        "{}",
        made.stderr
    );
    // What the diff adds is what was added; the rest of the file is as it was.
    let after = now();
    let added = after.strip_prefix(&before).expect("all of it is there");
    let plus = made.stdout.lines().skip(2);
    let plus: Vec<&str> = plus.filter_map(|line| line.strip_prefix('+')).collect();
    assert_eq!(added.lines().collect::<Vec<_>>(), plus);
    assert!(plus[0].starts_with(&format!("    # {other}, granted by maria at ")));
    assert_eq!(plus[1], "    - host: far.example.org");

    // A host has one route: what more it allows is a rule there.
    let made = operator(&f.home, &["--json", "promote", &more, "--yes"]);
    assert_eq!(made.code(), 0, "{}", made.stderr);
    let promotion = made.json();
    assert_eq!(promotion["schema"], "bottle.promotion/v1");
    assert_eq!(promotion["grant"], more.as_str());
    assert_eq!(promotion["path"], path.to_str().expect("a path"));
    let diff = promotion["diff"].as_str().expect("a diff");
    let rule = r#"{methods: [PUT], paths: [{type: exact, value: "/echo/for-good"}]}"#;
    let line = format!("+      matches: [{{paths: [/echo/open], methods: [GET]}}, {rule}]\n");
    assert!(diff.contains(&line), "{diff}");
    assert!(now().contains("# the way in"), "{}", now());
    let plan = f.home.plan("asks", &f.home.slug("promoted"));
    let plan: Value = serde_json::from_str(&plan).expect("a plan");
    let routes = plan["egress"]["routes"].as_array().expect("routes");
    let of = |host: &str| routes.iter().find(|route| route["host"] == host);
    let rules = of("api.example.com").map(|route| route["matches"].clone());
    assert_eq!(
        rules.as_ref().and_then(Value::as_array).map(Vec::len),
        Some(2)
    );
    assert!(of("far.example.org").is_some(), "{plan}");

    // What cannot be edited without doubt is left alone, and what it would have to say is said.
    let flow = "image: x\nsupervise: true\negress: {routes: [{host: a.example.com}]}\n";
    fs::write(&path, flow).expect("written");
    let by_hand = operator(&f.home, &["promote", &other, "--yes"]);
    assert_eq!(by_hand.code(), 2, "{}", by_hand.stderr);
    assert!(
        by_hand.stderr.contains("cannot be edited safely")
            && by_hand.stderr.contains("    - host: far.example.org"),
        "{}",
        by_hand.stderr
    );
    assert_eq!(now(), flow);
    let elsewhere = f.home.write("elsewhere.yaml", &before);
    fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("a link");
    let linked = operator(&f.home, &["promote", &other, "--yes"]);
    assert_eq!(linked.code(), 2, "{}", linked.stderr);
    fs::remove_file(&path).expect("removed");
    fs::write(&path, &before).expect("written");
    for grant in [more, other] {
        let _ = operator(&f.home, &["revoke", &grant]).ok();
    }
}

/// The program of the documentation, as it is there.
pub(crate) fn the_example_tells_what_waits(f: &Fixture) {
    if Command::new("jq").arg("--version").output().is_err() {
        note_skipped("the_example_tells_what_waits", "there is no jq");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/supervise-notify");
    let tools = tools::tool("bottle-run");
    let folder = tools.parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new("sh")
        .arg(script)
        .env("PATH", format!("{folder}:{path}"))
        .env("BOTTLE_HOME", f.home.path())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("sh starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let (send_line, told) = mpsc::channel();
    let reading = thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = send_line.send(line);
        }
    });
    let wish = json!({"url": "https://api.example.com/echo/chat", "methods": ["PUT"], "reason": "to \u{1b}[2Jtell"});
    let id = hand_in(&f.bottle, "egress", wish);
    let message = std::iter::from_fn(|| told.recv_timeout(Duration::from_secs(20)).ok())
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .find(|message| message["id"] == id.as_str());
    let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGTERM).expect("ended");
    let _ = child.wait();
    let _ = reading.join();
    let message = message.expect("a message about the request");
    let text = message["text"].as_str().expect("a text");
    assert!(
        text.contains("wants to PUT to /echo/chat of api.example.com: \"to \\u001b[2Jtell\""),
        "{text}"
    );
    let hash = message["sha256"].as_str().expect("a hash");
    let answer = [
        "approve", &id, "--expect", hash, "--uses", "1", "--by", "chat",
    ];
    let _ = operator(&f.home, &answer).ok();
    assert_eq!(status(&f.bottle, &id)["status"], "approved");
}
