//! The filter: a plan in, the same plan and two fields more out, or nothing at all.

// Helpers of a test are no `#[test]` for clippy.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::{CERT, KEY, Place, binary, have, tool};
use predicates::prelude::PredicateBooleanExt as _;
use predicates::str::contains;
use serde_json::{Value, json};

fn plan(place: &Place) -> Value {
    json!({
        "schema": "bottle.plan/v1",
        "slug": "demo-x1y2z",
        "agent": {"command": ["sh", "-c", "echo \u{e4} \"$HOME\" \\ \u{7f}"], "deep": [[[{"": null}]]]},
        "numbers": [0, -1, 18_446_744_073_709_551_615_u64, 0.1, 1e300],
        "egress": {
            "ca": {"dir": place.dir, "unknown": {"kept": true}},
            "routes": [
                {"host": "api.example.com", "auth": {"token_ref": "A"}},
                {"host": "opaque.example.net", "tls": "passthrough"},
            ],
        },
    })
}

fn filter(plan: &Value) -> assert_cmd::Command {
    let mut command = tool();
    command.write_stdin(plan.to_string());
    command
}

fn product(command: &mut assert_cmd::Command) -> Value {
    let assert = command.assert().success();
    serde_json::from_slice(&assert.get_output().stdout).unwrap()
}

#[test]
fn the_plan_passes_through_with_two_fields_more() {
    let place = Place::new();
    let plan = plan(&place);
    let mut made = product(&mut filter(&plan));
    assert_eq!(place.names(), [CERT, KEY]);
    let authority = bottle_ca::read(&place.dir).unwrap();
    assert_eq!(authority.common_name(), "bottle egress CA demo-x1y2z");
    assert_eq!(
        authority.scope().hosts().collect::<Vec<_>>(),
        ["api.example.com"]
    );

    let ca = made["egress"]["ca"].as_object_mut().unwrap();
    assert_eq!(ca.remove("fingerprint").unwrap(), authority.fingerprint());
    assert_eq!(
        ca.remove("not_after").unwrap(),
        bottle_ca::rfc3339(authority.not_after())
    );
    assert_eq!(made, plan);
}

#[test]
fn keys_come_out_in_the_order_of_serde_json_and_the_text_ends_in_one_newline() {
    let place = Place::new();
    let assert = filter(&plan(&place)).assert().success();
    let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    assert!(
        text.starts_with("{\n  \"") && text.ends_with("\n}\n"),
        "{text}"
    );
}

#[test]
fn the_filter_is_idempotent_and_says_what_it_did() {
    let place = Place::new();
    let first = product(filter(&plan(&place)).arg("--quiet"));
    filter(&first)
        .assert()
        .success()
        .stderr(contains("bottle-ca: kept"));
    assert_eq!(product(filter(&first).arg("--quiet")), first);
    let renewed = product(filter(&first).arg("--renew"));
    assert_ne!(
        renewed["egress"]["ca"]["fingerprint"],
        first["egress"]["ca"]["fingerprint"]
    );
}

#[test]
fn minting_is_silent_when_asked_and_one_line_otherwise() {
    let place = Place::new();
    filter(&plan(&place))
        .arg("--quiet")
        .assert()
        .success()
        .stderr("");
    let place = Place::new();
    let assert = filter(&plan(&place)).assert().success();
    let text = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(
        text.starts_with("bottle-ca: minted ") && text.lines().count() == 1,
        "{text}"
    );
}

#[test]
fn another_policy_is_a_conflict_and_nothing_is_written() {
    let place = Place::new();
    let mut plan = plan(&place);
    filter(&plan).assert().success();
    let before = place.contents();
    plan["egress"]["routes"] = json!([{"host": "other.example"}]);
    filter(&plan)
        .assert()
        .code(5)
        .stdout("")
        .stderr(contains("--renew"));
    assert_eq!(place.contents(), before);
    filter(&plan).arg("--renew").assert().success();
    assert_eq!(
        bottle_ca::read(&place.dir)
            .unwrap()
            .scope()
            .hosts()
            .collect::<Vec<_>>(),
        ["other.example"]
    );
}

