//! WebSocket: joined only once both sides are, looked through in both directions, ended when it is revoked.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use serde_json::json;

use crate::world::{
    Message, PLACEHOLDER, SECRET, Stream, World, ask, credentialed, get, read_message, slots,
};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The examples of RFC 6455, section 5.7, or near enough: "Hello" masked, "World" not.
const HELLO: &[u8] = &[
    0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
];
const WORLD: &[u8] = b"\x81\x05World";

fn upgrade() -> String {
    get(
        "api.example.com",
        "/ws",
        &format!(
            "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n"
        ),
    )
}

fn agree(stream: &mut dyn Stream) {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.flush().unwrap();
}

/// A client's frame.
fn masked(first: u8, text: &str) -> Vec<u8> {
    let mask = [7, 77, 177, 27];
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126);
    let mut frame = vec![first, 0x80 | length];
    frame.extend_from_slice(&mask);
    frame.extend(
        text.bytes()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

/// A server's frame.
fn plain(first: u8, text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126);
    [&[first, length], text.as_bytes()].concat()
}

/// A client's message of 16 MiB and a byte, in one frame.
fn large() -> Vec<u8> {
    let length = (16_u64 << 20) + 1;
    let mut frame = vec![0x82, 0xff];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.resize(frame.len() + usize::try_from(length).unwrap(), b'x');
    frame
}

/// A world whose destination sends `frames` at once and then takes whatever comes; and a joined client.
fn joined(frames: Vec<u8>) -> (World, StreamOwned<ClientConnection, TcpStream>) {
    let handler = move |_: &Message, stream: &mut dyn Stream| {
        agree(stream);
        stream.write_all(&frames).unwrap();
        stream.flush().unwrap();
        while stream.read(&mut [0; 100]).is_ok_and(|read| read > 0) {}
        false
    };
    let world = World::with(&json!([credentialed("api.example.com")]), Arc::new(handler));
    let mut stream = world.tunnel("api.example.com", 443);
    stream.write_all(upgrade().as_bytes()).unwrap();
    assert_eq!(read_message(&mut stream, false).unwrap().status(), 101);
    (world, stream)
}

/// Reads to the end; the code of the close frame it ends with.
fn closed(stream: &mut dyn Stream) -> Option<u16> {
    let mut rest = Vec::new();
    let mut buffer = [0; 100];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        rest.extend_from_slice(&buffer[..read]);
    }
    match rest.as_slice() {
        [.., 0x88, 2, high, low] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

#[test]
fn websocket_is_joined_after_the_destination_agreed() {
    let handler = |_: &Message, stream: &mut dyn Stream| {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {ACCEPT}\r\nsec-websocket-protocol: chat\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.flush().unwrap();
        let mut buffer = [0; 11];
        stream.read_exact(&mut buffer).unwrap();
        assert_eq!(buffer.as_slice(), HELLO);
        stream.write_all(WORLD).unwrap();
        false
    };
    let world = World::with(&json!([credentialed("api.example.com")]), Arc::new(handler));
    let mut stream = world.tunnel("api.example.com", 443);
    stream.write_all(upgrade().as_bytes()).unwrap();
    let answer = read_message(&mut stream, false).unwrap();
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.all("sec-websocket-protocol"), ["chat"]);
    stream.write_all(HELLO).unwrap();
    let mut buffer = [0; 7];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer.as_slice(), WORLD);
    drop(stream);
    assert_eq!(world.records(1)[0]["status"], 101);
}

#[test]
fn a_destination_that_does_not_agree_gets_no_tunnel() {
    let ok: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let wrong = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: AAAA\r\n\r\n";
    for (reply, status) in [(ok, 200), (wrong.as_slice(), 502)] {
        let handler = move |_: &Message, stream: &mut dyn Stream| stream.write_all(reply).is_ok();
        let routes =
            json!([{"host": "api.example.com", "ports": [443], "matches": [{"methods": ["GET"]}]}]);
        let world = World::with(&routes, Arc::new(handler));
        let mut stream = world.tunnel("api.example.com", 443);
        assert_eq!(ask(&mut stream, &upgrade()).status(), status);
        // What follows is a request like any other.
        let smuggled =
            "POST /denied HTTP/1.1\r\nhost: api.example.com\r\ncontent-length: 0\r\n\r\n";
        let _ = stream.write_all(smuggled.as_bytes());
        if let Some(answer) = read_message(&mut stream, true) {
            assert_eq!(answer.reason(), "method_not_allowed");
        }
        assert_eq!(world.seen().len(), 1);
    }
}

