//! HTTP/2, frame by frame: what a well-behaved library does not send.

use bottle_tests::raw::Exchange;

use super::{API, FREE, Fixture, OTHER, TOKEN, tunnel};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame, a character a byte.
fn frame(kind: u8, flags: u8, stream: u32, payload: &str) -> String {
    let length = u32::try_from(payload.chars().count()).expect("a short frame");
    let mut text: String = length.to_be_bytes()[1..]
        .iter()
        .map(|&byte| char::from(byte))
        .collect();
    text.extend([kind, flags].map(char::from));
    text.extend(stream.to_be_bytes().map(char::from));
    text.push_str(payload);
    text
}

/// A field as a literal that is not indexed and not compressed.
fn field(name: &str, value: &str) -> String {
    let mut text = String::from("\0");
    for part in [name, value] {
        let length = u8::try_from(part.len()).ok().filter(|length| *length < 127);
        text.push(char::from(length.expect("a short field")));
        text.push_str(part);
    }
    text
}

fn head(authority: &str, method: &str, path: &str, more: &[(&str, &str)]) -> String {
    let own = [
        (":method", method),
        (":scheme", "https"),
        (":authority", authority),
        (":path", path),
    ];
    own.iter()
        .chain(more)
        .map(|(name, value)| field(name, value))
        .collect()
}

fn opening() -> String {
    format!("{PREFACE}{}", frame(SETTINGS, 0, 0, ""))
}

/// A whole connection with one request on it.
pub(crate) fn request(authority: &str, method: &str, path: &str, more: &[(&str, &str)]) -> String {
    let head = head(authority, method, path, more);
    opening() + &frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)
}

pub(crate) fn in_h2(host: &str, pieces: &[&str]) -> Exchange {
    let mut exchange = tunnel(host, pieces);
    exchange.alpn = vec!["h2".to_owned()];
    exchange
}

/// HTTP/2 where nobody agreed on it: a checked stream becomes an unchecked one. (h2c smuggling.)
pub(crate) fn row_37_http2_without_tls(f: &Fixture) {
    let upgrade = "GET /bytes?row-37 HTTP/1.1\r\nHost: free.example.com\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n";
    let plain = upgrade.replace("free.", "plain.");
    let prior = request(FREE, "GET", "/bytes?row-37", &[]);
    let mut led = Exchange {
        to: "plain.example.com:80".to_owned(),
        send: vec![plain],
        ..Exchange::default()
    };
    let upgraded_led = led.clone();
    led.send = vec![prior.clone()];
    let exchanges = [
        tunnel(FREE, &[upgrade]),
        tunnel(FREE, &[&prior]),
        upgraded_led,
        led,
        Exchange {
            to: "egress:3128".to_owned(),
            send: vec![prior],
            ..Exchange::default()
        },
    ];
    for (exchange, outcome) in exchanges.iter().zip(f.bottle.raw(&exchanges)) {
        assert!(
            !outcome.answer.contains("HTTP/1.1 1") && !outcome.answer.contains("HTTP/1.1 2"),
            "{exchange:?}: {outcome:?}"
        );
        // Nothing speaks HTTP/2 back, not even its settings.
        assert!(
            !outcome.answer.starts_with("\0\0"),
            "{exchange:?}: {outcome:?}"
        );
    }
    f.assert_nothing_arrived("row-37");
}

/// `:authority`, `Host` and the tunnel's name, and CONNECT with a protocol.
pub(crate) fn row_38_http2_names_another_host(f: &Fixture) {
    let path = "/bytes?row-38";
    let websocket = head(FREE, "CONNECT", path, &[(":protocol", "websocket")]);
    let cases = [
        request(OTHER, "GET", path, &[]),
        request(FREE, "GET", path, &[("host", OTHER)]),
        request("", "GET", path, &[]),
        request("free.example.com:444", "GET", path, &[]),
        request(FREE, "GET", path, &[("connection", "keep-alive")]),
        request(FREE, "GET", path, &[("transfer-encoding", "chunked")]),
        request(FREE, "GET", path, &[("x-split", "a\r\nx-injected: yes")]),
        request(FREE, "GET", path, &[("X-Upper", "a")]),
        request(FREE, "GET", path, &[(":path", "/other")]),
        opening() + &frame(HEADERS, END_HEADERS, 1, &websocket),
    ];
    let exchanges: Vec<Exchange> = cases.iter().map(|case| in_h2(FREE, &[case])).collect();
    for (case, outcome) in cases.iter().zip(f.bottle.raw(&exchanges)) {
        assert_eq!(outcome.alpn, "h2");
        assert!(!outcome.answer.contains("xxxx"), "{case:?}: {outcome:?}");
    }
    f.assert_nothing_arrived("row-38");
}

