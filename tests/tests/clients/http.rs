//! Clients that make a request and read an answer.

use serde_json::Value;

use super::{API_TOKEN, Fixture, assert_paid_with, headers, said};

const CURL: &str = r#"curl -sS -w '\n{"status":%{http_code},"protocol":"%{http_version}","reason":"%header{x-bottle-reason}"}\n'"#;
const NODE: &str = "node /usr/local/lib/clients/client.mjs";
const PYTHON: &str = "python3 /usr/local/lib/clients/client.py";

/// Both ways: an allowed request arrives with the token and is answered, and one that is not allowed gets the documented
/// denial and does not arrive.
fn both_ways(f: &Fixture, client: &str, protocol: &str, command: &str, direct: &str) {
    for (way, command) in [("proxy", command), ("transparent", direct)] {
        let run = |script: &str| match way {
            "proxy" => f.sh(script),
            _ => f.sh_direct(script),
        };
        let mark = format!("{client}-{way}");
        let url = format!("'https://api.example.com/bytes?n=5&mark={mark}'");
        let (body, last) = said(&run(&format!("{command} {url}")));
        assert_eq!(
            (body.as_str(), &last["status"], &last["protocol"]),
            ("xxxxx", &200.into(), &protocol.into()),
            "{mark}: {last}"
        );
        let arrived = f.arrived(&mark);
        let [request] = arrived.as_slice() else {
            panic!("{mark}: {arrived:?}")
        };
        assert_paid_with(request, API_TOKEN);

        let mark = format!("{mark}-refused");
        let url = format!("'https://api.example.com/elsewhere?mark={mark}'");
        let (body, last) = said(&run(&format!("{command} {url}")));
        assert_denial(&body, &last, "path_not_allowed");
        assert!(f.arrived(&mark).is_empty(), "{mark} arrived");
    }
}

fn assert_denial(body: &str, last: &Value, reason: &str) {
    let denial: Value = serde_json::from_str(body)
        .unwrap_or_else(|error| panic!("not a denial: {error}: {body} {last}"));
    assert_eq!(
        (&last["status"], &denial["error"], &denial["reason"]),
        (&403.into(), &"bottle_denied".into(), &reason.into()),
        "{denial}"
    );
    assert!(denial["allow"].is_object() && denial["ask"].is_string() && denial["id"].is_string());
    assert_eq!(last["reason"], reason, "the header says it too");
}

pub(crate) fn curl_http1(f: &Fixture) {
    let command = format!("{CURL} --http1.1");
    let direct = format!("{command} --noproxy '*'");
    both_ways(f, "curl-http1", "1.1", &command, &direct);
}

pub(crate) fn curl_http2(f: &Fixture) {
    let command = format!("{CURL} --http2");
    let direct = format!("{command} --noproxy '*'");
    both_ways(f, "curl-http2", "2", &command, &direct);
}

/// Node asks the proxy only when it is told to, which the bottle's environment does.
pub(crate) fn node_fetch(f: &Fixture) {
    assert_eq!(f.sh("printenv NODE_USE_ENV_PROXY").ok().trim(), "1");
    let command = format!("{NODE} fetch");
    both_ways(f, "node", "1.1", &command, &command);
}

fn python(f: &Fixture, library: &str, protocol: &str) {
    let command = format!("{PYTHON} {library}");
    both_ways(f, library, protocol, &command, &command);
}

pub(crate) fn python_urllib(f: &Fixture) {
    python(f, "urllib", "1.1");
}

pub(crate) fn python_requests(f: &Fixture) {
    python(f, "requests", "1.1");
}

pub(crate) fn python_httpx(f: &Fixture) {
    python(f, "httpx", "1.1");
}

pub(crate) fn python_httpx_http2(f: &Fixture) {
    python(f, "httpx2", "2");
}

/// It speaks HTTP/2 of its own accord.
pub(crate) fn go_net_http(f: &Fixture) {
    both_ways(f, "go", "2.0", "go-client", "go-client");
}

