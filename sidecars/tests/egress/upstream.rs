//! What lies between this proxy and a destination: connections that are kept, and another proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use bottle_sidecar::egress::{Running, start};
use serde_json::json;
use zeroize::Zeroizing;

use crate::world::{
    Message, Stream, World, ask, connect, get, read_message, settings, slots, tls_with,
};

const API: &str = "api.example.com";

#[test]
fn a_connection_serves_one_tunnel_after_the_other() {
    let world = World::new(&json!([{"host": API, "ports": [443]}]));
    for _ in 0..6 {
        assert_eq!(world.request(API, &get(API, "/", "")).status(), 200);
    }
    let log = world.network.log();
    let dials = log
        .iter()
        .filter(|line| line.starts_with("connect"))
        .count();
    // One a worker; it was opened under this policy and goes with it.
    assert!(dials <= 2, "{log:?}");
    world.write_policy(&json!([{"source": "new", "host": API, "ports": [443]}]));
    world.running.as_ref().unwrap().reload(&slots).unwrap();
    assert_eq!(world.request(API, &get(API, "/", "")).status(), 200);
    assert!(world.network.log().len() > log.len());
}

/// A proxy that takes every `CONNECT` to `to`, and tells what it was asked.
fn chained(to: SocketAddr, answer: &'static str) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut near = stream.unwrap();
            let asked = read_message(&mut near, false).unwrap();
            tell.send(format!(
                "{} {:?}",
                asked.start,
                asked.all("proxy-authorization")
            ))
            .unwrap();
            write!(near, "{answer}\r\n\r\n").unwrap();
            let far = TcpStream::connect(to).unwrap();
            let copy = |mut from: TcpStream, mut to: TcpStream| {
                thread::spawn(move || std::io::copy(&mut from, &mut to));
            };
            copy(near.try_clone().unwrap(), far.try_clone().unwrap());
            copy(far, near);
        }
    });
    (address, told)
}

/// A second proxy in the same world, that goes through another.
fn through(world: &World, proxy: &str) -> Running {
    let mut settings = settings(world.dir.path());
    settings.audit_dir = tempfile::tempdir().unwrap().keep();
    settings.status_socket = settings.audit_dir.join("status.sock");
    settings.upstream_proxy = Some(Zeroizing::new(proxy.to_owned()));
    start(settings, Box::new(world.network.clone()), &slots).unwrap()
}

fn destination(world: &World) -> SocketAddr {
    let address: SocketAddr = "93.184.216.34:443".parse().unwrap();
    world.network.really(address.port())
}

fn open(running: &Running) -> (TcpStream, crate::world::Message) {
    let mut stream = connect(running.bound().proxy);
    write!(stream, "CONNECT {API}:443 HTTP/1.1\r\n\r\n").unwrap();
    let answer = read_message(&mut stream, true).unwrap();
    (stream, answer)
}

#[test]
fn another_proxy_resolves_and_connects() {
    let world = World::new(&json!([{"host": API, "ports": [443]}]));
    let (address, told) = chained(destination(&world), "HTTP/1.1 200 OK");
    world.network.name("proxy.corp", &["10.1.2.3"]);
    world.network.port(3128, address);
    let running = through(&world, "http://user:p%40ss@proxy.corp:3128");
    let (stream, answer) = open(&running);
    assert_eq!(answer.status(), 200);
    let mut stream = tls_with(&world.ca, stream, API);
    assert_eq!(ask(&mut stream, &get(API, "/", "")).status(), 200);
    assert_eq!(
        told.recv().unwrap(),
        r#"CONNECT api.example.com:443 HTTP/1.1 ["Basic dXNlcjpwQHNz"]"#
    );
    // The name of the destination was never asked for here.
    assert_eq!(
        world.network.log(),
        ["resolve proxy.corp", "connect 10.1.2.3:3128"]
    );
    drop(stream);
    running.stop();
}

#[test]
fn what_it_refuses_is_unreachable() {
    let world = World::new(&json!([{"host": API, "ports": [443]}]));
    let (address, _told) = chained(
        destination(&world),
        "HTTP/1.1 407 Proxy Authentication Required",
    );
    world.network.port(3128, address);
    let running = through(&world, "http://10.1.2.3:3128");
    let (mut stream, answer) = open(&running);
    assert_eq!(answer.reason(), "upstream_unreachable");
    assert!(world.seen().is_empty());
    let _ = stream.read(&mut [0; 1]);
    running.stop();
}

#[test]
fn private_ranges_are_reached_from_here() {
    let world = World::new(&json!([{"host": API, "ports": [443], "private": ["10.0.0.0/8"]}]));
    world.network.name(API, &["10.1.2.3"]);
    let running = through(&world, "http://10.9.9.9:3128");
    assert_eq!(open(&running).1.status(), 200);
    assert_eq!(
        world.network.log(),
        ["resolve api.example.com", "connect 10.1.2.3:443"]
    );
    // Being reached directly means being checked.
    world
        .network
        .name("other.example.com", &["169.254.169.254"]);
    running.stop();
}

#[test]
fn a_proxy_that_cannot_be_read_is_an_error_at_start() {
    let world = World::new(&json!([]));
    let mut settings = settings(world.dir.path());
    settings.upstream_proxy = Some(Zeroizing::new("https://u:hidden@proxy:1".to_owned()));
    let error = start(settings, Box::new(world.network.clone()), &slots)
        .err()
        .unwrap();
    assert!(error.to_string().contains("http://") && !error.to_string().contains("hidden"));
}

#[test]
fn a_failure_says_at_which_step_and_does_not_ask_for_a_rule() {
    let handler = |message: &Message, stream: &mut dyn Stream| {
        assert!(message.start.contains("/garbage"));
        stream.write_all(b"220 smtp.example.com ready\r\n").unwrap();
        false
    };
    let routes = json!([
        {"host": "api.example.com", "ports": [443, 444]},
        {"host": "nowhere.example.com", "ports": [443]},
        {"host": "api.example.com", "scheme": "http", "ports": [80, 81]},
        {"host": "nowhere.example.com", "scheme": "http", "ports": [80]},
    ]);
    let world = World::with(&routes, Arc::new(handler));
    let mut tunnel = world.tunnel("api.example.com", 443);
    let connect = |place: &str| world.ask_proxy(&format!("CONNECT {place} HTTP/1.1\r\n\r\n"));
    let plain = |url: &str| world.ask_proxy(&format!("GET {url} HTTP/1.1\r\n\r\n"));
    for (answer, step, reason) in [
        (connect("nowhere.example.com:443"), "dns", "dns_failed"),
        (
            connect("api.example.com:444"),
            "connect",
            "upstream_unreachable",
        ),
        (plain("http://nowhere.example.com/"), "dns", "dns_failed"),
        (
            plain("http://api.example.com:81/"),
            "connect",
            "upstream_unreachable",
        ),
        (
            plain("http://api.example.com/garbage"),
            "answer",
            "upstream_failed",
        ),
        (
            ask(&mut tunnel, &get("api.example.com", "/garbage", "")),
            "answer",
            "upstream_failed",
        ),
    ] {
        assert_eq!((answer.status(), answer.reason().as_str()), (502, reason));
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (&value["error"], &value["step"]),
            (&json!("bottle_upstream"), &json!(step))
        );
        assert!(value["hint"].is_string() && value.get("allow").is_none());
    }
}
