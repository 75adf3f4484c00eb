//! A snapshot in a file: taken in by another engine, by Podman, and what a file from a stranger may not do.

use std::fs;
use std::path::{Path, PathBuf};

use bottle_tests::engine::{note_skipped, skip};
use bottle_tests::second::SecondEngine;
use bottle_tests::snapshot::{recorded, sh, snapshot, unnamed};
use bottle_tests::{Call, Done, Home, need_engine, tools};

use crate::{WEB, frozen, home, work_in};

#[test]
fn moved_to_another_engine_it_is_the_same() {
    let name = "moved_to_another_engine_it_is_the_same";
    if !need_engine(name) {
        return;
    }
    let other = match SecondEngine::start() {
        Ok(other) => other,
        Err(why) => return skip(name, &why),
    };
    let home = home();
    let slug = home.slug("move");
    let bottle = home.up("web", &slug);
    sh(&bottle, "echo moved > /workspace/work");
    let made = snapshot(&home, &["commit", &slug]).json();
    let file = home.cwd().join("moved.tar.zst");
    let path = file.to_str().expect("UTF-8");
    assert_eq!(snapshot(&home, &["export", &slug, "-o", path]).code(), 0);
    assert_eq!(
        snapshot(&home, &["export", &slug, "-o", path]).code(),
        5,
        "never over another file"
    );

    let there = Home::with_env(&[("DOCKER_HOST", &other.host())]);
    let taken = snapshot(&there, &["import", path]).json();
    assert_eq!(
        (&taken["image"], &taken["proof"]),
        (&made["image"], &made["proof"])
    );
    assert_eq!(
        snapshot(&there, &["import", path]).code(),
        5,
        "never over another bottle"
    );
    let tag = taken["tag"].as_str().expect("a name");
    assert_eq!(work_in(&other, tag), "moved\n");
    // The bottle is known there under its name, and only the manifest is its owner's to bring.
    let planned = there.tool("bottle-plan").args(["--resume", &slug]).run();
    assert_eq!(planned.code(), 4, "{}", planned.stderr);
    there.bottle("web", WEB);
    let plan = there
        .tool("bottle-plan")
        .args(["--resume", &slug])
        .run()
        .json();
    assert_eq!(plan["resume"]["images"][0]["image"], made["image"]);

    // The same file without our tools.
    assert_eq!(snapshot(&there, &["rm", &slug, "--force"]).code(), 0);
    let plain = there.cwd().join("plain.tar");
    let plain = plain.to_str().expect("UTF-8");
    let _ = Call::new("zstd")
        .args(["-q", "-d", path, "-o", plain])
        .run()
        .ok();
    let _ = other.docker(["load", "--quiet", "--input", plain]).ok();
    let loaded = other
        .docker(["image", "inspect", "--format", "{{.Id}}", tag])
        .ok();
    assert_eq!(loaded.trim(), made["image"].as_str().expect("an id"));

    // Changed on its way: refused, and nothing is left of it.
    let mut bytes = std::fs::read(plain).expect("reads");
    let at = bytes
        .windows(6)
        .position(|window| window == b"moved\n")
        .expect("the file is inside");
    bytes[at] = b'M';
    std::fs::write(plain, bytes).expect("writes");
    let changed = snapshot(&there, &["import", plain, "--slug", "changed"]);
    assert_eq!(changed.code(), 3, "{}", changed.stderr);
    assert!(!there.state("changed").exists());
    let bomb = snapshot(
        &there,
        &["import", path, "--slug", "bomb", "--max-size", "100000"],
    );
    assert_eq!(bomb.code(), 3, "{}", bomb.stderr);
    assert!(!there.state("bomb").exists());
    let junk = there.write("junk", "not an archive");
    assert_eq!(
        snapshot(&there, &["import", junk.to_str().expect("UTF-8")]).code(),
        2
    );
}

/// Podman with a storage of its own.
struct Podman {
    folder: tempfile::TempDir,
}

