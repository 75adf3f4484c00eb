//! The tools together: any way of putting them in a row gives the same bottle, and none of them leaves anything behind.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

mod interrupted;
mod life;
mod stages;

use bottle_tests::Home;
use serde_json::Value;

const WEB: &str = "\
image: debian:trixie-slim
env: {GREETING: hello, ODD: 'a$b ${c} \"d\" #e'}
egress:
  routes:
    - {host: api.example.com, auth: {scheme: Bearer, token_ref: TEST_TOKEN}}
";

fn home() -> Home {
    let home = Home::with_env(&[("TEST_TOKEN", "tok-pipeline-0123456789")]);
    home.bottle("web", WEB);
    home
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
