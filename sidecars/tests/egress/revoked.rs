//! A policy that is read again ends what it no longer allows, also in the middle, and leaves the rest alone.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Message, Stream, World, get, read_message, slots};

const API: &str = "api.example.com";

/// A destination that sends an event, and then, if asked for `/busy`, others for as long as somebody listens.
fn world(routes: &Value) -> World {
    let handler = |message: &Message, stream: &mut dyn Stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .unwrap();
        let mut send = |bytes: &[u8]| {
            stream
                .write_all(bytes)
                .and_then(|()| stream.flush())
                .is_ok()
        };
        assert!(send(b"9\r\ndata: 1\n\n\r\n"));
        if message.start.contains("/busy") {
            let large = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while send(large.as_bytes()) {}
        } else {
            let _ = stream.read(&mut [0; 1]);
        }
        false
    };
    World::with(routes, Arc::new(handler))
}

fn reload(world: &World, routes: &Value) {
    world.write_policy(routes);
    world.running.as_ref().unwrap().reload(&slots).unwrap();
}

/// A stream that has brought its first event.
fn listen(world: &World, path: &str) -> impl Stream + use<> {
    let mut stream = world.tunnel(API, 443);
    stream.write_all(get(API, path, "").as_bytes()).unwrap();
    stream.flush().unwrap();
    assert_eq!(read_message(&mut stream, false).unwrap().status(), 200);
    event(&mut stream);
    stream
}

fn event(stream: &mut dyn Stream) {
    let mut event = [0; 14];
    stream.read_exact(&mut event).unwrap();
    assert_eq!(&event, b"9\r\ndata: 1\n\n\r\n");
}

/// Reads to the end, and says whether the last chunk came.
fn is_broken_off(stream: &mut dyn Stream) -> bool {
    let (mut rest, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        rest.extend_from_slice(&buffer[..read]);
        rest.drain(..rest.len().saturating_sub(5));
    }
    rest != b"0\r\n\r\n"
}

fn allowing(methods: &[&str]) -> Value {
    json!([{"host": API, "ports": [443], "matches": [{"methods": methods}]}])
}

#[test]
fn an_open_answer_ends_with_its_route() {
    for path in ["/quiet", "/busy"] {
        let world = world(&allowing(&["GET"]));
        let mut stream = listen(&world, path);
        reload(&world, &allowing(&["POST"]));
        assert!(is_broken_off(&mut stream), "{path}");
        let record = &world.records(1)[0];
        assert_eq!(
            (&record["reason"], &record["decision"], &record["status"]),
            (&json!("policy_changed"), &json!("deny"), &json!(200)),
            "{record}"
        );
    }
}

#[test]
fn what_is_still_allowed_goes_on() {
    let world = world(&allowing(&["GET"]));
    let (mut busy, quiet) = (listen(&world, "/busy"), listen(&world, "/quiet"));
    // The same words, and others that allow it too.
    reload(&world, &allowing(&["GET"]));
    reload(&world, &allowing(&["GET", "POST"]));
    reload(&world, &json!([{"host": API, "ports": [443]}]));
    // More than all the buffers between here and there hold.
    busy.read_exact(&mut vec![0; 8 << 20]).unwrap();
    assert!(world.records(0).is_empty());
    drop((busy, quiet));
    let reasons: Vec<Value> = world
        .records(2)
        .iter()
        .map(|record| record["reason"].clone())
        .collect();
    assert!(!reasons.contains(&json!("policy_changed")), "{reasons:?}");
}

#[test]
fn an_upload_ends_with_its_route() {
    let world = World::new(&allowing(&["POST"]));
    let mut stream = world.tunnel(API, 443);
    let head =
        format!("POST / HTTP/1.1\r\nhost: {API}\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.flush().unwrap();
    // It is on its way as soon as the destination is connected to for it.
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if stream
                    .write_all(b"1\r\nx\r\n")
                    .and_then(|()| stream.flush())
                    .is_err()
                {
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        reload(&world, &allowing(&["GET"]));
        let record = world.records(1).remove(0);
        done.store(true, Ordering::Relaxed);
        assert!(
            ["policy_changed", "method_not_allowed"].contains(&record["reason"].as_str().unwrap()),
            "{record}"
        );
    });
    assert!(world.seen().is_empty());
}