#[test]
fn what_leaves_is_looked_through() {
    let (one, two) = SECRET.split_at(9);
    let cases: [(Vec<u8>, &str, u16); 11] = [
        (masked(0x81, &format!("a {SECRET} b")), "secret_leak", 1008),
        // In two frames of a message, with a ping between them; in two messages; in a ping.
        (
            [masked(0x01, one), masked(0x89, "ping"), masked(0x80, two)].concat(),
            "secret_leak",
            1008,
        ),
        (
            [masked(0x82, one), masked(0x82, two)].concat(),
            "secret_leak",
            1008,
        ),
        (masked(0x89, SECRET), "secret_leak", 1008),
        // Frames that are none: not masked, compressed although nobody agreed to it.
        (plain(0x81, "x"), "request_malformed", 1002),
        (masked(0xc1, "x"), "request_malformed", 1002),
        // A message inside another, one that never began, text that is none.
        (
            [masked(0x01, "x"), masked(0x81, "x")].concat(),
            "request_malformed",
            1002,
        ),
        (masked(0x80, "x"), "request_malformed", 1002),
        (
            vec![0x81, 0x81, 0, 0, 0, 0, 0xff],
            "request_malformed",
            1007,
        ),
        // A frame that says it is larger than a message may be.
        (large(), "request_too_large", 1009),
        (masked(0x8a, SECRET), "secret_leak", 1008),
    ];
    for (frames, reason, code) in cases {
        let (world, mut stream) = joined(Vec::new());
        // It may be closed before all of it is written.
        let _ = stream.write_all(&frames).and_then(|()| stream.flush());
        assert_eq!(closed(&mut stream), Some(code), "{reason}");
        assert_eq!(world.records(1)[0]["reason"], reason);
    }
    // Its own destination may hear what the agent holds.
    let (world, mut stream) = joined(Vec::new());
    stream.write_all(&masked(0x81, PLACEHOLDER)).unwrap();
    stream.write_all(&masked(0x88, "")).unwrap();
    drop(stream);
    assert_eq!(world.records(1)[0]["reason"], "allowed");
}

#[test]
fn what_comes_in_is_blacked_out_and_not_held_back() {
    let (one, two) = SECRET.split_at(9);
    // The first letters of the secret at the end of a message are just letters.
    let sent = [
        plain(0x81, "yes"),
        plain(0x01, one),
        plain(0x89, "?"),
        plain(0x80, two),
        plain(0x81, "sk-rea"),
    ]
    .concat();
    let expected = [
        plain(0x81, "yes"),
        plain(0x01, &"*".repeat(one.len())),
        plain(0x89, "?"),
        plain(0x80, &"*".repeat(two.len())),
        plain(0x81, "sk-rea"),
    ]
    .concat();
    let (world, mut stream) = joined(sent);
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
    drop(stream);
    assert_eq!(world.records(1)[0]["reason"], "credential_reflected");
}

#[test]
fn it_ends_when_its_route_does() {
    let (world, mut stream) = joined(Vec::new());
    let running = world.running.as_ref().unwrap();
    let other = json!({"host": "other.example.com", "ports": [443]});
    world.write_policy(&json!([credentialed("api.example.com"), other.clone()]));
    running.reload(&slots).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    stream.write_all(&masked(0x81, "still here")).unwrap();
    world.write_policy(&json!([other]));
    running.reload(&slots).unwrap();
    assert_eq!(closed(&mut stream), Some(1008));
    assert_eq!(world.records(1)[0]["reason"], "policy_changed");
}

