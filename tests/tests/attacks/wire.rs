//! Messages that two parsers would cut in different places.

use super::{API, FREE, Fixture, TOKEN, assert_refused, get, headers, tunnel};

fn post(head: &str, body: &str) -> String {
    format!("POST /bytes?mark=MARK HTTP/1.1\r\nHost: free.example.com\r\n{head}\r\n{body}")
}

/// Where a body ends: said twice, differently or oddly. (Request smuggling, CL.TE and TE.CL; mitmproxy CVE-2021-39214,
/// CVE-2022-24766; OpenShell's wire tests.)
pub(crate) fn row_30_lengths_that_disagree(f: &Fixture) {
    let hidden = "GET /bytes?mark=row-30-hidden HTTP/1.1\r\nHost: free.example.com\r\n\r\n";
    let chunked = format!("0\r\n\r\n{hidden}");
    let length = chunked.len();
    let heads = [
        "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        "Transfer-Encoding:\x0bchunked\r\n".to_owned(),
        "Transfer-Encoding: \"chunked\"\r\n".to_owned(),
        "X: y\r\n Transfer-Encoding: chunked\r\n".to_owned(),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: 0, {length}\r\n"),
        format!("Content-Length: +{length}\r\n"),
        format!("Content-Length: 0x{length:x}\r\n"),
        "Content-Length: -1\r\n".to_owned(),
        "Content-Length: 1e1\r\n".to_owned(),
        "Content-Length: 99999999999999999999\r\n".to_owned(),
        "Content-Length : 5\r\n".to_owned(),
    ];
    let requests: Vec<String> = heads
        .iter()
        .map(|head| post(head, &chunked).replace("MARK", "row-30-outer"))
        .collect();
    for (head, outcome) in heads.iter().zip(f.in_tunnels(FREE, &requests)) {
        assert!(
            !outcome.answer.contains("HTTP/1.1 2"),
            "{head:?}: {outcome:?}"
        );
        assert!(
            outcome.closed,
            "{head:?}: the connection goes on: {outcome:?}"
        );
    }
    f.assert_nothing_arrived("row-30");
    // Both at once: whatever becomes of the outer one, nothing is left over that could be read as another request, and
    // at most one length goes on.
    for head in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
    ] {
        let _ = f.in_tunnels(
            FREE,
            &[post(&head, &chunked).replace("MARK", "row-30-both")],
        );
    }
    for request in f.arrived("row-30-both") {
        let count = headers(&request, "content-length").len()
            + headers(&request, "transfer-encoding").len();
        assert_eq!(
            (count, request["length"].as_u64()),
            (1, Some(0)),
            "{request}"
        );
    }
    f.assert_nothing_arrived("row-30-hidden");
}

/// Line ends, folding, spaces, control characters, two Hosts. (RFC 9112, 11; the differences of a dozen servers.)
pub(crate) fn row_31_heads_that_parsers_read_differently(f: &Fixture) {
    let heads = [
        "Host: free.example.com\r\nHost: other.example.net\r\n",
        "Host: free.example.com\r\nHost: free.example.com\r\n",
        "X: y\r\n",
        "Host: free.example.com\r\nX: a\r\n folded: b\r\n",
        "Host: free.example.com\r\nX : a\r\n",
        "Host: free.example.com\r\n X: a\r\n",
        "Host: free.example.com\r\nX: a\0b\r\n",
        "Host: free.example.com\r\nX\0Y: a\r\n",
        "Host: free.example.com\r\nX: a\rY: b\r\n",
        "Host: free.example.com\r\nno colon at all\r\n",
        "Host: free.example.com\r\n: no name\r\n",
        "Host: free.example.com\r\nX(y): a\r\n",
        "Host: free.example.com, other.example.net\r\n",
        "Host: free.example.com other.example.net\r\n",
    ];
    let mut requests: Vec<String> = heads
        .iter()
        .map(|head| format!("GET /bytes?mark=row-31 HTTP/1.1\r\n{head}\r\n"))
        .collect();
    for line in [
        "GET /bytes?mark=row-31 HTTP/1.1 x",
        "GET  /bytes?mark=row-31 HTTP/1.1",
        "GET /bytes?mark=row-31 HTTP/1.9",
        "GET /bytes?mark=row-31 http/1.1",
        "GET /bytes?mark=row-31 HTTP/2.0",
        "GET /bytes?mark=row-31\0 HTTP/1.1",
        "GET /bytes?mark=row-31\x7f HTTP/1.1",
        "GET\t/bytes?mark=row-31\tHTTP/1.1",
        "GET /bytes?mark=row-31",
        "G\x01T /bytes?mark=row-31 HTTP/1.1",
    ] {
        requests.push(format!("{line}\r\nHost: free.example.com\r\n\r\n"));
    }
    for (request, outcome) in requests.iter().zip(f.in_tunnels(FREE, &requests)) {
        assert!(
            !outcome.answer.contains("HTTP/1.1 2"),
            "{request:?}: {outcome:?}"
        );
    }
    f.assert_nothing_arrived("row-31");
}

/// An allowed request and a refused one in one write. (OpenShell #342: the second was sent as the first one's body.)
pub(crate) fn row_32_a_second_request_in_the_first(f: &Fixture) {
    let first = "GET /bytes?n=3&mark=row-32-first HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    let second = "DELETE /bytes?mark=row-32-second HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 2\r\n\r\nhi";
    let third = get(API, "/admin?mark=row-32-third");
    let outcomes = f
        .bottle
        .raw(&[tunnel(API, &[&format!("{first}{second}{third}")])]);
    assert_eq!(outcomes[0].statuses(), [200, 403, 403], "{outcomes:?}");
    assert_eq!(f.arrived("row-32-first").len(), 1);
    f.assert_nothing_arrived("row-32-second");
    f.assert_nothing_arrived("row-32-third");
}

