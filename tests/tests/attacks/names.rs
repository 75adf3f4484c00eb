//! Names and addresses that are not what they seem.

use bottle_tests::raw::Exchange;
use serde_json::json;

use super::{Fixture, OWN, UNTRUSTED, assert_refused, bare, connect, get, tunnel};

/// Cloud metadata: by its address in every spelling, and by a name. (IMDS credential theft, Capital One 2019.)
pub(crate) fn row_20_metadata(f: &Fixture) {
    let targets = [
        "169.254.169.254:443",
        "[fd00:ec2::254]:443",
        "100.100.100.200:443",
    ];
    let mut exchanges: Vec<Exchange> = targets.iter().map(|target| connect(target)).collect();
    exchanges.push(bare(&get(
        "169.254.169.254",
        "http://169.254.169.254/latest/meta-data/",
    )));
    for outcome in f.bottle.raw(&exchanges) {
        assert_refused(&outcome, "ip_literal");
    }
    let outcomes = f.bottle.raw(&[connect("metadata.google.internal:443")]);
    assert_refused(&outcomes[0], "host_not_allowed");
}

/// What one parser takes for the allowed host and another for something else. (Claude Code's allowlist was passed by
/// `evil\0.google.com`; IANA names, userinfo and backslashes in a dozen URL parsers.)
pub(crate) fn row_23_host_spellings(f: &Fixture) {
    let spellings = [
        "evil.test\0.free.example.com",
        "free.example.com\0.evil.test",
        "free.example.com%00.evil.test",
        "free.example.com%2eevil.test",
        "user@free.example.com",
        "free.example.com@evil.test",
        "evil.test#free.example.com",
        "evil.test\\free.example.com",
        "evil.test/free.example.com",
        "evil.test?free.example.com",
        "free.example.com\tevil.test",
        "free.example.com\u{e9}",
        "fr\u{e9}e.example.com",
        "free..example.com",
        ".free.example.com",
        "free.example.com..",
        "-free.example.com",
        "free.example.com:443",
        "free_.example.com",
        "",
    ];
    let long = format!("{}.example.com", "a.".repeat(130).trim_end_matches('.'));
    let label = format!("{}.example.com", "a".repeat(64));
    let all: Vec<&str> = spellings
        .into_iter()
        .chain([long.as_str(), label.as_str()])
        .collect();
    // As the target of a tunnel, as an absolute URL and as the Host of a connection that was led here.
    let mut exchanges = Vec::new();
    for host in &all {
        exchanges.push(connect(&format!("{host}:443")));
        exchanges.push(bare(&get(host, &format!("http://{host}/bytes?row-23"))));
        let mut led = bare(&get(host, "/bytes?row-23"));
        led.to = "egress:80".to_owned();
        exchanges.push(led);
        exchanges.push(tunnel("free.example.com", &[&get(host, "/bytes?row-23")]));
    }
    for (exchange, outcome) in exchanges.iter().zip(f.bottle.raw(&exchanges)) {
        let own = exchange
            .send
            .first()
            .is_some_and(|sent| sent.contains("Host: free.example.com:443"));
        // Its own port is no other spelling.
        if own && !exchange.sni.is_empty() {
            continue;
        }
        let passed = if exchange.send.is_empty() {
            &outcome.connect
        } else {
            &outcome.answer
        };
        assert!(
            !passed.starts_with("HTTP/1.1 2"),
            "{exchange:?}: {outcome:?}"
        );
    }
    let arrived = f.arrived("row-23");
    assert!(arrived.len() <= 1, "{arrived:?}");
    // What all parsers read the same way is the same name.
    for host in ["FREE.example.com", "free.example.com."] {
        let outcomes = f
            .bottle
            .raw(&[tunnel("free.example.com", &[&get(host, "/bytes?n=3")])]);
        assert_eq!(outcomes[0].statuses(), [200], "{outcomes:?}");
    }
}

