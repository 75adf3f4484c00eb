//! The real engine: whether there is one, and calls of its command line.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::run::{Call, Done};
use crate::tools;

/// Whether the tests `name` stands for can use the engine. If not, says `SKIPPED:` and why, adds a line to
/// `$BOTTLE_SKIP_LOG`, and with `BOTTLE_REQUIRE_ENGINE=1` fails instead: a skipped test must not pass for a green one.
///
/// # Panics
/// When the engine is required and cannot be used.
#[must_use]
pub fn need_engine(name: &str) -> bool {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    match MISSING.get_or_init(missing) {
        None => true,
        Some(why) => {
            skip(name, why);
            false
        }
    }
}

/// Says that `name` is not tested and why; see [`need_engine`].
///
/// # Panics
/// With `BOTTLE_REQUIRE_ENGINE=1`.
pub fn skip(name: &str, why: &str) {
    let required = std::env::var_os("BOTTLE_REQUIRE_ENGINE").is_some_and(|value| value == "1");
    assert!(!required, "{name} cannot be tested: {why}");
    note_skipped(name, why);
}

/// The same for what the network decides, where a machine without it is no reason to fail.
///
/// # Panics
/// When the log cannot be written.
pub fn note_skipped(name: &str, why: &str) {
    eprintln!("SKIPPED: {name}: {why}");
    if let Some(path) = std::env::var_os("BOTTLE_SKIP_LOG") {
        let log = OpenOptions::new().append(true).create(true).open(&path);
        let mut log = log.expect("BOTTLE_SKIP_LOG can be appended to");
        writeln!(log, "{name}: {why}").expect("BOTTLE_SKIP_LOG can be written to");
    }
}

fn missing() -> Option<String> {
    let version = docker(["version", "--format", "{{.Server.Version}}"]);
    if !version.status.success() {
        return Some(format!("no engine answers: {}", version.stderr.trim()));
    }
    if tools::sidecar().is_none() {
        return Some("there is no static sidecar: scripts/build".to_owned());
    }
    if tools::testkit().is_none() {
        return Some("there is no static test kit: scripts/build --testkit".to_owned());
    }
    None
}

/// A call of the engine's command line.
#[must_use]
pub fn docker<I, A>(args: I) -> Done
where
    I: IntoIterator<Item = A>,
    A: Into<std::ffi::OsString>,
{
    Call::new("docker").args(args).run()
}

/// The lines of a successful call.
///
/// # Panics
/// When the call fails.
#[must_use]
pub fn docker_lines<I, A>(args: I) -> Vec<String>
where
    I: IntoIterator<Item = A>,
    A: Into<std::ffi::OsString>,
{
    docker(args).ok().lines().map(str::to_owned).collect()
}

/// What `docker inspect` says of a container in this format.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn inspected(container: &str, format: &str) -> String {
    let format = format!("--format={format}");
    docker(["inspect", &format, container])
        .ok()
        .trim()
        .to_owned()
}

/// Everything the engine has with a label, as `kind name`. Empty is what tests hope for.
///
/// # Panics
/// When the engine does not answer.
#[must_use]
pub fn labelled(label: &str) -> Vec<String> {
    let filter = format!("label={label}");
    let containers = docker_lines([
        "ps",
        "--all",
        "--filter",
        &filter,
        "--format",
        "container {{.Names}}",
    ]);
    let networks = docker_lines([
        "network",
        "ls",
        "--filter",
        &filter,
        "--format",
        "network {{.Name}}",
    ]);
    let volumes = docker_lines([
        "volume",
        "ls",
        "--filter",
        &filter,
        "--format",
        "volume {{.Name}}",
    ]);
    [containers, networks, volumes].concat()
}

/// Removes everything with a label, whatever state it is in, and images too. Meant for a fixture's end: it goes on over
/// errors, because the next thing must be removed all the same.
pub fn sweep(label: &str) {
    let filter = format!("label={label}");
    let ids = |args: &[&str]| -> Vec<String> {
        let listed = docker(args.iter().copied().chain(["--quiet", "--filter", &filter]));
        listed.stdout.lines().map(str::to_owned).collect()
    };
    let containers = ids(&["ps", "--all"]);
    if !containers.is_empty() {
        let _ = docker(
            ["rm", "--force", "--volumes"]
                .into_iter()
                .map(str::to_owned)
                .chain(containers),
        );
    }
    for network in ids(&["network", "ls"]) {
        disconnect_all(&network);
        let _ = docker(["network", "rm", &network]);
    }
    let images = ids(&["images"]);
    if !images.is_empty() {
        let _ = docker(
            ["rmi", "--force"]
                .into_iter()
                .map(str::to_owned)
                .chain(images),
        );
    }
}

/// A network with somebody on it cannot be removed.
fn disconnect_all(network: &str) {
    let format = "{{range .Containers}}{{.Name}} {{end}}";
    let found = docker(["network", "inspect", "--format", format, network]);
    for name in found.stdout.split_whitespace() {
        let _ = docker(["network", "disconnect", "--force", network, name]);
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within ten seconds; the message names `what`.
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    wait_within(Duration::from_secs(10), what, condition);
}

/// The same for what takes longer on a busy machine.
///
/// # Panics
/// When it does not hold within `patience`; the message names `what`.
pub fn wait_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < patience, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
