//! `mode: observe`: what is let through to be learnt from, and what still is not.

use serde_json::{Value, json};

use crate::world::{PLACEHOLDER, SECRET, World, credentialed, get, policy, settings};

/// A world whose policy observes; the routes are its own.
fn observing(routes: &Value) -> World {
    let mut world = World::new(&json!([]));
    let mut document = policy(routes);
    document["mode"] = json!("observe");
    let file = world.dir.path().join("policy.json");
    std::fs::write(file, document.to_string()).unwrap();
    world.restart();
    world
}

#[test]
fn what_no_route_serves_is_let_through_and_recorded() {
    let world = observing(&json!([]));
    let answer = world.request("api.example.com", &get("api.example.com", "/v1/x", ""));
    assert_eq!(answer.status(), 200);
    let records = world.records(2);
    let record = records.iter().find(|r| r["path"] == "/v1/x").unwrap();
    assert_eq!(record["decision"], "allow");
    assert_eq!(record["rule"], "egress.mode: observe");
    assert_eq!(record["slot"], Value::Null);
}

#[test]
fn private_addresses_stay_out_of_reach() {
    let world = observing(&json!([]));
    for (name, address) in [
        ("home.example.com", "10.1.2.3"),
        ("meta.example.com", "169.254.169.254"),
        ("loop.example.com", "127.0.0.1"),
        ("own.example.com", "10.9.0.3"),
        ("mapped.example.com", "::ffff:10.1.2.3"),
    ] {
        world.network.name(name, &[address]);
        let answer = world.ask_proxy(&format!(
            "CONNECT {name}:443 HTTP/1.1\r\nhost: {name}:443\r\n\r\n"
        ));
        let answer = if answer.status() == 200 {
            world.request(name, &get(name, "/", ""))
        } else {
            answer
        };
        assert_eq!(answer.status(), 403, "{name}: {answer:?}");
    }
    let literal =
        world.ask_proxy("CONNECT 93.184.216.34:443 HTTP/1.1\r\nhost: 93.184.216.34:443\r\n\r\n");
    assert_eq!(literal.status(), 403);
    let connected = |line: &String| line.starts_with("connect");
    assert!(
        !world.network.log().iter().any(connected),
        "{:?}",
        world.network.log()
    );
}

#[test]
fn no_credential_and_no_placeholder_goes_where_it_does_not_belong() {
    let world = observing(&json!([credentialed("api.example.com")]));
    for value in [PLACEHOLDER, SECRET] {
        let raw = get("other.example.com", "/", &format!("x-api-key: {value}\r\n"));
        let answer = world.request("other.example.com", &raw);
        assert_eq!(answer.status(), 403, "{answer:?}");
    }
    assert_eq!(
        world
            .request("other.example.com", &get("other.example.com", "/", ""))
            .status(),
        200
    );
    for seen in world.seen() {
        assert!(!format!("{seen:?}").contains(SECRET), "{seen:?}");
    }
}

#[test]
fn a_route_is_not_widened() {
    let world = observing(&json!([
        {"host": "api.example.com", "ports": [443], "matches": [{"methods": ["GET"], "paths": [{"value": "/v1"}]}]}
    ]));
    let answer = world.request("api.example.com", &get("api.example.com", "/v2", ""));
    assert_eq!(
        (answer.status(), answer.reason()),
        (403, "path_not_allowed".to_owned())
    );
}

#[test]
fn what_no_rule_could_allow_stays_refused() {
    let world = observing(&json!([]));
    for (raw, reason) in [
        (
            get(
                "github.com",
                "/o/r.git/info/refs?service=git-receive-pack",
                "",
            ),
            "git_push_refused",
        ),
        (
            get("github.com", "/", "").replacen("GET", "TRACE", 1),
            "method_refused",
        ),
        (get("github.com", "/a/../b", ""), "path_ambiguous"),
    ] {
        let answer = world.request("github.com", &raw);
        assert_eq!((answer.status(), answer.reason()), (403, reason.to_owned()));
    }
}

/// Neither a name of the engine's network nor one that no public resolver knows; the canary of `up` asks for such.
#[test]
fn a_name_that_is_not_public_is_not_observed() {
    let world = observing(&json!([]));
    for name in [
        "egress",
        "canary.bottle.invalid",
        "printer.local",
        "nas.home.arpa",
        "localhost",
        "a.test",
    ] {
        world.network.name(name, &["93.184.216.34"]);
        let answer = world.ask_proxy(&format!(
            "CONNECT {name}:443 HTTP/1.1\r\nhost: {name}:443\r\n\r\n"
        ));
        assert_eq!(
            (answer.status(), answer.reason()),
            (403, "host_not_allowed".to_owned()),
            "{name}"
        );
    }
}

/// The operator's proxy resolves the names: nobody here could say whether what it reaches is public.
#[test]
fn it_does_not_start_behind_an_upstream_proxy() {
    let world = observing(&json!([]));
    let mut settings = settings(world.dir.path());
    settings.upstream_proxy = Some("http://proxy.example.com:3128".to_owned().into());
    let started = bottle_sidecar::egress::start(
        settings,
        Box::new(world.network.clone()),
        &crate::world::slots,
    );
    let error = started.err().expect("it must not start").to_string();
    assert!(error.contains("BOTTLE_UPSTREAM_PROXY"), "{error}");
}
