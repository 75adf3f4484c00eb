//! Sizes, framing and interim answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{Handler, Message, Stream, World, ask, discreet, get, read_message};

const API: &str = "api.example.com";

fn route() -> serde_json::Value {
    json!({"host": API, "ports": [443]})
}

#[test]
fn a_request_has_a_size_and_an_answer_too() {
    let handler: Arc<Handler> = Arc::new(|_: &Message, stream: &mut dyn Stream| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            1_u64 << 40
        )
        .is_ok()
    });
    let world = World::with(&json!([route()]), handler);
    let post =
        |length: u64| format!("POST / HTTP/1.1\r\nhost: {API}\r\ncontent-length: {length}\r\n\r\n");
    let answer = world.request(API, &post(32 * 1024 * 1024 + 1));
    assert_eq!(
        (answer.status(), answer.reason().as_str()),
        (413, "request_too_large")
    );
    assert!(world.seen().is_empty());
    let answer = world.request(API, &get(API, "/", ""));
    assert_eq!(
        (answer.status(), answer.reason().as_str()),
        (502, "response_too_large")
    );
}

#[test]
fn a_request_without_an_announced_size_is_stopped_on_its_way() {
    let mut large = route();
    large["limits"] = json!({"bytes_out": 100 * 1024 * 1024});
    for (route, status) in [(route(), 413), (large, 200)] {
        let handler = |message: &Message, stream: &mut dyn Stream| {
            let length = message.body.len().to_string();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{length}",
                length.len()
            )
            .is_ok()
        };
        let world = World::with(&json!([route]), Arc::new(handler));
        let mut stream = world.tunnel(API, 443);
        let head = format!("POST / HTTP/1.1\r\nhost: {API}\r\ntransfer-encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let chunk = [b"100000\r\n".as_slice(), &[b'x'; 0x10_0000], b"\r\n"].concat();
        for _ in 0..33 {
            // The proxy may have said no and stopped listening.
            if stream.write_all(&chunk).is_err() {
                break;
            }
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        if let Some(answer) = read_message(&mut stream, true) {
            assert_eq!(answer.status(), status);
        }
        let record = &world.records(1)[0];
        assert_eq!(record["status"], status);
    }
}

#[test]
fn a_client_that_waits_to_be_asked_is_asked() {
    let world = World::with(&json!([route()]), Arc::new(discreet));
    let mut stream = world.tunnel(API, 443);
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {API}\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_message(&mut stream, false).unwrap().status(), 100);
    assert_eq!(ask(&mut stream, "hello").status(), 200);
    let seen = world.seen().pop().unwrap();
    assert!(seen.all("expect").is_empty() && seen.text() == "hello");
}

#[test]
fn interim_answers_are_not_the_answer() {
    let handler = |message: &Message, stream: &mut dyn Stream| {
        stream
            .write_all(
                b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n",
            )
            .unwrap();
        discreet(message, stream)
    };
    let world = World::with(&json!([route()]), Arc::new(handler));
    let mut stream = world.tunnel(API, 443);
    for _ in 0..2 {
        assert_eq!(ask(&mut stream, &get(API, "/", "")).status(), 200);
    }
}

/// How long a client may be silent at each stage. The longest is a minute, so they are waited for side by side.
#[test]
fn what_is_silent_is_ended() {
    const PATIENCE: Duration = Duration::from_secs(90);
    let world = World::with(&json!([route()]), Arc::new(discreet));
    let ends = |mut stream: Box<dyn Stream + Send>, after: u64| {
        let began = Instant::now();
        let mut rest = Vec::new();
        // That its TLS ends without a word is an end as well.
        let _ = stream.read_to_end(&mut rest);
        let took = began.elapsed().as_secs();
        assert!(
            (after - 2..after + 20).contains(&took),
            "after {took} s, not {after}"
        );
        String::from_utf8_lossy(&rest).into_owned()
    };
    let patient = |stream: &TcpStream| stream.set_read_timeout(Some(PATIENCE)).unwrap();
    thread::scope(|scope| {
        // Nothing, half a head, a tunnel without a hello, half a hello.
        for (connect, sent) in [
            (false, ""),
            (false, "GET http://x/ HT"),
            (true, ""),
            (true, "\x16\x03\x01\x02"),
        ] {
            let mut stream = if connect {
                world.open(API, 443)
            } else {
                world.proxy()
            };
            patient(&stream);
            stream.write_all(sent.as_bytes()).unwrap();
            scope.spawn(move || ends(Box::new(stream), 10));
        }
        // A tunnel in which nothing is asked, at once and after a request.
        for asks in [false, true] {
            let mut stream = world.tunnel(API, 443);
            patient(&stream.sock);
            if asks {
                assert_eq!(ask(&mut stream, &get(API, "/", "")).status(), 200);
            } else {
                stream.conn.complete_io(&mut stream.sock).unwrap();
            }
            scope.spawn(move || ends(Box::new(stream), 60));
        }
        // A body that stops half-way.
        let mut stream = world.tunnel(API, 443);
        patient(&stream.sock);
        let head = format!("POST / HTTP/1.1\r\nhost: {API}\r\ncontent-length: 100\r\n\r\nabc");
        stream.write_all(head.as_bytes()).unwrap();
        stream.flush().unwrap();
        let answered = scope.spawn(move || ends(Box::new(stream), 30));
        let answer = answered.join().unwrap();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
            "{answer}"
        );
    });
    let records = world.records(4);
    let timeouts = records
        .iter()
        .filter(|record| record["reason"] == "client_timeout");
    assert_eq!(timeouts.count(), 3, "{records:?}");
}
