//! What people type who have not read the pages: the message names the place, and the hint is what they meant.

use std::fs;

use bottle_tests::{Call, Home};

use crate::checker::unhelpful;
use crate::{GOOD, INVALID, NOT_FOUND};

/// A manifest, a part of the message, and a part of the hint. All of them are exit code 2.
const WRITTEN: &[(&str, &str, &str)] = &[
    (
        "image: x\ncommand: bash -l\n",
        "bad.yaml:2: command: ",
        "`command: [bash, -l]`",
    ),
    (
        "image: x\negress:\n  routes:\n    - a.example.com\n",
        "bad.yaml:4: egress.routes[0]: invalid type: string \"a.example.com\", expected a mapping",
        "`- host: a.example.com`",
    ),
    (
        "image: x\negress:\n  routes:\n    - host: a.example.com\n      matches: [{methods: GET}]\n",
        "bad.yaml:5: ",
        "`methods: [GET]`",
    ),
    (
        "image: x\negress:\n  routes:\n    - host: a.example.com\n      methods: [GET]\n",
        "bad.yaml:5: ",
        "matches: [{methods: [GET]",
    ),
    (
        "image: x\negress:\n  routes:\n    - host: a.example.com:8443\n",
        "/bottles/bad.yaml:4: route ",
        "`host: a.example.com`, `ports: [8443]`",
    ),
    (
        "image: x\negress:\n  routes:\n    - host: https://a.example.com/v1\n",
        "/bottles/bad.yaml:4: route ",
        "`host: a.example.com`, `matches: [{paths: [/v1]}]`",
    ),
    (
        "image: x\negress:\n  routes:\n    - host: a.example.com\n      ports: 443\n",
        "bad.yaml:5: ",
        "`ports: [443]`",
    ),
    (
        "image: x\nresources: {mem: 4g}\n",
        "bad.yaml:2: ",
        "did you mean `memory`?",
    ),
    (
        "image: x\nresources:\n  cpus: 1\n  memory: 1k\n",
        "bad.yaml:4: resources.memory: ",
        "at least 32m",
    ),
    (
        "image: x\nworkspace: cwd\n",
        "bad.yaml:2: ",
        "`workspace: {from: cwd}`",
    ),
    (
        "agent_provider: claude\n",
        "bad.yaml:1: ",
        "`agent_provider: {template: claude}`",
    ),
    (
        "image: x\nhardening: {read_only: \"yes\"}\n",
        "bad.yaml:2: ",
        "true or false",
    ),
    ("image: x\nenv:\n  A: [1]\n", "bad.yaml:3: ", "not a list"),
    ("image: x\n\tcommand: [a]\n", "bad.yaml:2: ", "spaces"),
    (
        "image: x\nruntime: auto\nimage: y\n",
        "bad.yaml:3: ",
        "keep one",
    ),
    ("image: x\n---\nimage: y\n", "bad.yaml: ", "one document"),
    (
        "image: \"a b\"\n",
        "bad.yaml:1: image: ",
        "debian:trixie-slim",
    ),
    (
        "command: [bash]\n",
        "/bottles/bad.yaml: bottle `bad`",
        "agent_provider: {template: shell}",
    ),
    ("bottle: {image: x}\n", "bad.yaml:1: ", "--manifest"),
    (
        "image: x\nenv:\n  LANG: C\n  HTTP_PROXY: x\n",
        "bad.yaml:2: env: ",
        "proxy",
    ),
    (
        "image: x\ngit_gate: {}\n",
        "bad.yaml:2: ",
        "did you mean `git-gate`?",
    ),
];