/// What is looked for in HTTP/1 is looked for in frames: in bodies on their way out, whatever the frames cut, and in
/// answers.
pub(crate) fn row_46_secrets_in_http2(f: &Fixture) {
    let token = ["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"].concat();
    let watched = "watched.example.com";
    let post = |host: &str, body: &str| {
        let head = head(host, "POST", "/echo?mark=row-46", &[]);
        let (first, second) = body.split_at(body.len() / 2);
        opening()
            + &frame(HEADERS, END_HEADERS, 1, &head)
            + &frame(DATA, 0, 1, first)
            + &frame(DATA, END_STREAM, 1, second)
    };
    for (host, body, reason) in [
        (watched, format!("{{\"text\":\"{token}\"}}"), "dlp_match"),
        (FREE, format!("{{\"text\":\"{TOKEN}\"}}"), "secret_leak"),
    ] {
        let outcomes = f.bottle.raw(&[in_h2(host, &[&post(host, &body)])]);
        let said = format!("\"reason\":\"{reason}\"");
        assert_eq!(outcomes[0].alpn, "h2", "{outcomes:?}");
        assert!(outcomes[0].answer.contains(&said), "{outcomes:?}");
        f.assert_recorded(host, reason);
    }
    // The control: the same without the token arrives.
    let outcomes = f
        .bottle
        .raw(&[in_h2(watched, &[&post(watched, "a text without one")])]);
    assert!(
        !outcomes[0].answer.contains("bottle_denied"),
        "{outcomes:?}"
    );
    assert!(!f.arrived("row-46").is_empty());

    // Of its own: a destination that sends the value back too often is closed to everybody.
    let host = "reflect-h2.example.com";
    for form in ["raw", "base64", "hex", "percent", "chunks"] {
        let request = request(host, "GET", &format!("/reflect?form={form}"), &[]);
        let outcomes = f.bottle.raw(&[in_h2(host, &[&request])]);
        let answer = &outcomes[0].answer;
        assert!(
            outcomes[0].alpn == "h2" && answer.contains("****"),
            "{form}: {outcomes:?}"
        );
        assert!(!answer.contains(TOKEN), "{form}: {outcomes:?}");
    }
}

/// Much work for us and none for the agent. (Rapid reset CVE-2023-44487, CONTINUATION flood CVE-2024-27316, PING and
/// SETTINGS floods of 2019.)
pub(crate) fn row_38_http2_resets_and_floods(f: &Fixture) {
    let head = head(API, "GET", "/bytes?n=100000", &[]);
    let reset = |stream| {
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &head)
            + &frame(RST_STREAM, 0, stream, "\0\0\0\x08")
    };
    let resets: String = (0..2000).map(|number| reset(number * 2 + 1)).collect();
    let filler = field("x-filler", &"y".repeat(120)).repeat(100);
    let endless =
        frame(HEADERS, END_STREAM, 1, &head) + &frame(CONTINUATION, 0, 1, &filler).repeat(200);
    let pings = frame(PING, 0, 0, "12345678").repeat(20_000);
    let empty = frame(HEADERS, END_HEADERS, 1, &head) + &frame(DATA, 0, 1, "").repeat(20_000);
    let exchanges = [resets, endless].map(|flood| in_h2(API, &[&opening(), &flood]));
    for (what, outcome) in ["resets", "continuations"]
        .iter()
        .zip(f.bottle.raw(&exchanges))
    {
        assert_eq!(outcome.alpn, "h2", "{}", outcome.error);
        assert!(outcome.closed, "{what}: the connection was kept");
    }
    // These cost no more than they send; it is enough that everybody else is served.
    let _ = f
        .bottle
        .raw(&[pings, empty].map(|flood| in_h2(API, &[&opening(), &flood])));
    f.assert_works();
}