impl Podman {
    fn new(test: &str) -> Option<Self> {
        let why = if tools::find("podman").is_none() {
            "podman is not installed; apt-get install podman"
        } else if !nix::unistd::geteuid().is_root() {
            "only root can have a storage of Podman's anywhere"
        } else {
            let folder = tempfile::tempdir_in("/var/tmp").expect("a temporary folder");
            let script = format!(
                "#!/bin/sh\nexec podman --root {0}/root --runroot {0}/run --storage-driver overlay \"$@\"\n",
                folder.path().display()
            );
            let program = folder.path().join("podman");
            fs::write(&program, script).expect("a file");
            let _ = Call::new("chmod")
                .args(["0755"])
                .args([&program])
                .run()
                .ok();
            let podman = Self { folder };
            let answers = podman.call(&["info"]);
            if answers.status.success() {
                return Some(podman);
            }
            note_skipped(
                test,
                &format!("podman does not work here: {}", answers.stderr),
            );
            return None;
        };
        note_skipped(test, why);
        None
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("podman")
    }

    fn call(&self, args: &[&str]) -> Done {
        Call::new(self.program()).args(args.iter().copied()).run()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.call(&["rmi", "--all", "--force"]);
        let mounted = self.folder.path().join("root/overlay");
        let _ = Call::new("umount")
            .args(["--quiet", "--lazy"])
            .args([&mounted])
            .run();
    }
}

#[test]
fn podman_loads_what_docker_exported() {
    let test = "podman_loads_what_docker_exported";
    if !need_engine(test) {
        return;
    }
    let Some(podman) = Podman::new(test) else {
        return;
    };
    let (home, slug, made) = frozen("pod");
    let file = home.cwd().join("pod.tar.zst");
    let path = file.to_str().expect("UTF-8");
    assert_eq!(snapshot(&home, &["export", &slug, "-o", path]).code(), 0);
    let id = made["image"].as_str().expect("an id");

    // Without our tools, as it is.
    let _ = podman.call(&["load", "--quiet", "--input", path]).ok();
    let tag = made["tag"].as_str().expect("a name");
    let loaded = podman
        .call(&["image", "inspect", "--format={{.Id}}", tag])
        .ok();
    assert_eq!(format!("sha256:{}", loaded.trim()), id);
    let mounted = podman.call(&["image", "mount", tag]).ok();
    let work = Path::new(mounted.trim()).join("workspace/work");
    assert_eq!(fs::read_to_string(work).expect("it is there"), "moved\n");
    let _ = podman.call(&["image", "unmount", tag]);
    let _ = podman.call(&["rmi", "--force", tag]).ok();

    // With them.
    let there = Home::new();
    let with = |args: &[&str]| {
        let call = there
            .tool("bottle-snapshot")
            .env("BOTTLE_DOCKER", podman.program());
        call.args(args.iter().copied()).run()
    };
    let taken = with(&["import", path]).json();
    assert_eq!(
        (&taken["image"], &taken["proof"]),
        (&made["image"], &made["proof"])
    );
    assert_eq!(with(&["import", path]).code(), 5);
    let proof = with(&["verify", &slug, "--allow-missing"]).json();
    let top = made["layers"][1].as_str().expect("a digest");
    assert!(proof["searched"][top].is_u64(), "{proof:#}");
    let back = there.cwd().join("back.tar.zst");
    let back = back.to_str().expect("UTF-8");
    assert_eq!(with(&["export", &slug, "-o", back]).code(), 0);
    let done = with(&["rm", &slug, "--force"]);
    assert_eq!(done.code(), 0, "{}", done.stderr);
    assert_eq!(podman.call(&["images", "--all", "--quiet"]).ok(), "");
    // And Docker takes back what Podman gave.
    let taken = snapshot(&home, &["import", back, "--slug", "back"]).json();
    assert_eq!(taken["image"], made["image"]);
}

