//! Two bottles without a network, and what there is to be reached.

use std::fs;

use bottle_tests::engine::docker;
use bottle_tests::host::HostServices;
use bottle_tests::internet::agent_image;
use bottle_tests::upstream::git_image;
use bottle_tests::{Bottle, Done, Home, Internet, Upstream, need_engine};
use serde_json::Value;

pub(crate) const ALLOWED: &str = "api.example.com";
pub(crate) const GIT: &str = "git.example.com";
const TOKEN: &str = "tok-strict-6f4922f45568161a8cdf4ad2299f6d23";

/// As little as needs no image of the test's own.
pub(crate) const SMALL: &str = "\
image: debian:trixie-slim
isolation: strict
resources: {memory: 128m, cpus: 1, pids: 128}
workspace: {from: none}
egress:
  routes:
    - {host: api.example.com, auth: {scheme: Bearer, token_ref: TEST_TOKEN}}
";

// In the order they are dropped: bottles before the networks they are on, and the home last.
pub(crate) struct Fixture {
    pub(crate) bottle: Bottle,
    pub(crate) neighbour: Bottle,
    pub(crate) upstream: Upstream,
    pub(crate) internet: Internet,
    pub(crate) host: HostServices,
    pub(crate) home: Home,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let network = egress_network(&self.bottle);
        self.upstream.leave(&network);
        self.internet.leave(&network);
    }
}

pub(crate) fn egress_network(bottle: &Bottle) -> String {
    format!("bottle-{}-egress", bottle.slug)
}

fn manifest(upstream: &Upstream) -> String {
    format!(
        "\
image: {}
isolation: strict
command: [bash, --norc]
supervise: {{timeout: 60s}}
egress:
  upstream_ca: upstream.pem
  routes:
    - host: {ALLOWED}
      private: [10.213.0.0/16]
      matches: [{{paths: [/echo/open], methods: [GET]}}]
      auth: {{scheme: Bearer, token_ref: TEST_TOKEN}}
git-gate:
  user: {{name: Agent, email: agent@example.com}}
  repos:
    demo:
      url: {}
      host_key: \"{}\"
      key: {{provider: static, path: {}}}
",
        agent_image(&git_image()),
        upstream.url(GIT, "demo"),
        upstream.host_key,
        upstream.key.display(),
    )
}

pub(crate) fn make() -> Option<Fixture> {
    if !need_engine("strict") {
        return None;
    }
    let home = Home::with_env(&[("TEST_TOKEN", TOKEN)]);
    let internet = Internet::start(&home, &[ALLOWED]);
    let upstream = Upstream::start(&home);
    upstream.repository("demo");
    home.write("bottles/upstream.pem", internet.ca_pem());
    home.bottle("closed", &manifest(&upstream));
    home.bottle("small", SMALL);
    let bottle = home.up("closed", &home.slug("a"));
    let neighbour = home.up("small", &home.slug("b"));
    internet.join(&egress_network(&bottle), &[ALLOWED]);
    upstream.join(&egress_network(&bottle), &[GIT]);
    Some(Fixture {
        bottle,
        neighbour,
        upstream,
        internet,
        host: HostServices::start(),
        home,
    })
}

impl Fixture {
    pub(crate) fn sh(&self, script: &str) -> Done {
        self.bottle.exec(&["sh", "-euc", script])
    }

    pub(crate) fn operator(&self, args: &[&str]) -> Done {
        self.home
            .tool("bottle-run")
            .args(args.iter().copied())
            .run()
    }

    /// A call that is allowed goes through, by both ways.
    pub(crate) fn assert_works(&self) {
        for way in [&[][..], &["--direct"]] {
            let url = format!("https://{ALLOWED}/echo/open");
            let mut args = way.to_vec();
            args.extend(["GET", &url]);
            let answer = self.bottle.fetch(&args);
            assert_eq!(answer["status"], 200, "{way:?}: {answer}");
        }
    }

    pub(crate) fn audit(&self) -> Vec<Value> {
        let path = self.home.state(&self.bottle.slug).join("audit/audit.jsonl");
        let text = fs::read_to_string(path).expect("the audit");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }
}

pub(crate) fn inspected(container: &str) -> Value {
    let list: Value = docker(["inspect", container]).json();
    list[0].clone()
}

pub(crate) fn body(answer: &Value) -> Value {
    let text = answer["body"].as_str().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {answer}"))
}
