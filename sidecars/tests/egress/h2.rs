//! HTTP/2 towards the agent, and what only it makes possible.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper::{Method, Request};
use serde_json::json;

use crate::two::{self, TRAILER};
use crate::world::{Message, SECRET, Stream, World, credentialed, discreet, echo, get};

const API: &str = "api.example.com";

fn routes() -> serde_json::Value {
    json!([credentialed(API), {"host": "other.example.com", "ports": [443]}])
}

async fn connect(world: &World) -> SendRequest<Full<Bytes>> {
    two::connect(world.open(API, 443), world.ca.client(), API).await
}

fn dials(world: &World) -> usize {
    let log = world.network.log();
    log.iter()
        .filter(|line| line.starts_with("connect"))
        .count()
}

#[test]
fn trailers_are_handed_on_and_looked_through() {
    let handler = |message: &Message, stream: &mut dyn Stream| {
        assert_eq!(message.all("te"), ["trailers"]);
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n{TRAILER}grpc-status: 0\r\n{TRAILER}alt-svc: h3\r\n{TRAILER}x-echo: {SECRET}\r\n\r\n"
        )
        .is_ok()
    };
    let world = World::build(&routes(), Arc::new(handler), true);
    let answer = world.request(API, &get(API, "/pkg.Service/Call", "te: trailers\r\n"));
    let trailer = |name: &str| answer.all(&format!("{TRAILER}{name}")).join(",");
    assert_eq!(trailer("grpc-status"), "0");
    assert_eq!(trailer("x-echo"), "*".repeat(SECRET.len()));
    assert_eq!(trailer("alt-svc"), "");
    assert_eq!(world.records(1)[0]["reason"], "credential_reflected");
}

#[test]
fn every_request_names_the_tunnels_destination() {
    let world = World::build(&routes(), Arc::new(discreet), true);
    two::runtime().block_on(async {
        let mut sender = connect(&world).await;
        let get = |target: &str, host: Option<&str>| {
            let mut request = Request::get(target);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            request.body(Full::default()).unwrap()
        };
        let cases = [
            (get("https://api.example.com/", None), 200),
            (get("https://API.example.com:443/", Some(API)), 200),
            (get("https://other.example.com/", None), 421),
            (get("https://other.example.com/", Some(API)), 421),
            (
                get("https://api.example.com/", Some("other.example.com")),
                421,
            ),
            (get("https://api.example.com:444/", None), 421),
            (get("http://api.example.com/", None), 421),
        ];
        for (request, status) in cases {
            let told = format!("{request:?}");
            assert_eq!(
                two::ask(&mut sender, request).await.status(),
                status,
                "{told}"
            );
        }
        let connect = Request::builder()
            .method(Method::CONNECT)
            .uri("evil.test:443")
            .body(Full::default())
            .unwrap();
        assert!(two::ask(&mut sender, connect).await.status() >= 400);
    });
    assert!(
        world
            .seen()
            .iter()
            .all(|message| message.all("host") == [API])
    );
}

#[test]
fn a_destination_without_it_is_spoken_to_in_http1() {
    let world = World::with(&routes(), Arc::new(discreet));
    let answer = two::runtime().block_on(async {
        let mut sender = connect(&world).await;
        let request = Request::post("https://api.example.com/x")
            .header("x-a", "b")
            .body(Full::from("hello"))
            .unwrap();
        two::ask(&mut sender, request).await
    });
    assert_eq!(answer.status(), 200);
    let seen = world.seen().pop().unwrap();
    assert_eq!(
        (seen.start.as_str(), seen.text().as_str()),
        ("POST /x HTTP/1.1", "hello")
    );
    assert_eq!(
        (seen.all("host"), seen.all("content-length")),
        (vec![API], vec!["5"])
    );
    assert_eq!(seen.all("x-api-key"), [SECRET]);
}

#[test]
fn crumbs_of_a_cookie_become_one() {
    let world = World::with(&routes(), Arc::new(echo));
    let other = "other.example.com";
    two::runtime().block_on(async {
        let mut sender = two::connect(world.open(other, 443), world.ca.client(), other).await;
        let request = Request::get("https://other.example.com/")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Full::default())
            .unwrap();
        two::ask(&mut sender, request).await;
    });
    assert_eq!(world.seen().pop().unwrap().all("cookie"), ["a=1; b=2"]);
}

#[test]
fn many_at_once_share_a_connection() {
    let world = World::build(&routes(), Arc::new(discreet), true);
    two::runtime().block_on(async {
        let sender = connect(&world).await;
        let requests = (0..90).map(|number| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let request = two::request(&get(API, &format!("/{number}"), ""));
                let answer = two::ask(&mut sender, request).await;
                assert!(
                    answer.text().starts_with(&format!("GET /{number} ")),
                    "{answer:?}"
                );
            })
        });
        for request in requests.collect::<Vec<_>>() {
            request.await.unwrap();
        }
    });
    // One for the tunnel, before anyone knew what it would carry, and one for all that it carried.
    assert_eq!((world.seen().len(), dials(&world)), (90, 2));
}

#[test]
fn a_head_has_its_limits() {
    let world = World::build(&routes(), Arc::new(discreet), true);
    for headers in [
        format!("x-a: {}\r\n", "a".repeat(40_000)),
        (0..120)
            .map(|number| format!("x-{number}: 1\r\n"))
            .collect(),
    ] {
        let status = world.request(API, &get(API, "/", &headers)).status();
        assert!((400..500).contains(&status), "{status}");
    }
    assert!(world.seen().is_empty());
}

#[test]
fn a_flood_of_resets_ends_the_connection() {
    let handler = |_: &Message, stream: &mut dyn Stream| {
        std::thread::sleep(Duration::from_millis(20));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .is_ok()
    };
    let world = World::build(&routes(), Arc::new(handler), true);
    let sent = two::runtime().block_on(async {
        let mut sender = connect(&world).await;
        for number in 0..2000 {
            if sender.ready().await.is_err() {
                return number;
            }
            let answer = sender.send_request(two::request(&get(API, "/", "")));
            let _ = tokio::time::timeout(Duration::from_micros(500), answer).await;
        }
        2000
    });
    assert!((200..1000).contains(&sent), "{sent}");
    assert_eq!(world.request(API, &get(API, "/", "")).status(), 200);
}
