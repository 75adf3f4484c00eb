//! Whatever text a plan holds, Compose must understand that text: tried with the real one.

use std::path::PathBuf;

use bottle_plan::plan::{EnvSource, EnvVar, Plan, Provider, WorkspaceMode};
use bottle_render::{Options, check, compose, plan_from_compose, to_json, to_yaml};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use crate::support::{assert_carried, compose_config, golden_plan, has_compose, skipped};

/// Texts that some reader of YAML takes for something else, and texts that Compose takes for a variable.
const PICKED: &[&str] = &[
    "",
    " ",
    "~",
    "null",
    "Null",
    "true",
    "yes",
    "No",
    "on",
    "off",
    "y",
    "n",
    "0",
    "-0",
    "0123",
    "0o17",
    "0x1F",
    "0x_1",
    "0b11",
    "1_000",
    "1__2",
    "-_1",
    "9_",
    "1_0.5",
    "+1",
    "1e3",
    "1.",
    ".5",
    ".inf",
    "-.INF",
    ".nan",
    "190:20:30",
    "2026-11-23",
    "2026-11-23T10:00:00Z",
    "2026-11-23 10:00:00 +1",
    "$",
    "$$",
    "$$$",
    "$X",
    "${X}",
    "${X:-y}",
    "${X?e}",
    "${X",
    "$(id)",
    "$1",
    "$$X",
    "{{.Name}}",
    "- a",
    "-",
    "--",
    "---",
    "...",
    "# a",
    "a # b",
    "a: b",
    "a:",
    ": a",
    "? a",
    "[a",
    "{a",
    "]",
    "}",
    ",",
    "&a",
    "*a",
    "!a",
    "!!str",
    "!reset",
    "!override",
    "|",
    ">",
    ">-",
    "@a",
    "`a`",
    "%YAML 1.2",
    "%a",
    "=",
    "<<",
    "x-",
    "x-a",
    "'",
    "''",
    "\"",
    "\"\"",
    "'a' \"b\"",
    "\\",
    "\\n",
    "\\x41",
    "\n",
    "\na",
    "a\n",
    "a\n\n",
    " a\n  b\n",
    "\ta",
    "a\t",
    "a\n\tb",
    "\r",
    "a\rb",
    "a\r\nb",
    "\u{1}",
    "\u{1b}[0m",
    "\u{7f}",
    "\u{80}",
    "\u{85}",
    "\u{9f}",
    "\u{a0}",
    "\u{2028}",
    "\u{2029}",
    "\u{202e}",
    "\u{feff}",
    "\u{feff}a",
    "\u{fffd}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{10ffff}",
    "é",
    "e\u{301}",
    "日本",
    "🦀",
];

/// Any text without the NUL that no variable can hold.
fn hostile() -> impl Strategy<Value = String> {
    let picked = select(PICKED).prop_map(str::to_owned);
    let joined = vec(select(PICKED), 2..6).prop_map(|parts| parts.concat());
    let characters = vec(any::<char>(), 0..24).prop_map(|c| c.into_iter().collect::<String>());
    let syntax = vec(
        select(&b"$${}:-_#&*!|>'\"\\%@`,[]?=<~ \t\n\r.019aexyzNOT"[..]),
        0..24,
    )
    .prop_map(|bytes| bytes.into_iter().map(char::from).collect::<String>());
    let long = (select(PICKED), 200..600_usize).prop_map(|(text, times)| text.repeat(times));
    prop_oneof![4 => picked, 3 => joined, 4 => characters, 4 => syntax, 1 => long]
        .prop_map(|text| text.replace('\0', ""))
}

/// One folder of a path: no slash, no control characters, not too long, and never `.` or `..`.
fn folder() -> impl Strategy<Value = String> {
    hostile().prop_map(|text| {
        let kept: String = text
            .chars()
            .filter(|c| *c != '/' && !c.is_control())
            .take(40)
            .collect();
        format!("{kept}_")
    })
}

/// A key of somebody's settings.
fn key() -> impl Strategy<Value = String> {
    hostile().prop_map(|text| text.chars().take(128).collect())
}

