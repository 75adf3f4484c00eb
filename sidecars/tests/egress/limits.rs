//! Sizes, framing and interim answers.

use std::io::Write;
use std::sync::Arc;

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