/// Notations that a resolver or URL library makes an address of. (The ssrf-bypass cases of agent-egress-bench.)
pub(crate) fn row_24_addresses_in_odd_notations(f: &Fixture) {
    let hosts = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "0",
        "0.0.0.0",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0x7f.0x0.0x0.0x1",
        "127.0.0.0x1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "10.213.0.1",
        "example.0x7f",
        "1.2.3.4.5",
        "256.256.256.256",
    ];
    let mut exchanges = Vec::new();
    for host in hosts {
        exchanges.push(connect(&format!("{host}:443")));
        exchanges.push(bare(&get(host, &format!("http://{host}/row-24"))));
    }
    for (exchange, outcome) in exchanges.iter().zip(f.bottle.raw(&exchanges)) {
        let reasons = outcome.reasons();
        let malformed = outcome.answer.starts_with("HTTP/1.1 400");
        let expected = ["ip_literal", "host_invalid"];
        assert!(
            malformed
                || reasons
                    .first()
                    .is_some_and(|reason| expected.contains(reason)),
            "{exchange:?}: {outcome:?}"
        );
    }
    f.assert_nothing_arrived("row-24");
}

/// A name with an address that is allowed and one that is not: whichever the connection would have used, none is.
/// (DNS rebinding with several answers.)
pub(crate) fn row_26_mixed_answers(f: &Fixture) {
    let allowed = f.internet.address_on(&f.network("egress"));
    let before =
        f.internet.events_of("connection").len() + f.untrusted.events_of("connection").len();
    f.reload(|routes| {
        let mixed = routes
            .iter_mut()
            .find(|route| route["host"] == "mixed.example.com");
        mixed.expect("its route")["private"] = json!([format!("{allowed}/32")]);
    });
    for _ in 0..4 {
        let outcomes = f.bottle.raw(&[connect("mixed.example.com:443")]);
        assert_refused(&outcomes[0], "dns_mixed");
    }
    let after =
        f.internet.events_of("connection").len() + f.untrusted.events_of("connection").len();
    assert_eq!(before, after, "one of its addresses was dialled");
}

/// A public name that leads into a private network. (SSRF by DNS.)
pub(crate) fn row_27_private_address(f: &Fixture) {
    let before = f.internet.events_of("connection").len();
    let mut led = tunnel(
        "inside.example.com",
        &[&get("inside.example.com", "/row-27")],
    );
    let through_proxy = led.clone();
    led.to = "egress:443".to_owned();
    led.connect.clear();
    let outcomes = f.bottle.raw(&[through_proxy, led]);
    assert_refused(&outcomes[0], "ip_private");
    assert_refused(&outcomes[1], "ip_private");
    assert_eq!(f.internet.events_of("connection").len(), before);
}

/// The proxy as its own destination, by name and by a name that leads to the bottle's network although the route allows
/// private ranges. (Proxy loops; OpenShell's control-plane ports.)
pub(crate) fn row_28_the_proxy_itself(f: &Fixture) {
    let before = f.internet.events_of("connection").len();
    let outcomes = f.bottle.raw(&[
        connect("egress:3128"),
        bare(&get("egress:3128", "http://egress:3128/row-28")),
        connect(&format!("{OWN}:443")),
        connect(&format!("bottle-{}-egress:443", f.bottle.slug)),
    ]);
    assert_refused(&outcomes[0], "host_not_allowed");
    assert_refused(&outcomes[1], "host_not_allowed");
    assert_refused(&outcomes[2], "ip_own_network");
    assert_refused(&outcomes[3], "host_not_allowed");
    assert_eq!(f.internet.events_of("connection").len(), before);
}

/// A wildcard is whole labels below its name, and not the name. (Neighbours on shared hosting.)
pub(crate) fn row_29_wildcards(f: &Fixture) {
    let outcomes = f.bottle.raw(&[
        tunnel(
            "a.wild.example.com",
            &[&get("a.wild.example.com", "/bytes?n=3")],
        ),
        connect("wild.example.com:443"),
        connect("evilwild.example.com:443"),
        connect("a.wild.example.com.evil.test:443"),
        connect(&format!("{UNTRUSTED}.evil.test:443")),
    ]);
    assert_eq!(outcomes[0].statuses(), [200], "{:?}", outcomes[0]);
    for outcome in &outcomes[1..] {
        assert_refused(outcome, "host_not_allowed");
    }
}
