//! The stages, without anything being started.

use std::process::Command;

use bottle_tests::engine::skip;
use bottle_tests::fake::{Rule, Script};
use bottle_tests::{Call, FakeDocker, Home, need_engine};
use serde_json::{Value, json};

use crate::{home, parsed};

fn as_json(home: &Home, plan: &str) -> Value {
    home.tool("bottle-render")
        .args(["--format", "json"])
        .stdin(plan)
        .run()
        .json()
}

#[test]
fn three_and_four_stages_give_the_same_bottle() {
    let home = home();
    let plan = home.plan("web", "a");
    let with_ca = home.tool("bottle-ca").stdin(plan.as_str()).run().ok();
    assert_eq!(parsed(&plan)["digest"], parsed(&with_ca)["digest"]);
    assert!(parsed(&with_ca)["egress"]["ca"]["fingerprint"].is_string());

    let (three, mut four) = (as_json(&home, &plan), as_json(&home, &with_ca));
    let ca = four
        .pointer_mut("/x-bottle/egress/ca")
        .and_then(Value::as_object_mut)
        .expect("the plan rides along");
    assert!(ca.remove("fingerprint").is_some() && ca.remove("not_after").is_some());
    assert_eq!(three, four);
}

#[test]
fn a_stage_twice_changes_nothing() {
    let home = home();
    assert_eq!(home.plan("web", "a"), home.plan("web", "a"));
    let plan = home.plan("web", "a");
    let once = home.tool("bottle-ca").stdin(plan.as_str()).run().ok();
    assert_eq!(once, home.tool("bottle-ca").stdin(once.as_str()).run().ok());
    assert_eq!(home.render(&once), home.render(&once));
}

#[test]
fn a_stage_can_be_any_program() {
    if Command::new("jq").arg("--version").output().is_err() {
        return skip("a_stage_can_be_any_program", "there is no jq");
    }
    let home = home();
    let jq = |filter: &str, input: &str| Call::new("jq").args([filter]).stdin(input).run().ok();
    // The planner's work by hand, the renderer's checked by another.
    let plan = jq(".agent.resources.pids = 99", &home.plan("web", "a"));
    let compose = as_json(&home, &plan);
    assert_eq!(compose["services"]["agent"]["pids_limit"], 99);
    // Written anew by jq, indented and reordered, it is still the same file for the next stage.
    let again = jq("to_entries | reverse | from_entries", &compose.to_string());
    let engine = FakeDocker::new(&Script::default());
    let dry = home
        .tool("bottle-run")
        .env("BOTTLE_DOCKER", engine.program())
        .args(["up", "--dry-run"])
        .stdin(again)
        .run();
    assert_eq!(dry.code(), 0, "{}", dry.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = home();
    let plan = home.plan("web", "a");
    for name in ["bottle-plan web --slug a", "bottle-ca", "bottle-render"] {
        let (tool, args) = name.split_once(' ').unwrap_or((name, ""));
        let program = bottle_tests::tools::tool(tool);
        // `true` is gone before the tool writes, or the tool is done before it goes; neither is an error.
        let script = format!(
            "{} {args} | true; exit ${{PIPESTATUS[0]}}",
            program.display()
        );
        let done = Call::new("bash")
            .args(["-c", &script])
            .env("BOTTLE_HOME", home.path())
            .env("HOME", home.cwd())
            .stdin(plan.as_str())
            .run();
        assert_eq!(
            (done.code(), done.stderr.contains("annot write")),
            (0, false),
            "{name}: {}",
            done.stderr
        );
    }
}

#[test]
fn compose_accepts_what_is_rendered_and_reads_it_the_same() {
    if !need_engine("compose_accepts_what_is_rendered_and_reads_it_the_same") {
        return;
    }
    let home = home();
    let plan = home.plan("web", "a");
    for form in [
        &["--format", "yaml"][..],
        &["--format", "json"],
        &["--standalone"],
    ] {
        let text = home
            .tool("bottle-render")
            .args(form.iter().copied())
            .stdin(plan.as_str())
            .run()
            .ok();
        let config = Call::new("docker")
            .args([
                "compose",
                "--env-file",
                "/dev/null",
                "--file",
                "-",
                "config",
                "--format",
                "json",
            ])
            .cwd(home.cwd())
            .env("c", "from the host's environment")
            .stdin(text)
            .run()
            .json();
        assert_eq!(config["name"], "bottle-a");
        // What `config` prints could be read again: every dollar is doubled.
        let odd = config["services"]["agent"]["environment"]["ODD"].as_str();
        let odd = odd.map(|text| text.replace("$$", "$"));
        assert_eq!(odd.as_deref(), Some("a$b ${c} \"d\" #e"), "{form:?}");
        // A name without a value: what it stands for is in no file.
        assert_eq!(
            config["services"]["egress"]["environment"]["EGRESS_TOKEN_0"],
            json!(null),
            "{form:?}"
        );
    }
}

#[test]
fn a_block_that_is_full_says_so() {
    let home = home();
    let plan = |slug: &str| {
        let args = ["web", "--slug", slug, "--subnets", "10.99.0.0/25"];
        home.tool("bottle-plan").args(args).run()
    };
    for slug in ["a", "b", "c", "d"] {
        assert_eq!(plan(slug).code(), 0, "{slug}");
    }
    let full = plan("e");
    full.no_product(5, "no range is left");
    assert!(
        full.stderr
            .contains("all 4 ranges of 10.99.0.0/25 are taken")
            && full
                .stderr
                .contains("hint: remove bottles you are done with"),
        "{}",
        full.stderr
    );
    // What has a range keeps it, and what is removed makes room.
    assert_eq!(plan("a").code(), 0);
    std::fs::remove_dir_all(home.state("b")).expect("a reservation");
    assert_eq!(plan("e").code(), 0);
}

#[test]
fn the_engines_client_sees_no_more_than_it_must() {
    let home = home();
    let script = Script {
        rules: vec![Rule {
            args: vec!["ps".into()],
            exit: 1,
            stderr: "enough\n".into(),
            ..Rule::default()
        }],
        env: vec![
            "COMPOSE_FILE".into(),
            "TEST_TOKEN".into(),
            "DOCKER_HOST".into(),
        ],
        ..Script::default()
    };
    let engine = FakeDocker::new(&script);
    let compose = home.render(&home.plan("web", "a"));
    let _ = home
        .tool("bottle-run")
        .env("BOTTLE_DOCKER", engine.program())
        .env("COMPOSE_FILE", "/planted/compose.yml")
        .env("COMPOSE_PROJECT_NAME", "planted")
        .env("DOCKER_HOST", "unix:///nowhere.sock")
        .args(["up"])
        .stdin(compose)
        .run();
    let calls = engine.calls();
    assert!(!calls.is_empty());
    for call in calls {
        assert_eq!(
            call.env.get("DOCKER_HOST").map(String::as_str),
            Some("unix:///nowhere.sock")
        );
        let planted = call
            .env_names
            .iter()
            .find(|name| name.starts_with("COMPOSE_") && *name != "COMPOSE_ANSI");
        assert_eq!(
            (planted, call.env.get("TEST_TOKEN")),
            (None, None),
            "{:?}",
            call.args
        );
        assert!(
            !call.args.iter().any(|arg| arg.contains("tok-pipeline")),
            "{:?}",
            call.args
        );
    }
}
