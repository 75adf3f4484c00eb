//! Somebody who comes from bot-bottle: the page names every key and command it has, and what is not carried over is said by
//! the tools, with what to write instead.

#![allow(clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::path::Path;

use bottle_tests::{Home, page};

/// Every key of bot-bottle's manifests, its commands with their flags, its variables and files, as far as they are known.
const KNOWN: [&str; 74] = [
    "extends",
    "env",
    "template",
    "dockerfile",
    "auth_token",
    "forward_host_credentials",
    "settings",
    "git-gate.user",
    "git-gate.repos",
    "url",
    "host_key",
    "identity",
    "provisioned_key",
    "forge_token_env",
    "static",
    "gitea",
    "egress.log",
    "host",
    "auth",
    "scheme",
    "token_ref",
    "matches",
    "paths",
    "methods",
    "headers",
    "git.fetch",
    "outbound_detectors",
    "inbound_detectors",
    "outbound_on_match",
    "role",
    "supervise",
    "runtime",
    "ExtraHosts",
    "egress.allowlist",
    "path_allowlist",
    "pipelock",
    "cred_proxy",
    "tokens",
    "bottle.ssh",
    "bottle",
    "skills",
    "name",
    "description",
    "model",
    "color",
    "memory",
    "start",
    "--cwd",
    "--backend",
    "--dry-run",
    "--format=json",
    "--headless",
    "--prompt",
    "--bottle",
    "--label",
    "--color",
    "resume",
    "commit",
    "--once",
    "dashboard",
    "list active",
    "cleanup",
    "info",
    "edit",
    "init",
    "build",
    "BOT_BOTTLE_BACKEND",
    "BOT_BOTTLE_CLAUDE_OAUTH_TOKEN",
    "BOT_BOTTLE_SIDECAR_DAEMONS",
    "_CONTAINER_HOME",
    "_CONTAINER_SKILLS_DIR",
    "BOT_BOTTLE_SENSITIVE_PREFIXES",
    "canary",
    "entropy",
];

#[test]
fn the_page_names_everything_there_is() {
    let page = fs::read_to_string(page::root().join("docs/migrating-from-bot-bottle.md"))
        .expect("the page");
    // What stands on the left of a table, or is said to mean the same.
    let missing: Vec<&str> = KNOWN
        .into_iter()
        .filter(|word| !page.contains(word))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_is_gone_is_said_with_what_to_write_instead() {
    let home = Home::new();
    let route =
        |more: &str| format!("image: x\negress: {{routes: [{{host: a.example.com, {more}}}]}}\n");
    let repo = |more: &str| {
        format!(
            "image: x\ngit-gate: {{repos: {{a: {{url: 'git@h.example.com:o/r.git', host_key: 'ssh-ed25519 A', {more}}}}}}}\n"
        )
    };
    for (text, key, instead) in [
        (
            "image: x\nExtraHosts: [a]\n".to_owned(),
            "ExtraHosts",
            "private:",
        ),
        ("image: x\ntokens: {}\n".to_owned(), "tokens", "token_ref"),
        (
            "image: x\ncred_proxy: {}\n".to_owned(),
            "cred_proxy",
            "token_ref",
        ),
        ("image: x\ngit: {}\n".to_owned(), "git", "git-gate"),
        (
            "image: x\npipelock: {tls_passthrough: []}\n".to_owned(),
            "pipelock",
            "passthrough",
        ),
        (
            "image: x\negress: {allowlist: [a]}\n".to_owned(),
            "allowlist",
            "routes",
        ),
        (route("role: x"), "role", "remove the key"),
        (route("path_allowlist: [/x]"), "path_allowlist", "matches"),
        (repo("identity: '~/x'"), "identity", "provider: static"),
        (repo("provisioned_key: {}"), "provisioned_key", "key:"),
        (
            "image: x\nruntime: macos-container\n".to_owned(),
            "macos-container",
            "Linux virtual machine",
        ),
        (
            "image: x\nruntime: smolmachines\n".to_owned(),
            "smolmachines",
            "runtime: kata",
        ),
        (
            "image: x\nruntime: docker\n".to_owned(),
            "docker",
            "remove the key",
        ),
        (
            "agent_provider: {template: pi}\n".to_owned(),
            "pi",
            "provider.yaml",
        ),
    ] {
        home.bottle("old", &text);
        let done = home.tool("bottle-plan").args(["old", "--check"]).run();
        assert_ne!(done.code(), 0, "{text}");
        assert!(done.stderr.contains(key), "{text}{}", done.stderr);
        let hint = done.stderr.split("hint: ").nth(1).unwrap_or_default();
        assert!(hint.contains(instead), "{text}{}", done.stderr);
    }
}

#[test]
fn commands_that_are_gone_name_the_new_ones() {
    let home = Home::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/bottle");
    let tools = bottle_tests::tools::tool("bottle-run");
    let path = format!(
        "{}:{}",
        tools.parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    for (args, instead) in [
        (["supervise", "--once"], "bottle-run requests"),
        (["dashboard", ""], "bottle-run watch"),
        (["cleanup", ""], "bottle-run gc"),
        (["info", "x"], "bottle check x"),
        (["edit", "x"], "editor"),
        (["build", ""], "bottle start"),
        (["start", "--backend=docker"], "runtime:"),
        (["start", "--color"], "no colour"),
        (["start", "--cwd"], "workspace:"),
        (["start", "--label"], "--slug"),
        (["start", "--headless"], "bottle-run run --headless"),
    ] {
        let words = args.iter().copied().filter(|word| !word.is_empty());
        let done = home
            .program("setsid")
            .args(["--wait"])
            .args([&script])
            .args(words)
            .env("PATH", &path)
            .run();
        assert_eq!(done.code(), 2, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(instead), "{args:?}: {}", done.stderr);
    }
}
