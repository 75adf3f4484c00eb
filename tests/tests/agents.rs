//! The real agents at work: Claude Code and Codex as npm has them, each in a bottle on the real engine, with a stand-in
//! for the model behind egress. They must be able to do their job, and must never hold what pays for it.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_tests::engine::{docker_lines, note_skipped, wait_for};
use bottle_tests::model::FINISHED;
use bottle_tests::{Bottle, Done, Home, Internet, need_engine, suite};
use serde_json::Value;

const ANTHROPIC: &str = "api.anthropic.com";
const OPENAI: &str = "api.openai.com";

const ANTHROPIC_KEY: &str = "sk-ant-standin-5d41402abc4b2a76b9719d911017c592";
const OAUTH_TOKEN: &str = "oat-standin-7d793037a0760186574b0282f2f435e7";
const OPENAI_KEY: &str = "sk-proj-standin-9e107d9d372bb6826bd81d3542a419d6";

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
    let offline = [
        "ENOTFOUND",
        "EAI_AGAIN",
        "ECONNREFUSED",
        "ECONNRESET",
        "ETIMEDOUT",
        "Temporary failure",
        "Could not connect",
    ];
    if done.code() != 0 && offline.iter().any(|sign| done.stderr.contains(sign)) {
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

/// Gives the agent one task, by its provider's own command for that.
fn task(bottle: &Bottle, task: &str) -> Done {
    let plan = bottle.plan();
    let template = plan["agent"]["headless"]
        .as_array()
        .expect("a headless command");
    let words = template.iter().filter_map(Value::as_str);
    let command: Vec<&str> = words
        .map(|word| if word == "{{task}}" { task } else { word })
        .collect();
    bottle.exec(&command)
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
    let done = task(
        &f.claude,
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
    let done = task(&bottle, "Say something.");
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
    let done = task(
        &f.codex,
        r#"Plant a quince.
CALL exec_command {"cmd": "sed --in-place s/pear/quince/ garden.md"}
CALL exec_command {"cmd": "git commit --all --message='plant a quince'"}"#,
    );
    assert_worked(&f.codex, &done);
    eprintln!("WS messages {}", f.internet.events_of("message").len());
    for request in asked(f, OPENAI) { eprintln!("{} {}", request["method"], request["path"]); }
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
    never_holds(&f.claude, "claude", hold, MARKER);
}

fn codex_never_holds_the_key(f: &Fixture) {
    let hold = r#"CALL exec_command {"cmd": "touch /tmp/held; until [ -e /tmp/go ]; do sleep 0.1; done", "yield_time_ms": 30000}"#;
    { never_holds(&f.codex, "codex", hold, MARKER) };
}

/// Searches everything in the bottle while its agent is in the middle of a task: it has asked the model, and waits for a
/// command.
fn never_holds(bottle: &Bottle, program: &str, hold: &str, secret: &str) {
    let name = format!("{program}_never_holds_the_key");
    let pids: Vec<String> = thread::scope(|scope| {
        let working = scope.spawn(|| task(bottle, hold));
        wait_for("the agent's command", || {
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

/// What was found where: `secret`, `placeholder`.
#[derive(Debug, Default)]
struct Found {
    environment: BTreeSet<&'static str>,
    memory: BTreeSet<&'static str>,
    files: BTreeSet<&'static str>,
}

impl Found {
    /// From the host, where root sees through containers: a search inside would bring the secret in.
    fn everywhere(
        pids: &[String],
        program: &str,
        secret: &str,
        placeholder: &str,
    ) -> std::io::Result<Self> {
        let needles = Needles::new(secret, placeholder);
        let mut found = Self::default();
        let mut searched = false;
        for pid in pids {
            let proc = Path::new("/proc").join(pid);
            let environment = match fs::read(proc.join("environ")) {
                Ok(environment) => environment,
                // It was a short one, and is gone.
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(error),
            };
            found
                .environment
                .extend(needles.in_stream(|out| out.write_all(&environment))?);
            let command = fs::read(proc.join("cmdline")).unwrap_or_default();
            found
                .environment
                .extend(needles.in_stream(|out| out.write_all(&command))?);
            if String::from_utf8_lossy(&command).contains(program) {
                searched = true;
                found
                    .memory
                    .extend(needles.in_stream(|out| pour_memory(&proc, out))?);
            }
        }
        assert!(searched, "there is no {program} among the processes");
        // All of them have the same root, the memory-backed folders included.
        let root = Path::new("/proc")
            .join(pids.first().expect("a process"))
            .join("root/");
        found.files = needles.in_files(&root)?;
        Ok(found)
    }
}

fn gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// The texts that are searched for, in a file: on a command line they would be searched for in themselves.
struct Needles {
    file: tempfile::NamedTempFile,
    placeholder: String,
}

impl Needles {
    fn new(secret: &str, placeholder: &str) -> Self {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        let texts = [
            secret.to_owned(),
            STANDARD.encode(secret),
            placeholder.to_owned(),
        ];
        writeln!(file, "{}", texts.join("\n")).expect("the file can be written");
        Self {
            file,
            placeholder: placeholder.to_owned(),
        }
    }

    fn grep(&self) -> Command {
        let mut grep = Command::new("grep");
        grep.env("LC_ALL", "C").args([
            "--text",
            "--only-matching",
            "--no-filename",
            "--fixed-strings",
        ]);
        grep.arg("--file").arg(self.file.path());
        grep.stdout(Stdio::piped()).stderr(Stdio::null());
        grep
    }

    fn in_stream(
        &self,
        pour: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()> + Send,
    ) -> std::io::Result<BTreeSet<&'static str>> {
        let mut child = self.grep().stdin(Stdio::piped()).spawn()?;
        let mut pipe = child.stdin.take().expect("stdin is piped");
        let mut text = String::new();
        let mut out = child.stdout.take().expect("stdout is piped");
        let poured = thread::scope(|scope| {
            let pouring = scope.spawn(move || pour(&mut pipe));
            let read = out.read_to_string(&mut text);
            pouring
                .join()
                .expect("pouring does not panic")
                .and(read.map(drop))
        });
        child.wait()?;
        poured.map(|()| self.kinds(&text))
    }

    fn in_files(&self, root: &Path) -> std::io::Result<BTreeSet<&'static str>> {
        let mut grep = self.grep();
        grep.args(["--recursive", "--devices=skip"]);
        let kernel = ["proc", "sys", "dev"];
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if !kernel.iter().any(|name| entry.file_name() == *name)
                && !entry.file_type()?.is_symlink()
            {
                grep.arg(entry.path());
            }
        }
        grep.arg(root.join("dev/shm"));
        let output = grep.output()?;
        Ok(self.kinds(&String::from_utf8_lossy(&output.stdout)))
    }

    fn kinds(&self, matches: &str) -> BTreeSet<&'static str> {
        let kind = |line| {
            if line == self.placeholder {
                "placeholder"
            } else {
                "secret"
            }
        };
        matches.lines().map(kind).collect()
    }
}

/// Every page of a process that is in memory or swapped out. What is only reserved is left alone: it would be made by
/// looking at it.
fn pour_memory(proc: &Path, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    const PAGE: u64 = 4096;
    const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
    let maps = fs::read_to_string(proc.join("maps"))?;
    let (memory, pagemap) = (
        File::open(proc.join("mem"))?,
        File::open(proc.join("pagemap"))?,
    );
    let mut page = [0; PAGE as usize];
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let range = words.next().and_then(|range| range.split_once('-'));
        let readable = words.next().is_some_and(|rights| rights.starts_with('r'));
        let Some((start, end)) = range.filter(|_| readable && !line.ends_with("[vvar]")) else {
            continue;
        };
        let number = |text: &str| u64::from_str_radix(text, 16).map_err(std::io::Error::other);
        let (first, last) = (number(start)? / PAGE, number(end)? / PAGE);
        let mut entries =
            vec![0; usize::try_from(last - first).map_err(std::io::Error::other)? * 8];
        // The pages the kernel maps for itself at the end have no entries.
        if pagemap.read_exact_at(&mut entries, first * 8).is_err() {
            continue;
        }
        for (number, entry) in (first..last).zip(entries.chunks_exact(8)) {
            let entry = u64::from_le_bytes(entry.try_into().expect("eight bytes"));
            // A page may go while we look.
            if entry & PRESENT_OR_SWAPPED != 0
                && memory.read_exact_at(&mut page, number * PAGE).is_ok()
            {
                out.write_all(&page)?;
            }
        }
    }
    Ok(())
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
    wait_for("the agent's input", || screen().stdout.contains(ready));
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
