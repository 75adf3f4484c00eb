//! Decisions on one policy that has a bit of everything.

use hyper::{HeaderMap, Method};

use super::super::{Policy, Scheme, load, read};
use super::*;

fn policy(routes: &str) -> Result<Policy, String> {
    let json = format!(
        r#"{{"schema":"bottle.policy/v1","bottle":"demo","plan_digest":"d","listen":"10.9.0.2","routes":[{routes}]}}"#
    );
    let document = read(json.as_bytes()).map_err(|error| error.to_string())?;
    load(document, &|_: &str| None, None).map_err(|error| error.to_string())
}

const ROUTES: &str = r#"
    {"host":"api.example.com","ports":[443,8443],"matches":[
        {"paths":[{"type":"prefix","value":"/v1/messages"}],"methods":["post"]},
        {"paths":[{"type":"exact","value":"/v1/models"},{"type":"regex","value":"/v1/models/[a-z0-9-]+"}],"methods":["GET","HEAD"]},
        {"paths":[{"value":"/beta/"}],"headers":[{"name":"X-Beta","value":"yes"}]}]},
    {"host":"*.example.com","ports":[443]},
    {"host":"*.deep.example.com","ports":[443],"matches":[{"methods":["GET"]}]},
    {"host":"github.com","ports":[443],"git":{"fetch":true},"matches":[{"paths":[{"value":"/org"}],"methods":["GET"]}]},
    {"host":"forge.example.org","ports":[443]},
    {"host":"plain.example.org","scheme":"http","ports":[80]},
    {"host":"pinned.example.org","ports":[443],"tls":"passthrough"}
"#;

fn ask(policy: &Policy, method: &str, url: &str, headers: &HeaderMap) -> Decision {
    let uri: hyper::Uri = url.parse().unwrap();
    let scheme = if uri.scheme_str() == Some("http") {
        Scheme::Http
    } else {
        Scheme::Https
    };
    let default = if scheme == Scheme::Http { 80 } else { 443 };
    policy.decide(&Question {
        scheme,
        host: uri.host().unwrap(),
        port: uri.port_u16().unwrap_or(default),
        method: &Method::from_bytes(method.as_bytes()).unwrap(),
        path: uri.path(),
        query: uri.query(),
        headers,
    })
}