#[test]
fn budgets_count_what_is_in_frames() {
    let mut route = credentialed("api.example.com");
    route["limits"] = json!({"bytes_out": 20});
    let handler = |_: &Message, stream: &mut dyn Stream| {
        agree(stream);
        while stream.read(&mut [0; 100]).is_ok_and(|read| read > 0) {}
        false
    };
    let world = World::with(&json!([route]), Arc::new(handler));
    let mut stream = world.tunnel("api.example.com", 443);
    assert_eq!(ask(&mut stream, &upgrade()).status(), 101);
    stream.write_all(&masked(0x81, "twelve bytes")).unwrap();
    stream.write_all(&masked(0x81, "twelve bytes")).unwrap();
    stream.flush().unwrap();
    assert_eq!(closed(&mut stream), Some(1008));
    assert_eq!(world.records(1)[0]["reason"], "limit_bytes_out");
}

/// A token that was never valid, in pieces so that no scanner of repositories finds it.
fn token() -> String {
    ["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"].concat()
}

/// Everything the destination gets after the handshake, until it has `length` bytes of it.
fn sent(
    route: &serde_json::Value,
    frames: &[u8],
    length: usize,
) -> (Vec<u8>, Vec<serde_json::Value>) {
    let (give, take) = std::sync::mpsc::channel();
    let give = std::sync::Mutex::new(give);
    let handler = move |_: &Message, stream: &mut dyn Stream| {
        agree(stream);
        let mut got = vec![0; length];
        stream.read_exact(&mut got).unwrap();
        give.lock().unwrap().send(got).unwrap();
        false
    };
    let world = World::with(&json!([route]), Arc::new(handler));
    let mut stream = world.tunnel("api.example.com", 443);
    stream.write_all(upgrade().as_bytes()).unwrap();
    assert_eq!(read_message(&mut stream, false).unwrap().status(), 101);
    // In pieces that end anywhere.
    for piece in frames.chunks(7) {
        stream.write_all(piece).unwrap();
        stream.flush().unwrap();
    }
    let got = take.recv_timeout(Duration::from_secs(20)).unwrap();
    drop(stream);
    (got, world.records(1))
}

#[test]
fn tokens_are_blacked_out_where_they_would_be_in_a_body() {
    let token = token();
    let (one, two) = token.split_at(17);
    let stars = |text: &str| "*".repeat(text.len());
    let frames = |one: &str, two: &str| {
        [
            masked(0x81, "hello"),
            masked(0x01, &format!("it is {one}")),
            masked(0x89, "ping"),
            masked(0x80, &format!("{two} ok?")),
            masked(0x81, "ghp_"),
            masked(0x8a, "pong"),
        ]
        .concat()
    };
    let (whole, clean) = (frames(one, two), frames(&stars(one), &stars(two)));
    let route = credentialed("api.example.com");
    let (got, records) = sent(&route, &whole, whole.len());
    assert_eq!(got, clean);
    assert_eq!(records[0]["dlp"], json!(["token_patterns/github"]));
    // Where it may pass it passes as it is.
    let warn =
        json!({"host": "api.example.com", "ports": [443], "dlp": {"outbound_on_match": "warn"}});
    let (got, records) = sent(&warn, &whole, whole.len());
    assert_eq!(got, whole);
    assert_eq!(records[0]["dlp"], json!(["token_patterns/github"]));
}

#[test]
fn tokens_end_a_conversation_that_must_not_have_them() {
    let token = token();
    for frame in [
        masked(0x81, &token),
        masked(0x82, &token),
        masked(0x89, &token),
    ] {
        let handler = |_: &Message, stream: &mut dyn Stream| {
            agree(stream);
            let mut got = Vec::new();
            // What it gets in the end is a client's close frame, and nothing before it.
            let _ = stream.read_to_end(&mut got);
            assert_eq!(got[..2], [0x88, 0x82], "{got:?}");
            false
        };
        let routes = json!([{"host": "api.example.com", "ports": [443]}]);
        let world = World::with(&routes, Arc::new(handler));
        let mut stream = world.tunnel("api.example.com", 443);
        assert_eq!(ask(&mut stream, &upgrade()).status(), 101);
        stream.write_all(&frame).unwrap();
        stream.flush().unwrap();
        assert_eq!(closed(&mut stream), Some(1008));
        let record = &world.records(1)[0];
        assert_eq!(
            (&record["reason"], &record["dlp"]),
            (&json!("dlp_match"), &json!(["token_patterns/github"]))
        );
    }
}