/// An upgrade that the destination does not agree to: what follows is requests, and not a tunnel. (WebSocket smuggling;
/// iron-proxy copies without reading the status.)
pub(crate) fn row_39_a_websocket_that_is_none(f: &Fixture) {
    let upgrade = |path: &str, more: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{more}\r\n"
        )
    };
    let good = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let hidden = "DELETE /bytes?mark=row-39-hidden HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    let cases = [
        upgrade("/bytes?n=3&mark=row-39", good) + hidden,
        upgrade("/echo/x?mark=row-39", good) + hidden,
        upgrade(
            "/bytes?mark=row-39",
            "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ) + hidden,
        upgrade("/bytes?mark=row-39", "Sec-WebSocket-Version: 13\r\n") + hidden,
        upgrade(
            "/bytes?mark=row-39",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n",
        ) + hidden,
        upgrade("/ws", good) + hidden,
    ];
    for (case, outcome) in cases.iter().zip(f.in_tunnels(API, &cases)) {
        assert!(!outcome.answer.contains(" 101 "), "{case}: {outcome:?}");
    }
    f.assert_nothing_arrived("row-39-hidden");
    // A destination that agrees to anything: what is no handshake does not reach it.
    let bad = [
        "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n",
        "Sec-WebSocket-Version: 13\r\n",
    ];
    let bad = bad.map(|more| upgrade("/ws?row-39-bad", more).replace(API, FREE));
    for outcome in f.in_tunnels(FREE, &bad) {
        assert_refused(&outcome, "upgrade_refused");
    }
    f.assert_nothing_arrived("row-39-bad");
}

/// An answer before the body was read: what is left of the body is no request. (Desync by early answers; `Expect`.)
pub(crate) fn row_42_answers_that_come_early(f: &Fixture) {
    let hidden = "GET /admin?mark=row-42-hidden HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    let length = hidden.len();
    let early = format!(
        "POST /early HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {length}\r\n\r\n"
    );
    let expect = early.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let odd = early.replace("\r\n\r\n", "\r\nExpect: 200-ok\r\n\r\n");
    let mut exchanges = [early, expect, odd].map(|head| tunnel(API, &[&head, hidden]));
    for exchange in &mut exchanges {
        exchange.pause_ms = 300;
    }
    for (exchange, outcome) in exchanges.iter().zip(f.bottle.raw(&exchanges)) {
        let answers = outcome.statuses();
        let finals = answers.iter().filter(|status| **status >= 200).count();
        assert!(
            finals <= 1,
            "the body was answered as a request: {exchange:?}: {outcome:?}"
        );
    }
    f.assert_nothing_arrived("row-42-hidden");
    f.assert_works();
}

/// Fields after the body, and the places in a body where nobody looks.
pub(crate) fn row_43_trailers_and_chunk_extensions(f: &Fixture) {
    let post = |body: &str| {
        format!(
            "POST /bytes?n=3&mark=row-43 HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\
             Trailer: authorization, x-late\r\nConnection: close\r\n\r\n{body}"
        )
    };
    let long = "x".repeat(60_000);
    let bodies = [
        "3;row-43-extension=1\r\nabc\r\n0\r\n\r\n".to_owned(),
        format!("3;{long}\r\nabc\r\n0\r\n\r\n"),
        "3\r\nabc\r\n0\r\nauthorization: Bearer row-43-trailer\r\nhost: other.example.net\r\nx-late: yes\r\n\r\n"
            .to_owned(),
        "0x3\r\nabc\r\n0\r\n\r\n".to_owned(),
        "-3\r\nabc\r\n0\r\n\r\n".to_owned(),
        "3\nabc\n0\n\n".to_owned(),
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n".to_owned(),
    ];
    let requests: Vec<String> = bodies.iter().map(|body| post(body)).collect();
    let _ = f.in_tunnels(API, &requests);
    for request in f.arrived("mark\":\"row-43") {
        assert_eq!(
            headers(&request, "authorization"),
            [format!("Bearer {TOKEN}")]
        );
        assert_eq!(request["body"], "abc", "{request}");
        // Not even one that was announced and is harmless: what it means is the destination's affair.
        assert_eq!(
            request["trailers"],
            serde_json::json!([]),
            "a trailer arrived"
        );
    }
    f.assert_nothing_arrived("row-43-extension");
    f.assert_nothing_arrived("Bearer row-43-trailer");
}

/// `Connection` takes the headers it names out at the next hop: one of them could be the credential. (RFC 9110, 7.6.1.)
pub(crate) fn row_44_headers_named_in_connection(f: &Fixture) {
    let request = "GET /bytes?n=3&mark=row-44 HTTP/1.1\r\nHost: api.example.com\r\n\
                   Connection: close, authorization, x-mine, host\r\nX-Mine: hop\r\nKeep-Alive: 300\r\n\
                   Proxy-Authorization: Basic cm93LTQ0\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\r\n";
    let outcomes = f.in_tunnels(API, &[request.to_owned()]);
    assert_eq!(outcomes[0].statuses(), [200], "{outcomes:?}");
    let arrived = f.arrived("row-44");
    assert_eq!(
        headers(&arrived[0], "authorization"),
        [format!("Bearer {TOKEN}")]
    );
    assert_eq!(headers(&arrived[0], "host"), [API]);
    let gone = [
        "x-mine",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
    ];
    for name in gone {
        assert!(headers(&arrived[0], name).is_empty(), "{name} arrived");
    }
    let named = headers(&arrived[0], "connection").concat().to_lowercase();
    assert!(!named.contains("authorization"), "{named}");
}
