//! What is tried with the proxy.

use bottle_plan::failure::Result;

use super::Depth;
use super::attempts::World;
use super::card::Line;
use super::host::{Host, Knock, knock};
use super::own::{PLAIN_HOST, SECRET_HOST};
use super::probes::{Attempt, Expect};

/// Addresses nobody may ask for through the proxy, in every notation there is.
const LITERALS: [(&str, &str); 11] = [
    ("loopback", "127.0.0.1"),
    ("loopback-decimal", "2130706433"),
    ("loopback-hex", "0x7f.1"),
    ("loopback-octal", "0177.0.0.1"),
    ("loopback-short", "127.1"),
    ("loopback-v6", "[::1]"),
    ("loopback-mapped", "[::ffff:127.0.0.1]"),
    ("unspecified", "0.0.0.0"),
    ("metadata", "169.254.169.254"),
    ("metadata-decimal", "2852039166"),
    ("metadata-v6", "[fd00:ec2::254]"),
];

/// What needs no destination: all of it is decided before anybody is asked or dialled.
pub(super) fn policy(world: &World<'_>) -> Vec<Attempt> {
    let egress = world.plan.seen_by_agent().egress;
    let denied = |name: &str, tried: &str, probe: String| {
        Attempt::new("proxy", name, tried, probe, Expect::Denied)
    };
    let closed = |name: &str, tried: &str, probe: String| {
        Attempt::new("proxy", name, tried, probe, Expect::Closed)
    };
    let send = |port: u16, text: &str| format!("send:{egress}:{port}:{}", escaped(text));
    let get =
        |url: &str, host: &str| send(3128, &format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let connect = |target: &str| format!("http:{egress}:3128:{target}");
    let outside = world.outside.address;
    let mut attempts = vec![
        denied(
            "foreign-connect",
            "CONNECT to a host without a route",
            connect("blocked.example.net:443"),
        ),
        denied(
            "foreign-get",
            "GET from a host without a route",
            get("http://blocked.example.net/", "blocked.example.net"),
        ),
        denied(
            "doh",
            "DNS over HTTPS",
            get(
                "http://doh.example.net/dns-query?dns=AAAB",
                "doh.example.net",
            ),
        ),
        denied(
            "outside",
            "CONNECT to the outside by its address",
            connect(&format!("{outside}:443")),
        ),
        denied(
            "own-sidecar",
            "CONNECT to the sidecar by its name",
            connect("egress:3128"),
        ),
        denied(
            "own-address",
            "CONNECT to the sidecar by its address",
            connect(&format!("{egress}:3128")),
        ),
        denied(
            "localhost",
            "CONNECT to localhost",
            connect("localhost:3128"),
        ),
        denied(
            "host-gateway",
            "CONNECT to the host",
            connect(&format!("{}:22", world.plan.networks.egress.gateway)),
        ),
        denied(
            "two-hosts",
            "one host in the target, another in Host",
            get("http://blocked.example.net/", "other.example.net"),
        ),
        denied(
            "transparent-http",
            "HTTP for a foreign host, without saying proxy",
            send(80, "GET / HTTP/1.1\r\nHost: blocked.example.net\r\n\r\n"),
        ),
        closed(
            "no-host",
            "HTTP without a host",
            send(80, "GET / HTTP/1.0\r\n\r\n"),
        ),
        closed(
            "foreign-sni",
            "TLS for a foreign server name",
            format!("hello:{egress}:443:blocked.example.net"),
        ),
        closed(
            "no-sni",
            "TLS without a server name",
            format!("hello:{egress}:443:"),
        ),
        closed(
            "address-sni",
            "TLS for an address",
            format!("hello:{egress}:443:{outside}"),
        ),
        closed(
            "h2-preface",
            "HTTP/2 without TLS",
            send(3128, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ),
        closed("socks", "SOCKS", send(3128, "\u{5}\u{1}\0")),
        closed(
            "two-lengths",
            "a body with two lengths",
            send(
                3128,
                "POST http://blocked.example.net/ HTTP/1.1\r\nHost: blocked.example.net\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
        ),
        closed(
            "bare-newlines",
            "a head with bare line feeds and a second request in it",
            send(
                3128,
                "GET http://blocked.example.net/ HTTP/1.1\nHost: blocked.example.net\n\nGET / HTTP/1.1\n\n",
            ),
        ),
    ];
    attempts.extend(LITERALS.map(|(name, literal)| {
        denied(
            &format!("literal-{name}"),
            "an address instead of a name",
            get(&format!("http://{literal}/"), literal),
        )
    }));
    attempts
}

/// The sidecar listens on the inner side alone: on the outer one are all that share a bridge with it.
pub(super) fn on_the_outer_side(world: &World<'_>, host: &Host) -> Vec<Line> {
    let tried = "the sidecar's ports on its outer side, from the host";
    let Ok(address) = bottle_render::egress_outside_address(world.plan) else {
        return Vec::new();
    };
    let reachable = host
        .listening
        .iter()
        .any(|(ip, _)| *ip == world.plan.networks.egress.gateway);
    if !reachable {
        let why = "the engine's bridges are on another machine";
        return vec![Line::not_applicable("proxy", "outer-side", tried, why)];
    }
    let answers = [3128, 443, 80, 53].map(|port| (port, knock(address, port)));
    let passed = answers.iter().all(|(_, answer)| *answer == Knock::Refused);
    let seen = answers.map(|(port, answer)| format!("{port} {answer:?}").to_lowercase());
    vec![Line::new(
        "proxy",
        "outer-side",
        tried,
        "refused: nothing listens",
        passed,
        seen.join(", "),
    )]
}

/// What needs a destination the bottle may reach. Only a bottle made for the check has one that is ours.
pub(super) fn with_a_destination(world: &World<'_>) -> Result<Vec<Line>> {
    let fronting = Line::not_applicable(
        "proxy",
        "fronting",
        "another Host inside the TLS of an allowed name",
        "needs a destination with a certificate the sidecar trusts; the suite `egress` does it",
    );
    let metadata = Line::not_applicable(
        "outside",
        "metadata",
        "a metadata service without the proxy",
        "a bottle that leaks would ask this host's own; the outside stands for it",
    );
    if world.depth != Depth::Made {
        let why = "the outside would have to join this bottle's network; `bottle-run check` without a slug does it";
        let tried = "an allowed destination, a redirect, the placeholder, git, h2c";
        let not_tried = Line::not_applicable("proxy", "destination", tried, why);
        return Ok(vec![metadata, fronting, not_tried]);
    }
    world
        .outside
        .join(&world.plan.networks.egress.name, PLAIN_HOST)?;
    let mut lines = world.judge(&destination_attempts(world))?;
    lines.extend([metadata, fronting]);
    Ok(lines)
}

fn destination_attempts(world: &World<'_>) -> Vec<Attempt> {
    let egress = world.plan.seen_by_agent().egress;
    let placeholder = world
        .plan
        .egress
        .routes
        .iter()
        .find_map(|route| route.auth.as_ref()?.placeholder.clone())
        .unwrap_or_default();
    let request = |path: &str, more: &str| {
        let text =
            format!("GET http://{PLAIN_HOST}{path} HTTP/1.1\r\nHost: {PLAIN_HOST}\r\n{more}\r\n");
        format!("send:{egress}:3128:{}", escaped(&text))
    };
    let attempt = |name: &str, tried: &str, probe: String, expect| {
        Attempt::new("proxy", name, tried, probe, expect)
    };
    vec![
        attempt(
            "allowed",
            "the one destination with a route",
            request("/", ""),
            Expect::Open,
        ),
        attempt(
            "redirect",
            "its redirect to a metadata service: handed on, not followed",
            request("/redirect", ""),
            Expect::Closed,
        ),
        attempt(
            "placeholder",
            "the placeholder of another route",
            request("/", &format!("X-Key: {placeholder}\r\n")),
            Expect::Denied,
        ),
        attempt(
            "placeholder-url",
            "the same in the address",
            request(&format!("/?k={placeholder}"), ""),
            Expect::Denied,
        ),
        attempt(
            "other-host",
            "the same destination, another Host",
            request("/", "").replace(
                &format!("Host:%20{PLAIN_HOST}"),
                "Host:%20blocked.example.net",
            ),
            Expect::Denied,
        ),
        attempt(
            "h2c",
            "an upgrade to HTTP/2",
            request(
                "/",
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
            ),
            Expect::Denied,
        ),
        attempt(
            "git-push",
            "a push over HTTP, around git-gate",
            request("/r.git/info/refs?service=git-receive-pack", ""),
            Expect::Denied,
        ),
        attempt(
            "plain-credential",
            "the route with a credential, without TLS",
            {
                let text =
                    format!("GET http://{SECRET_HOST}/ HTTP/1.1\r\nHost: {SECRET_HOST}\r\n\r\n");
                format!("send:{egress}:3128:{}", escaped(&text))
            },
            Expect::Denied,
        ),
        attempt(
            "other-port",
            "an allowed host, another port",
            format!("http:{egress}:3128:{SECRET_HOST}:22"),
            Expect::Denied,
        ),
    ]
}

/// Bytes as a probe's argument.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'%' | 0..=b' ' | 127.. => format!("%{byte:02x}"),
        byte => char::from(byte).to_string(),
    };
    text.bytes().map(escape).collect()
}
