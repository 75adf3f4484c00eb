//! What the runner does when the engine misbehaves, with an engine that follows a script.

use std::process::Stdio;

use bottle_tests::engine::wait_for;
use bottle_tests::fake::{FakeDocker, Rule, Script};
use bottle_tests::run::Done;
use bottle_tests::{Home, tools};

const HOST_SECRET: &str = "planted-credential-0123456789";

fn home() -> Home {
    let home = Home::with_env(&[("API_TOKEN", HOST_SECRET)]);
    home.bottle(
        "web",
        "image: debian:trixie-slim\negress: {routes: [{host: api.example.com, auth: {scheme: Bearer, token_ref: API_TOKEN}}]}\n",
    );
    home
}

fn fails(args: &[&str], stderr: &str) -> Rule {
    Rule {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        exit: 1,
        stderr: stderr.to_owned(),
        ..Rule::default()
    }
}

fn says(args: &[&str], stdout: &str) -> Rule {
    Rule {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        stdout: stdout.to_owned(),
        ..Rule::default()
    }
}

/// `up` of the bottle `web` with this engine.
fn up(home: &Home, engine: &FakeDocker) -> Done {
    let compose = home.render(&home.plan("web", "s"));
    home.tool("bottle-run")
        .args(["up"])
        .env("BOTTLE_DOCKER", engine.program())
        .env("BOTTLE_DOCKER_TIMEOUT", "1")
        .stdin(compose)
        .run()
}

#[track_caller]
fn failed(done: &Done, code: i32, stderr: &[&str]) {
    assert_eq!(done.code(), code, "{}", done.stderr);
    assert_eq!(done.stdout, "");
    for text in stderr {
        assert!(
            done.stderr.contains(text),
            "`{text}` is not in: {}",
            done.stderr
        );
    }
}

#[test]
fn an_engine_that_is_not_there() {
    let home = home();
    let compose = home.render(&home.plan("web", "s"));
    let call = home
        .tool("bottle-run")
        .args(["up"])
        .env("BOTTLE_DOCKER", "/nonexistent/docker");
    failed(
        &call.stdin(compose).run(),
        1,
        &["cannot start /nonexistent/docker", "hint: install Docker"],
    );
}

#[test]
fn a_dead_daemon() {
    let dead = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?";
    let engine = FakeDocker::new(&Script {
        rules: vec![fails(&[], dead)],
        ..Script::default()
    });
    let home = home();
    failed(
        &up(&home, &engine),
        1,
        &[
            "Cannot connect to the Docker daemon",
            "hint: start the engine",
        ],
    );
    for command in [&["list"][..], &["down", "s"]] {
        let call = home
            .tool("bottle-run")
            .args(command.iter().copied())
            .env("BOTTLE_DOCKER", engine.program());
        failed(
            &call.run(),
            1,
            &["Cannot connect", "hint: start the engine"],
        );
    }
}

#[test]
fn an_engine_that_never_answers() {
    let hangs = Rule {
        args: vec!["ps".into()],
        hang: true,
        ..Rule::default()
    };
    let engine = FakeDocker::new(&Script {
        rules: vec![hangs],
        ..Script::default()
    });
    failed(
        &up(&home(), &engine),
        1,
        &["docker ps", "no answer for", "hint:"],
    );
}

#[test]
fn a_network_that_is_not_what_was_asked_for_stops_the_start() {
    // The engine says yes to everything and then shows a network that leads out.
    let binary = "sha";
    let leaking = r#"[{"Name":"bottle-s-internal","Driver":"bridge","Internal":false,"EnableIPv6":false,
        "IPAM":{"Config":[]},"Options":{},"Labels":{},"Containers":{}}]"#;
    let engine = FakeDocker::new(&Script {
        rules: vec![
            says(&["network", "inspect"], leaking),
            says(&["image", "inspect"], binary),
        ],
        ..Script::default()
    });
    let home = home();
    if tools::sidecar().is_none() {
        eprintln!(
            "SKIPPED: a_network_that_is_not_what_was_asked_for_stops_the_start: there is no static sidecar"
        );
        return;
    }
    failed(
        &up(&home, &engine),
        3,
        &["bottle-s-internal is not safe", "internal is false"],
    );
    let calls = engine.calls();
    let created = calls
        .iter()
        .any(|call| call.args.contains(&"--no-start".to_owned()));
    assert!(
        !created,
        "a container was created on a network that is not safe"
    );
}

#[test]
fn a_missing_credential_stops_the_start_before_anything_is_made() {
    let engine = FakeDocker::new(&Script::default());
    let home = Home::new();
    home.bottle("web", "image: x\negress: {routes: [{host: a.example.com, auth: {scheme: Bearer, token_ref: API_TOKEN}}]}\n");
    failed(
        &up(&home, &engine),
        2,
        &["API_TOKEN, which is not set", "hint: export API_TOKEN"],
    );
    let changing = ["create", "build", "run", "start"];
    let changed = engine
        .calls()
        .iter()
        .any(|call| call.args.iter().any(|arg| changing.contains(&arg.as_str())));
    assert!(!changed);
}

