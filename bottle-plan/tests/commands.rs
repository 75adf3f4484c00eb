//! The commands beside planning, as they are typed.

#![allow(clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const OLD: &str = "image: x\negress: {routes: [{host: api.example.com, matches: [{methods: [GET], paths: [/v1]}]}]}\n";
const NEW: &str = "image: x\negress: {routes: [{host: api.example.com, matches: [{methods: [GET, POST], paths: [/v1]}]}]}\n";

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().expect("temp dir"));
        fs::create_dir_all(home.path().join("bottles")).expect("mkdir");
        for (name, manifest) in [("old", OLD), ("new", NEW)] {
            let file = home.path().join(format!("bottles/{name}.yaml"));
            fs::write(file, manifest).expect("write");
            let plan = home.run(&[name, "--slug", "one"], b"");
            assert!(plan.status.success());
            fs::write(home.path().join(format!("{name}.json")), plan.stdout).expect("write");
        }
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bottle-plan"))
            .env_clear()
            .env("BOTTLE_HOME", self.path())
            .current_dir(self.path())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut input = child.stdin.take().expect("a pipe");
        // A tool that needs no stdin may be gone already.
        let _ = input.write_all(stdin);
        drop(input);
        child.wait_with_output().expect("ends")
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn an_endless_file_is_no_manifest() {
    let home = Home::new();
    let output = home.run(&["--manifest", "/dev/zero", "--check"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("bytes long"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_workspace_is_the_folder_itself_however_it_is_named() {
    let home = Home::new();
    let real = home.path().canonicalize().expect("there").join("work");
    fs::create_dir(&real).expect("mkdir");
    let link = |name: &str, to: &Path| {
        let link = home.path().join(name);
        std::os::unix::fs::symlink(to, &link).expect("a link");
        link
    };
    let planned = |from: &Path| {
        let manifest = format!("image: x\nworkspace: {{from: {}}}\n", from.display());
        fs::write(home.path().join("bottles/given.yaml"), manifest).expect("write");
        home.run(&["given", "--slug", "given"], b"")
    };
    for named in [link("to-work", &real), real.join("../work"), real.clone()] {
        let output = planned(&named);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            plan["workspace"]["from"],
            real.to_str().expect("UTF-8"),
            "{}",
            named.display()
        );
    }
    // The bottles' own folder by another name is still it.
    for named in [link("to-home", home.path()), real.join("..")] {
        let output = planned(&named);
        assert_eq!(output.status.code(), Some(3), "{}", named.display());
        assert!(text(&output.stderr).contains("holds your home"));
    }
}

#[test]
fn diff_says_what_is_gained_and_answers_as_diff_does() {
    let home = Home::new();
    let differs = home.run(&["diff", "old.json", "new.json"], b"");
    assert_eq!(differs.status.code(), Some(1));
    assert_eq!(
        text(&differs.stdout),
        "gains: POST to api.example.com/v1/*\nchanges: the agent's name: old -> new\n\
         changes: the bottle `new` is new\nchanges: the bottle `old` is gone\n"
    );
    let same = home.run(&["diff", "old.json", "./old.json"], b"");
    assert_eq!((same.status.code(), text(&same.stdout)), (Some(0), ""));
    assert!(text(&same.stderr).contains("the same authority"));
    let silent = home.run(&["-q", "diff", "old.json", "old.json"], b"");
    assert_eq!(text(&silent.stderr), "");
}

#[test]
fn diff_reads_a_bottle_and_stdin() {
    let home = Home::new();
    fs::copy(
        home.path().join("old.json"),
        home.path().join("state/one/plan.json"),
    )
    .expect("copies");
    let new = fs::read(home.path().join("new.json")).expect("reads");
    let output = home.run(&["--json", "diff", "one", "-"], &new);
    assert_eq!(output.status.code(), Some(1));
    let diff: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(diff["schema"], "bottle.diff/v1");
    assert_eq!(diff["same"], false);
    assert_eq!(diff["changes"][0]["effect"], "gains");
    assert_eq!(diff["changes"][0]["text"], "POST to api.example.com/v1/*");
}

#[test]
fn trouble_is_never_a_difference() {
    let home = Home::new();
    fs::write(home.path().join("broken.json"), "{").expect("write");
    fs::write(home.path().join("compose.json"), r#"{"x-bottle": {}}"#).expect("write");
    for (args, code, said) in [
        (
            ["diff", "nosuch", "new.json"],
            4,
            "neither a file nor a bottle",
        ),
        (["diff", "no/such", "new.json"], 4, "cannot read"),
        (["diff", "broken.json", "new.json"], 2, "not valid JSON"),
        (["diff", "compose.json", "new.json"], 2, "a rendered file"),
        (["diff", "bottles", "new.json"], 4, "neither a file"),
        (["diff", "./bottles", "new.json"], 2, "cannot read"),
        (["diff", "-", "-"], 2, "only one"),
        (["diff", "-", "new.json"], 2, "stdin"),
    ] {
        let output = home.run(&args, b"");
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains(said) && stderr.contains("hint: "),
            "{stderr}"
        );
    }
}

/// The sidecar that decides, when the whole workspace was built.
fn sidecar() -> Option<std::path::PathBuf> {
    let beside = Path::new(env!("CARGO_BIN_EXE_bottle-plan")).with_file_name("bottle-sidecar");
    let named = std::env::var_os("BOTTLE_SIDECAR").map(std::path::PathBuf::from);
    named.or(Some(beside)).filter(|path| path.is_file())
}

/// Said where `scripts/test` counts it: a skipped test must not pass for a green one.
fn skipped(name: &str, why: &str) {
    if let Some(path) = std::env::var_os("BOTTLE_SKIP_LOG") {
        let log = fs::OpenOptions::new().append(true).create(true).open(path);
        writeln!(log.expect("opens"), "{name}: {why}").expect("writes");
    }
}

/// An audit of these requests: method, host, path, decision, reason, rule.
fn audit(home: &Home, requests: &[[&str; 6]]) {
    let folder = home.path().join("state/one/audit");
    fs::create_dir_all(&folder).expect("mkdir");
    let line = |[method, host, path, decision, reason, rule]: &[&str; 6]| {
        serde_json::json!({
            "schema": "bottle.audit/v1", "time": "2026-11-23T16:00:00.000Z", "seq": 0, "id": "1-0", "bottle": "one",
            "way": "proxy", "method": method, "host": host, "port": 443, "path": path, "decision": decision,
            "reason": reason, "rule": rule, "status": 200, "bytes_in": 0, "bytes_out": 0, "ms": 0, "slot": null,
            "dlp": [], "left": null, "count": 1, "dropped": null, "prev": "0",
        })
        .to_string()
    };
    let lines: Vec<String> = requests.iter().map(line).collect();
    fs::write(folder.join("audit.jsonl"), lines.join("\n") + "\n").expect("write");
}

const OBSERVED: &str = "egress.mode: observe";

#[test]
fn learn_proposes_what_then_is_a_bottle() {
    let home = Home::new();
    audit(
        &home,
        &[
            [
                "GET",
                "api.example.com",
                "/v1/models",
                "allow",
                "allowed",
                OBSERVED,
            ],
            [
                "POST",
                "api.example.com",
                "/v1/messages",
                "allow",
                "allowed",
                OBSERVED,
            ],
            [
                "GET",
                "new.example.com",
                "/x",
                "deny",
                "host_not_allowed",
                "",
            ],
        ],
    );
    let output = home.run(&["learn", "one"], b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("read these rules twice"));
    let manifest = format!("image: x\n{}", text(&output.stdout));
    fs::write(home.path().join("bottles/learnt.yaml"), &manifest).expect("write");
    let planned = home.run(&["learnt", "--check"], b"");
    assert!(
        planned.status.success(),
        "{manifest}{}",
        text(&planned.stderr)
    );
    assert!(!manifest.contains("new.example.com"));
    let denied = home.run(&["learn", "one", "--denied"], b"");
    assert!(text(&denied.stdout).contains("new.example.com"));
}

#[test]
fn nothing_to_learn_from_is_said() {
    let home = Home::new();
    audit(
        &home,
        &[[
            "GET",
            "a.example.com",
            "/",
            "allow",
            "allowed",
            "web.yaml:3",
        ]],
    );
    for (args, said) in [
        (["learn", "one"], "egress.mode: observe"),
        (["learn", "nosuch"], "has no audit"),
        (["learn", "../x"], "is not a slug"),
    ] {
        let output = home.run(&args, b"");
        assert!(matches!(output.status.code(), Some(2 | 4)), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains(said) && stderr.contains("hint: "),
            "{stderr}"
        );
    }
}

#[test]
fn replay_tells_what_would_flip() {
    let Some(sidecar) = sidecar() else {
        skipped("replay", "bottle-sidecar is not built");
        return;
    };
    let home = Home::new();
    audit(
        &home,
        &[
            [
                "GET",
                "api.example.com",
                "/v1/models",
                "allow",
                "allowed",
                "old.yaml:2",
            ],
            [
                "POST",
                "api.example.com",
                "/v1/messages",
                "deny",
                "method_not_allowed",
                "old.yaml:2",
            ],
            [
                "GET",
                "gone.example.com",
                "/",
                "allow",
                "allowed",
                "old.yaml:9",
            ],
            [
                "GET",
                "leak.example.com",
                "/",
                "deny",
                "secret_leak",
                "old.yaml:9",
            ],
            [
                "GET",
                "api.example.com",
                "[redacted]",
                "allow",
                "allowed",
                "old.yaml:2",
            ],
        ],
    );
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_bottle-plan"))
            .env_clear()
            .env("BOTTLE_HOME", home.path())
            .env("BOTTLE_SIDECAR", &sidecar)
            .current_dir(home.path())
            .args(args)
            .output()
            .expect("runs")
    };
    let output = run(&["replay", "one", "--policy", "new.json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "now allowed: POST api.example.com/v1/messages (was method_not_allowed, is allowed, new.yaml:2; 1 time)\n\
         now denied: GET gone.example.com/ (was allowed, is host_not_allowed; 1 time)\n"
    );
    assert!(text(&output.stderr).contains("1 request not recorded well enough"));
    audit(
        &home,
        &[[
            "GET",
            "api.example.com",
            "/v1/models",
            "allow",
            "allowed",
            "x",
        ]],
    );
    let same = run(&["--json", "replay", "one", "--policy", "old.json"]);
    assert_eq!(same.status.code(), Some(0));
    let document: serde_json::Value = serde_json::from_slice(&same.stdout).expect("JSON");
    assert_eq!(
        (&document["schema"], &document["requests"]),
        (&"bottle.replay/v1".into(), &1.into())
    );
}

#[test]
fn replay_without_a_sidecar_or_policy_says_so() {
    let home = Home::new();
    audit(
        &home,
        &[["GET", "a.example.com", "/", "allow", "allowed", "x"]],
    );
    fs::write(
        home.path().join("other.json"),
        r#"{"schema": "bottle.handle/v1"}"#,
    )
    .expect("write");
    let output = home.run(&["replay", "one", "--policy", "other.json"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("neither a plan nor a policy"));
    let output = Command::new(env!("CARGO_BIN_EXE_bottle-plan"))
        .env_clear()
        .env("BOTTLE_HOME", home.path())
        .env("BOTTLE_SIDECAR", "/nonexistent")
        .current_dir(home.path())
        .args(["replay", "one", "--policy", "old.json"])
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("scripts/build"));
}