/// What a label may be called.
fn label() -> impl Strategy<Value = String> {
    key().prop_map(|text| {
        let good = |c: &char| !c.is_control() && !c.is_whitespace() && *c != '=';
        let kept: String = text.chars().filter(good).take(120).collect();
        if kept.is_empty() || kept.starts_with("com.docker.") {
            format!("k{kept}")
        } else {
            kept
        }
    })
}

prop_compose! {
    fn plans()(
        values in vec(hostile(), 60),
        labels in vec((label(), hostile()), 20),
        settings in vec((key(), hostile()), 20),
        command in vec(hostile(), 1..10),
        prompt in hostile(),
        paths in [folder(), folder(), folder(), folder()],
    ) -> Plan {
        let mut plan = golden_plan("everything");
        let [state, from, workdir, home] = paths;
        plan.state = PathBuf::from(format!("/state/{state}"));
        plan.egress.ca.dir = plan.state.join("egress");
        plan.workspace.mode = WorkspaceMode::Mount;
        plan.workspace.from = Some(PathBuf::from(format!("/home/op/{from}")));
        plan.workspace.workdir = format!("/{workdir}");
        plan.agent.workdir = plan.workspace.workdir.clone();
        plan.agent.home = format!("/home/{home}");
        plan.agent.prompt = Some(prompt);
        plan.agent.command = std::iter::once("program".to_owned()).chain(command).collect();
        plan.agent.env = values
            .into_iter()
            .enumerate()
            .map(|(n, value)| EnvVar { name: format!("V{n}"), from: EnvSource::Literal(value) })
            .collect();
        plan.agent.provider = Some(Provider {
            template: "claude".to_owned(),
            auth_token: None,
            forward_host_credentials: false,
            settings: settings.into_iter().map(|(key, value)| (key, Value::String(value))).collect(),
        });
        plan.labels.extend(labels);
        plan
    }
}

/// Every text of the services, as Compose understands it, is the plan's.
fn compare(plan: &Plan, config: &Value) {
    let agent = &config["services"]["agent"];
    for variable in &plan.agent.env {
        if let EnvSource::Literal(value) = &variable.from {
            assert_eq!(
                agent["environment"][&variable.name],
                value.as_str(),
                "{}",
                variable.name
            );
        }
    }
    for service in ["agent", "egress"] {
        let service = &config["services"][service];
        for (key, value) in &plan.labels {
            assert_eq!(service["labels"][key], value.as_str(), "label {key:?}");
        }
        let state = plan.state.to_str().expect("UTF-8");
        assert_eq!(
            service["security_opt"][1],
            format!("seccomp={state}/seccomp.json")
        );
    }
    let from = plan
        .workspace
        .from
        .as_ref()
        .and_then(|path| path.to_str())
        .expect("a path");
    assert_eq!(agent["volumes"][0]["source"], from);
    assert_eq!(
        agent["volumes"][0]["target"],
        plan.workspace.workdir.as_str()
    );
    assert_eq!(agent["working_dir"], plan.agent.workdir.as_str());
    assert_eq!(config["name"], plan.project.as_str());
    assert_carried(config, plan);
}

/// A case is two calls of Compose with a few hundred texts each, so few will do; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig {
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => default,
        None => ProptestConfig {
            cases: 24,
            ..default
        },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn compose_understands_what_was_meant(plan in plans()) {
        check(&plan).expect("a plan we render");
        let document = compose(&plan, Options::default()).expect("renders");
        let yaml = to_yaml(&document).expect("YAML");
        let json = to_json(&document).expect("JSON");
        // Our own readers first: they need no plugin.
        prop_assert_eq!(&plan_from_compose(&serde_yaml::from_str(&yaml).expect("YAML")).expect("a plan"), &plan);
        prop_assert_eq!(&plan_from_compose(&serde_json::from_str(&json).expect("JSON")).expect("a plan"), &plan);
        if has_compose() {
            compare(&plan, &compose_config(&yaml));
            compare(&plan, &compose_config(&json));
        }
    }
}

#[test]
fn the_real_compose_is_there() {
    if !has_compose() {
        skipped(
            "hostile texts were tried with our own readers only: docker compose is not installed",
        );
    }
}