#[test]
fn a_credential_that_no_header_can_carry_is_named_and_not_shown() {
    let home = Home::with_env(&[("API_TOKEN", "line one\nline two")]);
    home.bottle("web", "image: x\negress: {routes: [{host: a.example.com, auth: {scheme: Bearer, token_ref: API_TOKEN}}]}\n");
    let done = up(&home, &FakeDocker::new(&Script::default()));
    failed(&done, 2, &["the value of API_TOKEN", "hint:"]);
    assert!(!done.stderr.contains("line one"), "{}", done.stderr);
}

#[test]
fn the_engine_sees_an_allowlisted_environment_and_no_secret_in_its_arguments() {
    let Some(_) = tools::sidecar() else {
        eprintln!(
            "SKIPPED: the_engine_sees_an_allowlisted_environment: there is no static sidecar"
        );
        return;
    };
    let engine = FakeDocker::new(&Script::default());
    let home = home();
    let compose = home.render(&home.plan("web", "s"));
    let _ = home
        .tool("bottle-run")
        .args(["up"])
        .env("BOTTLE_DOCKER", engine.program())
        .env("COMPOSE_FILE", "/etc/passwd")
        .env("COMPOSE_PROJECT_NAME", "other")
        .env("DOCKER_BUILDKIT", "0")
        .env("LD_PRELOAD_NOT", "x")
        .stdin(compose)
        .run();
    let calls = engine.calls();
    assert!(!calls.is_empty());
    for call in &calls {
        let strangers = [
            "COMPOSE_FILE",
            "COMPOSE_PROJECT_NAME",
            "DOCKER_BUILDKIT",
            "LD_PRELOAD_NOT",
            "API_TOKEN",
        ];
        for name in strangers {
            assert!(
                !call.env_names.iter().any(|seen| seen == name),
                "{name} reached {:?}",
                call.args
            );
        }
        assert!(!format!("{:?}", call.args).contains(HOST_SECRET));
        let gets_slots = call
            .env_names
            .iter()
            .any(|seen| seen.starts_with("EGRESS_TOKEN_"));
        assert!(
            !gets_slots || call.args.contains(&"compose".to_owned()),
            "{:?}",
            call.args
        );
    }
}

#[test]
fn a_failed_step_is_undone_and_the_failure_is_the_first_one() {
    let Some(_) = tools::sidecar() else {
        eprintln!("SKIPPED: a_failed_step_is_undone: there is no static sidecar");
        return;
    };
    let engine = FakeDocker::new(&Script {
        rules: vec![fails(
            &["network", "create"],
            "Error response from daemon: Pool overlaps with other one on this address space",
        )],
        ..Script::default()
    });
    let home = home();
    failed(
        &up(&home, &engine),
        1,
        &["Pool overlaps", "hint: another network has these addresses"],
    );
    for left in ["egress", "seccomp.json", "empty"] {
        assert!(!home.state("s").join(left).exists(), "{left} is left");
    }
    let last = engine.calls().pop().expect("calls were made");
    assert!(
        last.args
            .starts_with(&["network".to_owned(), "ls".to_owned()]),
        "{:?}",
        last.args
    );
}

#[test]
fn ctrl_c_during_a_build_ends_it_at_once() {
    let Some(_) = tools::sidecar() else {
        eprintln!("SKIPPED: ctrl_c_during_a_build_ends_it_at_once: there is no static sidecar");
        return;
    };
    let absent = fails(
        &["image", "inspect"],
        "Error response from daemon: no such image: x",
    );
    let hangs = Rule {
        args: vec!["build".into()],
        hang: true,
        ..Rule::default()
    };
    let engine = FakeDocker::new(&Script {
        rules: vec![absent, hangs],
        ..Script::default()
    });
    let home = home();
    let file = home.write("bottle.yml", home.render(&home.plan("web", "s")));
    let child = std::process::Command::new(tools::tool("bottle-run"))
        .args(["up", "--file"])
        .arg(file)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.cwd())
        .env("BOTTLE_HOME", home.path())
        .env("BOTTLE_DOCKER", engine.program())
        .env("BOTTLE_SIDECAR", tools::sidecar().unwrap_or_default())
        .env("API_TOKEN", HOST_SECRET)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bottle-run starts");
    wait_for("the build to begin", || {
        engine
            .calls()
            .iter()
            .any(|call| call.args.first().is_some_and(|arg| arg == "build"))
    });
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it still runs");
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("interrupted by signal 2"), "{stderr}");
}

#[test]
fn a_purge_leaves_what_a_killed_commit_has_written_down() {
    let engine = FakeDocker::new(&Script::default());
    let home = home();
    let _ = home.plan("web", "s");
    let purge = || {
        home.tool("bottle-run")
            .args(["down", "s", "--purge"])
            .env("BOTTLE_DOCKER", engine.program())
            .run()
    };
    let journal = home.state("s").join("snapshot-journal.json");
    std::fs::write(&journal, "{}").expect("written");
    let kept = purge();
    assert_eq!(kept.code(), 0, "{}", kept.stderr);
    assert!(
        kept.stderr.contains("bottle-snapshot gc"),
        "{}",
        kept.stderr
    );
    assert!(journal.exists(), "nobody would find the image any more");
    std::fs::remove_file(&journal).expect("it is there");
    assert_eq!(purge().code(), 0);
    assert!(!home.state("s").exists());
}
