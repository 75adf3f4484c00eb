//! The tools together: any way of putting them in a row gives the same bottle, and none of them leaves anything behind.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use bottle_tests::engine::{skip, wait_for};
use bottle_tests::fake::{Rule, Script};
use bottle_tests::{Call, FakeDocker, Home, need_engine};
use serde_json::{Value, json};

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
fn the_life_of_a_bottle() {
    if !need_engine("the_life_of_a_bottle") {
        return;
    }
    let home = home();
    let slug = home.slug("life");
    let bottle = home.up("web", &slug);
    assert_eq!(bottle.handle["schema"], "bottle.handle/v1");
    assert_eq!(
        bottle.handle["containers"],
        json!({"agent": bottle.agent(), "egress": bottle.egress()})
    );
    assert_eq!(
        bottle.handle["plan_digest"],
        parsed(&home.plan("web", &slug))["digest"]
    );

    let exec = |script: &str| bottle.exec(&["sh", "-c", script]);
    assert_eq!(
        exec("id -u; pwd; echo $GREETING").ok(),
        "10001\n/workspace\nhello\n"
    );
    assert_eq!(exec("exit 7").code(), 7);
    assert_eq!(exec("kill -9 $$").code(), 137);
    // The engine's own codes for a command that is not there: 126 up to 20.10, 127 later.
    assert!([126, 127].contains(&bottle.exec(&["/nowhere/program"]).code()));
    assert_eq!(exec("echo out; echo err >&2").stderr.trim(), "err");
    let echoed = home
        .tool("bottle-run")
        .args(["exec", &slug, "--", "cat"])
        .stdin("\0bytes\r\n")
        .run()
        .ok();
    assert_eq!(echoed, "\0bytes\r\n");

    // The same name again, while it runs.
    let again = home
        .tool("bottle-run")
        .args(["up"])
        .stdin(home.render(&home.plan("web", &slug)))
        .run();
    assert_eq!(
        (again.code(), again.stdout.as_str()),
        (5, ""),
        "{}",
        again.stderr
    );
    assert_eq!(exec("echo still here").ok(), "still here\n");

    let status = || {
        let list = home
            .tool("bottle-run")
            .args(["list", "--json"])
            .run()
            .json();
        let bottles = list["bottles"].as_array().expect("a list").clone();
        bottles
            .iter()
            .find(|entry| entry["slug"] == slug.as_str())
            .map(|entry| entry["status"].clone())
    };
    assert_eq!(status(), Some(json!("running")));
    home.down(&slug);
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
    assert_eq!(status(), Some(json!("stopped")));
    assert_eq!(bottle.exec(&["true"]).code(), 125);
    assert!(
        !home.state(&slug).join("egress").exists(),
        "the CA's key is still there"
    );
    let _ = home
        .tool("bottle-run")
        .args(["down", &slug, "--purge"])
        .run()
        .ok();
    assert!(!home.state(&slug).exists());
    assert_eq!(
        home.tool("bottle-run").args(["down", &slug]).run().code(),
        4
    );
}

#[test]
fn run_leaves_nothing_but_an_exit_code() {
    if !need_engine("run_leaves_nothing_but_an_exit_code") {
        return;
    }
    let home = home();
    let slug = home.slug("run");
    let with_ca = home
        .tool("bottle-ca")
        .stdin(home.plan("web", &slug))
        .run()
        .ok();
    let compose = home.render(&with_ca);
    let done = home
        .tool("bottle-run")
        .args(["run", "--", "sh", "-c", "echo $GREETING; exit 3"])
        .stdin(compose)
        .run();
    assert_eq!(
        (done.code(), done.stdout.as_str()),
        (3, "hello\n"),
        "{}",
        done.stderr
    );
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
}

#[test]
fn ten_bottles_at_once() {
    if !need_engine("ten_bottles_at_once") {
        return;
    }
    let home = home();
    let slugs: Vec<String> = (0..10)
        .map(|number| home.slug(&format!("n{number}")))
        .collect();
    let start = |slug: &String| {
        let bottle = home.up("web", slug);
        assert_eq!(bottle.exec(&["printenv", "BOTTLE_SLUG"]).ok().trim(), slug);
        ["internal", "egress"].map(|name| bottle.address(&format!("/networks/{name}/subnet")))
    };
    let subnets: BTreeSet<String> = thread::scope(|scope| {
        let threads: Vec<_> = slugs
            .iter()
            .map(|slug| scope.spawn(|| start(slug)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a bottle that starts"))
            .collect()
    });
    assert_eq!(subnets.len(), 20, "{subnets:?}");
    let _ = home
        .tool("bottle-run")
        .args(["down"])
        .args(&slugs)
        .run()
        .ok();
    for slug in &slugs {
        assert_eq!(home.left_of(slug), Vec::<String>::new());
    }
}

#[test]
fn of_two_starts_of_one_slug_one_wins() {
    if !need_engine("of_two_starts_of_one_slug_one_wins") {
        return;
    }
    let home = home();
    let slug = home.slug("twice");
    let compose = home.render(&home.plan("web", &slug));
    let up = || {
        let call = home.tool("bottle-run").args(["up"]);
        call.stdin(compose.clone()).run()
    };
    let both = thread::scope(|scope| {
        [scope.spawn(up), scope.spawn(up)].map(|one| one.join().expect("it ends"))
    });
    let mut codes = [both[0].code(), both[1].code()];
    codes.sort_unstable();
    assert_eq!(codes, [0, 5], "{} / {}", both[0].stderr, both[1].stderr);
    for done in both {
        let (won, printed) = (done.code() == 0, !done.stdout.is_empty());
        assert_eq!(won, printed, "{}", done.stderr);
        assert!(won || done.stderr.contains("\nhint: "), "{}", done.stderr);
    }
    // The loser has taken nothing away from the winner.
    let done = home
        .tool("bottle-run")
        .args(["exec", &slug, "--", "true"])
        .run();
    assert_eq!(done.code(), 0, "{}", done.stderr);
    home.down(&slug);
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
    assert_eq!(
        (full.code(), full.stdout.as_str()),
        (5, ""),
        "{}",
        full.stderr
    );
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

/// The real engine behind a script.
fn behind(rules: Vec<Rule>) -> FakeDocker {
    FakeDocker::new(&Script {
        rules,
        real: Some("docker".to_owned()),
        ..Script::default()
    })
}

fn up_with(home: &Home, engine: &FakeDocker, slug: &str) -> bottle_tests::Done {
    let compose = home.render(&home.plan("web", slug));
    home.tool("bottle-run")
        .env("BOTTLE_DOCKER", engine.program())
        .args(["up"])
        .stdin(compose)
        .run()
}

/// Processes that have a file below `folder` open, or were called with it.
fn processes_at(folder: &PathBuf) -> Vec<String> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let open = std::fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let held = open
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|path| path.starts_with(folder));
        if held {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("{} {}", process.path().display(), name.trim()));
        }
    }
    found
}

