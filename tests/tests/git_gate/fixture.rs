//! A bottle with repositories behind git-gate, and the upstream.

use std::fs;

use bottle_tests::engine::docker;
use bottle_tests::upstream::git_image;
use bottle_tests::{Bottle, Done, Home, Upstream, need_engine};
use serde_json::Value;

pub(crate) const HOST: &str = "git.example.com";

/// The name the upstream also answers to, with a host key in the plan that is not its own.
const FALSE_HOST: &str = "false.example.com";
const FALSE_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What egress puts in, and what the agent itself was given: both must not be pushed.
pub(crate) const TOKEN: &str = "tok-gitgate-9e107d9d372bb6826bd81d3542a419d6";
pub(crate) const GIVEN: &str = "given-value-e4d909c290d0fb1ca068ffaddf22cbd0";

/// The token of the HTTPS upstream: the gate's alone.
pub(crate) const WEB_TOKEN: &str = "tok-web-45c48cce2e2d7fbdea1afc51c7c6ad26";
/// The token of the forge that mints deploy keys: `bottle-run`'s alone.
pub(crate) const FORGE_TOKEN: &str = "tok-forge-8f14e45fceea167a5a36dedd4bea2543";
pub(crate) const WEB_HOST: &str = "web.example.com";

pub(crate) struct Fixture {
    pub(crate) bottle: Bottle,
    /// One whose agent can ask.
    pub(crate) asks: Bottle,
    pub(crate) upstream: Upstream,
    pub(crate) home: Home,
}

