//! More of everything than is good for the sidecar, and what it writes down meanwhile.

use std::fs;
use std::thread;

use bottle_tests::engine::{docker, wait_for, wait_within};
use bottle_tests::raw::Exchange;
use std::time::Duration;

use super::{FREE, Fixture, bare, connect, get, tunnel};

/// A conversation is metered like any request. (agent-egress-bench, websocket-dlp.)
pub(crate) fn row_40_a_websocket_without_end(f: &Fixture) {
    let upgrade = "GET /ws?mark=row-40 HTTP/1.1\r\nHost: metered.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // 100 bytes a message, under a mask that changes nothing.
    let message = format!("\u{81}\u{e4}\0\0\0\0{}", "m".repeat(100));
    let mut pieces = vec![upgrade];
    pieces.extend([message.as_str(); 30]);
    let mut exchange = tunnel("metered.example.com", &pieces);
    exchange.pause_ms = 30;
    let outcomes = f.bottle.raw(&[exchange]);
    assert!(outcomes[0].answer.contains(" 101 "), "{outcomes:?}");
    assert!(outcomes[0].closed, "{outcomes:?}");
    let echoed = outcomes[0].answer.matches(&"m".repeat(100)).count();
    assert!(
        (1..=10).contains(&echoed),
        "{echoed} messages of 100 bytes passed a limit of 1000"
    );
    f.assert_recorded("metered.example.com", "limit_bytes_out");
}

/// Clients that never get to the point, at every stage. (Slow-loris.)
pub(crate) fn row_63_slow_clients(f: &Fixture) {
    let drip = |to: &str, connect: &str, sni: &str| Exchange {
        to: to.to_owned(),
        connect: connect.to_owned(),
        sni: sni.to_owned(),
        send: "GET /bytes HTTP/1.1 and so on and on"
            .chars()
            .map(|char| char.to_string())
            .collect(),
        pause_ms: 1000,
        patience_ms: 3000,
        alpn: Vec::new(),
    };
    let mut exchanges = Vec::new();
    for _ in 0..40 {
        exchanges.push(drip("egress:3128", "", ""));
        exchanges.push(drip("egress:80", "", ""));
        // The beginning of a ClientHello, and nothing more.
        let mut hello = drip("egress:443", "", "");
        hello.send[0] = "\u{16}\u{3}\u{1}\u{2}".to_owned();
        exchanges.push(hello);
    }
    thread::scope(|scope| {
        let dripping = scope.spawn(|| f.bottle.raw(&exchanges));
        wait_within(Duration::from_secs(20), "the slow clients", || {
            connections(f) >= 100
        });
        f.assert_works();
        let outcomes = dripping.join().expect("no panic");
        let kept = outcomes.iter().filter(|outcome| !outcome.closed).count();
        assert_eq!(kept, 0, "{kept} slow clients were kept");
    });
}

/// How many connections the sidecar has, by the kernel's own list.
fn connections(f: &Fixture) -> usize {
    let pid = docker(["inspect", "--format={{.State.Pid}}", &f.bottle.egress()]).ok();
    let table = fs::read_to_string(format!("/proc/{}/net/tcp", pid.trim())).unwrap_or_default();
    table
        .lines()
        .filter(|line| line.split_whitespace().nth(3) == Some("01"))
        .count()
}

/// Connections until there are no more. What is refused is refused at once, and when they are gone all is as before.
pub(crate) fn row_64_too_many_connections(f: &Fixture) {
    let exchanges: Vec<Exchange> = (0..400)
        .map(|_| Exchange {
            to: "egress:3128".to_owned(),
            patience_ms: 9000,
            ..Exchange::default()
        })
        .collect();
    let outcomes = f.bottle.raw(&exchanges);
    let refused = outcomes.iter().filter(|outcome| outcome.closed).count();
    assert!((1..400).contains(&refused), "{refused} of 400 were refused");
    wait_for("the connections to end", || connections(f) < 50);
    f.assert_works();
    let recorded = f.records();
    assert!(
        recorded
            .iter()
            .any(|record| record["reason"] == "too_many_connections"),
        "nothing is on record"
    );
}

/// Heads, lines and bodies that do not end.
pub(crate) fn row_66_heads_and_bodies_without_end(f: &Fixture) {
    let many: String = (0..200)
        .map(|number| format!("x-{number}: y\r\n"))
        .collect();
    let long = format!("x-long: {}\r\n", "y".repeat(200_000));
    let path = format!("/bytes?row-66&{}", "y".repeat(200_000));
    let requests = [
        format!("GET /bytes?row-66 HTTP/1.1\r\nHost: {FREE}\r\n{many}\r\n"),
        format!("GET /bytes?row-66 HTTP/1.1\r\nHost: {FREE}\r\n{long}\r\n"),
        get(FREE, &path),
        format!(
            "POST /bytes?row-66 HTTP/1.1\r\nHost: {FREE}\r\nContent-Length: 99999999999\r\n\r\n"
        ),
    ];
    for outcome in f.in_tunnels(FREE, &requests) {
        let status = outcome.statuses();
        assert!(
            matches!(status.as_slice(), [] | [400 | 413 | 414 | 431]),
            "{status:?}"
        );
        assert!(outcome.closed, "the connection goes on");
    }
    f.assert_nothing_arrived("row-66");
    f.assert_works();
}

