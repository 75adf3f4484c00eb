//! What the suites share.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use bottle_plan::plan::Plan;
use serde_json::Value;

/// The folder of the golden pairs.
pub(crate) fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/render")
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The plan of a golden case.
pub(crate) fn golden_plan(case: &str) -> Plan {
    bottle_render::plan_from_json(&read(&golden_dir().join(case).join("plan.json")))
        .expect("a valid plan")
}

/// Says that a test could not run; not captured, so that nobody takes it for a pass.
pub(crate) fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Runs `command` with `stdin` and returns what came out, whatever its status.
pub(crate) fn run(command: &mut Command, stdin: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut pipe = child.stdin.take().expect("a pipe");
    let text = stdin.to_owned();
    // From a thread: both sides may have more to say than a pipe holds. Who ends early does not read it all.
    let writer = std::thread::spawn(move || {
        let _ = pipe.write_all(text.as_bytes());
    });
    let output = child.wait_with_output().expect("a child that ends");
    writer.join().expect("a writer that ends");
    output
}

/// `docker` with nothing of this environment but what it takes to be found.
pub(crate) fn docker() -> Command {
    let mut command = Command::new("docker");
    command.env_clear();
    for name in [
        "PATH",
        "HOME",
        "DOCKER_HOST",
        "DOCKER_CONFIG",
        "DOCKER_CONTEXT",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Whether the Compose plugin is there. It needs no daemon for `config`.
pub(crate) fn has_compose() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        docker()
            .args(["compose", "version"])
            .output()
            .is_ok_and(|output| output.status.success())
    })
}

/// `docker compose` as `bottle-run` calls it, reading `file` from stdin. A file of variables and one of project settings
/// lie in its way, and no effect of them may be seen.
pub(crate) fn compose(file: &str, arguments: &[&str]) -> Output {
    let empty = tempfile::tempdir().expect("a folder");
    let trap = tempfile::tempdir().expect("a folder");
    std::fs::write(
        trap.path().join(".env"),
        "X=leaked\nCOMPOSE_PROJECT_NAME=leaked\n",
    )
    .expect("a file");
    let mut command = docker();
    command
        .current_dir(trap.path())
        .env("X", "leaked")
        .args(["compose", "--env-file", "/dev/null", "--project-directory"])
        .arg(empty.path())
        .args(["-f", "-"])
        .args(arguments);
    run(&mut command, file)
}

/// What Compose makes of `file`, with the `$` it doubles on output halved again. Its output doubles those of keys too,
/// which it leaves alone on input.
pub(crate) fn compose_config(file: &str) -> Value {
    let output = compose(file, &["config", "--format", "json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "compose refuses the file: {stderr}\n{file}"
    );
    // It warns of variables it replaced.
    assert!(
        !stderr.contains("is not set"),
        "compose found something to interpolate: {stderr}\n{file}"
    );
    halved(serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// What Compose carries at `x-bottle` is `plan`: every text, number and key of it. An empty list comes out as null, in
/// Compose's output only; whoever reads the file itself gets the list.
#[track_caller]
pub(crate) fn assert_carried(config: &Value, plan: &Plan) {
    fn without_empty_lists(value: Value) -> Value {
        match value {
            Value::Array(values) if values.is_empty() => Value::Null,
            Value::Array(values) => values.into_iter().map(without_empty_lists).collect(),
            Value::Object(members) => members
                .into_iter()
                .map(|(key, value)| (key, without_empty_lists(value)))
                .collect(),
            other => other,
        }
    }
    let expected = serde_json::to_value(plan).expect("JSON");
    assert_eq!(
        without_empty_lists(config["x-bottle"].clone()),
        without_empty_lists(expected)
    );
}

fn halved(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("$$", "$")),
        Value::Array(values) => values.into_iter().map(halved).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(key, value)| (key.replace("$$", "$"), halved(value)))
            .collect(),
        other => other,
    }
}
