//! Requests that want the rules to be asked about something else than what is sent.

use std::thread;

use bottle_tests::engine::wait_for;
use bottle_tests::raw::Exchange;

use super::{
    API, FREE, Fixture, OTHER, TOKEN, assert_refused, bare, connect, get, h2, headers, tunnel,
};

/// Three places name a host; only when all say the same it passes. (Domain fronting.)
pub(crate) fn row_21_domain_fronting(f: &Fixture) {
    let names = [FREE, OTHER];
    let mut exchanges = Vec::new();
    for target in names {
        for sni in names {
            for host in names {
                let mut exchange = tunnel(target, &[&get(host, "/bytes?n=3&mark=row-21")]);
                exchange.sni = sni.to_owned();
                exchanges.push((target == sni && sni == host, exchange));
            }
        }
    }
    let plain: Vec<Exchange> = exchanges
        .iter()
        .map(|(_, exchange)| exchange.clone())
        .collect();
    for ((same, exchange), outcome) in exchanges.iter().zip(f.bottle.raw(&plain)) {
        let passed = outcome.statuses() == [200];
        assert_eq!(passed, *same, "{exchange:?}: {outcome:?}");
    }
    assert_eq!(f.arrived("row-21").len(), 2);
}

/// What is injected for one host, asked for in the tunnel of another. (vm0 #14412 and #19171.)
pub(crate) fn row_22_credential_for_a_host_of_ones_choice(f: &Fixture) {
    let mut absolute = get(API, "https://api.example.com/bytes?mark=row-22");
    absolute = absolute.replace("Host: api.example.com", "Host: other.example.net");
    let outcomes = f.bottle.raw(&[
        tunnel(OTHER, &[&get(API, "/bytes?mark=row-22")]),
        tunnel(OTHER, &[&absolute]),
        tunnel(API, &[&get(OTHER, "/bytes?mark=row-22")]),
    ]);
    for outcome in &outcomes {
        assert_refused(outcome, "authority_mismatch");
    }
    f.assert_nothing_arrived("row-22");
    for request in f.internet.events_of("request") {
        if request["sni"] == OTHER || request["sni"] == FREE {
            assert!(!request.to_string().contains(TOKEN), "{request}");
        }
    }
}

/// Another service of an allowed host: mail, SSH, a database. (CONNECT host:25.)
pub(crate) fn row_25_port_pivot(f: &Fixture) {
    let before = f.internet.events_of("connection").len();
    let targets = [22, 25, 80, 6379, 8443, 65535].map(|port| connect(&format!("{FREE}:{port}")));
    for outcome in f.bottle.raw(&targets) {
        assert!(
            ["port_not_allowed", "scheme_not_allowed"]
                .contains(outcome.reasons().first().unwrap_or(&"")),
            "{outcome:?}"
        );
    }
    let odd = [":0", ":70000", ":443:22", ":", ":+443", ":0443x"];
    for outcome in f
        .bottle
        .raw(&odd.map(|port| connect(&format!("{FREE}{port}"))))
    {
        assert!(outcome.connect.starts_with("HTTP/1.1 4"), "{outcome:?}");
    }
    assert_eq!(f.internet.events_of("connection").len(), before);
}

/// A connection that was opened while it was allowed. (OpenShell's stale policy generations.)
pub(crate) fn row_33_keep_alive_outlives_the_policy(f: &Fixture) {
    let request =
        |mark| format!("GET /bytes?n=3&mark={mark} HTTP/1.1\r\nHost: other.example.net\r\n\r\n");
    let mut exchange = tunnel(
        OTHER,
        &[&request("row-33-before"), &request("row-33-after")],
    );
    // Long enough for the reload in between.
    exchange.pause_ms = 4000;
    thread::scope(|scope| {
        let talking = scope.spawn(|| f.bottle.raw(std::slice::from_ref(&exchange)));
        wait_for("the first request", || {
            !f.arrived("row-33-before").is_empty()
        });
        f.reload(|routes| routes.retain(|route| route["host"] != OTHER));
        let outcomes = talking.join().expect("no panic");
        assert_eq!(outcomes[0].statuses(), [200, 403], "{outcomes:?}");
        assert_refused(&outcomes[0], "host_not_allowed");
    });
    f.assert_nothing_arrived("row-33-after");
    // As it was, for whoever comes next.
    let plan = f.bottle.plan();
    let route = plan["egress"]["routes"].as_array().into_iter().flatten();
    let route = route.filter(|route| route["host"] == OTHER).cloned();
    f.reload(|routes| routes.extend(route));
}

/// A path that the rule reads one way and the destination another. (Dot segments, encoded slashes, `;` of servlets.)
pub(crate) fn row_34_path_tricks(f: &Fixture) {
    let paths = [
        "/bytes/../admin",
        "/bytes/./../admin",
        "/bytes/%2e%2e/admin",
        "/bytes/.%2e/admin",
        "/bytes/%2E%2E/admin",
        "/bytes/%252e%252e/admin",
        "/bytes/..%2fadmin",
        "/bytes%2f..%2fadmin",
        "/bytes/..\\admin",
        "/bytes\\..\\admin",
        "/bytes/%5c..%5cadmin",
        "/bytes/..;/admin",
        "/bytes/..;a=b/admin",
        "/bytes/..%00/admin",
        "/bytes/%00/admin",
        "/bytes/..%09/admin",
        "/bytes/%",
        "/bytes/%2",
        "/bytes/%zz",
        "/bytes/%c0%ae%c0%ae/admin",
        "//admin",
        "/bytes//../admin",
        "/BYTES/admin",
        "/bytesadmin",
        "/bytes/..",
        "/..",
        "/admin",
        "/%61dmin",
        "/bytes/%2e./admin",
        "/bytes/..%3b/admin",
        "/bytes/..%23/admin",
        "*",
        "admin",
        "http://api.example.com/admin",
        "https://other.example.net/bytes",
    ];
    let requests: Vec<String> = paths.iter().map(|path| get(API, path)).collect();
    for (path, outcome) in paths.iter().zip(f.in_tunnels(API, &requests)) {
        let status = outcome.statuses();
        let refused = matches!(status.as_slice(), [400 | 403 | 421]);
        // What is no way up is an ordinary segment below the allowed path, and is sent as it was read.
        let below = status == [404] && path.starts_with("/bytes/");
        assert!(refused || below, "{path}: {outcome:?}");
        if below {
            assert!(
                !path.contains("..;") || path.contains("%3b"),
                "{path} passed"
            );
        }
    }
    for request in f.arrived("admin") {
        let path = request["path"].as_str().expect("a path");
        assert!(
            path.starts_with("/bytes/") && !path.contains("/../"),
            "{path}"
        );
    }
}

