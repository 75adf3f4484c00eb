//! Requests that two parsers could read differently, over every way in: none reaches the destination, each has a
//! record, and nothing that follows on the connection is read.

use std::io::Write;

use serde_json::json;

use crate::world::{Stream, World, ask, connect, get, read_message};

const HOST: &str = "other.example.com";

/// `{url}` is the target in the form the way expects.
const MALFORMED: &[(&str, &str)] = &[
    (
        "length, then chunks",
        "POST {url} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunks, then length",
        "POST {url} HTTP/1.1\r\nhost: {host}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "POST {url} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na",
    ),
    (
        "the same length twice",
        "POST {url} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
    ),
    (
        "two lengths in one field",
        "POST {url} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1, 1\r\n\r\na",
    ),
    (
        "a signed length",
        "POST {url} HTTP/1.1\r\nhost: {host}\r\ncontent-length: +1\r\n\r\na",
    ),
    (
        "another coding",
        "POST {url} HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: gzip\r\n\r\n0\r\n\r\n",
    ),
    (
        "another coding first",
        "POST {url} HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "POST {url} HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in quotes",
        "POST {url} HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in HTTP/1.0",
        "POST {url} HTTP/1.0\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a space before the colon",
        "POST {url} HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a folded line",
        "GET {url} HTTP/1.1\r\nhost: {host}\r\nx-a: 1\r\n folded\r\n\r\n",
    ),
    (
        "a folded line first",
        "GET {url} HTTP/1.1\r\n host: {host}\r\n\r\n",
    ),
    (
        "a bare line feed",
        "GET {url} HTTP/1.1\r\nhost: {host}\r\nx-a: 1\nx-b: 2\r\n\r\n",
    ),
    (
        "a bare line feed in the first line",
        "GET {url} HTTP/1.1\nhost: {host}\r\n\r\n",
    ),
    (
        "a bare line feed at the end",
        "GET {url} HTTP/1.1\r\nhost: {host}\r\n\n",
    ),
    (
        "a bare return",
        "GET {url} HTTP/1.1\r\nhost: {host}\r\nx-a: 1\rx-b: 2\r\n\r\n",
    ),
    (
        "a NUL in a value",
        "GET {url} HTTP/1.1\r\nhost: {host}\r\nx-a: 1\0\r\n\r\n",
    ),
    (
        "a NUL in a name",
        "GET {url} HTTP/1.1\r\nhost: {host}\r\nx\0a: 1\r\n\r\n",
    ),
    (
        "a NUL in the target",
        "GET {url}\0 HTTP/1.1\r\nhost: {host}\r\n\r\n",
    ),
    (
        "two hosts",
        "GET {url} HTTP/1.1\r\nhost: {host}\r\nhost: {host}\r\n\r\n",
    ),
    (
        "two hosts that differ",
        "GET {url} HTTP/1.1\r\nhost: {host}\r\nhost: api.example.com\r\n\r\n",
    ),
    (
        "HTTP/2 without being asked",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ),
    ("no version", "GET {url}\r\n\r\n"),
];

