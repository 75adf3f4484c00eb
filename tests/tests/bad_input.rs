//! Wrong input, every tool: the documented exit code, one clear message with what to type next, nothing on stdout, and
//! the same as one JSON object for programs.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;

use bottle_tests::fake::{Rule, Script};
use bottle_tests::{Call, Done, FakeDocker, Home};
use serde_json::{Value, json};

const FAILED: i32 = 1;
const INVALID: i32 = 2;
const REFUSED: i32 = 3;
const NOT_FOUND: i32 = 4;
const CONFLICT: i32 = 5;
const AROUND_EXEC: i32 = 125;

const GOOD: &str = "image: debian:trixie-slim\n";

/// A call that must fail: its arguments, its exit code, and a part of its message.
type Bad<'a> = (&'a [&'a str], i32, &'a str);

/// Checks one failed call and says what is wrong with it, so that a table can report all of its lines at once.
fn complaints(tool: &str, call: impl Fn() -> Call, &(args, code, says): &Bad<'_>) -> Vec<String> {
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
struct Checker {
    tool: &'static str,
    wrong: Vec<String>,
}

impl Checker {
    fn new(tool: &'static str) -> Self {
        Self {
            tool,
            wrong: Vec::new(),
        }
    }

    fn check(&mut self, call: impl Fn() -> Call, table: &[Bad<'_>]) {
        self.wrong.extend(
            table
                .iter()
                .flat_map(|bad| complaints(self.tool, &call, bad)),
        );
    }

    fn report(self) {
        assert!(
            self.wrong.is_empty(),
            "{} complaints:\n{}",
            self.wrong.len(),
            self.wrong.join("\n")
        );
    }
}

#[test]
fn plan_arguments() {
    let mut checker = Checker::new("bottle-plan");
    let home = Home::new();
    home.bottle("web", GOOD);
    home.agent("homeless", "prompt: hello\n");
    let folder = home.cwd().display().to_string();
    let long = "x".repeat(41);
    checker.check(
        || home.tool("bottle-plan"),
        &[
            (&[], INVALID, "no agent or bottle is named"),
            (&["nobody"], NOT_FOUND, "nobody"),
            (&["wbe"], NOT_FOUND, "web"),
            (&["../web"], INVALID, "../web"),
            (&["Web"], INVALID, "Web"),
            (&["web", "another"], INVALID, "another"),
            (&["web", "--nonsense"], INVALID, "--nonsense"),
            (&["web", "--slug"], INVALID, "--slug"),
            (&["web", "--slug", ""], INVALID, "slug"),
            (&["web", "--slug", "../x"], INVALID, "../x"),
            (&["web", "--slug", "Web"], INVALID, "Web"),
            (&["web", "--slug", "a_b"], INVALID, "a_b"),
            (&["web", "--slug", &long], INVALID, "slug"),
            (&["web", "--subnets", "nonsense"], INVALID, "nonsense"),
            (&["web", "--subnets", "8.8.0.0/16"], INVALID, "8.8.0.0/16"),
            (&["web", "--subnets", "10.0.0.0/30"], INVALID, "10.0.0.0/30"),
            (&["web", "--bottle", "nobody"], NOT_FOUND, "nobody"),
            (&["homeless"], INVALID, "names no bottle"),
            (&["web", "--manifest", "x.yaml"], INVALID, "--manifest"),
            (
                &["--manifest", "/nowhere/x.yaml"],
                NOT_FOUND,
                "/nowhere/x.yaml",
            ),
            (&["web", "--workspace", "/nowhere"], NOT_FOUND, "/nowhere"),
            (&["web", "--workspace", "/"], REFUSED, "workspace"),
            (&["web", "--cwd", "/nowhere"], NOT_FOUND, "/nowhere"),
            (&["web", "--home", &folder], NOT_FOUND, "web"),
            (&["schema", "nonsense"], INVALID, "nonsense"),
        ],
    );
    checker.report();
}

/// Manifests that are wrong in one place each.
const MANIFESTS: &[(&str, i32, &str)] = &[
    ("egres: {}\nimage: x\n", INVALID, "egress"),
    ("image: [\n", INVALID, "bad.yaml"),
    ("- a list\n", INVALID, "bad.yaml"),
    ("image: x\nimage: y\n", INVALID, "image"),
    (
        "schema: bottle.manifest/v9\nimage: x\n",
        INVALID,
        "bottle.manifest/v9",
    ),
    (
        "image: x\ngit-gate: {repos: {a: {url: 'git@h:o/r', host_key: 'ssh-ed25519 AAAA', key: {provider: static, path: /k}, push: {review: true}}}}\n",
        INVALID,
        "`push.review` needs a way to ask you",
    ),
    (
        "image: x\ngit-gate: {repos: {a: {url: 'git@h:o/r', host_key: 'ssh-ed25519 AAAA', key: {provider: static, path: /k}, push: {hold: 2h}}}}\n",
        INVALID,
        "push.hold is from 1s to 1h",
    ),
    (
        "image: x\ngit-gate: {repos: {a: {url: 'git@h:o/r', host_key: 'ssh-ed25519 AAAA', key: {provider: static, path: /k}, sign: gpg}}}\n",
        INVALID,
        "gpg",
    ),
    ("extends: bad\nimage: x\n", INVALID, "bad -> bad"),
    ("extends: nobody\nimage: x\n", NOT_FOUND, "nobody"),
    ("image: -rm\n", INVALID, "-rm"),
    (
        "image: x\ndockerfile: /nowhere/Dockerfile\n",
        INVALID,
        "image",
    ),
    (
        "dockerfile: /nowhere/Dockerfile\n",
        NOT_FOUND,
        "/nowhere/Dockerfile",
    ),
    ("agent_provider: {template: nobody}\n", NOT_FOUND, "nobody"),
    ("image: x\nenv: {HTTP_PROXY: x}\n", INVALID, "HTTP_PROXY"),
    ("image: x\nenv: {A-B: x}\n", INVALID, "A-B"),
    ("image: x\nenv: {A: '${B-C}'}\n", INVALID, "B-C"),
    ("image: x\nskills: [nobody]\n", NOT_FOUND, "nobody"),
    ("image: x\nskills: [../x]\n", INVALID, "../x"),
    ("image: x\nresources: {memory: 1k}\n", INVALID, "memory"),
    ("image: x\nresources: {memory: lots}\n", INVALID, "lots"),
    ("image: x\nresources: {cpus: 0}\n", INVALID, "cpus"),
    ("image: x\nresources: {pids: 1}\n", INVALID, "pids"),
    ("image: x\nruntime: nonsense\n", INVALID, "nonsense"),
    (
        "image: x\nhardening: {cap_add: [NET_RAW]}\n",
        REFUSED,
        "NET_RAW",
    ),
    (
        "image: x\nhardening: {cap_add: [SYS_ADMIN]}\n",
        REFUSED,
        "SYS_ADMIN",
    ),
    (
        "image: x\nworkspace: {workdir: /etc/x}\n",
        INVALID,
        "/etc/x",
    ),
    ("image: x\nworkspace: {workdir: ../x}\n", INVALID, "../x"),
    (
        "image: x\nworkspace: {from: /nowhere}\n",
        NOT_FOUND,
        "/nowhere",
    ),
    ("image: x\nworkspace: {from: /}\n", REFUSED, "workspace"),
    ("image: x\negress: {log: 9}\n", INVALID, "log"),
    (
        "image: x\negress: {upstream_ca: nobody.pem}\n",
        NOT_FOUND,
        "nobody.pem",
    ),
    (
        "image: x\negress: {routes: [{host: '*.com'}]}\n",
        INVALID,
        "*.com",
    ),
    (
        "image: x\negress: {routes: [{host: '*'}]}\n",
        INVALID,
        "wildcard",
    ),
    (
        "image: x\negress: {routes: [{host: 'a.*.example.com'}]}\n",
        INVALID,
        "wildcard",
    ),
    (
        "image: x\negress: {routes: [{host: 10.0.0.1}]}\n",
        INVALID,
        "address",
    ),
    (
        "image: x\negress: {routes: [{host: '0x7f.1'}]}\n",
        INVALID,
        "address",
    ),
    (
        "image: x\negress: {routes: [{host: 'https://a.example.com'}]}\n",
        INVALID,
        "https://a.example.com",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, ports: [0]}]}\n",
        INVALID,
        "port",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, ports: [99999]}]}\n",
        INVALID,
        "99999",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com}, {host: a.example.com}]}\n",
        INVALID,
        "already has a route",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, private: [nonsense]}]}\n",
        INVALID,
        "nonsense",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, matches: [{methods: [TRACE]}]}]}\n",
        INVALID,
        "TRACE",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, matches: [{paths: [x]}]}]}\n",
        INVALID,
        "x",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, tls: passthrough, matches: [{methods: [GET]}]}]}\n",
        INVALID,
        "passthrough",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, scheme: http, auth: {scheme: Bearer, token_ref: T}}]}\n",
        INVALID,
        "plain http",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, auth: {scheme: Magic, token_ref: T}}]}\n",
        INVALID,
        "Magic",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, auth: {scheme: header, token_ref: T}}]}\n",
        INVALID,
        "header",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, auth: {scheme: Bearer, token_ref: 'sk-secret'}}]}\n",
        INVALID,
        "token_ref",
    ),
    ("image: x\nsupervise: perhaps\n", INVALID, "perhaps"),
];