#[test]
fn decisions() {
    let policy = policy(ROUTES).unwrap();
    let cases = [
        (
            "POST",
            "https://api.example.com/v1/messages",
            "allowed",
            Some(0),
        ),
        (
            "POST",
            "https://api.example.com/v1/messages/",
            "allowed",
            Some(0),
        ),
        (
            "POST",
            "https://api.example.com/v1/messages/count_tokens?x=1",
            "allowed",
            Some(0),
        ),
        (
            "POST",
            "https://api.example.com:8443/v1/messages",
            "allowed",
            Some(0),
        ),
        (
            "POST",
            "https://api.example.com/v1/%6Dessages",
            "allowed",
            Some(0),
        ),
        (
            "POST",
            "https://api.example.com/v1/messagesx",
            "path_not_allowed",
            Some(0),
        ),
        (
            "POST",
            "https://api.example.com/v1",
            "path_not_allowed",
            Some(0),
        ),
        (
            "POST",
            "https://api.example.com/V1/messages",
            "path_not_allowed",
            Some(0),
        ),
        (
            "POST",
            "https://api.example.com/v1//messages",
            "path_not_allowed",
            Some(0),
        ),
        (
            "GET",
            "https://api.example.com/v1/messages",
            "method_not_allowed",
            Some(0),
        ),
        (
            "HEAD",
            "https://api.example.com/v1/models",
            "allowed",
            Some(0),
        ),
        (
            "GET",
            "https://api.example.com/v1/models/claude-5",
            "allowed",
            Some(0),
        ),
        (
            "GET",
            "https://api.example.com/v1/models/claude-5/x",
            "path_not_allowed",
            Some(0),
        ),
        (
            "GET",
            "https://api.example.com/x/v1/models/claude-5",
            "path_not_allowed",
            Some(0),
        ),
        (
            "GET",
            "https://api.example.com/beta/x",
            "header_not_matched",
            Some(0),
        ),
        (
            "GET",
            "https://api.example.com/v1/models/..%2f..%2fadmin",
            "path_ambiguous",
            None,
        ),
        (
            "POST",
            "https://api.example.com/v1/messages%2f..%2fx",
            "path_ambiguous",
            None,
        ),
        (
            "POST",
            "https://api.example.com/v1/messages/%2e%2e/x",
            "path_ambiguous",
            None,
        ),
        (
            "POST",
            "https://api.example.com/v1/messages%2fx",
            "path_ambiguous",
            Some(0),
        ),
        (
            "POST",
            "https://api.example.com/v1/messages/%252e",
            "path_ambiguous",
            Some(0),
        ),
        (
            "POST",
            "https://api.example.com:444/v1/messages",
            "port_not_allowed",
            Some(0),
        ),
        (
            "POST",
            "http://api.example.com/v1/messages",
            "scheme_not_allowed",
            Some(0),
        ),
        (
            "TRACE",
            "https://forge.example.org/",
            "method_refused",
            None,
        ),
        (
            "CONNECT",
            "https://forge.example.org/",
            "method_refused",
            None,
        ),
        (
            "PROPFIND",
            "https://forge.example.org/",
            "method_refused",
            None,
        ),
        ("get", "https://forge.example.org/", "method_refused", None),
        ("GET", "https://www.example.com/", "allowed", Some(1)),
        ("DELETE", "https://a.b.example.com/x", "allowed", Some(1)),
        (
            "GET",
            "https://www.example.com/@scope%2fname",
            "allowed",
            Some(1),
        ),
        ("GET", "https://example.com/", "host_not_allowed", None),
        ("GET", "https://wwwexample.com/", "host_not_allowed", None),
        ("GET", "https://x.deep.example.com/", "allowed", Some(2)),
        (
            "POST",
            "https://x.deep.example.com/",
            "method_not_allowed",
            Some(2),
        ),
        ("POST", "https://deep.example.com/", "allowed", Some(1)),
        ("GET", "https://evil.test/", "host_not_allowed", None),
        ("TRACE", "https://evil.test/", "host_not_allowed", None),
        ("GET", "http://plain.example.org/x", "allowed", Some(5)),
        (
            "GET",
            "https://plain.example.org/x",
            "scheme_not_allowed",
            Some(5),
        ),
        (
            "GET",
            "https://github.com/org/repo/info/refs?service=git-upload-pack",
            "allowed",
            Some(3),
        ),
        (
            "POST",
            "https://github.com/org/repo/git-upload-pack",
            "allowed",
            Some(3),
        ),
        (
            "GET",
            "https://github.com/org/repo/info/refs",
            "allowed",
            Some(3),
        ),
        (
            "POST",
            "https://github.com/other/repo/git-upload-pack",
            "path_not_allowed",
            Some(3),
        ),
        (
            "POST",
            "https://github.com/org/repo/issues",
            "method_not_allowed",
            Some(3),
        ),
        (
            "GET",
            "https://github.com/org/repo/info/refs?service=git-receive-pack",
            "git_push_refused",
            Some(3),
        ),
        (
            "GET",
            "https://github.com/org/repo/info/refs?a=b&service=git%2Dreceive%2dpack",
            "git_push_refused",
            Some(3),
        ),
        (
            "GET",
            "https://github.com/org/repo/info/refs?service=git-upload-pack&service=git-receive-pack",
            "git_push_refused",
            Some(3),
        ),
        (
            "GET",
            "https://github.com/org/repo/info/refs?SERVICE=GIT-RECEIVE-PACK",
            "git_push_refused",
            Some(3),
        ),
        (
            "POST",
            "https://github.com/org/repo/git-receive-pack",
            "git_push_refused",
            Some(3),
        ),
        (
            "POST",
            "https://github.com/org/repo/git-receive-pack/",
            "git_push_refused",
            Some(3),
        ),
        (
            "POST",
            "https://github.com/org/repo/Git-Receive-Pack",
            "git_push_refused",
            Some(3),
        ),
        (
            "POST",
            "https://github.com/org/repo/git%2dreceive%2Dpack",
            "git_push_refused",
            Some(3),
        ),
        (
            "POST",
            "https://forge.example.org/o/r%2fgit-receive-pack",
            "git_push_refused",
            Some(4),
        ),
        (
            "POST",
            "https://forge.example.org/o/r/git-upload-pack",
            "git_fetch_not_allowed",
            Some(4),
        ),
        (
            "GET",
            "https://forge.example.org/o/r/info/refs",
            "git_fetch_not_allowed",
            Some(4),
        ),
        (
            "POST",
            "https://forge.example.org/o/r.git/info/lfs/objects/batch",
            "git_lfs_refused",
            Some(4),
        ),
        (
            "GET",
            "https://forge.example.org/info/reference",
            "allowed",
            Some(4),
        ),
    ];
    for (method, url, reason, route) in cases {
        let path = url.parse::<hyper::Uri>().unwrap().path().to_owned();
        let decision = ask(&policy, method, url, &usual_headers(&path));
        assert_eq!(
            (decision.reason.code(), decision.route),
            (reason, route),
            "{method} {url}"
        );
    }
}

