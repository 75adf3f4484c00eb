use bottle_tests::fake::{Rule, Script};
use bottle_tests::{FakeDocker, Home};

use crate::checker::Checker;
use crate::{AROUND_EXEC, FAILED, GOOD, INVALID, NOT_FOUND, REFUSED};

#[test]
fn run() {
    let mut checker = Checker::new("bottle-run");
    let home = Home::new();
    home.bottle("web", GOOD);
    home.bottle("token", "image: x\negress: {routes: [{host: a.example.com, auth: {scheme: Bearer, token_ref: NOT_SET}}]}\n");
    let plan = home.plan("web", "a");
    let compose = home.render(&plan);
    let tokenless = home.render(&home.plan("token", "b"));
    let engine = FakeDocker::new(&Script::default());
    let feed = |stdin: &str| {
        let (stdin, program, home) = (stdin.to_owned(), engine.program(), home.clone());
        move || {
            home.tool("bottle-run")
                .env("BOTTLE_DOCKER", &program)
                .stdin(stdin.clone())
        }
    };
    checker.check(
        feed(""),
        &[
            (&[], INVALID, ""),
            (&["nonsense"], INVALID, "nonsense"),
            (&["up"], INVALID, "empty"),
            (&["up", "--nonsense"], INVALID, "--nonsense"),
            (
                &["up", "--file", "/nowhere/x.yml"],
                NOT_FOUND,
                "/nowhere/x.yml",
            ),
            (&["run"], INVALID, "empty"),
            (&["exec", "a"], INVALID, ""),
            (&["exec", "nobody", "--", "true"], AROUND_EXEC, "nobody"),
            (&["exec", "../x", "--", "true"], AROUND_EXEC, "../x"),
            (&["exec", "a", "--", "true"], AROUND_EXEC, "a"),
            (&["attach", "nobody"], AROUND_EXEC, "nobody"),
            (&["logs", "nobody"], NOT_FOUND, "nobody"),
            (&["logs", "a", "nonsense"], INVALID, "nonsense"),
            (&["logs", "a", "--tail", "many"], INVALID, "many"),
            (&["down"], INVALID, ""),
            (&["down", "nobody"], NOT_FOUND, "nobody"),
            (&["down", "../x"], INVALID, "../x"),
            (&["down", "-"], INVALID, "empty"),
        ],
    );
    checker.check(
        feed("nonsense"),
        &[(&["down", "-"], INVALID, "JSON"), (&["up"], INVALID, "")],
    );
    checker.check(
        feed("{}"),
        &[
            (&["up"], INVALID, "x-bottle"),
            (&["down", "-"], INVALID, "schema"),
        ],
    );
    checker.check(feed("a: [\n"), &[(&["up"], INVALID, "YAML")]);
    checker.check(
        feed(&compose),
        &[(&["up", "--expect-digest", "sha256:0"], REFUSED, "sha256:0")],
    );
    // The digest that was approved is not refused.
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    let digest = plan["digest"].as_str().expect("a digest");
    let approved = feed(&compose)().args(["up", "--dry-run", "--expect-digest", digest]);
    let approved = approved.run();
    assert_eq!(approved.code(), 0, "{}", approved.stderr);
    assert!(
        approved.stderr.contains("would start"),
        "{}",
        approved.stderr
    );
    checker.check(feed(&tokenless), &[(&["up"], INVALID, "NOT_SET")]);
    assert!(
        !engine
            .calls()
            .iter()
            .any(|call| call.args.iter().any(|arg| arg == "create")),
        "something was made"
    );
    checker.report();
}

#[test]
fn run_without_an_engine() {
    let mut checker = Checker::new("bottle-run");
    let home = Home::new();
    home.bottle("web", GOOD);
    let compose = home.render(&home.plan("web", "a"));
    let missing = || {
        home.tool("bottle-run")
            .env("BOTTLE_DOCKER", "/nowhere/docker")
            .stdin(compose.clone())
    };
    checker.check(
        missing,
        &[
            (&["list"], FAILED, "/nowhere/docker"),
            (&["up"], FAILED, "/nowhere/docker"),
        ],
    );

    let says = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n";
    let script = Script {
        rules: vec![Rule {
            exit: 1,
            stderr: says.into(),
            ..Rule::default()
        }],
        ..Script::default()
    };
    let dead = FakeDocker::new(&script);
    let dead = || {
        home.tool("bottle-run")
            .env("BOTTLE_DOCKER", dead.program())
            .stdin(compose.clone())
    };
    checker.check(
        dead,
        &[
            (&["list"], FAILED, "Cannot connect"),
            (&["up"], FAILED, "Cannot connect"),
        ],
    );
    checker.report();
}