fn manifest(upstream: &Upstream) -> String {
    let image = git_image();
    let host_key = &upstream.host_key;
    let key = upstream.key.display();
    let demo = upstream.url(HOST, "demo");
    let readonly = upstream.url(HOST, "readonly");
    let stranger = upstream.url(FALSE_HOST, "demo");
    let sha256 = upstream.url(HOST, "sha256");
    format!(
        "\
image: {image}
env: {{GIVEN: \"${{TEST_GIVEN}}\"}}
egress:
  routes:
    - {{host: api.example.com, auth: {{scheme: Bearer, token_ref: TEST_TOKEN}}}}
git-gate:
  user: {{name: Agent, email: agent@example.com}}
  repos:
    demo:
      url: {demo}
      host_key: \"{host_key}\"
      key: {{provider: static, path: {key}}}
      push: {{max_commits: 20, max_bytes: 20m}}
    sha256:
      url: {sha256}
      host_key: \"{host_key}\"
      key: {{provider: static, path: {key}}}
    readonly:
      url: {readonly}
      host_key: \"{host_key}\"
      key: {{provider: static, path: {key}}}
      refs: []
    stranger:
      url: {stranger}
      host_key: \"{FALSE_KEY}\"
      key: {{provider: static, path: {key}}}
"
    )
}

/// Repositories whose pushes wait for the operator long and not long, one whose pushes do not, one whose pushes are
/// signed, and two over HTTPS: one that is signed if the upstream asks, and one that always is.
fn asking(upstream: &Upstream) -> String {
    let image = git_image();
    let (host_key, key) = (&upstream.host_key, upstream.key.display());
    let ssh = |name: &str, more: &str| {
        format!(
            "    {name}: {{url: {}, host_key: \"{host_key}\", key: {{provider: static, path: {key}}}, {more}}}\n",
            upstream.url(HOST, name)
        )
    };
    let repos = [
        ssh("held", "push: {review: true, hold: 2m}"),
        ssh("brief", "push: {review: true, hold: 2s}"),
        ssh(
            "plain",
            "refs: [refs/heads/agent/*, refs/tags/agent-*], push: {max_commits: 20}",
        ),
        ssh("signed", "sign: ssh"),
        ssh("large", "push: {max_commits: 20, max_bytes: 100m}"),
    ]
    .concat();
    format!(
        "\
image: {image}
supervise: {{timeout: 10m}}
egress: {{upstream_ca: web-ca.pem}}
git-gate:
  user: {{name: Agent, email: agent@example.com}}
  repos:
{repos}    web:
      url: https://{WEB_HOST}/git/web.git
      key: {{provider: token, env: TEST_WEB_TOKEN, user: gate}}
      sign: ssh-if-asked
    sealed:
      url: https://{WEB_HOST}/git/sealed.git
      key: {{provider: token, env: TEST_WEB_TOKEN, user: gate}}
      sign: ssh
"
    )
}

pub(crate) fn make() -> Option<Fixture> {
    if !need_engine("git_gate") {
        return None;
    }
    let home = Home::with_env(&[
        ("TEST_TOKEN", TOKEN),
        ("TEST_GIVEN", GIVEN),
        ("TEST_WEB_TOKEN", WEB_TOKEN),
        ("TEST_FORGE_TOKEN", FORGE_TOKEN),
    ]);
    let upstream = Upstream::start(&home);
    for name in [
        "demo", "readonly", "held", "brief", "plain", "signed", "large", "web", "sealed",
    ] {
        upstream.repository(name);
    }
    home.write(
        "bottles/web-ca.pem",
        upstream.serve_https(WEB_HOST, "gate", WEB_TOKEN),
    );
    home.bottle("asking", &asking(&upstream));
    home.bottle("gated", &manifest(&upstream));
    let bottle = home.up("gated", &home.slug("g"));
    let asks = home.up("asking", &home.slug("a"));
    upstream.join(&network(&bottle), &[HOST, FALSE_HOST]);
    upstream.join(&network(&asks), &[HOST, WEB_HOST]);
    Some(Fixture {
        bottle,
        asks,
        upstream,
        home,
    })
}

pub(crate) fn network(bottle: &Bottle) -> String {
    format!("bottle-{}-egress", bottle.slug)
}

/// The gate's audit of a bottle.
pub(crate) fn audit(home: &Home, bottle: &Bottle) -> Vec<Value> {
    let path = home.state(&bottle.slug).join("git-gate/audit/audit.jsonl");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

impl Fixture {
    pub(crate) fn gate(&self) -> String {
        format!("bottle-{}-git-gate", self.bottle.slug)
    }

    /// Runs a script in the agent.
    pub(crate) fn agent(&self, script: &str) -> Done {
        self.bottle.exec(&["sh", "-euc", script])
    }

    /// A fresh clone in the agent, in a folder of the case's own, with a branch of its own to work on.
    pub(crate) fn clone(&self, case: &str) {
        let url = self.upstream.url(HOST, "demo");
        let _ = self
            .agent(&format!("rm -rf ~/{case}; git clone -q {url} ~/{case}; cd ~/{case}; git checkout -qb agent/{case}"))
            .ok();
    }

    /// Clones, runs `script` in the clone, pushes the case's branch, and says what came of that.
    pub(crate) fn push_after(&self, case: &str, script: &str) -> Done {
        self.clone(case);
        let _ = self.agent(&format!("cd ~/{case}; {script}")).ok();
        self.agent(&format!("cd ~/{case}; git push origin agent/{case}"))
    }

    /// A push that must be refused for `reason`, without the upstream having heard of it.
    pub(crate) fn assert_refused(&self, case: &str, script: &str, reason: &str) -> Done {
        self.clone(case);
        let _ = self.agent(&format!("cd ~/{case}; {script}")).ok();
        self.assert_push_refused(case, &format!("git push origin agent/{case}"), reason)
    }

    /// The same for a clone that is there, and a push of any form.
    pub(crate) fn assert_push_refused(&self, case: &str, push: &str, reason: &str) -> Done {
        let before = (self.upstream.contacts(), self.refs());
        let done = self.agent(&format!("cd ~/{case}; {push}"));
        assert!(
            !done.status.success(),
            "{case}: it went through: {}",
            done.stderr
        );
        assert!(
            done.stderr.contains(&format!("refused ({reason})")),
            "{case}: {}",
            done.stderr
        );
        assert_eq!(
            (self.upstream.contacts(), self.refs()),
            before,
            "{case}: the upstream has heard of it"
        );
        let last = self.last_push();
        assert_eq!(
            (&last["decision"], &last["reason"]),
            (&"deny".into(), &reason.into()),
            "{case}: {last}"
        );
        for secret in [TOKEN, GIVEN, EXAMPLE] {
            // Git itself says the ref that it was told to push.
            let mut remote = done
                .stderr
                .lines()
                .filter(|line| line.starts_with("remote:"));
            assert!(
                !remote.any(|line| line.contains(secret)),
                "{case}: the refusal says the secret"
            );
        }
        done
    }

    /// All refs of the upstream.
    pub(crate) fn refs(&self) -> String {
        self.upstream.git("git -C demo.git for-each-ref").ok()
    }

    pub(crate) fn audit(&self) -> Vec<Value> {
        audit(&self.home, &self.bottle)
    }

    /// The newest record of a ref.
    fn last_push(&self) -> Value {
        let pushes = self
            .audit()
            .into_iter()
            .rfind(|record| record["method"] == "PUSH");
        pushes.unwrap_or_default()
    }

    /// Kills the gate, and starts it again.
    pub(crate) fn restart_gate(&self) {
        let gate = self.gate();
        let _ = docker(["start", &gate]).ok();
        let _ = docker(["exec", &gate, "/bottle-sidecar", "health", "--wait", "20"]).ok();
    }
}

/// A token of nobody's that gitleaks knows by its form. Put together here, so that no scanner finds it in this file.
pub(crate) const EXAMPLE: &str = concat!("ghp_", "x9Yw2VuTq7Rs4Pk1Nm8Lj5Hg3Fd6Sa0QzXcV");

impl Drop for Fixture {
    fn drop(&mut self) {
        for bottle in [&self.bottle, &self.asks] {
            self.upstream.leave(&network(bottle));
        }
    }
}