#[test]
fn plan_manifests() {
    let mut wrong = Vec::new();
    for (yaml, code, says) in MANIFESTS {
        let home = Home::new();
        home.bottle("bad", yaml);
        let found = complaints(
            "bottle-plan",
            || home.tool("bottle-plan"),
            &(&["bad"], *code, says),
        );
        wrong.extend(
            found
                .into_iter()
                .map(|complaint| format!("{yaml:?}: {complaint}")),
        );
        let state = home.path().join("state");
        if fs::read_dir(&state)
            .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().is_dir()))
        {
            wrong.push(format!("{yaml:?}: something is reserved"));
        }
    }
    Checker {
        tool: "bottle-plan",
        wrong,
    }
    .report();
}

#[test]
fn plan_places() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut checker = Checker::new("bottle-plan");
    let mut check = |home: &Home, call: &dyn Fn() -> Call, bad: Bad<'_>| {
        home.bottle("web", GOOD);
        checker.check(call, &[bad]);
    };
    let home = Home::new();
    home.write("bottles/latin.yaml", b"image: \xe9\n");
    check(
        &home,
        &|| home.tool("bottle-plan"),
        (&["latin"], INVALID, "UTF-8"),
    );

    let home = Home::new();
    home.bottle("huge", &"# nothing\n".repeat(200_000));
    check(
        &home,
        &|| home.tool("bottle-plan"),
        (&["huge"], INVALID, "bytes long"),
    );

    let home = Home::new();
    fs::create_dir(home.path().join("state")).expect("a folder");
    fs::set_permissions(home.path().join("state"), fs::Permissions::from_mode(0o777))
        .expect("chmod");
    check(
        &home,
        &|| home.tool("bottle-plan"),
        (&["web"], INVALID, "777"),
    );

    let home = Home::new();
    std::os::unix::fs::symlink("/tmp", home.path().join("state")).expect("a link");
    check(
        &home,
        &|| home.tool("bottle-plan"),
        (&["web"], INVALID, "symbolic link"),
    );

    let home = Home::new();
    home.bottle("web", GOOD);
    let nowhere = || Call::new(bottle_tests::tools::tool("bottle-plan")).cwd(home.cwd());
    check(
        &home,
        &nowhere,
        (&["web"], INVALID, "neither HOME nor BOTTLE_HOME"),
    );
    checker.report();
}

