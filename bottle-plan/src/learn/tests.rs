use super::*;
use crate::audit::{AUDIT_SCHEMA, GENESIS, Way};

fn record(method: &'static str, host: &'static str, path: &'static str) -> Record<'static> {
    Record {
        schema: AUDIT_SCHEMA.into(),
        time: "2026-11-23T16:00:00.042Z".into(),
        seq: 0,
        id: "1-0".into(),
        bottle: "demo".into(),
        way: Way::Proxy,
        method: Some(method.into()),
        host: Some(host.into()),
        port: Some(443),
        path: Some(path.into()),
        decision: Decision::Allow,
        reason: "allowed".into(),
        rule: Some(OBSERVED_RULE.into()),
        status: Some(200),
        bytes_in: 10,
        bytes_out: 5,
        ms: 1,
        slot: None,
        dlp: vec![],
        left: None,
        count: 1,
        dropped: None,
        prev: GENESIS.into(),
    }
}

fn learned(records: &[Record<'static>]) -> Learned {
    let mut learned = Learned::new(false);
    for record in records {
        learned.see(record);
    }
    learned
}

#[test]
fn counts_that_nobody_can_have_reached_end_nothing() {
    let mut odd = record("GET", "10.0.0.1", "/");
    odd.count = u64::MAX;
    let notes = learned(&[odd.clone(), odd]).notes();
    assert!(notes[0].contains(&u64::MAX.to_string()), "{notes:?}");
}

#[test]
fn the_smallest_rules_are_proposed() {
    let learned = learned(&[
        record("GET", "api.example.com", "/v1/models"),
        record("POST", "api.example.com", "/v1/messages"),
        record("POST", "api.example.com", "/v1/messages"),
        record("GET", "files.example.com", "/"),
    ]);
    assert_eq!(
        learned.fragment(),
        "egress:\n  routes:\n    \
         - host: api.example.com  # 3 requests, 15 bytes out\n      matches:\n        \
         - {methods: [GET], paths: [{\"type\":\"exact\",\"value\":\"/v1/models\"}]}\n        \
         - {methods: [POST], paths: [{\"type\":\"exact\",\"value\":\"/v1/messages\"}]}\n    \
         - host: files.example.com  # 1 request, 5 bytes out\n      matches:\n        \
         - {methods: [GET], paths: [{\"type\":\"exact\",\"value\":\"/\"}]}\n"
    );
}

#[test]
fn many_names_in_a_folder_become_a_prefix_and_the_root_never_does() {
    let names = ["/p/a", "/p/b/x", "/p/c", "/p/d", "/q", "/r", "/s", "/t"];
    let records = names.map(|path| record("GET", "files.example.com", path));
    let text = learned(&records).fragment();
    assert!(text.contains("- \"/p\"\n"), "{text}");
    assert!(text.contains("\"/q\"") && !text.contains("\"/\""), "{text}");
    // What was only read is not proposed to be written.
    assert!(!text.contains("POST"), "{text}");
}

#[test]
fn a_prefix_of_what_is_read_is_none_of_what_is_written() {
    let mut records: Vec<_> = ["/p/a", "/p/b", "/p/c", "/p/d"]
        .map(|path| record("GET", "files.example.com", path))
        .into();
    records.push(record("DELETE", "files.example.com", "/p/a"));
    let text = learned(&records).fragment();
    assert!(
        text.contains("{methods: [DELETE], paths: [{\"type\":\"exact\",\"value\":\"/p/a\"}]}"),
        "{text}"
    );
}

#[test]
fn git_is_fetched_only() {
    let learned = learned(&[
        record("GET", "github.com", "/org/repo/info/refs"),
        record("POST", "github.com", "/org/repo/git-upload-pack"),
    ]);
    assert!(learned.fragment().contains("git: {\"fetch\":true}"));
}

#[test]
fn what_a_rule_cannot_name_is_left_out() {
    let odd = [
        ("*.example.com", "/"),
        ("x example.com", "/"),
        ("[redacted]", "/"),
        ("10.0.0.1", "/"),
        ("a.example.com", "[redacted]"),
        ("a.example.com", "/a%2fb"),
        ("a.example.com", "/a%0a- host: evil"),
        ("a.example.com", "/%25"),
        ("a.example.com", "/%e2%80%ae"),
        ("a.example.com", "/%+1"),
        ("a.example.com", "/%1"),
        ("a.example.com", "/a/../b"),
        ("a.example.com", "/\u{202e}"),
    ];
    let learned = learned(&odd.map(|(host, path)| record("GET", host, path)));
    assert!(learned.is_empty(), "{}", learned.fragment());
    assert!(
        learned.notes()[0].starts_with("left out: 13 requests"),
        "{:?}",
        learned.notes()
    );
}

#[test]
fn what_was_not_only_observed_is_not_learnt() {
    let mut routed = record("GET", "a.example.com", "/");
    routed.rule = Some("web.yaml:3".into());
    let mut refused = record("GET", "a.example.com", "/x");
    refused.decision = Decision::Deny;
    refused.reason = "path_not_allowed".into();
    assert!(learned(&[routed, refused.clone()]).is_empty());
    let mut with_denied = Learned::new(true);
    with_denied.see(&refused);
    assert!(!with_denied.is_empty());
    refused.reason = "secret_leak".into();
    let mut with_denied = Learned::new(true);
    with_denied.see(&refused);
    assert!(with_denied.is_empty());
}

#[test]
fn what_was_not_seen_is_said() {
    let mut pinned = record("CONNECT", "pinned.example.com", "");
    pinned.path = None;
    pinned.decision = Decision::Deny;
    pinned.reason = "tls_handshake_failed".into();
    let notes = learned(&[pinned.clone()]).notes();
    assert!(notes[0].contains("passthrough"), "{notes:?}");

    // A tunnel whose requests were seen is nothing that was not.
    let mut tunnel = pinned;
    tunnel.decision = Decision::Allow;
    tunnel.reason = "allowed".into();
    let request = record("GET", "pinned.example.com", "/");
    assert_eq!(learned(&[tunnel.clone()]).notes().len(), 1);
    assert!(learned(&[tunnel, request]).notes().is_empty());
}

/// The proposal is a manifest, and the planner takes it.
#[test]
fn both_forms_are_a_manifest() {
    let mut plain = record("GET", "plain.example.com", "/a b\"c'd#e: f");
    plain.port = Some(80);
    let mut other = record("PUT", "api.example.com", "/x");
    other.port = Some(8443);
    let learned = learned(&[plain, other, record("GET", "api.example.com", "/v1/y")]);
    for text in [learned.fragment(), learned.document().to_string()] {
        let bottle: crate::manifest::Bottle = serde_yaml::from_str(&text).expect("a manifest");
        let routes = bottle.egress.expect("routes").routes;
        assert_eq!(routes.len(), 3, "{text}");
        let values: Vec<&str> = routes
            .iter()
            .flat_map(|route| &route.matches)
            .flat_map(|entry| &entry.paths)
            .map(|path| path.0.value.as_str())
            .collect();
        assert!(values.contains(&"/a b\"c'd#e: f"), "{text}");
    }
}
