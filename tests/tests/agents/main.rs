//! The real agents at work: Claude Code and Codex as npm has them, each in a bottle on the real engine, with a stand-in
//! for the model behind egress. They must be able to do their job, and must never hold what pays for it.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

mod search;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use bottle_tests::engine::{docker_lines, note_skipped, wait_within};
use bottle_tests::image::OFFLINE;
use bottle_tests::model::FINISHED;
use bottle_tests::{Bottle, Done, Home, Internet, need_engine, suite};
use search::Found;
use serde_json::Value;

const ANTHROPIC: &str = "api.anthropic.com";
const OPENAI: &str = "api.openai.com";

const ANTHROPIC_KEY: &str = "sk-ant-standin-5d41402abc4b2a76b9719d911017c592";
const OAUTH_TOKEN: &str = "oat-standin-7d793037a0760186574b0282f2f435e7";
const OPENAI_KEY: &str = "sk-proj-standin-9e107d9d372bb6826bd81d3542a419d6";

/// The agents are large programs, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// In the prompt, so that it can be found where it arrives.
const MARKER: &str = "Always mention the quince.";

const SKILL: &str = "\
---
name: grafting
description: How to graft a quince onto a hawthorn.
---
Cut both on the slant.
";

fn main() -> ExitCode {
    suite::run(
        make,
        &[
            ("claude_does_its_work", claude_does_its_work),
            ("claude_never_holds_the_key", claude_never_holds_the_key),
            ("claude_asks_nothing_at_first", claude_asks_nothing_at_first),
            (
                "claude_works_on_a_subscription",
                claude_works_on_a_subscription,
            ),
            ("codex_does_its_work", codex_does_its_work),
            ("codex_never_holds_the_key", codex_never_holds_the_key),
            ("codex_asks_nothing_at_first", codex_asks_nothing_at_first),
            (
                "openssl_trusts_the_bottle_by_its_folder",
                openssl_trusts_the_bottle_by_its_folder,
            ),
        ],
    )
}

struct Fixture {
    home: Home,
    internet: Internet,
    claude: Bottle,
    codex: Bottle,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for bottle in [&self.claude, &self.codex] {
            self.internet.leave(&egress_network(bottle));
        }
    }
}

fn make() -> Option<Fixture> {
    if !need_engine("agents") {
        return None;
    }
    let home = Home::with_env(&[
        ("ANTHROPIC_API_KEY", ANTHROPIC_KEY),
        ("MY_SUBSCRIPTION", OAUTH_TOKEN),
        ("OPENAI_API_KEY", OPENAI_KEY),
    ]);
    let internet = Internet::start(&home, &[ANTHROPIC, OPENAI]);
    home.write("bottles/upstream.pem", internet.ca_pem());
    home.write("skills/grafting/SKILL.md", SKILL);
    for (name, provider, host) in [
        ("claude", "{template: claude}", ANTHROPIC),
        (
            "subscription",
            "{template: claude, auth_token: MY_SUBSCRIPTION}",
            ANTHROPIC,
        ),
        ("codex", "{template: codex}", OPENAI),
    ] {
        let folder = repository(&home, name);
        home.bottle(name, &manifest(provider, host, &folder));
        home.agent(
            name,
            &format!("bottle: {name}\nskills: [grafting]\nprompt: {MARKER}\n"),
        );
    }
    let claude = start(&home, &internet, "claude")?;
    let codex = start(&home, &internet, "codex")?;
    Some(Fixture {
        home,
        internet,
        claude,
        codex,
    })
}

/// The route is the provider's; the bottle only says where its host is.
fn manifest(provider: &str, host: &str, workspace: &Path) -> String {
    format!(
        "\
agent_provider: {provider}
workspace: {{from: {}}}
git-gate: {{user: {{name: Gardener, email: gardener@example.com}}}}
egress:
  upstream_ca: upstream.pem
  routes:
    - {{host: {host}, private: [10.213.0.0/16]}}
",
        workspace.display()
    )
}

/// A repository with one commit.
fn repository(home: &Home, name: &str) -> std::path::PathBuf {
    let folder = home.cwd().join(name);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("garden.md"), "apple\npear\n").expect("a file");
    let commit = [
        "-c",
        "user.name=Host",
        "-c",
        "user.email=host@example.com",
        "commit",
        "--quiet",
        "--message=first",
    ];
    for args in [&["init", "--quiet"][..], &["add", "."], &commit] {
        let done = Command::new("git").args(args).current_dir(&folder).status();
        assert!(done.expect("git is there").success());
    }
    folder
}