#[test]
fn killed_at_any_moment_it_can_be_removed() {
    if !need_engine("killed_at_any_moment_it_can_be_removed") {
        return;
    }
    let home = home();
    // Once unharmed: how many calls of the engine are there to be killed at?
    let whole = behind(Vec::new());
    let first = home.slug("k0");
    let _ = up_with(&home, &whole, &first).ok();
    home.down(&first);
    let calls = u32::try_from(whole.calls().len()).expect("few");
    assert!(calls >= 5, "{calls}");

    let kill_at = |moment: u32| {
        let slug = home.slug(&format!("k{moment}"));
        // The engine's client goes on as an orphan, as it does in life.
        let rule = Rule {
            call: Some(moment),
            kill_parent: Some(9),
            pass_on: true,
            ..Rule::default()
        };
        // Kept until the end: orphans still look for their script.
        let engine = behind(vec![rule]);
        let killed = up_with(&home, &engine, &slug);
        assert_eq!(
            (killed.code(), killed.stdout.as_str()),
            (137, ""),
            "at call {moment}: {}",
            killed.stderr
        );
        home.down(&slug);
        assert_eq!(
            home.left_of(&slug),
            Vec::<String>::new(),
            "at call {moment}"
        );
        wait_for("the last client", || {
            processes_at(&home.state(&slug)).is_empty()
        });
    };
    thread::scope(|scope| {
        // Two at a time: most of this is waiting for the engine.
        let halves = [0, 1].map(|half| {
            scope.spawn(move || {
                (1..=calls)
                    .filter(|moment| moment % 2 == half)
                    .for_each(kill_at);
            })
        });
        for half in halves {
            half.join().expect("every moment");
        }
    });
    // What was killed last starts again as if nothing had been.
    let again = home.up("web", &home.slug(&format!("k{calls}")));
    assert_eq!(again.exec(&["true"]).code(), 0);
}

#[test]
fn a_failed_start_leaves_nothing() {
    if !need_engine("a_failed_start_leaves_nothing") {
        return;
    }
    let home = home();
    let fails = |args: &[&str]| Rule {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        exit: 1,
        stderr: "the engine is tired\n".to_owned(),
        ..Rule::default()
    };
    for (name, args) in [
        ("net", &["network", "inspect"][..]),
        ("create", &["compose", "up"]),
        ("start", &["start"]),
        ("exec", &["exec"]),
    ] {
        let slug = home.slug(&format!("f-{name}"));
        let done = up_with(&home, &behind(vec![fails(args)]), &slug);
        assert_eq!(
            (done.code(), done.stdout.as_str()),
            (1, ""),
            "{name}: {}",
            done.stderr
        );
        assert!(
            done.stderr.contains("the engine is tired") && done.stderr.contains("\nhint: "),
            "{name}: {}",
            done.stderr
        );
        assert_eq!(home.left_of(&slug), Vec::<String>::new(), "{name}");
        assert!(
            !home.state(&slug).join("egress").exists(),
            "{name}: the CA's key is still there"
        );
    }
}

#[test]
fn a_network_somebody_planted_is_not_taken() {
    if !need_engine("a_network_somebody_planted_is_not_taken") {
        return;
    }
    let home = home();
    let slug = home.slug("plant");
    let name = format!("bottle-{slug}-internal");
    let plan = parsed(&home.plan("web", &slug));
    let subnet = plan["networks"]["internal"]["subnet"]
        .as_str()
        .expect("a range");
    // As compose would look for it, but with a way out.
    let labels = [
        "--label=com.docker.compose.network=internal".to_owned(),
        format!("--label=com.docker.compose.project=bottle-{slug}"),
        format!("--label={}", home.label()),
    ];
    let create = ["network", "create", "--subnet", subnet]
        .map(str::to_owned)
        .into_iter()
        .chain(labels)
        .chain([name.clone()]);
    let _ = bottle_tests::engine::docker(create).ok();
    let done = home
        .tool("bottle-run")
        .args(["up"])
        .stdin(home.render(&plan.to_string()))
        .run();
    assert!(
        [3, 5].contains(&done.code()) && done.stdout.is_empty(),
        "{}: {}",
        done.code(),
        done.stderr
    );
    let left = home.left_of(&slug);
    assert!(
        left.iter().all(|line| line.starts_with("network ")),
        "a container was made: {left:?}"
    );
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