#[test]
fn a_file_of_a_stranger_reaches_nothing() {
    if !need_engine("a_file_of_a_stranger_reaches_nothing") {
        return;
    }
    let (home, slug, made) = frozen("evil");
    let path = home.cwd().join("good.tar.zst");
    let path = path.to_str().expect("UTF-8");
    assert_eq!(snapshot(&home, &["export", &slug, "-o", path]).code(), 0);
    let folder = home.cwd().join("parts");
    fs::create_dir(&folder).expect("a folder");
    let tar = |args: &[&str]| {
        Call::new("tar")
            .args(args.iter().copied())
            .cwd(&folder)
            .run()
            .ok()
    };
    let _ = Call::new("zstd")
        .args(["-q", "-d", path, "-o", "../good.tar"])
        .cwd(&folder)
        .run()
        .ok();
    let _ = tar(&["-xf", "../good.tar"]);
    let names = tar(&["-tf", "../good.tar"]);
    let names: Vec<&str> = names.lines().collect();
    let documents = &names[..2];
    let blobs = &names[2..];
    fs::write(folder.join("extra"), "extra").expect("a file");
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).expect("a link");
    let whole = made["layers"][0]
        .as_str()
        .expect("a digest")
        .replace("sha256:", "blobs/sha256/");
    let edited = |from: &str, to: &str| {
        let text = fs::read_to_string(folder.join(documents[0])).expect("readable");
        assert!(text.contains(from), "{from}: {text}");
        fs::write(folder.join("edited"), text.replacen(from, to, 1)).expect("a file");
    };
    // What comes before the parts, what its names become, and the exit code.
    let as_document = format!("s,^edited$,{},", documents[0]);
    let cases: [(&str, Vec<&str>, &str, i32); 7] = [
        ("up and out", vec!["extra"], "s,^extra$,../../../extra,", 3),
        ("absolute", vec!["extra"], "s,^extra$,/tmp/bottle-extra,", 3),
        ("another name", vec!["extra"], "s,^x$,x,", 3),
        (
            "a link in place of a part",
            vec!["link"],
            &format!("s,^link$,{whole},"),
            2,
        ),
        ("a folder", vec!["blobs"], "s,^x$,x,", 2),
        ("documents behind the parts", vec![], "s,^x$,x,", 2),
        (
            "a part is missing",
            vec![],
            &format!("s,^{whole}$,oci-layout,"),
            2,
        ),
    ];
    for (what, first, transform, code) in cases {
        let order: Vec<&str> = if what.starts_with("documents") {
            blobs.iter().chain(documents).copied().collect()
        } else {
            documents
                .iter()
                .chain(&first)
                .chain(blobs)
                .copied()
                .collect()
        };
        let file = home.cwd().join("evil.tar");
        let flags = [
            "--format=ustar",
            "-P",
            "--no-recursion",
            "--transform",
            transform,
            "-cf",
            "../evil.tar",
        ];
        let _ = tar(&[&flags[..], &order].concat());
        let done = snapshot(
            &home,
            &["import", file.to_str().expect("UTF-8"), "--slug", "evil"],
        );
        done.no_product(code, what);
        assert!(!home.state("evil").exists(), "{what}");
        assert!(!Path::new("/tmp/bottle-extra").exists(), "{what}");
    }
    for (from, to, code) in [
        (slug.as_str(), "../../../etc", 2),
        (
            &whole.replace("blobs/sha256/", "sha256:"),
            "../../../../etc/passwd",
            2,
        ),
        (made["id"].as_str().expect("an id"), "0000000000000000", 3),
        ("\"number\": 1", "\"number\": 0", 2),
        ("bottle.snapshot/v1", "bottle.snapshot/v9", 2),
        ("\"slug\":", "\"more\": 1, \"slug\":", 2),
    ] {
        edited(from, to);
        let order: Vec<&str> = ["edited"]
            .iter()
            .chain(&documents[1..])
            .chain(blobs)
            .copied()
            .collect();
        let flags = [
            "--format=ustar",
            "-P",
            "--transform",
            &as_document,
            "-cf",
            "../evil.tar",
        ];
        let _ = tar(&[&flags[..], &order].concat());
        let file = home.cwd().join("evil.tar");
        // With its own name, which is in use: what is wrong must be noticed before.
        let args = ["import", file.to_str().expect("UTF-8"), "--slug", "evil"];
        let args = if from == slug { &args[..2] } else { &args[..] };
        let done = snapshot(&home, args);
        done.no_product(code, to);
        assert!(!home.state("evil").exists(), "{to}");
    }
    assert_eq!(recorded(&home, &slug), 1);
    assert_eq!(unnamed(&slug), Vec::<String>::new());
}
