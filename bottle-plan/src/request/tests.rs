use super::*;
use crate::policy::PathKind;

fn request(ask: Ask) -> Request {
    Request {
        schema: REQUEST_SCHEMA.into(),
        id: "r-abcdefg7".into(),
        bottle: "demo-1".into(),
        plan_digest: "sha256:0".into(),
        created_at: "2026-11-23T16:00:00Z".into(),
        deadline: "2026-11-23T16:10:00Z".into(),
        ask,
        reason: String::new(),
    }
}

fn egress(host: &str, methods: &[&str], path: &str) -> Ask {
    Ask::Egress {
        scheme: Scheme::Https,
        host: host.into(),
        port: 443,
        methods: methods.iter().map(|&m| m.to_owned()).collect(),
        paths: vec![PathMatch {
            kind: PathKind::Exact,
            value: path.into(),
        }],
        git_fetch: false,
        denial: None,
    }
}

#[test]
fn a_deadline_at_the_end_of_time_grants_nothing_and_ends_nothing() {
    let mut late = request(egress("a.example.com", &["GET"], "/x"));
    assert!(late.readonly_grant(b"{}").is_some());
    late.deadline = "9999-12-31T23:59:59Z".into();
    assert_eq!(late.check(), Ok(()));
    assert_eq!(late.readonly_grant(b"{}"), None);
}

#[test]
fn what_widens_too_much_cannot_be_asked_for() {
    assert_eq!(
        request(egress("api.example.com", &["POST"], "/v1")).check(),
        Ok(())
    );
    for host in [
        "*.example.com",
        "10.0.0.1",
        "[::1]",
        "API.example.com",
        "a b",
        "",
    ] {
        assert!(request(egress(host, &[], "/")).check().is_err(), "{host}");
    }
    for method in ["TRACE", "CONNECT", "get", "\u{1b}[2J"] {
        assert!(
            request(egress("a.example.com", &[method], "/"))
                .check()
                .is_err()
        );
    }
    for path in [
        "x",
        "/a b",
        "/\u{202e}",
        "/\n",
        &format!("/{}", "a".repeat(600)),
    ] {
        assert!(request(egress("a.example.com", &[], path)).check().is_err());
    }
    let mut long = request(egress("a.example.com", &[], "/"));
    long.reason = "x".repeat(MAX_REASON + 1);
    assert!(long.check().is_err());
}

#[test]
fn ids_are_never_paths() {
    assert!(is_id("r-abcdefg7", 'r'));
    for bad in [
        "r-../../x",
        "r-abc",
        "g-abcdefg7",
        "r-ABCDEFGH",
        "r-abcdefg7\n",
        "",
    ] {
        assert!(!is_id(bad, 'r'), "{bad:?}");
    }
    assert_eq!(grant_id("r-abcdefg7"), "g-abcdefg7");
}

#[test]
fn without_an_answer_only_reading_is_left() {
    let grant =
        |methods: &[&str]| request(egress("a.example.com", methods, "/x")).readonly_grant(b"{}");
    let methods = |grant: Option<Grant>| match grant.expect("a grant").scope {
        Scope::Egress { route } => route.matches[0].methods.clone(),
        Scope::Push { .. } => Vec::new(),
    };
    assert_eq!(methods(grant(&[])), ["GET", "HEAD"]);
    assert_eq!(methods(grant(&["GET", "POST"])), ["GET"]);
    assert_eq!(grant(&["POST"]), None);
    assert_eq!(
        grant(&[]).and_then(|g| g.ends_at).as_deref(),
        Some("2026-11-23T16:20:00Z")
    );
}

#[test]
fn a_grant_is_over_by_the_clock_on_the_wall() {
    let mut grant = request(egress("a.example.com", &[], "/x"))
        .readonly_grant(b"{}")
        .expect("a grant");
    let at = |text| time_of(text).expect("a time");
    assert!(!grant.is_over(at("2026-11-23T16:19:59Z")));
    assert!(grant.is_over(at("2026-11-23T16:20:00Z")));
    // The clock was set back: a little is what clocks do.
    let begun = time_of(&grant.created_at).expect("a time");
    assert!(!grant.is_over(begun - Duration::seconds(2)));
    assert!(grant.is_over(begun - Duration::hours(1)));
    grant.ends_at = Some("soon".into());
    assert!(grant.is_over(at("2026-11-23T16:00:00Z")));
}
