//! What works as in any other bottle.

use bottle_tests::terminal::{Terminal, need_tmux};
use serde_json::{Value, json};

use crate::fixture::{ALLOWED, Fixture, GIT, body};

pub(crate) fn both_ways_out_work(f: &Fixture) {
    f.assert_works();
    // The name leads to the forwarder, and the credential was put in on the way.
    let answer = f
        .bottle
        .fetch(&["--direct", "GET", &format!("https://{ALLOWED}/echo/open")]);
    let echo = body(&answer);
    let sent = echo["headers"].to_string();
    assert!(sent.contains("Bearer"), "{sent}");
    let records = f.audit();
    for way in ["proxy", "transparent"] {
        let allowed = |record: &&Value| record["decision"] == "allow" && record["way"] == way;
        assert!(records.iter().any(|r| allowed(&r)), "{way}: {records:?}");
    }
    // As large as anything, in both directions.
    let bytes = f.sh("python3 - <<'EOF'\nimport os,socket,threading\ns=socket.create_connection(('egress',3128))\ns.sendall(b'GET http://blocked.example.net/ HTTP/1.1\\r\\nHost: blocked.example.net\\r\\nConnection: close\\r\\n\\r\\n')\ndata=b''\nwhile True:\n    piece=s.recv(65536)\n    if not piece: break\n    data+=piece\nprint(data.decode().splitlines()[0])\nEOF");
    assert!(bytes.ok().starts_with("HTTP/1.1 403"));
}

pub(crate) fn a_refusal_says_why(f: &Fixture) {
    let other = f.bottle.fetch(&["GET", "https://blocked.example.net/"]);
    assert_eq!(body(&other)["reason"], "host_not_allowed", "{other}");
    let path = format!("https://{ALLOWED}/echo/closed");
    for way in [&[][..], &["--direct"]] {
        let mut args = way.to_vec();
        args.extend(["GET", &path]);
        let denied = f.bottle.fetch(&args);
        assert_eq!(denied["status"], 403, "{denied}");
        assert_eq!(body(&denied)["reason"], "path_not_allowed", "{denied}");
    }
    // Its own place is no way around: neither by the loopback's names nor by its address.
    let targets = ["egress:3128", "127.0.0.1:3128", "localhost:9100"];
    let probes = targets.map(|target| format!("http:127.0.0.1:3128:{target}"));
    let findings = f.bottle.probe(&probes);
    findings.assert_closed();
    for probe in &probes {
        let (_, detail) = findings.of(probe);
        assert!(detail.contains("x-bottle-reason: "), "{probe}: {detail}");
    }
}

pub(crate) fn git_goes_through_the_gate(f: &Fixture) {
    let url = f.upstream.url(GIT, "demo");
    let script = format!(
        "rm -rf ~/work; git clone -q {url} ~/work; cd ~/work; git checkout -qb agent/strict; \
         head -c 3000000 /dev/urandom > large; git add .; git commit -qm 'a large file'; git push origin agent/strict"
    );
    let pushed = f.sh(&script);
    assert!(pushed.status.success(), "{}", pushed.stderr);
    let here = f.sh("git -C ~/work rev-parse HEAD").ok();
    assert_eq!(
        f.upstream.oid("demo", "refs/heads/agent/strict"),
        here.trim()
    );
    let refused = f.sh("cd ~/work; git push origin HEAD:main");
    assert!(!refused.status.success());
    assert!(
        refused.stderr.contains("git_ref_not_allowed"),
        "{}",
        refused.stderr
    );
}

pub(crate) fn a_request_is_asked_for_and_granted(f: &Fixture) {
    let url = format!("https://{ALLOWED}/echo/once");
    let denied = f.bottle.fetch(&["PUT", &url]);
    let ask = json!({"denial": body(&denied)["id"], "reason": "to put it", "wait": 0}).to_string();
    let place = "http://supervise:9100/requests/egress";
    let answer = f.bottle.fetch(&["--direct", "--body", &ask, "POST", place]);
    assert_eq!(answer["status"], 200, "{answer}");
    let id = body(&answer)["id"].as_str().expect("an id").to_owned();
    assert!(f.operator(&["requests"]).ok().contains(&id));
    let approved = f.operator(&["approve", &id, "--uses", "1"]);
    assert_eq!(approved.code(), 0, "{}", approved.stderr);
    assert_eq!(f.bottle.fetch(&["PUT", &url])["status"], 200);
    assert_eq!(f.bottle.fetch(&["PUT", &url])["status"], 403);
    let listed = f.operator(&["list", "--json"]).ok();
    assert!(listed.contains(&f.bottle.slug), "{listed}");
}

pub(crate) fn a_terminal_is_a_terminal(f: &Fixture) {
    if !need_tmux("a_terminal_is_a_terminal") {
        return;
    }
    let terminal = Terminal::start(&f.home, "strict", 100, 30);
    terminal.types(&format!(
        "bottle-run attach {}; echo \"left with $?\"",
        f.bottle.slug
    ));
    terminal.asks("stty size", "30 100");
    terminal.types("exit 7");
    terminal.waits_for("left with 7");
}