/// The bottle, or nothing when its image cannot be fetched because the network is not there.
fn start(home: &Home, internet: &Internet, name: &str) -> Option<Bottle> {
    let slug = home.slug(name);
    let compose = home.render(&home.plan(name, &slug));
    let done = home.tool("bottle-run").args(["up"]).stdin(compose).run();
    if done.code() != 0 && OFFLINE.iter().any(|sign| done.stderr.contains(sign)) {
        note_skipped(
            "agents",
            &format!("the image of {name} cannot be built without npm and Debian's archive"),
        );
        return None;
    }
    let bottle = Bottle::started(home, &slug, done.json());
    internet.join(&egress_network(&bottle), &[ANTHROPIC, OPENAI]);
    Some(bottle)
}

fn egress_network(bottle: &Bottle) -> String {
    format!("bottle-{}-egress", bottle.slug)
}

/// What the stand-in was asked, as `(headers, body)`; over a WebSocket the body is another event.
fn asked(f: &Fixture, host: &str) -> Vec<Value> {
    let mut requests = f.internet.events_of("request");
    requests.retain(|request| request["sni"] == host);
    requests
}

fn header<'a>(request: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = request["headers"].as_array().into_iter().flatten();
    headers
        .filter(|pair| {
            pair[0]
                .as_str()
                .is_some_and(|found| found.eq_ignore_ascii_case(name))
        })
        .filter_map(|pair| pair[1].as_str())
        .collect()
}

fn assert_worked(bottle: &Bottle, done: &Done) {
    assert_eq!(done.code(), 0, "{}", done.stderr);
    assert_eq!(done.stdout.trim(), FINISHED, "{}", done.stderr);
    assert_eq!(bottle.exec(&["cat", "garden.md"]).ok(), "apple\nquince\n");
    let log = bottle.exec(&["git", "log", "--format=%an %s"]).ok();
    assert_eq!(log, "Gardener plant a quince\nHost first\n");
    assert_eq!(bottle.exec(&["git", "status", "--porcelain"]).ok(), "");
}

fn claude_does_its_work(f: &Fixture) {
    let done = f.claude.task(
        r#"Plant a quince.
CALL Read {"file_path": "/workspace/garden.md"}
CALL Edit {"file_path": "/workspace/garden.md", "old_string": "pear", "new_string": "quince"}
CALL Bash {"command": "git commit --all --message='plant a quince'", "description": "commit"}"#,
    );
    assert_worked(&f.claude, &done);
    let requests = asked(f, ANTHROPIC);
    assert!(requests.len() >= 4, "{requests:?}");
    for request in &requests {
        assert_eq!(header(request, "x-api-key"), [ANTHROPIC_KEY]);
        assert!(header(request, "authorization").is_empty());
    }
    let all = Value::from(requests).to_string();
    assert!(all.contains(MARKER), "the prompt did not arrive");
    assert!(all.contains("grafting"), "the skill was not found");
}

fn claude_works_on_a_subscription(f: &Fixture) {
    let Some(bottle) = start(&f.home, &f.internet, "subscription") else {
        panic!("its image is there by now");
    };
    let before = asked(f, ANTHROPIC).len();
    let done = bottle.task("Say something.");
    let requests = asked(f, ANTHROPIC);
    f.internet.leave(&egress_network(&bottle));
    f.home.down(&bottle.slug);
    assert_eq!(done.code(), 0, "{}", done.stderr);
    assert_eq!(done.stdout.trim(), FINISHED);
    assert!(requests.len() > before);
    for request in &requests[before..] {
        assert_eq!(
            header(request, "authorization"),
            [format!("Bearer {OAUTH_TOKEN}")]
        );
        assert!(header(request, "x-api-key").is_empty());
    }
}

fn codex_does_its_work(f: &Fixture) {
    let done = f.codex.task(
        r#"Plant a quince.
CALL exec_command {"cmd": "sed --in-place s/pear/quince/ garden.md"}
CALL exec_command {"cmd": "git commit --all --message='plant a quince'"}"#,
    );
    assert_worked(&f.codex, &done);
    let requests = asked(f, OPENAI);
    assert!(!requests.is_empty());
    for request in &requests {
        assert_eq!(
            header(request, "authorization"),
            [format!("Bearer {OPENAI_KEY}")]
        );
    }
    let all = Value::from(f.internet.events()).to_string();
    assert!(all.contains(MARKER), "the prompt did not arrive");
    assert!(all.contains("grafting"), "the skill was not found");
}