/// What is well formed and refused all the same.
const REFUSED: &[(&str, &str)] = &[
    (
        "upgrade_refused",
        "GET {url} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    ),
    (
        "upgrade_refused",
        "GET {url} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ),
    (
        "authority_mismatch",
        "GET {url} HTTP/1.1\r\nhost: api.example.com:444\r\n\r\n",
    ),
    (
        "authority_mismatch",
        "GET {other} HTTP/1.1\r\nhost: {host}\r\n\r\n",
    ),
    (
        "method_refused",
        "TRACE {url} HTTP/1.1\r\nhost: {host}\r\n\r\n",
    ),
];

fn world() -> World {
    World::new(&json!([
        {"host": "api.example.com", "ports": [443]},
        {"host": HOST, "ports": [443]},
        {"host": HOST, "scheme": "http", "ports": [80]},
    ]))
}

/// A way in: its name, a connection, and the URL a request for `/` has there.
type Way = (&'static str, fn(&World) -> Box<dyn Stream>, &'static str);

const WAYS: &[Way] = &[
    (
        "explicit",
        |world| Box::new(world.proxy()),
        "http://other.example.com/",
    ),
    ("CONNECT", |world| Box::new(world.tunnel(HOST, 443)), "/"),
    (
        "transparent TLS",
        |world| Box::new(world.transparent(HOST)),
        "/",
    ),
    (
        "transparent HTTP",
        |world| Box::new(connect(world.bound.http)),
        "/",
    ),
];

fn fill(template: &str, url: &str) -> String {
    let other = match url {
        "/" => "http://evil.example.com/",
        _ => "http://api.example.com/",
    };
    template
        .replace("{url}", url)
        .replace("{other}", other)
        .replace("{host}", HOST)
}

#[test]
fn what_two_parsers_could_read_differently_is_refused() {
    for (way, open, url) in WAYS {
        // More of the same than there are here are counted instead of listed.
        let world = world();
        let mut count = 0;
        for (what, template) in MALFORMED {
            let mut stream = open(&world);
            let follower = get(HOST, url, "");
            let raw = format!("{}{follower}", fill(template, url));
            stream.write_all(raw.as_bytes()).unwrap();
            stream.flush().unwrap();
            if let Some(answer) = read_message(&mut *stream, true) {
                assert_eq!(answer.status(), 400, "{way}: {what}");
            }
            assert!(
                read_message(&mut *stream, true).is_none(),
                "{way}: {what}: it goes on"
            );
            count += 1;
            let record = world.records(count).pop().unwrap();
            assert_eq!(
                (&record["reason"], &record["status"], &record["decision"]),
                (&json!("request_malformed"), &json!(400), &json!("deny")),
                "{way}: {what}: {record}"
            );
        }
        assert!(world.seen().is_empty(), "{:?}", world.seen());
    }
}

#[test]
fn what_is_refused_is_refused_over_every_way() {
    let world = world();
    for (way, open, url) in WAYS {
        for (reason, template) in REFUSED {
            let answer = ask(&mut *open(&world), &fill(template, url));
            assert_eq!(answer.reason(), *reason, "{way}: {template}");
        }
    }
    assert!(world.seen().is_empty(), "{:?}", world.seen());
}

/// A head of `CONNECT` is a head too.
#[test]
fn a_tunnel_is_asked_for_in_one_way_only() {
    let world = world();
    for fields in [
        "host: other.example.com:443\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n",
        "host: other.example.com:443\nx: y\r\n",
        "host: api.example.com:443\r\nhost: other.example.com:443\r\n",
    ] {
        let answer = world.ask_proxy(&format!(
            "CONNECT other.example.com:443 HTTP/1.1\r\n{fields}\r\n"
        ));
        assert!(matches!(answer.status(), 400 | 421), "{fields}: {answer:?}");
    }
    assert!(world.network.log().is_empty());
}

/// A bad head ends its connection, and what came before it on the same connection is answered.
#[test]
fn a_good_request_before_a_bad_one_is_answered() {
    let world = world();
    for body in [
        "content-length: 3\r\n\r\n\n\n\n",
        "transfer-encoding: chunked\r\n\r\n3;x=y\r\n\n\n\n\r\n0\r\nt: 1\r\n\r\n",
    ] {
        let mut stream = world.tunnel(HOST, 443);
        let good = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\n{body}");
        let bad = format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        );
        let before = world.seen().len();
        assert_eq!(
            ask(&mut stream, &format!("{good}{good}{bad}")).status(),
            200
        );
        assert_eq!(read_message(&mut stream, true).unwrap().status(), 200);
        let refused = read_message(&mut stream, true).unwrap();
        assert_eq!(
            (refused.status(), refused.reason().as_str()),
            (400, "request_malformed")
        );
        assert_eq!(refused.all("connection"), ["close"]);
        assert!(read_message(&mut stream, true).is_none());
        assert_eq!(world.seen().len(), before + 2);
    }
}
