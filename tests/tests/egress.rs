//! What an agent gets through its egress sidecar, end to end: real containers, real TLS, a destination that tells what
//! arrived there.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::ExitCode;

use bottle_tests::internet::agent_image;
use bottle_tests::{Bottle, Home, Internet, need_engine, suite};
use serde_json::Value;

const TOKEN: &str = "tok-egress-9e107d9d372bb6826bd81d35";

/// All of them are the same container; the routes tell them apart.
const HOSTS: [&str; 6] = [
    "api.example.com",
    "free.example.com",
    "plain.example.com",
    "inside.example.com",
    "untold.example.com",
    "other.example.net",
];

fn manifest(image: &str) -> String {
    format!(
        "\
image: {image}
egress:
  log: 2
  upstream_ca: upstream.pem
  routes:
    - host: api.example.com
      private: [10.213.0.0/16]
      auth: {{scheme: Bearer, token_ref: TEST_TOKEN}}
      matches:
        - {{paths: [/echo, /gzip, /stepped, /ack, /redir], methods: [GET, POST]}}
    - {{host: free.example.com, private: [10.213.0.0/16]}}
    - {{host: plain.example.com, scheme: http, private: [10.213.0.0/16]}}
    - {{host: inside.example.com}}
    - {{host: other.example.net, private: [10.213.0.0/16]}}
"
    )
}

struct Fixture {
    bottle: Bottle,
    internet: Internet,
    home: Home,
}

impl Fixture {
    /// What arrived with this marker in its path, which makes requests of different cases tell apart.
    fn arrived(&self, marker: &str) -> Vec<Value> {
        let mut requests = self.internet.events_of("request");
        requests.retain(|request| {
            request["path"]
                .as_str()
                .is_some_and(|path| path.contains(marker))
        });
        requests
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.internet
            .leave(&format!("bottle-{}-egress", self.bottle.slug));
    }
}

fn main() -> ExitCode {
    suite::run(
        make,
        &[
            (
                "a_request_goes_through_with_the_token_put_in",
                a_request_goes_through_with_the_token_put_in,
            ),
            ("the_placeholder_is_replaced", the_placeholder_is_replaced),
            (
                "a_credential_of_the_agents_own_does_not_arrive",
                a_credential_of_the_agents_own_does_not_arrive,
            ),
            (
                "programs_that_know_no_proxy_work_too",
                programs_that_know_no_proxy_work_too,
            ),
            (
                "plain_http_works_and_carries_no_token",
                plain_http_works_and_carries_no_token,
            ),
            (
                "what_is_not_allowed_is_refused_with_a_reason",
                what_is_not_allowed_is_refused_with_a_reason,
            ),
            (
                "a_private_address_is_not_dialled",
                a_private_address_is_not_dialled,
            ),
            (
                "the_token_cannot_be_sent_elsewhere",
                the_token_cannot_be_sent_elsewhere,
            ),
            (
                "a_compressed_answer_does_not_hide_the_token",
                a_compressed_answer_does_not_hide_the_token,
            ),
            (
                "the_first_event_comes_before_the_second_is_sent",
                the_first_event_comes_before_the_second_is_sent,
            ),
            (
                "a_redirect_is_handed_over_and_not_followed",
                a_redirect_is_handed_over_and_not_followed,
            ),
            ("large_answers_arrive_whole", large_answers_arrive_whole),
            (
                "everything_is_on_record_and_no_secret_is",
                everything_is_on_record_and_no_secret_is,
            ),
        ],
    )
}

fn make() -> Option<Fixture> {
    if !need_engine("egress") {
        return None;
    }
    let home = Home::with_env(&[("TEST_TOKEN", TOKEN)]);
    let internet = Internet::start(&home, &HOSTS);
    home.write("bottles/upstream.pem", internet.ca_pem());
    home.bottle("web", &manifest(&agent_image("debian:trixie-slim")));
    let bottle = home.up("web", &home.slug("e"));
    internet.join(&format!("bottle-{}-egress", bottle.slug), &HOSTS);
    Some(Fixture {
        bottle,
        internet,
        home,
    })
}