#[test]
fn what_comes_in_must_be_messages_too() {
    for (frames, reason, code) in [
        (vec![0x81, 1, 0xff], "upstream_failed", 1007),
        (plain(0x80, "x"), "upstream_failed", 1002),
        (
            [plain(0x01, "x"), plain(0x02, "x")].concat(),
            "upstream_failed",
            1002,
        ),
        (masked(0x81, "x"), "upstream_failed", 1002),
    ] {
        let (world, mut stream) = joined(frames);
        assert_eq!(closed(&mut stream), Some(code));
        assert_eq!(world.records(1)[0]["reason"], reason);
    }
}

#[test]
fn what_control_frames_quote_is_blacked_out() {
    let stars = "*".repeat(SECRET.len());
    let frames = |secret: &str| {
        [
            plain(0x89, &format!("is it {secret}?")),
            plain(0x01, "half "),
            plain(0x8a, secret),
            plain(0x80, "a message"),
            plain(0x88, &format!("\u{f}Pno such key: {secret}")),
        ]
        .concat()
    };
    let (sent, expected) = (frames(SECRET), frames(&stars));
    // In pieces that end anywhere.
    let handler = move |_: &Message, stream: &mut dyn Stream| {
        agree(stream);
        for piece in sent.chunks(7) {
            stream.write_all(piece).unwrap();
            stream.flush().unwrap();
        }
        false
    };
    let world = World::with(&json!([credentialed("api.example.com")]), Arc::new(handler));
    let mut stream = world.tunnel("api.example.com", 443);
    assert_eq!(ask(&mut stream, &upgrade()).status(), 101);
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
    drop(stream);
    assert_eq!(world.records(1)[0]["reason"], "credential_reflected");
}

/// A conversation in which the credential comes back again and again is a search for the form that gets through.
#[test]
fn a_conversation_that_keeps_sending_it_back_is_ended() {
    let (world, mut stream) = joined(plain(0x81, SECRET).repeat(20));
    assert_eq!(closed(&mut stream), Some(1008));
    assert_eq!(world.records(1)[0]["reason"], "route_suspended");
}

/// While the beginning of what may be a token waits for the rest of its message, nothing overtakes it.
#[test]
fn pings_do_not_pile_up_behind_what_is_held_back() {
    let (world, mut stream) = joined(Vec::new());
    let pings = masked(0x89, "").repeat(40_000);
    let frames = [masked(0x01, "it is ghp_"), pings].concat();
    let _ = stream.write_all(&frames).and_then(|()| stream.flush());
    assert_eq!(closed(&mut stream), Some(1009));
    assert_eq!(world.records(1)[0]["reason"], "request_too_large");

    let pings = plain(0x89, "").repeat(80_000);
    let (world, mut stream) = joined([plain(0x01, &SECRET[..9]), pings].concat());
    // Its message is half sent, so there is no place for a close frame.
    assert_eq!(closed(&mut stream), None);
    assert_eq!(world.records(1)[0]["reason"], "response_too_large");
}

/// A destination that expects none takes a body for the first frames, which nobody has looked at.
#[test]
fn an_upgrade_has_no_body() {
    for body in ["content-length: 11\r\n", "transfer-encoding: chunked\r\n"] {
        let (world, _) = joined(Vec::new());
        let mut stream = world.tunnel("api.example.com", 443);
        let head = upgrade().replace(
            "connection: Upgrade\r\n",
            &format!("connection: Upgrade\r\n{body}"),
        );
        let answer = ask(&mut stream, &head);
        assert_eq!(
            (answer.status(), answer.reason().as_str()),
            (400, "upgrade_refused")
        );
        assert_eq!(world.seen().len(), 1);
    }
}