#[test]
fn another_schema_version_is_named() {
    let place = Place::new();
    let mut plan = plan(&place);
    plan["schema"] = json!("bottle.plan/v2");
    filter(&plan)
        .assert()
        .code(2)
        .stdout("")
        .stderr(contains("`bottle.plan/v2`").and(contains("bottle.plan/v1")));
    assert!(!place.dir.exists());
}

#[test]
fn what_is_no_plan_is_refused_with_a_hint() {
    for (input, reason) in [
        ("", "which is empty"),
        (" \n", "which is empty"),
        ("{\"schema\":", "not JSON"),
        ("{} {}", "not JSON"),
        ("[]", "names no schema"),
        ("services:\n  agent: {}\n", "not JSON"),
    ] {
        tool()
            .write_stdin(input)
            .assert()
            .code(2)
            .stdout("")
            .stderr(contains(reason).and(contains("hint: bottle-plan NAME | bottle-ca")));
    }
    tool()
        .write_stdin(vec![b'"', 0xff, b'"'])
        .assert()
        .code(2)
        .stdout("");
    // Nesting without end must not end in a stack overflow.
    tool()
        .write_stdin("[".repeat(1_000_000))
        .assert()
        .code(2)
        .stdout("");
}

#[test]
fn a_terminal_as_stdin_is_refused_at_once() {
    if !have("script") {
        return;
    }
    let output = Command::new("script")
        .args(["-qec", binary().to_str().unwrap(), "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("which is a terminal"), "{text}");
}

#[test]
fn errors_are_one_json_object_when_asked() {
    for arguments in [
        &["--json"][..],
        &["--json", "show"],
        &["--json", "--no-such-flag"],
        &["show", "--dir", "/nowhere", "--json"],
    ] {
        let assert = tool().args(arguments).write_stdin("").assert().stdout("");
        let error: Value = serde_json::from_slice(&assert.get_output().stderr).unwrap();
        assert_eq!(error["tool"], "bottle-ca");
        assert_eq!(error["code"], assert.get_output().status.code().unwrap());
    }
}

#[test]
fn wrong_usage_is_code_2() {
    for arguments in [
        &["mint"][..],
        &["show"],
        &["nonsense"],
        &["--renew", "show", "--dir", "/nowhere"],
    ] {
        tool()
            .args(arguments)
            .write_stdin("")
            .assert()
            .code(2)
            .stdout("");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    tool()
        .arg("--help")
        .assert()
        .success()
        .stdout(contains("bottle-plan demo | bottle-ca"))
        .stderr("");
    tool()
        .arg("--version")
        .assert()
        .success()
        .stdout(contains("bottle-ca 0."))
        .stderr("");
}

/// Runs the filter with `stdout` and gives its exit code and what it said.
fn with_stdout(plan: &Value, stdout: Stdio) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("plan.json");
    fs::write(&input, plan.to_string()).unwrap();
    let output = Command::new(binary())
        .arg("--quiet")
        .stdin(fs::File::open(&input).unwrap())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn a_closed_stdout_pipe_is_silent() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(
        with_stdout(&plan(&place), writer.into()),
        (Some(0), String::new())
    );
}

#[test]
fn a_full_disk_behind_stdout_is_a_failure() {
    let place = Place::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let (code, text) = with_stdout(&plan(&place), full.into());
    assert_eq!(code, Some(1));
    assert!(text.contains("cannot write to stdout"), "{text}");
}

#[test]
fn neither_stream_ever_shows_the_key() {
    let place = Place::new();
    let filtered = filter(&plan(&place)).assert().success();
    let shown = tool()
        .args(["show", "--json", "--dir"])
        .arg(&place.dir)
        .assert()
        .success();
    let (key, _) = place.contents();
    for output in [filtered.get_output(), shown.get_output()] {
        let text =
            String::from_utf8([output.stdout.clone(), output.stderr.clone()].concat()).unwrap();
        assert!(!text.contains("PRIVATE") && !text.contains(key.lines().nth(1).unwrap()));
    }
}
