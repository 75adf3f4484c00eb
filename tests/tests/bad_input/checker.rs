//! What must hold for every failed call.

use bottle_tests::{Call, Done};
use serde_json::Value;

/// A call that must fail: its arguments, its exit code, and a part of its message.
pub(crate) type Bad<'a> = (&'a [&'a str], i32, &'a str);

/// Checks one failed call and says what is wrong with it, so that a table can report all of its lines at once.
pub(crate) fn complaints(
    tool: &str,
    call: impl Fn() -> Call,
    &(args, code, says): &Bad<'_>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |holds: bool, what: String| {
        if !holds {
            wrong.push(format!("{tool} {args:?}: {what}"));
        }
    };
    let plain = call().args(args.iter().copied()).run();
    check(
        plain.code() == code,
        format!("exit {}, not {code}: {}", plain.code(), plain.stderr),
    );
    check(
        plain.stdout.is_empty(),
        format!("stdout is not empty: {}", plain.stdout),
    );
    check(
        plain.stderr.contains(says),
        format!("does not say {says:?}: {}", plain.stderr),
    );
    check(
        plain.stderr.starts_with(&format!("{tool}: ")),
        format!("does not begin with its name: {}", plain.stderr),
    );
    check(
        plain
            .stderr
            .lines()
            .any(|line| line.starts_with("hint: ") && line.len() > 6),
        format!("no hint: {}", plain.stderr),
    );
    check(
        !plain.stderr.contains("panicked"),
        format!("panics: {}", plain.stderr),
    );

    let as_json = call().args(["--json"]).args(args.iter().copied()).run();
    check(
        as_json.code() == code,
        format!(
            "--json: exit {}, not {code}: {}",
            as_json.code(),
            as_json.stderr
        ),
    );
    check(
        as_json.stdout.is_empty(),
        format!("--json: stdout is not empty: {}", as_json.stdout),
    );
    check(
        is_error_object(&as_json, tool, code),
        format!("--json: not one error object: {}", as_json.stderr),
    );
    wrong
}

/// What is wrong with a message that has to help a person: `says` is in it, and `hint` in the line below.
pub(crate) fn unhelpful(done: &Done, code: i32, says: &str, hint: &str) -> Vec<String> {
    let (message, hinted) = done.stderr.split_once("\nhint: ").unwrap_or_default();
    let checks = [
        (
            done.code() == code,
            format!("exit {}, not {code}", done.code()),
        ),
        (message.contains(says), format!("does not say {says:?}")),
        (hinted.contains(hint), format!("does not hint at {hint:?}")),
        (
            hinted.lines().count() == 1,
            "the hint is not one line".to_owned(),
        ),
    ];
    let wrong = checks.into_iter().filter(|(holds, _)| !holds);
    wrong
        .map(|(_, what)| format!("{what}: {}", done.stderr))
        .collect()
}

fn is_error_object(done: &Done, tool: &str, code: i32) -> bool {
    let object: Value = serde_json::from_str(&done.stderr).unwrap_or_default();
    let text = |key: &str| object[key].as_str().is_some_and(|text| !text.is_empty());
    object["code"] == code
        && object["tool"] == tool
        && text("error")
        && text("kind")
        && text("hint")
}

/// Gathers complaints over several tables and reports all at once.
pub(crate) struct Checker {
    pub(crate) tool: &'static str,
    pub(crate) wrong: Vec<String>,
}

impl Checker {
    pub(crate) fn new(tool: &'static str) -> Self {
        Self {
            tool,
            wrong: Vec::new(),
        }
    }

    pub(crate) fn check(&mut self, call: impl Fn() -> Call, table: &[Bad<'_>]) {
        self.wrong.extend(
            table
                .iter()
                .flat_map(|bad| complaints(self.tool, &call, bad)),
        );
    }

    pub(crate) fn report(self) {
        assert!(
            self.wrong.is_empty(),
            "{} complaints:\n{}",
            self.wrong.len(),
            self.wrong.join("\n")
        );
    }
}
