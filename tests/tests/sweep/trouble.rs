//! An engine or a disk that fails in the middle.

use std::fs;

use bottle_tests::engine::{docker, need_engine};
use bottle_tests::fake::{FakeDocker, Rule};

use crate::{collect, home, nothing_is_left, run};

#[test]
fn a_client_that_hangs_is_ended_and_its_start_undone() {
    if !need_engine("a_client_that_hangs_is_ended_and_its_start_undone") {
        return;
    }
    let home = home();
    for (name, args) in [
        ("networks", &["network", "create"][..]),
        ("start", &["start"]),
    ] {
        let slug = home.slug(&format!("h-{name}"));
        let engine = FakeDocker::behind(vec![Rule {
            hang: true,
            ..Rule::for_args(args)
        }]);
        let file = home.render(&home.plan("web", &slug));
        let done = home
            .tool("bottle-run")
            .env("BOTTLE_DOCKER", engine.program())
            .env("BOTTLE_DOCKER_TIMEOUT", "5")
            .args(["up"])
            .stdin(file)
            .run();
        assert_eq!(done.code(), 1, "{name}: {}", done.stderr);
        assert!(
            done.stderr.contains("no answer for"),
            "{name}: {}",
            done.stderr
        );
        collect(&home, &slug, name);
        nothing_is_left(&home, &slug, name);
    }
}

#[test]
fn a_full_disk_stops_a_start_and_no_removal() {
    if !need_engine("a_full_disk_stops_a_start_and_no_removal") {
        return;
    }
    let home = home();
    let slug = home.slug("full");
    let bottle = home.up("web", &slug);
    let state = home.path().join("state");
    let Some(disk) = SmallDisk::over(&state) else {
        bottle_tests::engine::note_skipped(
            "a_full_disk_stops_a_start_and_no_removal",
            "no tmpfs can be mounted here",
        );
        home.down(&slug);
        return;
    };
    disk.fill();
    let done = home.tool("bottle-run").args(["down", &slug]).run();
    // The containers are gone whatever the disk says; a file that could not be written is told.
    assert_eq!(home.left_of(&slug), Vec::<String>::new(), "{}", done.stderr);
    let plan = home
        .tool("bottle-plan")
        .args(["web", "--slug", &home.slug("new")])
        .run();
    plan.no_product(1, "the disk is full");
    assert!(plan.stderr.contains("No space left"), "{}", plan.stderr);
    disk.empty();
    collect(&home, &slug, "full disk");
    drop(disk);
    drop(bottle);
}

/// A tmpfs of 4 MiB over a folder, with what was in it copied in.
struct SmallDisk {
    at: std::path::PathBuf,
    filler: std::path::PathBuf,
}

impl SmallDisk {
    fn over(folder: &std::path::Path) -> Option<Self> {
        let copy = folder.with_extension("copy");
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let done = std::process::Command::new(program).args(args).output();
            done.is_ok_and(|done| done.status.success())
        };
        let (folder_name, copy_name) = (folder.as_os_str(), copy.as_os_str());
        if !run("cp", &["-a".as_ref(), folder_name, copy_name]) {
            return None;
        }
        let mounted = run(
            "mount",
            &[
                "-t".as_ref(),
                "tmpfs".as_ref(),
                "-o".as_ref(),
                "size=4m,mode=0700".as_ref(),
                "small".as_ref(),
                folder_name,
            ],
        );
        if !mounted {
            return None;
        }
        let disk = Self {
            at: folder.to_owned(),
            filler: folder.join(".filler"),
        };
        let all = copy.join(".");
        run("cp", &["-a".as_ref(), all.as_os_str(), folder_name]).then_some(disk)
    }

    fn fill(&self) {
        // Ends with the last byte there is.
        let _ = fs::write(&self.filler, vec![0; 8 << 20]);
    }

    fn empty(&self) {
        fs::remove_file(&self.filler).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(&self.at)
            .output();
    }
}

#[test]
fn a_state_home_that_cannot_be_written_stops_a_start() {
    if !need_engine("a_state_home_that_cannot_be_written_stops_a_start") {
        return;
    }
    let home = home();
    let slug = home.slug("ro");
    let file = home.render(&home.plan("web", &slug));
    let state = home.path().join("state");
    let mount = |args: &[&str]| {
        let done = std::process::Command::new("mount")
            .args(args)
            .arg(&state)
            .output();
        done.is_ok_and(|done| done.status.success())
    };
    let bind = mount(&["--bind", state.to_str().expect("text")]);
    if !bind || !mount(&["-o", "remount,ro,bind"]) {
        bottle_tests::engine::note_skipped(
            "a_state_home_that_cannot_be_written_stops_a_start",
            "nothing can be mounted here",
        );
        return;
    }
    let done = home.tool("bottle-run").args(["up"]).stdin(file).run();
    let _ = std::process::Command::new("umount")
        .arg("--lazy")
        .arg(&state)
        .output();
    done.no_product(1, "a read-only home");
    assert!(
        done.stderr.contains("Read-only file system"),
        "{}",
        done.stderr
    );
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
}

#[test]
fn an_engine_that_is_stopped_in_the_middle_leaves_nothing_once_it_is_back() {
    if !need_engine("an_engine_that_is_stopped_in_the_middle") {
        return;
    }
    let home = home();
    let slug = home.slug("dead");
    // From the tenth call on, nobody answers.
    let dead = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?";
    let rules = (10..200).map(|call| Rule {
        exit: 1,
        stderr: dead.to_owned(),
        ..Rule::for_call(call)
    });
    let engine = FakeDocker::behind(rules.collect());
    let file = home.render(&home.plan("web", &slug));
    let done = run(&home, &engine, &["up"], &file);
    done.no_product(1, "no engine");
    assert!(done.stderr.contains("Cannot connect"), "{}", done.stderr);
    assert!(done.stderr.contains("hint: "), "{}", done.stderr);
    assert_ne!(
        home.left_of(&slug),
        Vec::<String>::new(),
        "nothing was begun before it was gone"
    );
    collect(&home, &slug, "engine gone");
    nothing_is_left(&home, &slug, "engine gone");
    let _ = docker(["version"]).ok();
}
