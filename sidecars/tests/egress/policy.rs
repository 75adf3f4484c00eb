//! What is let through and what is not, by every way in.

use std::io::{Read, Write};
use std::sync::Arc;

use serde_json::json;

use crate::world::{Handler, World, ask, connect, echo, get, tls_with};

fn echoing() -> Arc<Handler> {
    Arc::new(echo)
}

fn routes() -> serde_json::Value {
    json!([
        {"source": "demo.yaml:3", "host": "api.example.com", "ports": [443], "matches": [
            {"methods": ["GET"], "paths": [{"type": "prefix", "value": "/v1"}]}]},
        {"host": "other.example.com", "scheme": "http", "ports": [80]},
        {"host": "rebind.example.com", "ports": [443]},
        {"host": "mixed.example.com", "ports": [443]},
        {"host": "home.example.com", "ports": [443], "private": ["10.0.0.0/8"]},
        {"host": "down.example.com", "ports": [443, 4443]},
        {"host": "untrusted.example.com", "ports": [443]},
        {"host": "github.com", "ports": [443], "tls": "passthrough"},
    ])
}

/// The table of decisions is `decide_tests`; here it is whether every protocol asks it the same question.
#[test]
fn both_protocols_get_the_same_decision() {
    let [one, two] = World::both(&routes(), &echoing());
    let host = "api.example.com";
    for (path, headers) in [
        ("/v1/x", ""),
        ("/v2", ""),
        ("/v1/../admin", ""),
        ("/v1/%2e%2e/admin", ""),
        ("/v1/a%2fb", ""),
        ("/v1/%zz", ""),
        ("/v1/info/refs?service=git-receive-pack", ""),
        ("/v1/x.git/info/refs?service=git-upload-pack", ""),
        ("/v1/x", "x-http-method-override: DELETE\r\n"),
    ] {
        let raw = get(host, path, headers);
        let (a, b) = (one.request(host, &raw), two.request(host, &raw));
        assert_eq!(a.status(), b.status(), "{path}");
        if a.status() != 200 {
            assert_eq!(a.reason(), b.reason(), "{path}");
        }
    }
    for method in ["POST", "DELETE", "TRACE", "BREW"] {
        let raw = get(host, "/v1/x", "").replacen("GET", method, 1);
        let (a, b) = (one.request(host, &raw), two.request(host, &raw));
        assert_eq!(
            (a.status(), a.reason()),
            (b.status(), b.reason()),
            "{method}"
        );
    }
    let start = |world: &World| -> Vec<String> {
        let seen = world.seen();
        seen.iter().map(|message| message.start.clone()).collect()
    };
    assert_eq!(start(&one), ["GET /v1/x HTTP/1.1", "GET /v1/x HTTP/1.1"]);
    assert_eq!(start(&two), ["GET /v1/x HTTP/2.0", "GET /v1/x HTTP/2.0"]);
}

#[test]
fn an_allowed_request_goes_through_both_ways() {
    let world = World::new(&routes());
    let answer = world.request(
        "api.example.com",
        &get("api.example.com", "/v1/x?q=1", "x-a: b\r\n"),
    );
    assert_eq!(answer.status(), 200);
    assert!(
        answer.text().starts_with("GET /v1/x?q=1 HTTP/1.1\n"),
        "{}",
        answer.text()
    );
    let answer = ask(
        &mut world.transparent("api.example.com"),
        &get("api.example.com", "/v1/y", ""),
    );
    assert_eq!(answer.status(), 200);

    let records = world.records(2);
    let first = &records[0];
    assert_eq!(first["schema"], "bottle.audit/v1");
    assert_eq!(
        (&first["way"], &first["decision"], &first["status"]),
        (&json!("proxy"), &json!("allow"), &json!(200))
    );
    assert_eq!(
        (&first["path"], &first["rule"]),
        (&json!("/v1/x"), &json!("demo.yaml:3"))
    );
    assert!(first["bytes_in"].as_u64().unwrap() > 10);
    assert_eq!(records[1]["way"], "transparent");
}

#[test]
fn plain_http_goes_through_both_ways() {
    let world = World::new(&routes());
    let answer = world
        .ask_proxy("GET http://other.example.com/x HTTP/1.1\r\nhost: other.example.com\r\n\r\n");
    assert!(
        answer
            .text()
            .starts_with("GET /x HTTP/1.1\nhost: other.example.com\n"),
        "{}",
        answer.text()
    );
    let answer = ask(
        &mut connect(world.bound.http),
        &get("other.example.com", "/y", ""),
    );
    assert_eq!(answer.status(), 200);
    let answer = ask(
        &mut connect(world.bound.http),
        &get("api.example.com", "/v1", ""),
    );
    assert_eq!(answer.reason(), "scheme_not_allowed");
    let answer =
        world.ask_proxy("GET https://api.example.com/v1 HTTP/1.1\r\nhost: api.example.com\r\n\r\n");
    assert_eq!(answer.reason(), "request_malformed");
}

