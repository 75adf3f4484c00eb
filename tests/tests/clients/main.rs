//! Real clients through a real bottle: what agents and their tools use to reach the world, each by the proxy variables and,
//! where it can, as a program that has never heard of a proxy. The destination must see the credential, and the agent
//! never.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

mod git;
mod http;
mod packages;
mod streams;

use std::process::ExitCode;

use bottle_tests::engine::wait_for;
use bottle_tests::{Bottle, Done, Home, Internet, image, need_engine, suite, tools};
use serde_json::Value;

const API: &str = "api.example.com";
const GIT: &str = "git.example.com";
const REGISTRY: &str = "registry.example.com";
const HOSTS: [&str; 4] = [API, GIT, REGISTRY, "untold.example.com"];

/// One for each destination, so that it shows when one goes where another belongs.
const API_TOKEN: &str = "tok-clients-6b1b36cbb04b41490bfc0ab2";
const GIT_TOKEN: &str = "tok-clients-git-2a3f5ac8d1e94c6b8b1d";
const REGISTRY_TOKEN: &str = "tok-clients-registry-0f9c3a61e7d24";

const FILES: [(&str, &[u8]); 5] = [
    ("Dockerfile", include_bytes!("Dockerfile")),
    ("client.go", include_bytes!("client.go")),
    ("client.mjs", include_bytes!("client.mjs")),
    ("client.py", include_bytes!("client.py")),
    ("h2.mjs", include_bytes!("h2.mjs")),
];

fn manifest(image: &str) -> String {
    format!(
        "\
image: {image}
egress:
  upstream_ca: upstream.pem
  routes:
    - host: {API}
      ports: [443, 8443]
      private: [10.213.0.0/16]
      auth: {{scheme: Bearer, token_ref: API_TOKEN}}
      matches:
        - {{paths: [/bytes, /stepped, /ack, /ws, /upload, /reflect]}}
    - host: {GIT}
      private: [10.213.0.0/16]
      auth: {{scheme: Bearer, token_ref: GIT_TOKEN}}
      git: {{fetch: true}}
      matches: [{{paths: [/git], methods: [GET]}}]
    - host: {REGISTRY}
      private: [10.213.0.0/16]
      auth: {{scheme: Bearer, token_ref: REGISTRY_TOKEN}}
      matches: [{{methods: [GET, HEAD]}}]
"
    )
}

fn main() -> ExitCode {
    suite::run(
        make,
        &[
            ("curl_http1", http::curl_http1),
            ("curl_http2", http::curl_http2),
            ("node_fetch", http::node_fetch),
            ("python_urllib", http::python_urllib),
            ("python_requests", http::python_requests),
            ("python_httpx", http::python_httpx),
            ("python_httpx_http2", http::python_httpx_http2),
            ("go_net_http", http::go_net_http),
            ("rust_rustls", http::rust_rustls),
            (
                "http2_on_both_sides_stays_http2",
                http::http2_on_both_sides_stays_http2,
            ),
            (
                "a_program_without_proxy_finds_no_other_host",
                http::a_program_without_proxy_finds_no_other_host,
            ),
            (
                "a_compressing_destination_hides_nothing",
                http::a_compressing_destination_hides_nothing,
            ),
            ("git_clones_and_fetches", git::git_clones_and_fetches),
            ("git_cannot_push", git::git_cannot_push),
            ("pip_installs", packages::pip_installs),
            ("npm_installs", packages::npm_installs),
            ("node_websocket", streams::node_websocket),
            ("python_websockets", streams::python_websockets),
            (
                "events_arrive_before_the_next_is_sent",
                streams::events_arrive_before_the_next_is_sent,
            ),
            (
                "a_client_that_waits_to_be_asked_uploads",
                streams::a_client_that_waits_to_be_asked_uploads,
            ),
            (
                "a_large_upload_takes_no_memory",
                streams::a_large_upload_takes_no_memory,
            ),
            ("the_agent_never_saw_a_token", the_agent_never_saw_a_token),
        ],
    )
}

struct Fixture {
    bottle: Bottle,
    internet: Internet,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.internet
            .leave(&format!("bottle-{}-egress", self.bottle.slug));
    }
}

fn make() -> Option<Fixture> {
    if !need_engine("clients") {
        return None;
    }
    let home = Home::with_env(&[
        ("API_TOKEN", API_TOKEN),
        ("GIT_TOKEN", GIT_TOKEN),
        ("REGISTRY_TOKEN", REGISTRY_TOKEN),
    ]);
    let kit = tools::testkit().expect("need_engine looked for it");
    let kit = std::fs::read(kit).expect("the test kit can be read");
    let mut files = FILES.to_vec();
    files.push(("bottle-testkit", &kit));
    let image = image::built("clients", &home.cwd().join("image"), &files)?;
    let internet = Internet::start_in(&home, &HOSTS, &image);
    let servers = "/usr/local/lib/clients/h2.mjs";
    internet.spawn(&["node", servers]);
    git::serve(&internet);
    packages::serve(&internet);
    home.write("bottles/upstream.pem", internet.ca_pem());
    home.bottle("web", &manifest(&image));
    let bottle = home.up("web", &home.slug("c"));
    internet.join(&format!("bottle-{}-egress", bottle.slug), &HOSTS);
    wait_for("the HTTP/2 destination", || {
        std::net::TcpStream::connect((internet.address, 8443)).is_ok()
    });
    Some(Fixture { bottle, internet })
}

impl Fixture {
    /// Runs a shell command in the agent.
    fn sh(&self, script: &str) -> Done {
        self.bottle.exec(&["sh", "-c", script])
    }

    /// The same as a program does that has never heard of proxies: it asks for a name and goes to its address.
    fn sh_direct(&self, script: &str) -> Done {
        let unset = "unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NODE_USE_ENV_PROXY;";
        self.sh(&format!("{unset} {script}"))
    }

    /// What arrived with this mark in its query.
    fn arrived(&self, mark: &str) -> Vec<Value> {
        let mut requests = self.internet.events_of("request");
        requests.retain(|request| request["query"]["mark"] == mark);
        requests
    }

    /// What arrived for a host below a path.
    fn arrived_at(&self, host: &str, path: &str) -> Vec<Value> {
        let mut requests = self.internet.events_of("request");
        requests.retain(|request| {
            request["sni"] == host
                && request["path"]
                    .as_str()
                    .is_some_and(|found| found.starts_with(path))
        });
        requests
    }
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

fn assert_paid_with(request: &Value, token: &str) {
    assert_eq!(
        headers(request, "authorization"),
        [format!("Bearer {token}")],
        "{request}"
    );
}

/// What a client said: the body, and in its last line what it knows of the answer.
fn said(done: &Done) -> (String, Value) {
    let all = done.stdout.trim_end();
    let (body, last) = all.rsplit_once('\n').unwrap_or(("", all));
    let last = serde_json::from_str(last)
        .unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
    (body.to_owned(), last)
}

/// Whatever the clients printed, wrote and were told: none of it is a real value.
fn the_agent_never_saw_a_token(f: &Fixture) {
    let script = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; \
                  find / /tmp -xdev -type f -size -2M -readable -newer /etc/hostname -exec cat {} + 2>/dev/null; true";
    let seen = f.sh(script).ok();
    assert!(
        seen.contains("hello from quince"),
        "what the clients fetched was not searched"
    );
    for token in [API_TOKEN, GIT_TOKEN, REGISTRY_TOKEN] {
        assert!(!seen.contains(token), "the agent holds a token");
    }
}
