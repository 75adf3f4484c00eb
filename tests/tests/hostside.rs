//! The host's side: folders others can write to, links in them, documents that lie.

#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use bottle_tests::fake::{FakeDocker, Script};
use bottle_tests::{Done, Home};
use serde_json::{Value, json};

fn home() -> Home {
    let home = Home::new();
    home.bottle("web", "image: debian:trixie-slim\n");
    home
}

fn run(home: &Home, args: &[&str], stdin: &str) -> (Done, FakeDocker) {
    let engine = FakeDocker::new(&Script::default());
    let call = home
        .tool("bottle-run")
        .env("BOTTLE_DOCKER", engine.program());
    let done = call.args(args.iter().copied()).stdin(stdin).run();
    (done, engine)
}

#[track_caller]
fn refused(done: &Done, text: &str) {
    done.no_product(2, text);
    assert!(
        done.stderr.contains(text),
        "`{text}` is not in: {}",
        done.stderr
    );
}

#[test]
fn a_state_folder_that_others_can_write_to_is_refused() {
    let home = home();
    let file = home.render(&home.plan("web", "s"));
    for folder in ["state", "state/s"] {
        let path = home.path().join(folder);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("ours");
        let (done, engine) = run(&home, &["up"], &file);
        refused(&done, "can be written to by others");
        assert!(done.stderr.contains("hint: chmod go-w"), "{}", done.stderr);
        assert!(
            engine.calls().is_empty(),
            "the engine was asked all the same"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("ours");
    }
}

/// The home by a link, or around a corner, is the same home: its bottles are found, and no other has their place.
#[test]
fn two_ways_to_a_home_are_one_home() {
    let home = home();
    let link = home.path().with_file_name("link");
    symlink(home.path(), &link).expect("a link");
    let around = home.path().join("../link/../home");
    let engine = FakeDocker::new(&Script::default());
    let way = |path: &Path| {
        let plan = home.tool("bottle-plan").env("BOTTLE_HOME", path);
        let plan = plan.args(["web", "--slug", "s"]).run().ok();
        let listed = home
            .tool("bottle-run")
            .env("BOTTLE_HOME", path)
            .env("BOTTLE_DOCKER", engine.program())
            .args(["list"])
            .run()
            .ok();
        (plan, listed)
    };
    let direct = way(&home.path());
    assert_eq!(way(&link), direct);
    assert_eq!(way(&around), direct);
    // The engine is asked for the containers of one home.
    let labels: BTreeSet<String> = engine
        .calls()
        .iter()
        .flat_map(|call| call.args.clone())
        .filter(|arg| arg.contains("label=bottle.home="))
        .collect();
    assert_eq!(labels.len(), 1, "{labels:?}");
}

/// What lies in the home is no workspace, on whatever way it is reached.
#[test]
fn a_workspace_is_looked_at_where_it_really_is() {
    let home = home();
    let parent = home.path().parent().expect("a folder").to_owned();
    for (name, target) in [
        ("to-home", home.path().to_owned()),
        ("to-parent", parent.clone()),
    ] {
        symlink(target, parent.join(name)).expect("a link");
    }
    let _ = home.plan("web", "s");
    let state = home.path().join("state/s");
    let refused = |manifest: &str, args: &[&str]| {
        home.bottle("work", manifest);
        let call = home.tool("bottle-plan").args(["work", "--check"]);
        let done = call.args(args.iter().copied()).run();
        assert_eq!(done.code(), 3, "{manifest} {args:?}: {}", done.stderr);
        assert!(
            done.stderr.contains("the bottles' own folder"),
            "{}",
            done.stderr
        );
    };
    for mode in ["copy", "mount"] {
        for from in ["to-home", "to-parent", "home/..", "home/bottles/../../home"] {
            let from = parent.join(from);
            refused(
                &format!(
                    "image: x\nworkspace: {{from: '{}', mode: {mode}}}\n",
                    from.display()
                ),
                &[],
            );
        }
        let from = state.display();
        refused(
            &format!("image: x\nworkspace: {{from: '{from}', mode: {mode}}}\n"),
            &[],
        );
    }
    let given = parent.join("to-home").display().to_string();
    refused("image: x\n", &["--workspace", &given]);
    // And the home by a link, the workspace straight.
    let done = home
        .tool("bottle-plan")
        .env("BOTTLE_HOME", parent.join("to-home"))
        .args(["web", "--check", "--workspace"])
        .args([home.path()])
        .run();
    assert_eq!(done.code(), 3, "{}", done.stderr);
}

#[test]
fn no_link_in_the_state_folder_is_followed() {
    let elsewhere = tempfile::tempdir().expect("a folder");
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, "untouched").expect("written");
    let is_untouched = |name: &str| {
        assert_eq!(
            fs::read_to_string(&victim).expect("there"),
            "untouched",
            "{name}"
        );
        let files = fs::read_dir(elsewhere.path()).expect("a folder").count();
        assert_eq!(files, 1, "{name} made a file elsewhere");
    };
    // Folders: refused before anything is written.
    for name in ["s", "s/egress", "s/audit", "s/empty"] {
        let home = home();
        let file = home.render(&home.plan("web", "s"));
        let path = home.path().join("state").join(name);
        let _ = fs::remove_dir_all(&path);
        symlink(elsewhere.path(), &path).expect("a link");
        let (done, _) = run(&home, &["up"], &file);
        assert_ne!(done.code(), 0, "{name}");
        assert_eq!(done.stdout, "", "{name}");
        is_untouched(name);
    }
    // Files: replaced, or refused, and never written through.
    for name in [
        "lock",
        "plan.json",
        "docker-compose.yml",
        "override.json",
        "seccomp.json",
        "metadata.json",
        "compose.log",
    ] {
        let home = home();
        let file = home.render(&home.plan("web", "s"));
        let path = home.state("s").join(name);
        let _ = fs::remove_file(&path);
        symlink(&victim, &path).expect("a link");
        for args in [&["up"][..], &["down", "s"], &["gc"]] {
            let _ = run(&home, args, &file);
            is_untouched(name);
        }
    }
    // A bottle's folder that is a link is nobody's bottle: nothing is locked, written or removed through it.
    let home = home();
    let _ = home.plan("web", "other");
    symlink(elsewhere.path(), home.state("s")).expect("a link");
    for args in [
        &["down", "s"][..],
        &["down", "--purge", "s"],
        &["gc"],
        &["check", "s"],
    ] {
        let _ = run(&home, args, "");
        is_untouched("s");
    }
}