fn headers<'a>(message: &'a Value, name: &str) -> Vec<&'a str> {
    let list = message["headers"].as_array().expect("headers");
    let named = list.iter().filter(|pair| {
        pair[0]
            .as_str()
            .is_some_and(|found| found.eq_ignore_ascii_case(name))
    });
    named.filter_map(|pair| pair[1].as_str()).collect()
}

/// The answer's body as JSON.
fn body(answer: &Value) -> Value {
    let text = answer["body"].as_str().expect("a body");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn assert_refused(answer: &Value, status: u16, reason: &str) {
    assert_eq!(answer["status"], status, "{answer}");
    assert_eq!(headers(answer, "x-bottle-reason"), [reason], "{answer}");
    let denial = body(answer);
    let error = if status == 502 {
        "bottle_upstream"
    } else {
        "bottle_denied"
    };
    assert_eq!(
        (&denial["error"], &denial["reason"]),
        (&error.into(), &reason.into()),
        "{denial}"
    );
}

fn a_request_goes_through_with_the_token_put_in(f: &Fixture) {
    let answer = f.bottle.fetch(&[
        "--body",
        "hello",
        "POST",
        "https://api.example.com/echo/first?q=1",
        "x-mine: yes",
    ]);
    assert_eq!(answer["status"], 200, "{answer}");
    let arrived = f.arrived("/echo/first");
    let [request] = arrived.as_slice() else {
        panic!("{arrived:?}")
    };
    assert_eq!(
        headers(request, "authorization"),
        [format!("Bearer {TOKEN}")]
    );
    assert_eq!(
        (&request["body"], &request["query"]["q"]),
        (&"hello".into(), &"1".into())
    );
    assert_eq!(headers(request, "x-mine"), ["yes"]);
    assert_eq!(
        (&headers(request, "host")[..], &request["sni"]),
        (&["api.example.com"][..], &"api.example.com".into())
    );
    // The destination sent it all back, token and all; the agent does not get to see that.
    assert_eq!(body(&answer)["body"], "hello");
    assert!(!answer.to_string().contains(TOKEN), "{answer}");
}

fn the_placeholder_is_replaced(f: &Fixture) {
    let script = "exec bottle-testkit fetch GET https://api.example.com/echo/placeholder \"authorization: Bearer $TEST_TOKEN\"";
    let answer = f.bottle.exec(&["sh", "-c", script]).json();
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(
        headers(&f.arrived("placeholder")[0], "authorization"),
        [format!("Bearer {TOKEN}")]
    );
}

fn a_credential_of_the_agents_own_does_not_arrive(f: &Fixture) {
    for header in [
        "authorization: Bearer mine-own-key-123456",
        "x-api-key: mine-own-key-123456",
        "cookie: key=mine-own-key-123456",
    ] {
        let answer = f
            .bottle
            .fetch(&["GET", "https://api.example.com/echo/foreign", header]);
        assert!(
            answer["status"] == 403 || answer["status"] == 200,
            "{answer}"
        );
    }
    for request in f.arrived("foreign") {
        assert!(!request.to_string().contains("mine-own-key"), "{request}");
    }
}

fn programs_that_know_no_proxy_work_too(f: &Fixture) {
    let answer = f
        .bottle
        .fetch(&["--direct", "GET", "https://api.example.com/echo/direct"]);
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(
        headers(&f.arrived("/echo/direct")[0], "authorization"),
        [format!("Bearer {TOKEN}")]
    );
    let answer = f.bottle.fetch(&[
        "--direct",
        "GET",
        "http://plain.example.com/echo/direct-plain",
    ]);
    assert_eq!(answer["status"], 200, "{answer}");
    // A name that is not on the list has no address to go to.
    let done = f.bottle.exec(&[
        "bottle-testkit",
        "fetch",
        "--direct",
        "GET",
        "https://untold.example.com/echo",
    ]);
    assert_ne!(done.code(), 0, "{}", done.stdout);
}

fn plain_http_works_and_carries_no_token(f: &Fixture) {
    let answer = f
        .bottle
        .fetch(&["GET", "http://plain.example.com/echo/plain"]);
    assert_eq!(answer["status"], 200, "{answer}");
    assert!(headers(&f.arrived("/echo/plain")[0], "authorization").is_empty());
    assert_refused(
        &f.bottle
            .fetch(&["GET", "http://api.example.com/echo/downgrade"]),
        403,
        "scheme_not_allowed",
    );
    assert!(f.arrived("downgrade").is_empty());
}

fn what_is_not_allowed_is_refused_with_a_reason(f: &Fixture) {
    let cases = [
        (
            "GET",
            "https://untold.example.com/echo/refused",
            403,
            "host_not_allowed",
        ),
        (
            "GET",
            "http://untold.example.com/echo/refused",
            403,
            "host_not_allowed",
        ),
        (
            "GET",
            "https://api.example.com:8443/echo/refused",
            403,
            "port_not_allowed",
        ),
        (
            "DELETE",
            "https://api.example.com/echo/refused",
            403,
            "method_not_allowed",
        ),
        (
            "TRACE",
            "https://api.example.com/echo/refused",
            403,
            "method_refused",
        ),
        (
            "GET",
            "https://api.example.com/bytes?refused",
            403,
            "path_not_allowed",
        ),
        (
            "GET",
            "https://api.example.com/echo/../refused",
            403,
            "path_ambiguous",
        ),
        (
            "GET",
            "https://api.example.com/echo/%2e%2e/refused",
            403,
            "path_ambiguous",
        ),
        ("GET", "https://10.213.0.1/refused", 403, "ip_literal"),
        (
            "POST",
            "https://free.example.com/x.git/git-receive-pack?refused",
            403,
            "git_push_refused",
        ),
    ];
    for (method, url, status, reason) in cases {
        assert_refused(&f.bottle.fetch(&[method, url]), status, reason);
    }
    assert!(f.arrived("refused").is_empty());
    let denial = body(
        &f.bottle
            .fetch(&["GET", "https://untold.example.com/echo/refused"]),
    );
    assert!(
        denial["allow"].is_object() && denial["ask"].is_string() && denial["id"].is_string(),
        "{denial}"
    );
}

fn a_private_address_is_not_dialled(f: &Fixture) {
    let before = f.internet.events_of("connection").len();
    assert_refused(
        &f.bottle
            .fetch(&["GET", "https://inside.example.com/echo/private"]),
        403,
        "ip_private",
    );
    assert_eq!(f.internet.events_of("connection").len(), before);
}

fn the_token_cannot_be_sent_elsewhere(f: &Fixture) {
    for place in [
        "\"x-note: $TEST_TOKEN\"",
        "\"authorization: Bearer $TEST_TOKEN\"",
    ] {
        let script = format!(
            "exec bottle-testkit fetch GET https://free.example.com/echo/elsewhere {place}"
        );
        assert_refused(
            &f.bottle.exec(&["sh", "-c", &script]).json(),
            403,
            "placeholder_misuse",
        );
    }
    let script =
        "exec bottle-testkit fetch GET \"https://api.example.com/echo/elsewhere?key=$TEST_TOKEN\"";
    assert_refused(
        &f.bottle.exec(&["sh", "-c", script]).json(),
        403,
        "placeholder_misuse",
    );
    assert!(f.arrived("elsewhere").is_empty());
}

fn a_compressed_answer_does_not_hide_the_token(f: &Fixture) {
    let answer = f.bottle.fetch(&[
        "GET",
        "https://api.example.com/gzip",
        "accept-encoding: gzip",
    ]);
    assert_refused(&answer, 502, "encoded_response");
    // Where nothing is put in, compression is nobody's business.
    let answer = f.bottle.fetch(&[
        "GET",
        "https://free.example.com/gzip",
        "accept-encoding: gzip",
    ]);
    assert_eq!(
        (&answer["status"], &headers(&answer, "content-encoding")[..]),
        (&200.into(), &["gzip"][..])
    );
}

/// The destination sends its second event only when it is told that the first has arrived: a client that reads event by
/// event and says so gets to the end however slow the machine is, and one whose events are held back never does.
fn the_first_event_comes_before_the_second_is_sent(f: &Fixture) {
    for (way, more) in [("proxy", ""), ("led", "--direct ")] {
        let url = format!("https://api.example.com/stepped?n=3&id={way}");
        let script = format!(
            "set -e; mkfifo /tmp/events-{way}; bottle-testkit fetch --stream {more}GET '{url}' > /tmp/events-{way} & \
             n=0; while read -r line; do case $line in data:*) n=$((n+1)); \
             bottle-testkit fetch {more}GET 'https://api.example.com/ack?id={way}' > /tmp/acked ;; esac; \
             done < /tmp/events-{way}; wait $!; echo $n events"
        );
        let seen = f.bottle.exec(&["sh", "-c", &script]).ok();
        assert_eq!(seen, "3 events\n", "{way}");
    }
    let broken = f.internet.events_of("broken");
    assert!(
        !Value::from(broken.clone())
            .to_string()
            .contains("held back"),
        "{broken:?}"
    );
}

fn a_redirect_is_handed_over_and_not_followed(f: &Fixture) {
    let answer = f.bottle.fetch(&[
        "GET",
        "https://api.example.com/redir?to=https://other.example.net/echo/followed",
    ]);
    assert_eq!(
        (&answer["status"], &headers(&answer, "location")[..]),
        (
            &302.into(),
            &["https://other.example.net/echo/followed"][..]
        )
    );
    assert!(f.arrived("followed").is_empty());
    // Who follows it goes there without the token.
    let answer = f
        .bottle
        .fetch(&["GET", "https://other.example.net/echo/followed"]);
    assert_eq!(answer["status"], 200, "{answer}");
    assert!(headers(&f.arrived("followed")[0], "authorization").is_empty());
}

fn large_answers_arrive_whole(f: &Fixture) {
    let answer = f
        .bottle
        .fetch(&["GET", "https://free.example.com/bytes?n=20000000"]);
    assert_eq!(
        (&answer["status"], &answer["length"]),
        (&200.into(), &20_000_000.into())
    );
}

fn everything_is_on_record_and_no_secret_is(f: &Fixture) {
    let _ = f.bottle.fetch(&[
        "GET",
        "https://api.example.com/echo/recorded?q=not-recorded",
    ]);
    let _ = f
        .bottle
        .fetch(&["GET", "https://untold.example.com/echo/recorded"]);
    // An agent that has got hold of the token all the same, and writes it into what is recorded: paths and names.
    for url in [
        format!("http://untold.example.com/echo/{TOKEN}"),
        format!("https://api.example.com/echo/{TOKEN}"),
        format!("http://{TOKEN}.example.com/"),
    ] {
        let answer = f.bottle.fetch(&["GET", &url]);
        assert_eq!(answer["status"], 403, "{answer}");
    }
    f.bottle
        .probe(&[format!("resolve:{TOKEN}.example.com")])
        .assert_closed();
    let folder = f.home.state(&f.bottle.slug).join("audit");
    let mut records = Vec::new();
    for entry in fs::read_dir(&folder).expect("the audit folder").flatten() {
        let text = fs::read_to_string(entry.path()).expect("the audit can be read");
        assert!(!text.contains(TOKEN), "the token is on record");
        records.extend(text.lines().map(|line| {
            serde_json::from_str::<Value>(line).expect("a record is one line of JSON")
        }));
    }
    let reasons_of = |host: &str| -> Vec<&str> {
        let of_host = records.iter().filter(|record| record["host"] == host);
        of_host
            .filter_map(|record| record["reason"].as_str())
            .collect()
    };
    assert!(
        reasons_of("api.example.com").contains(&"allowed"),
        "{records:?}"
    );
    assert!(
        reasons_of("untold.example.com").contains(&"host_not_allowed"),
        "{records:?}"
    );
    assert!(
        records
            .iter()
            .all(|record| record["schema"] == "bottle.audit/v1"
                && record["bottle"] == f.bottle.slug.as_str())
    );
    for (field, way) in [("path", "proxy"), ("host", "proxy"), ("host", "dns")] {
        assert!(
            records
                .iter()
                .any(|record| record[field] == "[redacted]" && record["way"] == way),
            "{field} by {way}: {records:?}"
        );
    }
    let log = bottle_tests::engine::docker(["logs", &f.bottle.egress()]);
    assert!(
        !log.stdout.contains(TOKEN) && !log.stderr.contains(TOKEN),
        "the token is in the log"
    );
}