#[test]
fn a_manifest_that_is_wrong_says_where_and_what_to_write() {
    let mut wrong = Vec::new();
    for (yaml, says, hint) in WRITTEN {
        let home = Home::new();
        home.bottle("bad", yaml);
        let done = home.tool("bottle-plan").args(["bad", "--check"]).run();
        let found = unhelpful(&done, INVALID, says, hint);
        wrong.extend(found.into_iter().map(|what| format!("{yaml:?}: {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong in a parent is said of the parent's file.
#[test]
fn the_file_named_is_the_one_to_edit() {
    let home = Home::new();
    home.bottle("base", "image: x\nresources: {memory: 1k}\n");
    home.bottle("web", "extends: base\nenv: {A: b}\n");
    let done = home.tool("bottle-plan").args(["web", "--check"]).run();
    assert!(
        done.stderr
            .contains("/bottles/base.yaml:2: resources.memory"),
        "{}",
        done.stderr
    );
    // A flag is in no file.
    home.bottle("work", "image: x\nworkspace: {from: cwd}\n");
    let done = home
        .tool("bottle-plan")
        .args(["work", "--check", "--workspace", "/"])
        .run();
    assert!(!done.stderr.contains("work.yaml"), "{}", done.stderr);
}

#[test]
fn what_was_typed_instead_of_what_was_meant() {
    let home = Home::new();
    home.bottle("web", GOOD);
    let manifest = home.path().join("bottles/web.yaml").display().to_string();
    let plan = home.plan("web", "a");
    let handle = r#"{"schema":"bottle.handle/v1"}"#;
    let misspelt = plan.replacen("\"command\"", "\"comand\"", 1);
    let tool = |name: &str, args: &[&str], stdin: &str| {
        home.tool(name)
            .args(args.iter().copied())
            .stdin(stdin)
            .run()
    };
    let table = [
        (
            tool("bottle-plan", &["shcema"], ""),
            NOT_FOUND,
            "shcema",
            "bottle-plan schema",
        ),
        (
            tool("bottle-plan", &["init"], ""),
            NOT_FOUND,
            "init",
            "bottle init",
        ),
        (
            tool("bottle-plan", &["--manifest", &manifest], ""),
            INVALID,
            "web.yaml:1: ",
            "below `bottle:`",
        ),
        (
            tool("bottle-plan", &["diff"], ""),
            INVALID,
            "not provided: <OLD> <NEW>",
            "Usage: bottle-plan diff <OLD> <NEW>",
        ),
        (
            tool("bottle-plan", &["web", "--slug", "a\nb"], ""),
            INVALID,
            "`a\\nb`",
            "a slug is",
        ),
        (
            tool("bottle-render", &["plan.json"], ""),
            INVALID,
            "plan.json",
            "bottle-render < plan.json",
        ),
        (
            tool("bottle-ca", &["plan.json"], ""),
            INVALID,
            "plan.json",
            "bottle-ca < plan.json",
        ),
        (
            tool("bottle-render", &[], handle),
            INVALID,
            "`bottle.handle/v1`",
            "bottle-plan NAME",
        ),
        (
            tool("bottle-ca", &[], handle),
            INVALID,
            "`bottle.handle/v1`",
            "bottle-plan NAME",
        ),
        (
            tool("bottle-render", &[], &misspelt),
            INVALID,
            "`agent.comand`",
            "did you mean `command`?",
        ),
        (
            tool("bottle-run", &["up"], &plan),
            INVALID,
            "this is a plan",
            "| bottle-render |",
        ),
    ];
    let wrong: Vec<String> = table
        .iter()
        .flat_map(|(done, code, says, hint)| unhelpful(done, *code, says, hint))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Homes that are none, and variables that are set to nothing.
#[test]
fn a_home_that_is_none() {
    let home = Home::new();
    home.bottle("web", GOOD);
    let file = home.path().join("a-file");
    fs::write(&file, "").expect("written");
    let done = home
        .tool("bottle-plan")
        .env("BOTTLE_HOME", &file)
        .args(["web"])
        .run();
    let wrong = unhelpful(&done, INVALID, "a-file is not a folder", "--home");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let user = home.path().parent().expect("a folder").join("u");
    fs::create_dir(&user).expect("a folder");
    std::os::unix::fs::symlink(home.path(), user.join(".bottle")).expect("a link");
    let empty = Call::new(bottle_tests::tools::tool("bottle-plan"))
        .cwd(home.cwd())
        .env("HOME", &user)
        .env("BOTTLE_HOME", "")
        .env("BOTTLE_SUBNETS", "")
        .args(["web", "--check"])
        .run();
    assert_eq!(empty.code(), 0, "{}", empty.stderr);
}

/// A folder in place of the document.
#[test]
fn a_folder_on_stdin() {
    let home = Home::new();
    let tool = bottle_tests::tools::tool("bottle-render");
    let line = format!("'{}' < '{}'", tool.display(), home.path().display());
    let done = home.program("sh").args(["-c", &line]).run();
    let wrong = unhelpful(&done, INVALID, "cannot read stdin", "bottle-plan NAME");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