/// One policy behind every way in. (OpenShell #339 and #643: rules of CONNECT that the absolute form did not have.)
pub(crate) fn row_35_every_way_in_has_the_same_rules(f: &Fixture) {
    let cases = [
        (API, "GET", "/admin", "path_not_allowed"),
        (API, "DELETE", "/bytes", "method_not_allowed"),
        (API, "GET", "/bytes/../admin", "path_ambiguous"),
        (FREE, "POST", "/x.git/git-receive-pack", "git_push_refused"),
        (FREE, "TRACE", "/bytes", "method_refused"),
    ];
    for (host, method, path, reason) in cases {
        let request =
            format!("{method} {path}?row-35 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let explicit = tunnel(host, &[&request]);
        let mut led = explicit.clone();
        led.to = format!("{host}:443");
        led.connect.clear();
        let two = h2::request(host, method, &format!("{path}?row-35"), &[]);
        let mut two = tunnel(host, &[&two]);
        two.alpn = vec!["h2".to_owned()];
        let mut both = two.clone();
        both.to = format!("{host}:443");
        both.connect.clear();
        let outcomes = f.bottle.raw(&[explicit, led, two, both]);
        assert_refused(&outcomes[0], reason);
        assert_refused(&outcomes[1], reason);
        for outcome in &outcomes[2..] {
            assert_eq!(outcome.alpn, "h2");
            assert!(
                outcome.answer.contains(&format!(r#""reason":"{reason}""#)),
                "{outcome:?}"
            );
        }
    }
    // The absolute form opens nothing that is for https, and https is not asked for by it.
    let outcomes = f.bottle.raw(&[
        bare(&get(API, "http://api.example.com/bytes?row-35")),
        bare(&get(
            "api.example.com:443",
            "http://api.example.com:443/bytes?row-35",
        )),
        bare(&get(API, "https://api.example.com/bytes?row-35")),
        bare(&get(
            "untold.example.com",
            "http://untold.example.com/bytes?row-35",
        )),
    ]);
    let reasons: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.reasons().concat())
        .collect();
    assert_eq!(
        reasons,
        [
            "scheme_not_allowed",
            "scheme_not_allowed",
            "request_malformed",
            "host_not_allowed"
        ]
    );
    f.assert_nothing_arrived("row-35");
}

/// Headers by which a destination takes the request for another one.
pub(crate) fn row_36_method_and_url_overrides(f: &Fixture) {
    let overrides = [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Forwarded-Host",
        "X-Forwarded-For",
        "X-Forwarded-Prefix",
        "Forwarded",
        "Via",
        "X-Real-IP",
    ];
    let mut request = String::from("GET /bytes?mark=row-36 HTTP/1.1\r\nHost: api.example.com\r\n");
    for name in overrides {
        request.push_str(&format!("{name}: DELETE\r\n"));
    }
    request.push_str("X-Kept: yes\r\nConnection: close\r\n\r\n");
    let outcomes = f.in_tunnels(API, &[request]);
    assert_eq!(outcomes[0].statuses(), [200], "{outcomes:?}");
    let arrived = f.arrived("row-36");
    assert_eq!(headers(&arrived[0], "x-kept"), ["yes"]);
    for name in overrides {
        assert!(headers(&arrived[0], name).is_empty(), "{name} arrived");
    }
}

/// TRACE shows the injected header; CONNECT and what nobody knows are ways around the rules. (Cross-site tracing.)
pub(crate) fn row_41_methods_that_show_or_tunnel(f: &Fixture) {
    let methods = ["TRACE", "TRACK", "DEBUG", "PROPFIND", "get", "FOO"];
    let mut requests: Vec<String> = methods
        .iter()
        .map(|method| format!("{method} /bytes?row-41 HTTP/1.1\r\nHost: free.example.com\r\nConnection: close\r\n\r\n"))
        .collect();
    requests.push(
        "OPTIONS * HTTP/1.1\r\nHost: free.example.com\r\nX: row-41\r\nConnection: close\r\n\r\n"
            .to_owned(),
    );
    requests.push(
        "CONNECT other.example.net:443 HTTP/1.1\r\nHost: free.example.com\r\nX: row-41\r\n\r\n"
            .to_owned(),
    );
    requests.push(
        "CONNECT free.example.com:443 HTTP/1.1\r\nHost: free.example.com\r\nX: row-41\r\n\r\n"
            .to_owned(),
    );
    for (request, outcome) in requests.iter().zip(f.in_tunnels(FREE, &requests)) {
        assert!(
            !outcome.answer.contains("HTTP/1.1 2"),
            "{request}: {outcome:?}"
        );
    }
    f.assert_nothing_arrived("row-41");
}
