//! One destination: the tunnel, the TLS server name and the Host header must name the same, every time.

use std::io::{Read, Write};

use serde_json::json;

use crate::world::{World, ask, connect, get, read_message};

fn world() -> World {
    World::new(&json!([
        {"host": "api.example.com", "ports": [443]},
        {"host": "other.example.com", "ports": [443]},
        {"host": "other.example.com", "scheme": "http", "ports": [80]},
    ]))
}

fn open(world: &World, target: &str) -> std::net::TcpStream {
    let mut stream = world.proxy();
    write!(stream, "CONNECT {target} HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(read_message(&mut stream, false).unwrap().status(), 200);
    stream
}

#[test]
fn only_all_equal_passes() {
    let world = world();
    let names = ["api.example.com", "other.example.com"];
    for target in names {
        for sni in names {
            for host in names {
                let mut stream = world.tls(open(&world, &format!("{target}:443")), sni);
                let sent = stream
                    .write_all(get(host, "/", "").as_bytes())
                    .and_then(|()| stream.flush());
                let answer = sent.ok().and_then(|()| read_message(&mut stream, true));
                match answer {
                    None => assert_ne!(target, sni),
                    Some(answer) if target == host => {
                        assert_eq!((target == sni, answer.status()), (true, 200));
                    }
                    Some(answer) => assert_eq!(
                        (answer.status(), answer.reason().as_str()),
                        (421, "authority_mismatch")
                    ),
                }
            }
        }
    }
    assert!(
        world
            .seen()
            .iter()
            .all(|message| message.all("host").len() == 1)
    );
}

#[test]
fn spellings_of_the_host_header() {
    let world = world();
    let mut stream = world.tunnel("api.example.com", 443);
    for host in ["API.example.com", "api.example.com:443", "api.example.com."] {
        let answer = ask(&mut stream, &get(host, "/", ""));
        assert_eq!(answer.status(), 200, "{host}");
        assert!(
            answer.text().contains("\nhost: api.example.com\n"),
            "{}",
            answer.text()
        );
    }
    for host in [
        "api.example.com:444",
        "other.example.com",
        "api.example.com:443:443",
        "x@api.example.com",
        "127.0.0.1",
    ] {
        assert_eq!(
            ask(&mut stream, &get(host, "/", "")).status(),
            421,
            "{host}"
        );
    }
    assert_eq!(
        ask(
            &mut stream,
            "GET https://other.example.com/ HTTP/1.1\r\nhost: api.example.com\r\n\r\n"
        )
        .status(),
        421
    );
    assert_eq!(
        ask(
            &mut stream,
            "GET http://api.example.com/ HTTP/1.1\r\nhost: api.example.com\r\n\r\n"
        )
        .status(),
        421
    );
    let same = ask(
        &mut stream,
        "GET https://api.example.com/a HTTP/1.1\r\nhost: api.example.com\r\n\r\n",
    );
    assert!(same.text().starts_with("GET /a HTTP/1.1\n"));
    assert_eq!(
        ask(&mut stream, "GET / HTTP/1.1\r\n\r\n").reason(),
        "request_malformed"
    );
}

#[test]
fn plain_http_must_agree_too() {
    let world = world();
    let raw = "GET http://other.example.com/ HTTP/1.1\r\nhost: api.example.com\r\n\r\n";
    assert_eq!(world.ask_proxy(raw).reason(), "authority_mismatch");
    let raw = "GET /x HTTP/1.1\r\nhost: other.example.com\r\n\r\n";
    assert_eq!(world.ask_proxy(raw).reason(), "request_malformed");
    let answer = ask(
        &mut connect(world.bound.http),
        &get("other.example.com:8080", "/", ""),
    );
    assert_eq!(answer.reason(), "authority_mismatch");
    let raw = "CONNECT api.example.com:443 HTTP/1.1\r\nhost: other.example.com:443\r\n\r\n";
    assert_eq!(world.ask_proxy(raw).reason(), "authority_mismatch");
}

#[test]
fn a_tunnel_carries_tls_and_names_its_server() {
    let world = world();
    let mut stream = open(&world, "api.example.com:443");
    stream.write_all(b"SSH-2.0-x\r\n").unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0);
    let mut stream = open(&world, "api.example.com:443");
    stream
        .write_all(get("api.example.com", "/", "").as_bytes())
        .unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0);
    // An address instead of a name sends no server name at all.
    let mut stream = world.tls(connect(world.bound.https), "93.184.216.34");
    assert!(
        stream
            .write_all(b"x")
            .and_then(|()| stream.read(&mut [0; 10]))
            .is_err()
    );
    // A connection is closed before its record is finished, so two of them may change places.
    let mut reasons: Vec<String> = world
        .records(3)
        .iter()
        .map(|record| record["reason"].to_string())
        .collect();
    reasons.sort();
    assert_eq!(
        reasons,
        [r#""not_tls""#, r#""not_tls""#, r#""sni_missing""#]
    );
}

#[test]
fn a_second_request_in_one_write_is_a_second_decision() {
    let world = World::new(
        &json!([{"host": "api.example.com", "ports": [443], "matches": [{"methods": ["GET"]}]}]),
    );
    let mut stream = world.tunnel("api.example.com", 443);
    let two = format!(
        "{}POST /x HTTP/1.1\r\nhost: api.example.com\r\ncontent-length: 0\r\n\r\n",
        get("api.example.com", "/", "")
    );
    assert_eq!(ask(&mut stream, &two).status(), 200);
    assert_eq!(
        read_message(&mut stream, true).unwrap().reason(),
        "method_not_allowed"
    );
    assert_eq!(world.seen().len(), 1);
}
