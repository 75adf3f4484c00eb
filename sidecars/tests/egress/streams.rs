//! Bodies stream; connections are reused.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;

use crate::world::{Message, Stream, World, ask, credentialed, get, read_message};

#[test]
fn events_are_not_held_back() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let handler = move |_: &Message, stream: &mut dyn Stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        for _ in 0..3 {
            stream.write_all(b"9\r\ndata: 1\n\n\r\n").unwrap();
            stream.flush().unwrap();
            // The next event only comes when the client has this one.
            wait.lock()
                .unwrap()
                .recv_timeout(Duration::from_secs(10))
                .unwrap();
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    };
    let world = World::with(&json!([credentialed("api.example.com")]), Arc::new(handler));
    let mut stream = world.tunnel("api.example.com", 443);
    stream
        .write_all(get("api.example.com", "/", "").as_bytes())
        .unwrap();
    assert_eq!(read_message(&mut stream, false).unwrap().status(), 200);
    for _ in 0..3 {
        let mut event = [0; 14];
        stream.read_exact(&mut event).unwrap();
        assert_eq!(&event, b"9\r\ndata: 1\n\n\r\n");
        go.send(()).unwrap();
    }
}

#[test]
fn large_bodies_pass_both_ways_over_one_connection() {
    let connections = Arc::new(AtomicUsize::new(0));
    let handler = |message: &Message, stream: &mut dyn Stream| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            message.body.len()
        )
        .unwrap();
        stream.write_all(&message.body).is_ok()
    };
    let world = World::with(&json!([credentialed("api.example.com")]), Arc::new(handler));
    let mut stream = world.tunnel("api.example.com", 443);
    let body: String = (0..1_000_000)
        .map(|n| char::from(b'a' + u8::try_from(n % 23).unwrap()))
        .collect();
    for _ in 0..3 {
        let raw = format!(
            "POST /v1 HTTP/1.1\r\nhost: api.example.com\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(ask(&mut stream, &raw).text(), body);
        connections.fetch_add(1, Ordering::Relaxed);
    }
    let dials = world
        .network
        .log()
        .iter()
        .filter(|line| line.starts_with("connect"))
        .count();
    assert_eq!(dials, 1);
    let record = &world.records(3)[2];
    assert_eq!(
        (&record["bytes_in"], &record["bytes_out"]),
        (&json!(1_000_000), &json!(1_000_000))
    );
}

#[test]
fn an_upstream_that_closed_is_dialled_again() {
    let handler = |_: &Message, stream: &mut dyn Stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .unwrap();
        false
    };
    let world = World::with(
        &json!([{"host": "api.example.com", "ports": [443]}]),
        Arc::new(handler),
    );
    let mut stream = world.tunnel("api.example.com", 443);
    for _ in 0..3 {
        assert_eq!(
            ask(&mut stream, &get("api.example.com", "/", "")).text(),
            "ok"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A client that keeps its connection may keep it: no number of requests ends it, and that the destination ends its
/// own now and then is not noticed.
#[test]
fn a_connection_carries_as_many_requests_as_its_client_likes() {
    const REQUESTS: usize = 2_500;
    let answered = AtomicUsize::new(0);
    let handler = move |_: &Message, stream: &mut dyn Stream| {
        let goes_on = answered.fetch_add(1, Ordering::Relaxed) % 700 != 699;
        let close = if goes_on { "" } else { "connection: close\r\n" };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\n{close}content-length: 2\r\n\r\nok"
        )
        .is_ok()
            && goes_on
    };
    let routes = json!([
        {"host": "api.example.com", "ports": [443]},
        {"host": "api.example.com", "scheme": "http", "ports": [80]},
    ]);
    let world = World::with(&routes, Arc::new(handler));
    // Each is opened when it is used: one that is silent for long is ended.
    type Open = fn(&World) -> Box<dyn Stream>;
    let ways: [(Open, &str); 3] = [
        (|world| Box::new(world.tunnel("api.example.com", 443)), "/"),
        (|world| Box::new(world.transparent("api.example.com")), "/"),
        (|world| Box::new(world.proxy()), "http://api.example.com/"),
    ];
    for (open, url) in ways {
        let mut stream = open(&world);
        for number in 0..REQUESTS {
            stream
                .write_all(get("api.example.com", url, "").as_bytes())
                .unwrap();
            stream.flush().unwrap();
            let answer = read_message(&mut *stream, true);
            let answer = answer.unwrap_or_else(|| panic!("{url}: no answer to request {number}"));
            assert_eq!(answer.status(), 200, "{url}, request {number}: {answer:?}");
            assert!(answer.all("connection").is_empty(), "{answer:?}");
        }
    }
}