#[test]
fn a_denial_says_what_would_help() {
    for world in World::both(&routes(), &echoing()) {
        let answer = world.request(
            "api.example.com",
            &get("api.example.com", "/admin?key=hidden", ""),
        );
        assert_eq!(
            (answer.status(), answer.reason().as_str()),
            (403, "path_not_allowed")
        );
        let denial: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            denial["allow"],
            json!({"host": "api.example.com", "ports": [443],
                "matches": [{"methods": ["GET"], "paths": [{"type": "exact", "value": "/admin"}]}]})
        );
        let record = &world.records(1)[0];
        assert_eq!(record["id"], denial["id"]);
        assert_eq!(
            (&record["decision"], &record["path"]),
            (&json!("deny"), &json!("/admin"))
        );
        assert!(world.seen().is_empty());
    }
}

#[test]
fn a_refused_tunnel_costs_no_lookup() {
    let world = World::new(&routes());
    let cases = [
        ("evil.test:443", "host_not_allowed"),
        ("api.example.com:22", "port_not_allowed"),
        ("127.0.0.1:443", "ip_literal"),
        ("2130706433:443", "ip_literal"),
        ("0x7f.1:443", "ip_literal"),
        ("other.example.com:80", "scheme_not_allowed"),
        ("api.example.com:0443", "host_invalid"),
    ];
    for (target, reason) in cases {
        let answer = world.ask_proxy(&format!(
            "CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n"
        ));
        assert_eq!(
            (answer.status(), answer.reason().as_str()),
            (403, reason),
            "{target}"
        );
    }
    assert!(world.network.log().is_empty(), "{:?}", world.network.log());
    assert_eq!(world.records(cases.len()).len(), cases.len());
}

#[test]
fn addresses_are_looked_at_before_they_are_dialled() {
    let world = World::new(&routes());
    world
        .network
        .name("rebind.example.com", &["169.254.169.254"]);
    world
        .network
        .name("mixed.example.com", &["93.184.216.34", "127.0.0.1"]);
    world.network.name("home.example.com", &["10.9.0.3"]);
    for (host, reason) in [
        ("rebind", "ip_link_local"),
        ("mixed", "dns_mixed"),
        ("home", "ip_own_network"),
    ] {
        let answer = world.ask_proxy(&format!("CONNECT {host}.example.com:443 HTTP/1.1\r\n\r\n"));
        assert_eq!((answer.status(), answer.reason().as_str()), (403, reason));
    }
    assert!(
        !world
            .network
            .log()
            .iter()
            .any(|line| line.starts_with("connect"))
    );
}

#[test]
fn connect_is_answered_only_after_the_destination_was_reached() {
    let world = World::new(&routes());
    world.network.name("down.example.com", &["93.184.216.34"]);
    world
        .network
        .name("untrusted.example.com", &["93.184.216.34"]);
    for (target, reason) in [
        ("rebind.example.com:443", "dns_failed"),
        ("down.example.com:4443", "upstream_unreachable"),
        // The upstream's certificate is not for this name.
        ("untrusted.example.com:443", "upstream_tls"),
    ] {
        let answer = world.ask_proxy(&format!("CONNECT {target} HTTP/1.1\r\n\r\n"));
        assert_eq!((answer.status(), answer.reason().as_str()), (502, reason));
    }
}

#[test]
fn a_passed_through_tunnel_keeps_its_own_certificate() {
    let world = World::new(&routes());
    for transparent in [false, true] {
        let stream = if transparent {
            connect(world.bound.https)
        } else {
            let mut stream = world.proxy();
            write!(stream, "CONNECT github.com:443 HTTP/1.1\r\n\r\n").unwrap();
            assert_eq!(
                crate::world::read_message(&mut stream, false)
                    .unwrap()
                    .status(),
                200
            );
            stream
        };
        let mut stream = tls_with(&world.upstream_ca, stream, "github.com");
        assert_eq!(ask(&mut stream, &get("github.com", "/", "")).status(), 200);
    }
    let records = world.records(2);
    assert!(records.iter().all(|record| record["decision"] == "allow" && record["bytes_in"].as_u64().unwrap() > 0));
}

#[test]
fn a_refused_name_ends_transparent_tls() {
    let world = World::new(&routes());
    let mut stream = world.transparent("evil.test");
    assert!(
        stream
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .and_then(|()| stream.read(&mut [0; 10]))
            .is_err()
    );
    let record = &world.records(1)[0];
    assert_eq!(
        (&record["reason"], &record["host"]),
        (&json!("host_not_allowed"), &json!("evil.test"))
    );
}