pub(crate) fn rust_rustls(f: &Fixture) {
    for way in ["", "--direct"] {
        let mark = format!("rust{way}");
        let url = format!("https://api.example.com/bytes?n=5&mark={mark}");
        let command = format!("bottle-testkit fetch {way} GET '{url}'");
        let answer = f.sh(&command).json();
        assert_eq!(
            (&answer["status"], &answer["body"]),
            (&200.into(), &"xxxxx".into())
        );
        assert_paid_with(&f.arrived(&mark)[0], API_TOKEN);
        let url = "https://api.example.com/elsewhere";
        let answer = f
            .sh(&format!("bottle-testkit fetch {way} GET {url}"))
            .json();
        assert_eq!(headers(&answer, "x-bottle-reason"), ["path_not_allowed"]);
    }
}

pub(crate) fn http2_on_both_sides_stays_http2(f: &Fixture) {
    let url = "'https://api.example.com:8443/bytes?mark=both-sides'";
    for command in [
        format!("{CURL} --http2"),
        format!("{PYTHON} httpx2"),
        "go-client".to_owned(),
    ] {
        let (body, last) = said(&f.sh(&format!("{command} {url}")));
        assert_eq!((body.as_str(), &last["status"]), ("xxxxx", &200.into()));
    }
    let arrived = f.arrived("both-sides");
    assert_eq!(arrived.len(), 3, "{arrived:?}");
    for request in &arrived {
        assert_eq!(request["protocol"], "2.0", "{request}");
        assert_paid_with(request, API_TOKEN);
    }
}

/// To the proxy a refused host is a denial; who asks for its name hears that there is none.
pub(crate) fn a_program_without_proxy_finds_no_other_host(f: &Fixture) {
    let url = "https://untold.example.com/bytes";
    let done = f.sh(&format!("curl -sS -D - {url}"));
    assert_eq!(done.code(), 56, "{}", done.stderr);
    assert!(
        done.stdout.contains("x-bottle-reason: host_not_allowed"),
        "{}",
        done.stdout
    );
    let done = f.sh(&format!("curl -sS --noproxy '*' {url}"));
    assert_eq!(done.code(), 6, "the name is not known: {}", done.stderr);
    for command in [
        format!("{NODE} fetch"),
        format!("{PYTHON} urllib"),
        format!("{PYTHON} requests"),
        format!("{PYTHON} httpx"),
        "go-client".to_owned(),
    ] {
        for done in [
            f.sh(&format!("{command} {url}")),
            f.sh_direct(&format!("{command} {url}")),
        ] {
            assert_ne!(done.code(), 0, "{command}: {}", done.stdout);
        }
    }
    assert!(f.arrived_at("untold.example.com", "/").is_empty());
}

/// A client that asks for compression gets an answer that could be looked through; one that is compressed all the same
/// does not arrive.
pub(crate) fn a_compressing_destination_hides_nothing(f: &Fixture) {
    let curl = format!("{CURL} --compressed");
    let url = |form: &str| format!("'https://api.example.com/reflect?form={form}&mark={form}'");
    for command in [
        curl.clone(),
        format!("{PYTHON} requests"),
        format!("{NODE} fetch"),
    ] {
        let (body, last) = said(&f.sh(&format!("{command} {}", url("negotiated"))));
        assert_eq!(
            (body, &last["status"]),
            ("*".repeat(API_TOKEN.len()), &200.into())
        );
    }
    for request in f.arrived("negotiated") {
        assert_paid_with(&request, API_TOKEN);
        assert_eq!(headers(&request, "accept-encoding"), ["identity"]);
    }
    let (_, last) = said(&f.sh(&format!("{curl} {}", url("gzip"))));
    assert_eq!(
        (&last["status"], &last["reason"]),
        (&502.into(), &"encoded_response".into())
    );
}
