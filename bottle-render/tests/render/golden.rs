//! Plans and the files made from them, side by side. `UPDATE=1` writes the files anew.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bottle_render::{Options, compose, plan_from_compose, to_json, to_yaml};
use serde_json::Value;

use crate::support::{
    assert_carried, compose_config, golden_dir, golden_plan, has_compose, read, skipped,
};

/// Every key that may stand in a service. A new one is a decision: add it here with the reason in the code.
const SERVICE_KEYS: &[&str] = &[
    "cap_add",
    "cap_drop",
    "command",
    "container_name",
    "cpus",
    "depends_on",
    "dns",
    "dns_opt",
    "dns_search",
    "entrypoint",
    "environment",
    "extra_hosts",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "ipc",
    "labels",
    "logging",
    "mem_limit",
    "memswap_limit",
    "network_mode",
    "networks",
    "oom_score_adj",
    "pids_limit",
    "pull_policy",
    "read_only",
    "restart",
    "runtime",
    "security_opt",
    "shm_size",
    "stop_grace_period",
    "stop_signal",
    "sysctls",
    "tmpfs",
    "ulimits",
    "user",
    "volumes",
    "working_dir",
];
const NETWORK_KEYS: &[&str] = &[
    "driver",
    "driver_opts",
    "enable_ipv6",
    "external",
    "internal",
    "ipam",
    "labels",
    "name",
];
const VOLUME_KEYS: &[&str] = &["bind", "read_only", "source", "target", "type"];

fn cases() -> Vec<String> {
    let mut cases: Vec<String> = std::fs::read_dir(golden_dir())
        .expect("the golden folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    cases.sort();
    assert!(cases.len() >= 4, "golden cases are missing: {cases:?}");
    cases
}

fn rendered(case: &str, standalone: bool) -> String {
    to_yaml(&compose(&golden_plan(case), Options { standalone }).expect("renders")).expect("YAML")
}

/// The files of a case; a bottle without a network has no standalone one.
fn files(case: &str) -> Vec<(PathBuf, String)> {
    let dir = golden_dir().join(case);
    let mut files = vec![(dir.join("compose.yml"), rendered(case, false))];
    if !golden_plan(case).is_strict() {
        files.push((dir.join("standalone.yml"), rendered(case, true)));
    }
    files
}

#[test]
fn every_plan_gives_the_bytes_beside_it() {
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    for case in cases() {
        for (path, yaml) in files(&case) {
            if update {
                std::fs::write(&path, &yaml).expect("writable");
            }
            assert!(
                yaml == read(&path),
                "{} is not what the plan gives; UPDATE=1 rewrites it",
                path.display()
            );
        }
    }
}

#[test]
fn no_file_is_forgotten() {
    for case in cases() {
        let found: BTreeSet<_> = std::fs::read_dir(golden_dir().join(&case))
            .expect("a case is a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        let expected: BTreeSet<_> = files(&case)
            .into_iter()
            .map(|(path, _)| path.file_name().expect("a name").to_owned())
            .chain(["plan.json".into()])
            .collect();
        assert_eq!(found, expected, "{case}");
    }
}

#[test]
fn the_plan_comes_out_as_it_went_in() {
    for case in cases() {
        let plan = golden_plan(&case);
        for (path, yaml) in files(&case) {
            let document: Value = serde_yaml::from_str(&yaml).expect("YAML");
            assert_eq!(
                plan_from_compose(&document).expect("a plan"),
                plan,
                "{}",
                path.display()
            );
        }
        let json = to_json(&compose(&plan, Options::default()).expect("renders")).expect("JSON");
        let document: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(
            plan_from_compose(&document).expect("a plan"),
            plan,
            "{case}"
        );
    }
}

#[test]
fn only_listed_keys_are_emitted() {
    let check = |what: &str, value: &Value, allowed: &[&str]| {
        for key in value.as_object().expect("a mapping").keys() {
            assert!(allowed.contains(&key.as_str()), "{what} has `{key}`");
        }
    };
    for case in cases() {
        for (path, yaml) in files(&case) {
            let document: Value = serde_yaml::from_str(&yaml).expect("YAML");
            let at = path.display();
            check(
                &at.to_string(),
                &document,
                &["name", "networks", "services", "x-bottle"],
            );
            for (name, service) in document["services"].as_object().expect("services") {
                check(&format!("{at}: {name}"), service, SERVICE_KEYS);
                for volume in service["volumes"].as_array().into_iter().flatten() {
                    check(&format!("{at}: {name}: a volume"), volume, VOLUME_KEYS);
                    assert_eq!(volume["type"], "bind");
                    assert_eq!(volume["bind"]["create_host_path"], false);
                }
            }
            for (name, network) in document["networks"].as_object().expect("networks") {
                check(&format!("{at}: {name}"), network, NETWORK_KEYS);
            }
        }
    }
}

#[test]
fn every_service_is_closed() {
    for case in cases() {
        let document: Value = serde_yaml::from_str(&rendered(&case, false)).expect("YAML");
        for (name, service) in document["services"].as_object().expect("services") {
            assert_eq!(
                service["cap_drop"],
                serde_json::json!(["ALL"]),
                "{case}: {name}"
            );
            assert_eq!(
                service["security_opt"][0], "no-new-privileges:true",
                "{case}: {name}"
            );
            assert!(
                service["security_opt"][1]
                    .as_str()
                    .expect("text")
                    .starts_with("seccomp=/"),
                "{case}: {name}"
            );
            assert_eq!(service["pull_policy"], "never", "{case}: {name}");
            let restart = if name == "agent" {
                "no"
            } else {
                "on-failure:5"
            };
            assert_eq!(service["restart"], restart, "{case}: {name}");
            assert_eq!(
                service["mem_limit"], service["memswap_limit"],
                "{case}: {name}"
            );
            let networks: Vec<_> = service["networks"]
                .as_object()
                .into_iter()
                .flat_map(|networks| networks.keys())
                .collect();
            if golden_plan(&case).is_strict() {
                assert!(
                    !networks.contains(&&"internal".to_owned()),
                    "{case}: {name}"
                );
                let mode = (name == "agent" || name == "supervise").then_some("none");
                assert_eq!(service["network_mode"].as_str(), mode, "{case}: {name}");
            } else if name == "agent" {
                assert_eq!(networks, ["internal"], "{case}");
            }
        }
    }
}

/// What the host or a person provides must not be in the file: neither a value nor the place of one.
#[test]
fn values_from_outside_are_not_in_the_agents_environment() {
    let document: Value = serde_yaml::from_str(&rendered("hostile", false)).expect("YAML");
    let agent = document["services"]["agent"]["environment"]
        .as_array()
        .expect("a list");
    let has = |part: &str| {
        agent
            .iter()
            .any(|entry| entry.as_str().expect("text").starts_with(part))
    };
    assert!(!has("FROM_HOST") && !has("ASKED"));
    assert!(has("ANTHROPIC_API_KEY=bottle-placeholder-$$0-yes"));
    let egress = &document["services"]["egress"]["environment"];
    assert_eq!(
        *egress,
        serde_json::json!(["EGRESS_TOKEN_0", "EGRESS_TOKEN_1"])
    );
}

#[test]
fn compose_accepts_every_golden_file() {
    if !has_compose() {
        skipped("the golden files were not shown to docker compose, which is not installed");
        return;
    }
    for case in cases() {
        let plan = golden_plan(&case);
        for (_, yaml) in files(&case) {
            let config = compose_config(&yaml);
            assert_eq!(config["name"], plan.project.as_str());
            assert_carried(&config, &plan);
        }
    }
}
