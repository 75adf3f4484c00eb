//! The command line: what it says, where it says it, and how it ends.

use std::process::{Command, Output, Stdio};

use bottle_render::{Options, compose, to_json, to_yaml};
use serde_json::Value;

use crate::support::{golden_dir, golden_plan, read, run};

fn tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bottle-render"))
}

fn minimal() -> String {
    read(&golden_dir().join("minimal/plan.json"))
}

fn render(arguments: &[&str], stdin: &str) -> Output {
    run(tool().args(arguments), stdin)
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

/// Nothing on stdout, and on stderr one line that has `part` and one with a hint.
#[track_caller]
fn assert_refused(output: &Output, code: i32, part: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    assert_eq!(stdout(output), "");
    let text = stderr(output);
    assert!(
        text.starts_with("bottle-render: ") && text.contains(part),
        "{text}"
    );
    assert!(text.contains("\nhint: "), "{text}");
}

/// The minimal plan with the value at `pointer` replaced.
fn with(pointer: &str, value: Value) -> String {
    let mut plan: Value = serde_json::from_str(&minimal()).expect("JSON");
    let place = pointer.rsplit_once('/').expect("a pointer");
    let parent = plan.pointer_mut(place.0).expect("a place in the plan");
    match parent {
        Value::Array(list) => list.push(value),
        parent => parent[place.1] = value,
    }
    plan.to_string()
}

/// The golden files are compared with the same function, in `golden.rs`.
#[test]
fn stdout_is_the_document_and_stderr_is_silent() {
    let plan = golden_plan("minimal");
    let document = |standalone| compose(&plan, Options { standalone }).expect("renders");
    for (arguments, expected) in [
        (&[][..], to_yaml(&document(false))),
        (&["--standalone"], to_yaml(&document(true))),
        (&["--format", "json"], to_json(&document(false))),
    ] {
        let output = render(arguments, &minimal());
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(stdout(&output), expected.expect("a document"));
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn json_is_the_same_document() {
    let json = render(&["--format", "json"], &minimal());
    let yaml = render(&[], &minimal());
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let yaml: Value = serde_yaml::from_str(stdout(&yaml)).expect("YAML");
    assert_eq!(json, yaml);
}

#[test]
fn no_plan_is_exit_code_two_with_a_hint() {
    assert_refused(&render(&[], ""), 2, "stdin, which is empty");
    assert_refused(&render(&[], " \n"), 2, "stdin, which is empty");
    assert_refused(
        &render(&[], "{\"schema\":"),
        2,
        "not JSON: EOF while parsing",
    );
    assert_refused(&render(&[], "[]"), 2, "not an object");
    assert_refused(&render(&[], "{}"), 2, "names no schema");
    assert_refused(&render(&[], "name: 'bottle-x'\n"), 2, "not JSON");
}

#[test]
fn another_version_is_named_and_so_is_ours() {
    let output = render(&[], &with("/schema", "bottle.plan/v2".into()));
    assert_refused(
        &output,
        2,
        "the schema is `bottle.plan/v2`, and this version reads `bottle.plan/v1`",
    );
}

#[test]
fn an_unknown_key_is_named_with_its_place() {
    assert_refused(
        &render(&[], &with("/agent/image/privileged", true.into())),
        2,
        "at `agent.image.privileged`",
    );
    assert_refused(
        &render(&[], &with("/runtime", "docker".into())),
        2,
        "at `runtime`",
    );
    // The second of two would win elsewhere.
    let twice = minimal().replacen("\"slug\":", "\"slug\": \"other\", \"slug\":", 1);
    assert_refused(&render(&[], &twice), 2, "duplicate field `slug`");
}

#[test]
fn what_no_bottle_gets_is_refused() {
    use serde_json::json;
    let mount = |from: &str, to: &str| json!({"mode": "mount", "from": from, "workdir": to});
    let network = |name: &str, subnet: &str, gateway: &str| json!({"name": name, "subnet": subnet, "gateway": gateway});
    let auth = |slot: &str| json!({"host": "github.com", "ports": [443], "auth": {"scheme": "bearer", "header": "authorization", "slot": slot}});
    for (pointer, value, code, part) in [
        ("/slug", json!("../etc"), 2, "is not a slug"),
        ("/slug", json!("other"), 2, "project is"),
        ("/project", json!("demo"), 2, "project is"),
        ("/digest", json!("sha256:0"), 2, "digest is"),
        ("/state", json!("state"), 2, "not an absolute path"),
        ("/state", json!("/a/../b"), 2, "not an absolute path"),
        ("/state", json!("/a//b"), 2, "not an absolute path"),
        ("/state", json!("/a\nb"), 2, "control character"),
        ("/isolation", json!("closed"), 2, "isolation"),
        ("/agent/user", json!("agent"), 2, "not two numbers"),
        ("/agent/user", json!("+1:1"), 2, "not two numbers"),
        ("/agent/user", json!("10001"), 2, "not two numbers"),
        ("/agent/user", json!("0:0"), 3, "never runs as root"),
        ("/agent/user", json!("10001:0"), 3, "never runs as root"),
        ("/agent/home", json!("/"), 2, "root of the container"),
        ("/agent/workdir", json!("work"), 2, "not an absolute path"),
        ("/agent/command", json!([]), 2, "names no program"),
        ("/agent/command", json!(["a\0"]), 2, "NUL"),
        (
            "/agent/image/reference",
            json!("--privileged"),
            2,
            "not an image",
        ),
        ("/agent/image/reference", json!("a b"), 2, "not an image"),
        (
            "/agent/env/-",
            json!({"name": "A=B", "from": {"literal": ""}}),
            2,
            "not the name of a variable",
        ),
        (
            "/agent/env/-",
            json!({"name": "", "from": {"literal": ""}}),
            2,
            "not the name of a variable",
        ),
        (
            "/agent/env/-",
            json!({"name": "A", "from": {"literal": "\0"}}),
            2,
            "NUL",
        ),
        (
            "/agent/env/-",
            json!({"name": "A", "from": {"placeholder": "EGRESS_TOKEN_9"}}),
            2,
            "no route has a placeholder",
        ),
        (
            "/agent/env",
            json!([{"name": "A", "from": {"literal": ""}}, {"name": "A", "from": {"host": "B"}}]),
            2,
            "there twice",
        ),
        (
            "/agent/hardening/cap_add",
            json!(["NET_RAW"]),
            3,
            "would break the isolation",
        ),
        (
            "/agent/hardening/cap_add",
            json!(["ALL"]),
            3,
            "would break the isolation",
        ),
        (
            "/agent/hardening/cap_add",
            json!(["CAP_SYS_ADMIN"]),
            3,
            "would break the isolation",
        ),
        ("/agent/resources/memory", json!(0), 2, "memory"),
        ("/agent/resources/memory", json!(u64::MAX), 2, "memory"),
        ("/agent/resources/pids", json!(0), 2, "pids"),
        ("/agent/resources/millicpus", json!(0), 2, "millicpus"),
        ("/sidecar/user", json!("root"), 2, "not two numbers"),
        (
            "/egress/slots",
            json!([{"slot": "LD_PRELOAD", "host": "A"}]),
            2,
            "is not `EGRESS_TOKEN_`",
        ),
        (
            "/egress/slots",
            json!([{"slot": "EGRESS_TOKEN_0", "host": "A B"}]),
            2,
            "not the name of a variable",
        ),
        (
            "/egress/routes/-",
            auth("EGRESS_TOKEN_0"),
            2,
            "not in egress.slots",
        ),
        (
            "/networks/internal",
            network("host", "10.213.4.32/28", "10.213.4.33"),
            2,
            "cannot have the name",
        ),
        (
            "/networks/internal",
            network("-x", "10.213.4.32/28", "10.213.4.33"),
            2,
            "cannot have the name",
        ),
        (
            "/networks/internal",
            network("x", "10.213.4.33/28", "10.213.4.33"),
            2,
            "not a range for a bottle",
        ),
        (
            "/networks/internal",
            network("x", "10.213.4.32/30", "10.213.4.33"),
            2,
            "not a range for a bottle",
        ),
        (
            "/networks/internal",
            network("x", "10.213.4.32/28", "10.213.4.1"),
            2,
            "no host of",
        ),
        (
            "/networks/internal",
            network("x", "10.213.4.32/27", "10.213.4.33"),
            2,
            "overlap",
        ),
        (
            "/networks/egress",
            network("x", "10.213.4.48/28", "10.213.4.51"),
            2,
            "a sidecar gets",
        ),
        (
            "/networks/egress",
            network(
                "bottle-demo-x1y2z-internal",
                "10.213.4.48/28",
                "10.213.4.49",
            ),
            2,
            "one and the same",
        ),
        (
            "/networks/addresses/agent",
            json!("10.213.4.34"),
            2,
            "taken",
        ),
        (
            "/networks/addresses/agent",
            json!("10.213.4.47"),
            2,
            "no host of",
        ),
        (
            "/workspace",
            json!({"mode": "mount", "workdir": "/w"}),
            2,
            "no folder to mount",
        ),
        ("/workspace", mount("/", "/w"), 3, "must not be mounted"),
        (
            "/workspace",
            mount("/home/op", "/w"),
            3,
            "the bottle's state",
        ),
        (
            "/workspace",
            mount("/home/op/.bottle/state/demo-x1y2z/egress", "/w"),
            3,
            "the bottle's state",
        ),
        (
            "/workspace",
            mount("/var/run/docker.sock", "/w"),
            3,
            "the host's own",
        ),
        ("/workspace", mount("/var", "/w"), 3, "the host's own"),
        ("/workspace", mount("/proc/1", "/w"), 3, "the host's own"),
        ("/workspace", mount("/src", "/etc/x"), 2, "would cover"),
        (
            "/labels/com.docker.compose.project",
            json!("other"),
            2,
            "not the plan's to set",
        ),
        (
            "/labels/bottle.role",
            json!("egress"),
            2,
            "not the plan's to set",
        ),
        ("/labels/a b", json!(""), 2, "not a label"),
        (
            "/agent/provider",
            json!({"template": "x", "settings": {"a": [{"k".repeat(129): 1}]}}),
            2,
            "more than 128",
        ),
    ] {
        let output = render(&[], &with(pointer, value.clone()));
        assert!(
            stderr(&output).contains(part),
            "{pointer} = {value}: {}",
            stderr(&output)
        );
        assert_refused(&output, code, part);
    }
}

#[test]
fn two_placeholders_for_one_slot_are_refused() {
    let mut plan: Value =
        serde_json::from_str(&read(&golden_dir().join("hostile/plan.json"))).expect("JSON");
    plan["egress"]["routes"][1]["auth"]["slot"] = "EGRESS_TOKEN_0".into();
    assert_refused(
        &render(&[], &plan.to_string()),
        2,
        "two different placeholders",
    );
}

#[test]
fn errors_are_one_json_object_when_asked_for() {
    for (arguments, stdin) in [(&["--json"][..], "{}"), (&["--json", "--nonsense"][..], "")] {
        let output = render(arguments, stdin);
        assert_eq!(output.status.code(), Some(2));
        let error: Value = serde_json::from_slice(&output.stderr).expect("one JSON object");
        assert_eq!(
            (&error["tool"], &error["code"]),
            (&"bottle-render".into(), &2.into())
        );
        assert!(error["hint"].is_string());
    }
}

#[test]
fn usage_errors_are_exit_code_two() {
    for arguments in [&["--nonsense"][..], &["--format", "toml"], &["plan.json"]] {
        let output = render(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn help_has_examples_and_the_version_is_one_line() {
    let help = render(&["--help"], "");
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("bottle-plan demo | bottle-render --standalone"));
    let version = render(&["--version"], "");
    assert_eq!(
        stdout(&version),
        format!("bottle-render {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_closed_stdout_is_silent() {
    let mut child = tool()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    // Closed before the tool has anything to write, because its input is not complete yet.
    drop(child.stdout.take());
    std::io::Write::write_all(
        &mut child.stdin.take().expect("a pipe"),
        minimal().as_bytes(),
    )
    .expect("reads");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_full_disk_is_a_failure() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        return;
    };
    let mut child = tool()
        .stdin(Stdio::piped())
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    std::io::Write::write_all(
        &mut child.stdin.take().expect("a pipe"),
        minimal().as_bytes(),
    )
    .expect("reads");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("bottle-render: cannot write to stdout: "),
        "{}",
        stderr(&output)
    );
}
