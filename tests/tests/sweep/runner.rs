//! `bottle-run`: `up`, `down` and `exec`.

use std::fs;

use bottle_tests::Home;
use bottle_tests::engine::need_engine;
use bottle_tests::fake::{FakeDocker, Logged};
use serde_json::json;

use crate::points::{AT_ONCE, sweep, sweep_part};
use crate::{KILL, at, collect, home, nothing_is_left, run};

#[test]
fn up_recovers_from_a_signal_at_any_call() {
    if !need_engine("up_recovers_from_a_signal_at_any_call") {
        return;
    }
    let calls = calls_of_up(&home()).len();
    sweep("up", calls, &|call, signal| {
        // A home of its own: `gc` looks at all that is in one.
        up_at("up", &home(), call, signal);
    });
}

/// What is put into a bottle, from the archive of files to the values that a pipe brings: the calls that `up` does not make
/// for a bottle without them, and those that carry more for this one.
#[test]
fn provisioning_recovers_from_a_signal_at_any_call() {
    if !need_engine("provisioning_recovers_from_a_signal_at_any_call") {
        return;
    }
    let full = || {
        let home = Home::with_env(&[("TEST_GIVEN", "given-to-the-agent-0123456789abcdef")]);
        home.bottle(
            "web",
            "image: debian:trixie-slim\nenv: {GIVEN: '${TEST_GIVEN}'}\nskills: [review]\nsupervise: true\n\
             workspace: {from: cwd, mode: copy}\n",
        );
        home.write("skills/review/SKILL.md", "how to review\n");
        fs::write(home.cwd().join("file"), "work\n").expect("written");
        home
    };
    let calls = calls_of_up(&full());
    let first = calls
        .iter()
        .position(|call| call.args.iter().any(|arg| arg == "cp"));
    let first = first.expect("files are copied") + 1;
    sweep_part(
        "provision",
        first..=calls.len(),
        AT_ONCE,
        &|call, signal| {
            up_at("provision", &full(), call, signal);
        },
    );
}

/// The calls of the engine that a whole `up` of the bottle `web` makes.
fn calls_of_up(home: &Home) -> Vec<Logged> {
    let whole = FakeDocker::behind(Vec::new());
    let slug = home.slug("u0");
    let file = home.render(&home.plan("web", &slug));
    let _ = run(home, &whole, &["up"], &file).ok();
    home.down(&slug);
    whole.calls()
}

fn up_at(what: &str, home: &Home, call: u32, signal: i32) {
    let slug = home.slug(&format!("u{call}-{signal}"));
    let point = format!("{what}, call {call}, signal {signal}");
    let file = home.render(&home.plan("web", &slug));
    let engine = at(call, signal);
    let done = run(home, &engine, &["up"], &file);
    match done.code() {
        // The signal came after the last moment at which it could still undo: the handle was printed.
        0 => {
            assert_ne!(signal, KILL, "{point}");
            assert_eq!(done.clone().json()["slug"], slug.as_str(), "{point}");
            home.down(&slug);
        }
        137 => assert_eq!(signal, KILL, "{point}: {}", done.stderr),
        code => {
            assert_eq!(
                (code, done.stdout.as_str()),
                (1, ""),
                "{point}: {}",
                done.stderr
            );
            assert_eq!(
                home.left_of(&slug),
                Vec::<String>::new(),
                "{point}, before gc"
            );
        }
    }
    collect(home, &slug, &point);
    nothing_is_left(home, &slug, &point);
}

#[test]
fn down_recovers_from_a_signal_at_any_call() {
    if !need_engine("down_recovers_from_a_signal_at_any_call") {
        return;
    }
    let home = home();
    let whole = FakeDocker::behind(Vec::new());
    let first = home.up("web", &home.slug("d0"));
    let _ = run(&home, &whole, &["down", &first.slug], "").ok();
    let calls = whole.calls().len();
    sweep("down", calls, &|call, signal| {
        // A home of its own: `gc` looks at all that is in one.
        let home = &self::home();
        let slug = home.slug(&format!("d{call}-{signal}"));
        let point = format!("down, call {call}, signal {signal}");
        let bottle = home.up("web", &slug);
        // What the audit and the logs are kept for must outlive every way to end.
        assert_eq!(bottle.exec(&["true"]).code(), 0, "{point}");
        let engine = at(call, signal);
        let _ = run(home, &engine, &["down", &slug], "");
        collect(home, &slug, &point);
        nothing_is_left(home, &slug, &point);
        let audit = fs::read_dir(home.state(&slug).join("audit")).expect("the audit");
        assert!(audit.count() > 0, "{point}: the audit is lost");
    });
}

#[test]
fn exec_harms_nothing_when_it_is_killed() {
    if !need_engine("exec_harms_nothing_when_it_is_killed") {
        return;
    }
    let home = home();
    let bottle = home.up("web", &home.slug("e"));
    let whole = FakeDocker::behind(Vec::new());
    let args = ["exec", &bottle.slug, "--", "true"];
    let _ = run(&home, &whole, &args, "").ok();
    // The last call is the client that `exec` becomes: whoever called us is its parent.
    let calls = whole.calls().len() - 1;
    sweep("exec", calls, &|call, signal| {
        let point = format!("exec, call {call}, signal {signal}");
        let _ = run(&home, &at(call, signal), &args, "");
        let done = home.tool("bottle-run").args(["gc", "--json"]).run().json();
        assert_eq!(done["removed"], json!([]), "{point}");
        assert_eq!(bottle.exec(&["true"]).code(), 0, "{point}");
    });
}
