//! What an agent could write to act on its operator.

use std::fs;

use serde_json::json;

use crate::{Fixture, ask, body, hand_in, operator};

const NASTY: &str =
    "\u{1b}]52;c;b3duZWQ=\u{7}\u{1b}[2J\u{202e}\u{9b}31m\r\nAPPROVED by root\t\u{feff}";

pub(crate) fn what_the_agent_writes_stays_text(f: &Fixture) {
    let id = hand_in(
        &f.bottle,
        "question",
        json!({"question": NASTY, "options": [NASTY]}),
    );
    let wish = json!({"host": "far.example.org", "methods": ["GET"], "paths": ["/x?%1b"], "reason": NASTY});
    let other = hand_in(&f.bottle, "egress", wish);
    for args in [
        &["requests"][..],
        &["requests", "show", &id],
        &["requests", "show", &other],
        &["deny", &id],
        &["approve", &other],
        &["requests", "--all"],
        &["grants", "--all"],
        &["list"],
    ] {
        let done = operator(&f.home, args);
        let said = done.stdout + &done.stderr;
        let hostile = |c: char| {
            (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{feff}')
        };
        assert!(!said.contains(hostile), "{args:?}: {said:?}");
        assert!(
            !said.lines().any(|line| line.starts_with("APPROVED")),
            "{args:?}: {said}"
        );
    }
    let _ = operator(&f.home, &["revoke", &other.replace("r-", "g-")]);
}

pub(crate) fn what_widens_too_much_is_not_even_asked(f: &Fixture) {
    let path = "/a".repeat(600);
    for wish in [
        json!({"host": "*.example.com"}),
        json!({"host": "10.0.0.1"}),
        json!({"host": "169.254.169.254"}),
        json!({"host": "api.example.com", "paths": [{"type": "regex", "value": "/.*"}]}),
        json!({"host": "api.example.com", "paths": [path]}),
        json!({"host": "api.example.com", "paths": ["/../../etc"], "auth": {"slot": "EGRESS_TOKEN_0"}}),
        json!({"host": "api.example.com", "methods": ["CONNECT"]}),
        json!({"host": "api.example.com", "port": 0}),
        json!({"host": "api.example.com", "id": "r-aaaaaaa2"}),
        json!({"denial": "../../x"}),
        json!({"url": "file:///etc/passwd"}),
        json!({"reason": "x".repeat(10_000), "host": "api.example.com"}),
        json!([]),
    ] {
        let answer = ask(&f.bottle, "egress", &wish);
        assert!(
            matches!(answer["status"].as_u64(), Some(400 | 404)),
            "{wish}: {answer}"
        );
        assert!(body(&answer)["error"].is_string(), "{answer}");
    }
    let huge = "x".repeat(70_000);
    let answer = ask(&f.bottle, "question", &json!({"question": huge}));
    assert_eq!(answer["status"], 400);
    let deep = "[".repeat(20_000);
    let url = "http://supervise:9100/requests/egress";
    assert_eq!(
        f.bottle.fetch(&["--direct", "--body", &deep, "POST", url])["status"],
        400
    );
}

pub(crate) fn only_programs_that_mean_it_can_ask(f: &Fixture) {
    let url = "http://supervise:9100/policy";
    assert_eq!(f.bottle.fetch(&["--direct", "GET", url])["status"], 200);
    let origin = f
        .bottle
        .fetch(&["--direct", "GET", url, "Origin: https://evil.example.com"]);
    assert_eq!(origin["status"], 403, "{origin}");
    for path in ["mcp", "policy"] {
        let address = f.bottle.address("/networks/addresses/supervise");
        let script = format!(
            "exec 3<>/dev/tcp/{address}/9100; printf 'GET /{path} HTTP/1.1\\r\\nHost: evil.example.com\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3"
        );
        let said = f.bottle.exec(&["bash", "-c", &script]).ok();
        assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    }
    // The operator's side has no address at all, and the sidecar cannot write what it reads.
    let mounts = bottle_tests::engine::docker_lines([
        "inspect",
        "--format={{range .Mounts}}{{.Destination}} {{.RW}}\n{{end}}",
        &format!("bottle-{}-supervise", f.bottle.slug),
    ]);
    let writable: Vec<&String> = mounts
        .iter()
        .filter(|line| line.ends_with("true"))
        .collect();
    assert_eq!(writable, ["/var/lib/bottle/requests true"], "{mounts:?}");
}

pub(crate) fn a_flood_is_held_back(f: &Fixture) {
    let mut codes = Vec::new();
    for number in 0..12 {
        let wish = json!({"host": format!("h{number}.example.org"), "wait": 0});
        codes.push(ask(&f.bottle, "egress", &wish)["status"].as_u64());
    }
    assert!(codes.contains(&Some(429)), "{codes:?}");
    // The same again is the same request.
    let again = json!({"host": "h0.example.org"});
    assert_eq!(
        hand_in(&f.bottle, "egress", again.clone()),
        hand_in(&f.bottle, "egress", again)
    );
    let open = operator(&f.home, &["requests", "--json"]).json();
    let open = open["requests"].as_array().expect("a list").clone();
    assert!(open.len() <= 16, "{}", open.len());
    for asked in open {
        let id = asked["request"]["id"].as_str().expect("an id");
        assert_eq!(operator(&f.home, &["deny", id]).code(), 0);
    }
}

/// Somebody who took the sidecar over can write any file into its folder.
pub(crate) fn a_file_the_sidecar_did_not_mean_is_not_shown(f: &Fixture) {
    let folder = f.home.state(&f.bottle.slug).join("supervise/requests");
    let good = hand_in(
        &f.bottle,
        "egress",
        json!({"host": "far.example.org", "methods": ["PUT"]}),
    );
    let text = fs::read_to_string(folder.join(format!("{good}.json"))).expect("a request");
    let forged = [
        ("r-aaaaaaa2", text.clone()),
        (
            "r-aaaaaaa3",
            text.replace(&good, "r-aaaaaaa3")
                .replace("far.example.org", "*.example.org"),
        ),
        (
            "r-aaaaaaa4",
            text.replace(&good, "r-aaaaaaa4")
                .replace(&f.bottle.slug, "another"),
        ),
        ("r-aaaaaaa5", " ".repeat(100_000)),
        ("r-aaaaaaa6", "{".to_owned()),
    ];
    for (id, text) in &forged {
        fs::write(folder.join(format!("{id}.json")), text).expect("written");
    }
    std::os::unix::fs::symlink("/etc/hostname", folder.join("r-aaaaaaa7.json")).expect("a link");
    nix::unistd::mkfifo(
        &folder.join("r-aaaaaaa8.json"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .expect("a pipe");
    let shown = operator(&f.home, &["requests", "--all"]).ok();
    assert!(
        shown.contains(&good) && !shown.contains("r-aaaaaaa"),
        "{shown}"
    );
    assert_ne!(operator(&f.home, &["approve", "r-aaaaaaa3"]).code(), 0);
    // What was read is what is decided.
    let path = folder.join(format!("{good}.json"));
    let asked = operator(&f.home, &["requests", "show", &good, "--json"]).json();
    fs::write(&path, text.replace("far.example.org", "evil.example.org")).expect("written");
    let hash = asked["sha256"].as_str().expect("a hash");
    let swapped = operator(&f.home, &["approve", &good, "--expect", hash]);
    assert_eq!(swapped.code(), 5, "{}", swapped.stderr);
    for number in 2..9 {
        let _ = fs::remove_file(folder.join(format!("r-aaaaaaa{number}.json")));
    }
    let _ = operator(&f.home, &["deny", &good]);
}
