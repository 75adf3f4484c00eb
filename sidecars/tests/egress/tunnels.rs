//! What a tunnel carries: TLS to the server it was asked for, named in the open, and HTTP in that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConnection;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};

use crate::world::{World, connect, read_message};

const PINNED: &str = "github.com";
const API: &str = "api.example.com";

fn world() -> World {
    World::new(&json!([
        {"host": API, "ports": [443]},
        {"host": PINNED, "ports": [443], "tls": "passthrough"},
    ]))
}

/// The first bytes of a client that wants to talk to `host`.
fn hello(world: &World, host: &str) -> Vec<u8> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(world.upstream_ca.client()), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// What a client that hides a name writes: a suite, whose key, no key of its own, and something unreadable.
const HIDDEN: [u8; 11] = [0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 0xaa];

/// The same with an extension more.
fn with_extension(hello: &[u8], kind: u16) -> Vec<u8> {
    let mut out = hello.to_vec();
    out.extend(kind.to_be_bytes());
    out.extend([0, 11]);
    out.extend(HIDDEN);
    // Where the lengths are: of the extensions, behind the session, the suites and the compressions.
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(out[at]);
    at += 2 + usize::from(u16::from_be_bytes([out[at], out[at + 1]]));
    at += 1 + usize::from(out[at]);
    for place in [3, 7, at] {
        let length = u16::from_be_bytes([out[place], out[place + 1]]) + 15;
        out[place..place + 2].copy_from_slice(&length.to_be_bytes());
    }
    out
}

/// Cuts the one record of a hello into records of so many bytes.
fn cut(hello: &[u8], size: usize) -> Vec<u8> {
    let records = hello[5..].chunks(size).map(|piece| {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        [&hello[..3], &length, piece].concat()
    });
    records.collect::<Vec<_>>().concat()
}

/// What comes back for these bytes.
fn answered(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    // It may be closed before all of it is written.
    let _ = stream.write_all(bytes);
    let mut answer = vec![0; 7];
    let length = stream.read(&mut answer).unwrap_or(0);
    answer.truncate(length);
    answer
}

fn reasons(world: &World, count: usize) -> Vec<Value> {
    let records = world.records(count);
    records
        .iter()
        .map(|record| record["reason"].clone())
        .collect()
}

#[test]
fn what_is_passed_through_goes_to_the_named_server_alone() {
    const SERVER_HELLO: &[u8] = &[0x16, 3, 3];
    const ALERT: &[u8] = &[0x15, 3, 3];
    let world = world();
    let own = hello(&world, PINNED);
    // The control: an extension that hides nothing makes no difference, however the records are cut.
    for bytes in [&own, &with_extension(&own, 0x0a0a), &cut(&own, 7)] {
        assert!(answered(world.open(PINNED, 443), bytes).starts_with(SERVER_HELLO));
        assert!(answered(connect(world.bound.https), bytes).starts_with(SERVER_HELLO));
    }
    let others = [
        (hello(&world, "other.example.com"), "authority_mismatch"),
        (hello(&world, API), "authority_mismatch"),
        (hello(&world, "93.184.216.34"), "sni_missing"),
        (with_extension(&own, 0xfe0d), "sni_hidden"),
        (with_extension(&own, 0xffce), "sni_hidden"),
        (cut(&with_extension(&own, 0xfe0d), 7), "sni_hidden"),
    ];
    for (count, (bytes, reason)) in others.iter().enumerate() {
        assert_eq!(answered(world.open(PINNED, 443), bytes), b"", "{reason}");
        let all = reasons(&world, 7 + count);
        let found = all.iter().filter(|found| *found == reason).count();
        assert!(found > 0, "{reason}: {all:?}");
    }
    for kind in [0xfe0d, 0xffce] {
        let bytes = with_extension(&own, kind);
        assert!(answered(connect(world.bound.https), &bytes).starts_with(ALERT));
    }
    let all = reasons(&world, 6 + others.len() + 2);
    assert_eq!(all.iter().filter(|found| *found == "sni_hidden").count(), 5);
}

/// Where the TLS is opened, the name that was shown is the one that counts, so a hidden one is nobody's.
#[test]
fn a_hidden_name_is_not_heeded() {
    let world = world();
    let bytes = with_extension(&hello(&world, API), 0xfe0d);
    let answer = answered(world.open(API, 443), &bytes);
    assert!(answer.starts_with(&[0x16, 3, 3]), "{answer:?}");
}

#[test]
fn there_is_no_second_tunnel_in_the_first() {
    let world = world();
    for transparent in [false, true] {
        let mut outer = match transparent {
            false => world.tunnel(API, 443),
            true => world.transparent(API),
        };
        outer.write_all(&hello(&world, API)).unwrap();
        outer.flush().unwrap();
        let answer = read_message(&mut outer, true);
        assert!(answer.is_none_or(|answer| answer.status() == 400));
        assert!(read_message(&mut outer, true).is_none(), "it goes on");
    }
    assert!(world.seen().is_empty());
    let all = reasons(&world, 2);
    assert!(
        all.iter().all(|reason| reason == "request_malformed"),
        "{all:?}"
    );
}

#[test]
fn nothing_but_http_is_agreed_on() {
    let world = world();
    let with = |protocols: &[&[u8]]| {
        let mut config = world.ca.client();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(API).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = world.open(API, 443);
        let done = client.complete_io(&mut stream);
        done.map(|_| client.alpn_protocol().map(<[u8]>::to_vec))
    };
    for unknown in [
        &[b"dot".as_slice()][..],
        &[b"acme-tls/1", b"h3"],
        &[b"spdy/3.1"],
    ] {
        let problem = with(unknown).unwrap_err().to_string();
        assert!(problem.contains("NoApplicationProtocol"), "{problem}");
    }
    assert_eq!(
        with(&[b"dot", b"http/1.1"]).unwrap(),
        Some(b"http/1.1".to_vec())
    );
    assert_eq!(with(&[b"http/1.1", b"h2"]).unwrap(), Some(b"h2".to_vec()));
    assert_eq!(with(&[]).unwrap(), None);
    let all = reasons(&world, 3);
    assert!(
        all[..3]
            .iter()
            .all(|reason| reason == "tls_handshake_failed"),
        "{all:?}"
    );
}

/// A tunnel reaches its destination before anything is asked in it, and below a wildcard its name alone says something.
#[test]
fn a_tunnel_in_which_nothing_is_asked_is_on_record() {
    let world = world();
    let mut silent = world.tunnel(API, 443);
    silent.conn.complete_io(&mut silent.sock).unwrap();
    drop(silent);
    let record = &world.records(1)[0];
    assert_eq!(
        (&record["method"], &record["host"]),
        (&json!("CONNECT"), &json!(API))
    );
    assert_eq!(record["reason"], "allowed");
    // One with requests is on record with them alone, and one that was led here has reached nobody.
    let mut busy = world.tunnel(API, 443);
    let get = format!("GET / HTTP/1.1\r\nhost: {API}\r\n\r\n");
    for _ in 0..2 {
        busy.write_all(get.as_bytes()).unwrap();
        assert_eq!(read_message(&mut busy, true).unwrap().status(), 200);
    }
    drop(busy);
    let mut led = world.transparent(API);
    led.conn.complete_io(&mut led.sock).unwrap();
    drop(led);
    world.ask_proxy("GET http://last.test/ HTTP/1.1\r\n\r\n");
    let methods: Vec<Value> = world
        .records(4)
        .iter()
        .map(|record| record["method"].clone())
        .collect();
    assert_eq!(methods, ["CONNECT", "GET", "GET", "GET"]);
}
