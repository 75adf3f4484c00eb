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
fn diff_says_what_is_gained_and_answers_as_diff_does() {
    let home = Home::new();
    let differs = home.run(&["diff", "old.json", "new.json"], b"");
    assert_eq!(differs.status.code(), Some(1));
    assert_eq!(
        text(&differs.stdout),
        "gains: POST to api.example.com/v1/*\nchanges: agent.name: old -> new\n\
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
