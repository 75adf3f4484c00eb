//! Manifests and the plans they give, and the schemas, as files. `UPDATE=1 cargo test -p bottle-plan` writes them anew.

#![allow(clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

fn bottle_plan() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bottle-plan"));
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

#[track_caller]
fn same_as_file(path: &Path, text: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, text).expect("the golden file can be written");
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == text,
        "{} differs; UPDATE=1 writes:\n{text}",
        path.display()
    );
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("mkdir");
    for entry in fs::read_dir(from).expect("lists").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// The plan with what differs from machine to machine replaced.
fn neutral(plan: &str, root: &Path) -> String {
    let root = fs::canonicalize(root).expect("there");
    let mut value: serde_json::Value =
        serde_json::from_str(&plan.replace(&root.display().to_string(), "/ROOT")).expect("JSON");
    value["sidecar"]["user"] = "UID:GID".into();
    value["sidecar"]["image"] = "bottle-sidecar:VERSION".into();
    if let Some(image) = value.pointer_mut("/git_gate/image") {
        *image = "bottle-git-gate:VERSION".into();
    }
    // The folders of the host are part of what is granted, and here they have another name each time.
    value["digest"] = "DIGEST".into();
    value["labels"]["bottle.plan"] = "DIGEST".into();
    // A hash of the home's path.
    value["labels"]["bottle.home"] = "HOME".into();
    // Which range is free depends on the host's routes.
    value["networks"] = "NETWORKS".into();
    serde_json::to_string_pretty(&value).expect("JSON") + "\n"
}

#[test]
fn every_manifest_gives_its_plan() {
    let mut cases = 0;
    for case in fs::read_dir(golden().join("plan"))
        .expect("lists")
        .flatten()
    {
        let root = tempfile::tempdir().expect("temp dir");
        copy_tree(&case.path().join("home"), &root.path().join("home"));
        fs::create_dir(root.path().join("repo")).expect("mkdir");
        let args = fs::read_to_string(case.path().join("args")).expect("every case has args");
        let output = bottle_plan()
            .args(args.split_whitespace())
            .args(["--slug", "golden"])
            .arg("--home")
            .arg(fs::canonicalize(root.path()).expect("there").join("home"))
            .arg("--cwd")
            .arg(root.path().join("repo"))
            .output()
            .expect("runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: {stderr}",
            case.path().display()
        );
        let plan = String::from_utf8(output.stdout).expect("UTF-8");
        same_as_file(&case.path().join("plan.json"), &neutral(&plan, root.path()));
        cases += 1;
    }
    assert!(cases >= 3);
}

#[test]
fn every_document_has_its_schema_on_disk() {
    let folder = golden().join("schema");
    let documents = bottle_plan::schema::DOCUMENTS;
    let help = bottle_plan()
        .args(["schema", "--help"])
        .output()
        .expect("runs");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    for document in documents {
        assert!(help.contains(document), "{document} is not in {help}");
        let output = bottle_plan()
            .args(["schema", document])
            .output()
            .expect("runs");
        assert!(output.status.success());
        same_as_file(
            &folder.join(format!("{document}.json")),
            &String::from_utf8(output.stdout).expect("UTF-8"),
        );
    }
    let on_disk = fs::read_dir(&folder).expect("lists").count();
    assert_eq!(on_disk, documents.len(), "a schema nobody prints any more");
}

#[test]
fn a_plan_holds_no_value_of_the_host() {
    let root = tempfile::tempdir().expect("temp dir");
    let home = root.path().join("home/bottles");
    fs::create_dir_all(&home).expect("mkdir");
    let manifest = "image: x\nenv: {A: '${PLANTED}'}\negress: {routes: [{host: api.example.com, auth: {scheme: Bearer, token_ref: PLANTED}}]}\n";
    fs::write(home.join("web.yaml"), manifest).expect("write");
    let output = bottle_plan()
        .args(["web", "--explain", "--home"])
        .arg(root.path().join("home"))
        .env("PLANTED", "the-secret-itself")
        .output()
        .expect("runs");
    assert!(output.status.success());
    let printed = [output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&printed).contains("the-secret-itself"));
}
