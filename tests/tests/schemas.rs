//! The schemas as an editor or another program uses them: every golden manifest and what the tools really print is
//! valid, and what the tools refuse is not. Python's `jsonschema` is the judge, which shares no code with us.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bottle_tests::{Call, Home, need_engine};
use serde_json::{Value, json};

/// Reads `[[schema, document, should it be valid], …]` and prints what is not as it should be.
const JUDGE: &str = r#"
import json, sys
from jsonschema import Draft202012Validator as Validator
for name, schema, document, expected in json.load(sys.stdin):
    Validator.check_schema(schema)
    errors = [error.message for error in Validator(schema).iter_errors(document)]
    if bool(errors) == expected:
        print(name, "should be", "valid:" if expected else "invalid", *errors[:3])
"#;

struct Case {
    name: String,
    schema: &'static str,
    document: Value,
    valid: bool,
}

/// A document that is valid, and two that are not: with a key that no schema has, and with the tag of no document.
fn with_its_faults(cases: &mut Vec<Case>, name: &str, schema: &'static str, document: &Value) {
    let changed = |key: &str, value: Value| {
        let mut document = document.clone();
        document[key] = value;
        document
    };
    for (what, document, valid) in [
        ("", document.clone(), true),
        (
            ", with a key of its own",
            changed("nosuch", json!({})),
            false,
        ),
        (
            ", with another tag",
            changed("schema", json!("bottle.nosuch/v1")),
            false,
        ),
    ] {
        cases.push(Case {
            name: format!("{name}{what}"),
            schema,
            document,
            valid,
        });
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn schema(name: &str) -> Value {
    let path = golden().join("schema").join(name).with_extension("json");
    serde_json::from_slice(&fs::read(path).expect("a schema")).expect("JSON")
}

/// The manifest in a file: YAML, or the front matter of Markdown.
fn manifest(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("a manifest");
    let yaml = match text.strip_prefix("---\n") {
        Some(rest) => rest.split("\n---").next().unwrap_or_default(),
        None => &text,
    };
    // A JSON document may hold characters that the YAML reader does not take.
    serde_json::from_str(yaml)
        .ok()
        .unwrap_or_else(|| serde_yaml::from_str(yaml).expect("YAML"))
}

fn manifests(cases: &mut Vec<Case>) {
    for case in fs::read_dir(golden().join("plan"))
        .expect("lists")
        .flatten()
    {
        for (folder, schema) in [("bottles", "bottle"), ("agents", "agent")] {
            let found = fs::read_dir(case.path().join("home").join(folder));
            for file in found.into_iter().flatten().flatten() {
                let path = file.path();
                let is_manifest = path
                    .extension()
                    .is_some_and(|end| end == "yaml" || end == "md");
                if !is_manifest {
                    continue;
                }
                let name = path.display().to_string();
                with_its_faults(cases, &name, schema, &manifest(&path));
            }
        }
    }
}

fn printed(cases: &mut Vec<Case>) {
    let home = Home::new();
    home.bottle(
        "one",
        "image: x\nenv: {A: '${T}', B: '?', C: d}\negress:\n  mode: observe\n  routes:\n    \
         - {host: a.example.com, limits: {requests: 5, per: 1h}, auth: {scheme: Bearer, token_ref: T}}\n",
    );
    home.bottle("two", "image: y\n");
    let (one, two) = (home.plan("one", "one-1"), home.plan("two", "two-1"));
    let plan: Value = serde_json::from_str(&one).expect("JSON");
    let mut newer = plan.clone();
    newer["agent"]["sudo"] = json!(true);
    let old = home.write("one.json", &one);
    let diff = home
        .tool("bottle-plan")
        .args(["--json", "diff"])
        .args([old.as_path(), Path::new("-")]);
    let diff: Value = serde_json::from_str(&diff.stdin(two).run().stdout).expect("JSON");
    let policy = json!({
        "schema": "bottle.policy/v1", "bottle": "one-1", "plan_digest": plan["digest"], "listen": "10.213.0.2",
        "own_networks": [], "log": 0, "mode": plan["egress"]["mode"], "routes": plan["egress"]["routes"],
    });
    let file = manifest(&home.path().join("bottles/one.yaml"));
    let single = json!({"bottle": file, "agent": {}});
    for (name, schema, document) in [
        ("a plan", "plan", &plan),
        ("a diff", "diff", &diff),
        ("a policy", "policy", &policy),
        ("a single file", "manifest", &single),
    ] {
        with_its_faults(cases, name, schema, document);
    }
    let tagged = json!({"schema": "bottle.manifest/v1", "image": "x"});
    let no_bottle = json!({"agent": {}});
    for (name, schema, document, valid) in [
        ("a plan with a key inside", "plan", newer, false),
        ("a bottle with its tag", "bottle", tagged, true),
        ("a file without a bottle", "manifest", no_bottle, false),
    ] {
        cases.push(Case {
            name: name.to_owned(),
            schema,
            document,
            valid,
        });
    }
}

/// The goldens that are documents themselves, and the descriptions of the built-in providers.
fn files(cases: &mut Vec<Case>) {
    let providers = golden().join("../../bottle-plan/providers");
    let folders = [
        (golden().join("plan"), "plan.json", "plan"),
        (golden().join("render"), "plan.json", "plan"),
        (providers, "provider.yaml", "provider"),
    ];
    let networks = manifest(&golden().join("render/minimal/plan.json"))["networks"].clone();
    for (folder, file, schema) in folders {
        for case in fs::read_dir(folder).expect("lists").flatten() {
            let path = case.path().join(file);
            // YAML, of which JSON is a part.
            let mut document = manifest(&path);
            // The golden says `NETWORKS` where the addresses would be, which depend on the machine's routes.
            if document["networks"].is_string() {
                document["networks"] = networks.clone();
            }
            with_its_faults(cases, &path.display().to_string(), schema, &document);
        }
    }
}

/// Asks the judge, and fails with what he says.
fn judge(python: &str, cases: &[Case]) {
    let input: Vec<Value> = cases
        .iter()
        .map(|case| json!([case.name, schema(case.schema), case.document, case.valid]))
        .collect();
    let said = Call::new(python)
        .args(["-W", "ignore", "-c", JUDGE])
        .stdin(Value::from(input).to_string())
        .run()
        .ok();
    assert!(said.is_empty(), "{said}");
}

/// The Python that has the library: the one a person has put first, or the system's, to which a package adds it.
fn python() -> Option<&'static str> {
    let has = |python: &&str| {
        let there = Command::new(python)
            .args(["-c", "import jsonschema"])
            .output();
        there.is_ok_and(|output| output.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has);
    if found.is_none() {
        bottle_tests::engine::note_skipped("schemas", "python3 has no jsonschema");
    }
    found
}

#[test]
fn every_document_is_what_its_schema_says() {
    let Some(python) = python() else { return };
    let mut cases = Vec::new();
    manifests(&mut cases);
    printed(&mut cases);
    files(&mut cases);
    assert!(cases.len() > 30, "{}", cases.len());
    judge(python, &cases);
}

/// A bottle that ran, was asked for something, and was frozen: all that it left and all that was said of it.
#[test]
fn what_a_bottle_leaves_is_what_its_schemas_say() {
    if !need_engine("what_a_bottle_leaves_is_what_its_schemas_say") {
        return;
    }
    let Some(python) = python() else { return };
    let home = Home::new();
    let key = home.path().join("key");
    let made = Call::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]);
    let _ = made.args([&key]).run().ok();
    home.bottle(
        "asks",
        &format!(
            "agent_provider: {{template: shell}}\nsupervise: true\ngit-gate:\n  repos:\n    app:\n      \
             url: git@git.example.com:o/app.git\n      host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA\n      \
             key: {{provider: static, path: {}}}\n      push: {{review: true}}\n      sign: ssh-if-asked\n",
            key.display()
        ),
    );
    let slug = home.slug("asks");
    let compose = home.render(&home.plan("asks", &slug));
    let handle = home
        .tool("bottle-run")
        .args(["up"])
        .stdin(compose)
        .run()
        .json();
    for host in ["yes.example.com", "no.example.com"] {
        let asked = format!(
            "{{\"url\": \"https://{host}/\", \"methods\": [\"GET\"], \"reason\": \"why\", \"wait\": 0}}"
        );
        let curl = [
            "curl",
            "-sS",
            "supervise:9100/requests/egress",
            "-d",
            &asked,
        ];
        let _ = home
            .tool("bottle-run")
            .args(["exec", &slug, "--"])
            .args(curl)
            .run()
            .ok();
    }
    let waiting = home
        .tool("bottle-run")
        .args(["--json", "requests"])
        .run()
        .json();
    for entry in waiting["requests"].as_array().expect("a list") {
        let id = entry["request"]["id"].as_str().expect("an id");
        let yes = entry.to_string().contains("yes.example.com");
        let decision = if yes {
            vec!["approve", id]
        } else {
            vec!["deny", id, "--why", "no"]
        };
        let _ = home.tool("bottle-run").args(decision).run().ok();
    }
    let snapshot = home
        .tool("bottle-snapshot")
        .args(["commit", &slug])
        .run()
        .json();
    let replayed = home
        .tool("bottle-plan")
        .args(["--json", "replay", &slug, "--policy", "-"])
        .stdin(home.plan("asks", &slug))
        .run();
    let replay = serde_json::from_str(&replayed.stdout).expect("JSON");

    let state = home.state(&slug);
    let mut cases = Vec::new();
    let mut add = |name: &str, schema, document: &Value| {
        with_its_faults(&mut cases, name, schema, document);
    };
    add("the handle", "handle", &handle);
    add("the snapshot", "snapshot", &snapshot);
    add("a replay", "replay", &replay);
    for (folder, schema) in [
        ("supervise/config", "supervise"),
        ("git-gate/config", "gate"),
        ("supervise/requests", "request"),
        ("supervise/answers", "answer"),
        ("grants", "grant"),
    ] {
        let files: Vec<PathBuf> = fs::read_dir(state.join(folder))
            .unwrap_or_else(|error| panic!("{folder}: {error}"))
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect();
        assert!(!files.is_empty(), "nothing in {folder}");
        for file in files {
            let text = fs::read(&file).expect("a file");
            let document = serde_json::from_slice(&text).expect("JSON");
            add(&file.display().to_string(), schema, &document);
        }
    }
    let audit = fs::read_to_string(state.join("audit/audit.jsonl")).expect("an audit");
    for (index, line) in audit.lines().enumerate() {
        let record = serde_json::from_str(line).expect("JSON");
        add(
            &format!("line {} of the audit", index + 1),
            "audit",
            &record,
        );
    }
    judge(python, &cases);
}
