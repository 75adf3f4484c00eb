//! Wrong input, every tool: the documented exit code, one clear message with what to type next, nothing on stdout, and
//! the same as one JSON object for programs.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

mod ca;
mod checker;
mod newcomer;
mod plan;
mod render;
mod run;

use serde_json::Value;

const FAILED: i32 = 1;
const INVALID: i32 = 2;
const REFUSED: i32 = 3;
const NOT_FOUND: i32 = 4;
const CONFLICT: i32 = 5;
const AROUND_EXEC: i32 = 125;

const GOOD: &str = "image: debian:trixie-slim\n";

/// A plan that is good but for one change.
fn changed(plan: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut value: Value = serde_json::from_str(plan).expect("a plan is JSON");
    change(&mut value);
    value.to_string()
}