#[test]
fn a_required_header_is_compared_exactly() {
    let policy = policy(ROUTES).unwrap();
    let is_allowed = |fields: &[(&'static str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        ask(&policy, "GET", "https://api.example.com/beta/x", &headers).is_allowed()
    };
    assert!(is_allowed(&[("x-beta", "yes")]));
    assert!(is_allowed(&[("x-beta", "yes"), ("x-beta", "yes")]));
    assert!(!is_allowed(&[("x-beta", "no")]));
    // Which of two the destination reads is its affair.
    assert!(!is_allowed(&[("x-beta", "no"), ("x-beta", "yes")]));
    assert!(!is_allowed(&[("x-beta", "yes"), ("x-beta", "no")]));
    // It would not arrive.
    assert!(!is_allowed(&[
        ("x-beta", "yes"),
        ("connection", "close, X-Beta")
    ]));
}

#[test]
fn only_a_fetch_is_let_off_the_methods() {
    let policy = policy(ROUTES).unwrap();
    let fetch = "application/x-git-upload-pack-request";
    let pack = "https://github.com/org/repo/git-upload-pack";
    // A forge's API takes any file's name for a path.
    let file = "https://github.com/org/api/v1/contents/git-upload-pack";
    for (method, url, fields, expected) in [
        ("POST", pack, &[("content-type", fetch)][..], "allowed"),
        ("POST", pack, &[], "method_not_allowed"),
        (
            "POST",
            file,
            &[("content-type", "application/json")],
            "method_not_allowed",
        ),
        (
            "POST",
            file,
            &[
                ("content-type", fetch),
                ("content-type", "application/json"),
            ],
            "method_not_allowed",
        ),
        (
            "POST",
            file,
            &[("content-type", fetch), ("connection", "content-type")],
            "method_not_allowed",
        ),
        (
            "DELETE",
            file,
            &[("content-type", fetch)],
            "method_not_allowed",
        ),
        (
            "PUT",
            file,
            &[("content-type", fetch)],
            "method_not_allowed",
        ),
        (
            "DELETE",
            "https://github.com/org/repo/contents/info/refs",
            &[],
            "method_not_allowed",
        ),
        (
            "HEAD",
            "https://github.com/org/repo/info/refs",
            &[],
            "allowed",
        ),
    ] {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let decision = ask(&policy, method, url, &headers);
        assert_eq!(
            decision.reason.code(),
            expected,
            "{method} {url} {fields:?}"
        );
    }
}

#[test]
fn git_is_known_in_other_spellings() {
    let policy = policy(ROUTES).unwrap();
    for (path, expected) in [
        ("/o/r/git-receive-pack;a=b", "git_push_refused"),
        ("/o/r;a/git-receive-pack;", "git_push_refused"),
        ("/o/r/git-receive-pack//", "git_push_refused"),
        ("/o/r/git-receive-pack/;x", "git_push_refused"),
        ("/o/r/git%252dreceive-pack", "git_push_refused"),
        (
            "/o/r/info//refs?service=git-receive-pack",
            "git_push_refused",
        ),
        (
            "/o/r/info;a/refs;b?service=git-receive-pack",
            "git_push_refused",
        ),
        ("/o/r/git-upload-pack;a=b", "git_fetch_not_allowed"),
        ("/o/r/info//lfs/objects/batch", "git_lfs_refused"),
        ("/o/r/info;a/lfs;b/objects/batch", "git_lfs_refused"),
        ("/o/r/info/x/lfs", "allowed"),
        ("/o/r/refs", "allowed"),
    ] {
        let url = format!("https://forge.example.org{path}");
        let decision = ask(&policy, "POST", &url, &HeaderMap::new());
        assert_eq!(decision.reason.code(), expected, "{path}");
    }
}

#[test]
fn destinations() {
    let policy = policy(ROUTES).unwrap();
    let cases = [
        (Scheme::Https, "api.example.com", 443, "allowed"),
        (Scheme::Https, "api.example.com", 22, "port_not_allowed"),
        (Scheme::Https, "pinned.example.org", 443, "allowed"),
        (Scheme::Https, "plain.example.org", 80, "scheme_not_allowed"),
        (Scheme::Https, "evil.test", 443, "host_not_allowed"),
    ];
    for (scheme, host, port, reason) in cases {
        assert_eq!(
            policy.decide_destination(scheme, host, port).reason.code(),
            reason,
            "{host}:{port}"
        );
    }
}

#[test]
fn bad_policies_say_what_is_wrong() {
    let auth = |slot: &str| {
        format!(
            r#""auth":{{"scheme":"bearer","header":"authorization","slot":"{slot}","placeholder":"PLACEHOLDER-1"}}"#
        )
    };
    let cases = [
        (r#"{"host":"API.example.com","ports":[443]}"#.to_owned(), "must be written `api.example.com`"),
        (r#"{"host":"10.0.0.1","ports":[443]}"#.into(), "not a host name"),
        (r#"{"host":"*","ports":[443]}"#.into(), "at least two labels"),
        (r#"{"host":"*.com","ports":[443]}"#.into(), "at least two labels"),
        (r#"{"host":"a.*.com","ports":[443]}"#.into(), "at least two labels"),
        (r#"{"host":"a.example","ports":[]}"#.into(), "at least one port"),
        (r#"{"host":"a.example","ports":[0]}"#.into(), "not 0"),
        (r#"{"host":"a.example","ports":[443],"matches":[{"paths":[{"value":"x"}]}]}"#.into(), "beginning with `/`"),
        (r#"{"host":"a.example","ports":[443],"matches":[{"paths":[{"value":"/a/../b"}]}]}"#.into(), "unambiguous"),
        (r#"{"host":"a.example","ports":[443],"matches":[{"paths":[{"type":"regex","value":"("}]}]}"#.into(), "usable expression"),
        (r#"{"host":"a.example","ports":[443],"private":["10.0.0.0/99"]}"#.into(), "prefix length"),
        (r#"{"host":"a.example","ports":[443],"extra":1}"#.into(), "unknown field"),
        (r#"{"host":"a.example","ports":[443],"tls":"passthrough","git":{"fetch":true}}"#.into(), "passthrough"),
        (format!(r#"{{"host":"a.example","scheme":"http","ports":[80],{}}}"#, auth("EGRESS_TOKEN_0")), "never travels over http"),
        (format!(r#"{{"host":"a.example","ports":[443],{}}}"#, auth("PATH")), "not a slot"),
        (
            format!(r#"{{"host":"a.example","ports":[443],{}}},{{"host":"a.example","ports":[443]}}"#, auth("EGRESS_TOKEN_0")),
            "conflicts with routes[0]",
        ),
        (
            r#"{"host":"a.example","ports":[443],"private":["10.0.0.0/8"]},{"host":"a.example","ports":[443,444]}"#.into(),
            "conflicts",
        ),
    ];
    for (routes, expected) in cases {
        let problem = policy(&routes).map(|_| ()).unwrap_err();
        assert!(problem.contains(expected), "{routes}\n{problem}");
    }
}

#[test]
fn routes_of_one_host_may_differ_where_they_do_not_meet() {
    let auth = r#""auth":{"scheme":"header","header":"x-api-key","slot":"EGRESS_TOKEN_0"}"#;
    let routes = format!(
        r#"{{"host":"a.example","ports":[443],{auth},"matches":[{{"paths":[{{"value":"/v1"}}]}}]}},
           {{"host":"a.example","ports":[443],"matches":[{{"paths":[{{"value":"/public"}}]}}]}}"#
    );
    let policy = policy(&routes).unwrap();
    assert_eq!(
        ask(&policy, "GET", "https://a.example/v1/x", &HeaderMap::new()).route,
        Some(0)
    );
    assert_eq!(
        ask(
            &policy,
            "GET",
            "https://a.example/public/x",
            &HeaderMap::new()
        )
        .route,
        Some(1)
    );
}