/// What somebody might put where a name belongs.
const HOSTILE: [&str; 12] = [
    "../../etc/cron.d/x",
    "/etc/passwd",
    "-rf",
    "--privileged",
    "a b",
    "a;touch /tmp/owned",
    "$(touch /tmp/owned)",
    "`id`",
    "a\nb",
    "a\u{0}b",
    "\u{202e}evil",
    "",
];

#[test]
fn a_plan_that_lies_reaches_no_shell_and_no_path_outside() {
    let home = home();
    let plan: Value = serde_json::from_str(&home.plan("web", "s")).expect("JSON");
    let before = tree(&home.path());
    let places = [
        "/slug",
        "/project",
        "/networks/internal/name",
        "/networks/egress/subnet",
        "/agent/user",
        "/sidecar/user",
        "/egress/ca/dir",
        "/state",
    ];
    for place in places {
        for text in HOSTILE {
            let mut lie = plan.clone();
            *lie.pointer_mut(place).expect("in every plan") = json!(text);
            let rendered = home.tool("bottle-render").stdin(lie.to_string()).run();
            assert!(
                matches!(rendered.code(), 2 | 3),
                "{place} {text:?}: {}",
                rendered.stderr
            );
            let file = home.write("lie.json", lie.to_string());
            let (done, engine) = run(
                &home,
                &["check", "--plan", file.to_str().expect("text")],
                "",
            );
            assert!(
                matches!(done.code(), 2 | 3),
                "{place} {text:?}: {} {}",
                done.code(),
                done.stderr
            );
            assert!(
                engine.calls().is_empty(),
                "{place} {text:?} reached the engine"
            );
            fs::remove_file(file).expect("ours");
        }
    }
    assert_eq!(tree(&home.path()), before);
    assert!(!Path::new("/tmp/owned").exists());
}

#[test]
fn a_handle_that_lies_names_no_path() {
    let home = home();
    for text in HOSTILE {
        let handle = json!({
            "schema": "bottle.handle/v1", "slug": text, "project": "p", "plan_digest": "x", "state": "/",
            "containers": {"agent": "a", "egress": "e"}, "ca_fingerprint": "x", "started_at": "x",
        });
        for command in ["down", "check"] {
            let (done, engine) = run(&home, &[command, "-"], &handle.to_string());
            done.no_product(2, &format!("{command} {text:?}"));
            assert!(
                engine.calls().is_empty(),
                "{command} {text:?} reached the engine"
            );
        }
    }
}

/// Every path below `folder`.
fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        found.push(path.display().to_string());
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path));
        }
    }
    found.sort();
    found
}

/// Each package is somebody whose account can be taken over. More are a decision, made here. Of these some 90 came with
/// the MCP server (rmcp), the view on terminals (ratatui) and the client of forges (ureq).
const MOST_PACKAGES: usize = 300;

#[test]
fn the_lock_file_stays_small() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let text = fs::read_to_string(path).expect("the lock file");
    let packages = text.lines().filter(|line| *line == "[[package]]").count();
    assert!(packages > 50, "this is not the lock file");
    assert!(
        packages <= MOST_PACKAGES,
        "{packages} packages; {MOST_PACKAGES} were agreed on"
    );
}

/// Its own schema says more (docs/reliability.md says what was run); this holds what a reader relies on.
#[test]
fn the_bill_of_materials_names_all_that_is_built() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let done = bottle_tests::Call::new(root.join("scripts/sbom"))
        .envs(
            &["HOME", "CARGO_HOME", "RUSTUP_HOME"]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?)))
                .collect::<Vec<_>>(),
        )
        .run();
    let bom = done.json();
    assert_eq!(
        (&bom["bomFormat"], &bom["specVersion"], &bom["version"]),
        (&json!("CycloneDX"), &json!("1.5"), &json!(1))
    );
    let components = bom["components"].as_array().expect("a list");
    let mut known = BTreeSet::new();
    for component in components {
        let reference = component["bom-ref"].as_str().expect("a name");
        assert!(known.insert(reference), "{reference} is there twice");
        assert_eq!(component["purl"], reference);
        assert_ne!(component["licenses"], json!([]), "{reference}");
        // What comes from a registry is named by its bytes.
        let hashed = component["hashes"] != json!([]);
        assert_eq!(component["type"] == "library", hashed, "{reference}");
    }
    for name in ["bottle-run", "bottle-sidecar", "ring", "rustls", "tokio"] {
        let named = components.iter().any(|one| one["name"] == name);
        assert!(named, "{name} is not in it");
    }
    let tests = components.iter().any(|one| one["name"] == "bottle-tests");
    assert!(!tests, "what only tests use is in it");
    for edge in bom["dependencies"].as_array().expect("a list") {
        let ends = edge["dependsOn"].as_array().expect("a list").iter();
        for end in ends.chain([&edge["ref"]]) {
            assert!(known.contains(end.as_str().expect("a name")), "{end}");
        }
    }
}