fn claude_never_holds_the_key(f: &Fixture) {
    let hold = r#"CALL Bash {"command": "printenv ANTHROPIC_API_KEY > /tmp/held; until [ -e /tmp/go ]; do sleep 0.1; done", "timeout": 60000}"#;
    never_holds(&f.claude, "claude", hold, ANTHROPIC_KEY);
}

fn codex_never_holds_the_key(f: &Fixture) {
    let hold = r#"CALL exec_command {"cmd": "touch /tmp/held; until [ -e /tmp/go ]; do sleep 0.1; done", "yield_time_ms": 30000}"#;
    never_holds(&f.codex, "codex", hold, OPENAI_KEY);
}

/// Searches everything in the bottle while its agent is in the middle of a task: it has asked the model, and waits for a
/// command.
fn never_holds(bottle: &Bottle, program: &str, hold: &str, secret: &str) {
    let name = format!("{program}_never_holds_the_key");
    let pids: Vec<String> = thread::scope(|scope| {
        let working = scope.spawn(|| bottle.task(hold));
        wait_within(PATIENCE, "the agent's command", || {
            bottle.exec(&["test", "-e", "/tmp/held"]).code() == 0
        });
        let pids: Vec<String> = docker_lines(["top", &bottle.agent(), "-eo", "pid"])
            .into_iter()
            .skip(1)
            .map(|line| line.trim().to_owned())
            .collect();
        let found = Found::everywhere(&pids, program, secret, &placeholder(bottle));
        let _ = bottle.exec(&["touch", "/tmp/go"]).ok();
        let done = working.join().expect("the task does not panic");
        assert_eq!(done.code(), 0, "{}", done.stderr);
        match found {
            Err(error) => note_skipped(
                &name,
                &format!("cannot look into the bottle's processes: {error}"),
            ),
            Ok(found) => {
                // What must be found shows that the search finds.
                assert!(
                    found.memory.contains("placeholder"),
                    "the memory of {program} was not searched"
                );
                assert!(
                    found.environment.contains("placeholder"),
                    "no environment was searched"
                );
                assert!(found.files.contains("placeholder"), "no file was searched");
                for (place, what) in [
                    ("an environment", &found.environment),
                    ("memory", &found.memory),
                    ("a file", &found.files),
                ] {
                    assert!(!what.contains("secret"), "{place} holds the real key");
                }
            }
        }
        pids
    });
    assert!(pids.len() >= 3, "{pids:?}");
}

fn placeholder(bottle: &Bottle) -> String {
    let plan = bottle.plan();
    let text = plan["egress"]["routes"][0]["auth"]["placeholder"].as_str();
    text.expect("a placeholder").to_owned()
}

fn claude_asks_nothing_at_first(f: &Fixture) {
    asks_nothing(&f.claude, "bypass permissions on");
}

fn codex_asks_nothing_at_first(f: &Fixture) {
    asks_nothing(&f.codex, "Ask Codex to do anything");
}

/// A dialog of the first start would stand where the agent's own input is expected.
fn asks_nothing(bottle: &Bottle, ready: &str) {
    let plan = bottle.plan();
    let command = plan["agent"]["command"].as_array().expect("a command");
    let command: Vec<&str> = command.iter().filter_map(Value::as_str).collect();
    let tmux = ["tmux", "-u", "-f", "/dev/null"];
    let screen = || bottle.exec(&[&tmux[..], &["capture-pane", "-p"]].concat());
    let start = ["new-session", "-d", "-x", "120", "-y", "40"];
    let _ = bottle.exec(&[&tmux[..], &start, &command].concat()).ok();
    wait_within(PATIENCE, "the agent's input", || {
        screen().stdout.contains(ready)
    });
    let _ = bottle.exec(&[&tmux[..], &["kill-server"]].concat()).ok();
}

/// Programs that are pointed at no bundle look into the system's folder of roots.
fn openssl_trusts_the_bottle_by_its_folder(f: &Fixture) {
    let script = "unset SSL_CERT_FILE; openssl s_client -no-CAfile -no-CAstore -CApath /etc/ssl/certs -verify_return_error \
                  -proxy egress:3128 -connect api.anthropic.com:443 -servername api.anthropic.com </dev/null";
    let done = f.claude.exec(&["sh", "-c", script]);
    assert!(
        done.stdout.contains("Verify return code: 0 (ok)"),
        "{}{}",
        done.stdout,
        done.stderr
    );
}