/// Refusals without end fill no disk: what is the same is counted.
pub(crate) fn row_67_a_flood_of_denials(f: &Fixture) {
    let host = "row-67.example.org";
    let refused = get(host, &format!("http://{host}/")).replace("Connection: close\r\n", "");
    let exchanges: Vec<Exchange> = (0..20).map(|_| bare(&refused.repeat(50))).collect();
    let answered: usize = f
        .bottle
        .raw(&exchanges)
        .iter()
        .map(|outcome| outcome.reasons().len())
        .sum();
    assert_eq!(answered, 1000, "each is refused");
    let count = || -> (usize, u64) {
        let records = f.records();
        let of_host = records.iter().filter(|record| record["host"] == host);
        let counts = of_host.map(|record| record["count"].as_u64().unwrap_or(1));
        let counts: Vec<u64> = counts.collect();
        (counts.len(), counts.iter().sum())
    };
    wait_within(Duration::from_secs(30), "the count of the flood", || {
        count().1 >= 1000
    });
    let (lines, all) = count();
    assert!(lines < 100 && all == 1000, "{all} denials in {lines} lines");
}

/// So many requests and no more. (A loop on a paid API.)
pub(crate) fn row_69_budgets(f: &Fixture) {
    let host = "limited.example.com";
    let mut reasons = Vec::new();
    for number in 0..5 {
        let outcomes = f.in_tunnels(
            host,
            &[get(host, &format!("/bytes?n=3&mark=row-69-{number}"))],
        );
        reasons.push(outcomes[0].reasons().concat());
    }
    assert_eq!(
        reasons.last().map(String::as_str),
        Some("limit_requests"),
        "{reasons:?}"
    );
    f.assert_nothing_arrived("row-69-4");
}

/// A question by TCP for a name of these labels, a character a byte.
fn question(labels: &[&str]) -> Exchange {
    let mut message = String::from("\0\x07\x01\0\0\x01\0\0\0\0\0\0");
    for label in labels {
        let length = u8::try_from(label.chars().count()).expect("a short label");
        assert!(length < 64, "{label}");
        message.push(char::from(length));
        message.push_str(label);
    }
    message.push_str("\0\0\x01\0\x01");
    let length = u16::try_from(message.chars().count()).expect("a short message");
    let length = length.to_be_bytes().map(char::from);
    Exchange {
        to: "egress:53".to_owned(),
        send: vec![length.iter().collect::<String>() + &message],
        ..Exchange::default()
    }
}

/// Text of the agent's in the audit: one line a record, and nothing in it that a terminal obeys.
pub(crate) fn row_70_lines_forged_in_the_audit(f: &Fixture) {
    let forged = r#"x","decision":"allow"}%0a{"decision":"allow","host":"row-70"#;
    let outcomes = f.bottle.raw(&[
        connect("row-70\u{1b}]52;c;cm93LTcw\u{7}.example.org:443"),
        connect("row-70\u{9b}31m.example.org:443"),
        bare(&get(
            "untold.example.com",
            &format!("http://untold.example.com/{forged}"),
        )),
        bare(&get(
            "untold.example.com",
            "http://untold.example.com/row-70%1b%5d0;title%07",
        )),
        tunnel(
            FREE,
            &[&get(FREE, &format!("/{}", forged.replace('"', "%22")))],
        ),
        connect("row-70\u{202e}gro.elpmaxe:443"),
        // A name in DNS may have any bytes.
        question(&[
            "row-70-dns\n{\"decision\":\"allow\",\"host\":\"row-70\"}",
            "\u{1b}]52;c;cm93LTcw\u{7}",
            "\u{c2}\u{9b}31m\u{e2}\u{80}\u{ae}",
        ]),
    ]);
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.connect.starts_with("HTTP/1.1 ") || !outcome.answer.is_empty())
    );
    f.assert_recorded("untold.example.com", "host_not_allowed");
    wait_for("the question", || {
        let records = f.records();
        records.iter().any(|record| {
            let host = record["host"].as_str().unwrap_or_default();
            record["way"] == "dns" && host.contains("row-70-dns")
        })
    });
    // `records` fails on a line that is none.
    let records = f.records();
    assert!(
        !records.iter().any(|record| record["host"] == "row-70"),
        "a forged record"
    );
    let shown = f
        .home
        .tool("bottle-run")
        .args(["audit", &f.bottle.slug])
        .run()
        .ok();
    assert!(shown.contains("row-70"), "{shown}");
    let odd = |char: char| {
        (char.is_control() && char != '\n') || ('\u{202a}'..='\u{202e}').contains(&char)
    };
    assert!(!shown.contains(odd), "{shown:?}");
    let log = docker(["logs", &f.bottle.egress()]);
    assert!(!log.stderr.contains(odd), "{:?}", log.stderr);
}

/// A line changed, a line taken out: the chain says so. (A sidecar that was taken over.)
pub(crate) fn row_73_the_audit_is_altered(f: &Fixture) {
    let verify = || {
        f.home
            .tool("bottle-run")
            .args(["audit", "verify", &f.bottle.slug])
            .run()
    };
    assert_eq!(verify().code(), 0);
    let path = f.home.state(&f.bottle.slug).join("audit/audit.jsonl");
    let whole = fs::read_to_string(&path).expect("the audit");
    let changed = whole.replacen(r#""decision":"deny""#, r#""decision":"allow""#, 1);
    assert_ne!(whole, changed);
    let mut lines: Vec<&str> = whole.lines().collect();
    lines.remove(lines.len() / 2);
    for altered in [changed, lines.join("\n") + "\n"] {
        fs::write(&path, &altered).expect("the audit can be written");
        let done = verify();
        assert_ne!(done.code(), 0, "{}", done.stdout);
    }
    fs::write(&path, &whole).expect("the audit can be written");
    assert_eq!(verify().code(), 0);
}