/// A plan that is good but for one change.
fn changed(plan: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut value: Value = serde_json::from_str(plan).expect("a plan is JSON");
    change(&mut value);
    value.to_string()
}

#[test]
fn ca() {
    let mut checker = Checker::new("bottle-ca");
    let home = Home::new();
    home.bottle(
        "web",
        "image: x\negress: {routes: [{host: a.example.com}]}\n",
    );
    let plan = home.plan("web", "a");
    let feed = |stdin: &str| {
        let stdin = stdin.to_owned();
        let home = home.clone();
        move || home.tool("bottle-ca").stdin(stdin.clone())
    };
    checker.check(
        feed(""),
        &[(&[], INVALID, "empty"), (&["--renew"], INVALID, "empty")],
    );
    checker.check(feed("nonsense"), &[(&[], INVALID, "JSON")]);
    checker.check(feed("[]"), &[(&[], INVALID, "")]);
    checker.check(
        feed(r#"{"schema":"bottle.plan/v9"}"#),
        &[(&[], INVALID, "bottle.plan/v9")],
    );
    let no_egress = changed(&plan, |plan| {
        drop(plan.as_object_mut().map(|top| top.remove("egress")));
    });
    checker.check(feed(&no_egress), &[(&[], INVALID, "egress")]);
    let relative = changed(&plan, |plan| {
        plan["egress"]["ca"]["dir"] = "relative/folder".into();
    });
    checker.check(feed(&relative), &[(&[], INVALID, "absolute")]);
    let odd_host = changed(&plan, |plan| {
        plan["egress"]["routes"][0]["host"] = "a b".into();
    });
    checker.check(feed(&odd_host), &[(&[], INVALID, "a b")]);

    let dir = home.path().join("ca");
    let dir = dir.to_str().expect("UTF-8");
    let minted = home
        .tool("bottle-ca")
        .args(["mint", "--dir", dir, "--hosts", "a.example.com"])
        .run();
    assert_eq!(minted.code(), 0, "{}", minted.stderr);
    checker.check(
        feed(""),
        &[
            (&["--nonsense"], INVALID, "--nonsense"),
            (&["nonsense"], INVALID, "nonsense"),
            (&["mint"], INVALID, "--dir"),
            (
                &["mint", "--dir", "/nowhere/ca", "--hosts", "a b"],
                INVALID,
                "a b",
            ),
            (
                &["mint", "--dir", "/nowhere/ca", "--addresses", "nonsense"],
                INVALID,
                "nonsense",
            ),
            (
                &["mint", "--dir", "/nowhere/ca", "--days", "many"],
                INVALID,
                "many",
            ),
            (
                &["mint", "--dir", dir, "--hosts", "b.example.com"],
                CONFLICT,
                "",
            ),
            (&["show", "--dir", "/nowhere/ca"], NOT_FOUND, "/nowhere/ca"),
            (
                &["verify", "--dir", "/nowhere/ca"],
                NOT_FOUND,
                "/nowhere/ca",
            ),
            (
                &["verify", "--dir", dir, "--host", "b.example.com"],
                REFUSED,
                "b.example.com",
            ),
        ],
    );
    checker.report();
}

#[test]
fn render() {
    let mut checker = Checker::new("bottle-render");
    let home = Home::new();
    home.bottle("web", GOOD);
    let plan = home.plan("web", "a");
    let feed = |stdin: &[u8]| {
        let stdin = stdin.to_owned();
        let home = home.clone();
        move || home.tool("bottle-render").stdin(stdin.clone())
    };
    checker.check(feed(b""), &[(&[], INVALID, "empty")]);
    checker.check(feed(b"nonsense"), &[(&[], INVALID, "JSON")]);
    checker.check(feed(b"\xff\xfe{}"), &[(&[], INVALID, "UTF-8")]);
    checker.check(feed(b"{}"), &[(&[], INVALID, "schema")]);
    checker.check(
        feed(br#"{"schema":"bottle.plan/v9"}"#),
        &[(&[], INVALID, "bottle.plan/v9")],
    );
    checker.check(
        feed(plan.as_bytes()),
        &[
            (&["--format", "xml"], INVALID, "xml"),
            (&["nonsense"], INVALID, "nonsense"),
            (&["--nope"], INVALID, "--nope"),
        ],
    );
    type Change = fn(&mut Value);
    let changes: [(&str, i32, Change); 6] = [
        ("surprise", INVALID, |plan| plan["surprise"] = json!(1)),
        ("slug", INVALID, |plan| plan["slug"] = "../x".into()),
        ("user", INVALID, |plan| {
            plan["agent"]["user"] = "root".into();
        }),
        ("user", REFUSED, |plan| plan["agent"]["user"] = "0:0".into()),
        ("NET_RAW", REFUSED, |plan| {
            plan["agent"]["hardening"]["cap_add"] = json!(["NET_RAW"]);
        }),
        ("docker.sock", REFUSED, |plan| {
            plan["workspace"] =
                json!({"from": "/var/run/docker.sock", "mode": "mount", "workdir": "/workspace"});
        }),
    ];
    for (says, code, change) in changes {
        checker.check(
            feed(changed(&plan, change).as_bytes()),
            &[(&[], code, says)],
        );
    }
    checker.report();
}

#[test]
fn run() {
    let mut checker = Checker::new("bottle-run");
    let home = Home::new();
    home.bottle("web", GOOD);
    home.bottle("token", "image: x\negress: {routes: [{host: a.example.com, auth: {scheme: Bearer, token_ref: NOT_SET}}]}\n");
    let compose = home.render(&home.plan("web", "a"));
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
