//! Starts that come to nothing.

use std::path::PathBuf;
use std::thread;

use bottle_tests::engine::wait_for;
use bottle_tests::fake::Rule;
use bottle_tests::{FakeDocker, Home, need_engine};

use crate::{home, parsed};

fn up_with(home: &Home, engine: &FakeDocker, slug: &str) -> bottle_tests::Done {
    let compose = home.render(&home.plan("web", slug));
    home.tool("bottle-run")
        .env("BOTTLE_DOCKER", engine.program())
        .args(["up"])
        .stdin(compose)
        .run()
}

/// Processes that have a file below `folder` open, or were called with it.
fn processes_at(folder: &PathBuf) -> Vec<String> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let open = std::fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let held = open
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|path| path.starts_with(folder));
        if held {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("{} {}", process.path().display(), name.trim()));
        }
    }
    found
}

#[test]
fn killed_at_any_moment_it_can_be_removed() {
    if !need_engine("killed_at_any_moment_it_can_be_removed") {
        return;
    }
    let home = home();
    // Once unharmed: how many calls of the engine are there to be killed at?
    let whole = FakeDocker::behind(Vec::new());
    let first = home.slug("k0");
    let _ = up_with(&home, &whole, &first).ok();
    home.down(&first);
    let calls = u32::try_from(whole.calls().len()).expect("few");
    assert!(calls >= 5, "{calls}");

    let kill_at = |moment: u32| {
        let slug = home.slug(&format!("k{moment}"));
        // Kept until the end: orphans still look for their script.
        let engine = FakeDocker::killing(9, Rule::for_call(moment));
        let killed = up_with(&home, &engine, &slug);
        killed.no_product(137, &format!("at call {moment}"));
        home.down(&slug);
        assert_eq!(
            home.left_of(&slug),
            Vec::<String>::new(),
            "at call {moment}"
        );
        wait_for("the last client", || {
            processes_at(&home.state(&slug)).is_empty()
        });
    };
    thread::scope(|scope| {
        // Two at a time: most of this is waiting for the engine.
        let halves = [0, 1].map(|half| {
            scope.spawn(move || {
                (1..=calls)
                    .filter(|moment| moment % 2 == half)
                    .for_each(kill_at);
            })
        });
        for half in halves {
            half.join().expect("every moment");
        }
    });
    // What was killed last starts again as if nothing had been.
    let again = home.up("web", &home.slug(&format!("k{calls}")));
    assert_eq!(again.exec(&["true"]).code(), 0);
}

#[test]
fn a_failed_start_leaves_nothing() {
    if !need_engine("a_failed_start_leaves_nothing") {
        return;
    }
    let home = home();
    let fails = |args: &[&str]| Rule {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        exit: 1,
        stderr: "the engine is tired\n".to_owned(),
        ..Rule::default()
    };
    for (name, args) in [
        ("net", &["network", "inspect"][..]),
        ("create", &["compose", "up"]),
        ("start", &["start"]),
        ("exec", &["exec"]),
    ] {
        let slug = home.slug(&format!("f-{name}"));
        let done = up_with(&home, &FakeDocker::behind(vec![fails(args)]), &slug);
        done.no_product(1, name);
        assert!(
            done.stderr.contains("the engine is tired") && done.stderr.contains("\nhint: "),
            "{name}: {}",
            done.stderr
        );
        assert_eq!(home.left_of(&slug), Vec::<String>::new(), "{name}");
        assert!(
            !home.state(&slug).join("egress").exists(),
            "{name}: the CA's key is still there"
        );
    }
}

#[test]
fn a_network_somebody_planted_is_not_taken() {
    if !need_engine("a_network_somebody_planted_is_not_taken") {
        return;
    }
    let home = home();
    // Where the plan has it, and elsewhere: then no range is in the way of the bottle's own.
    for (slug, in_place) in [(home.slug("plant"), true), (home.slug("other"), false)] {
        let name = format!("bottle-{slug}-internal");
        let plan = parsed(&home.plan("web", &slug));
        let subnet = plan["networks"]["internal"]["subnet"]
            .as_str()
            .expect("a range");
        if in_place {
            // As compose would look for it, but with a way out.
            let labels = [
                "--label=com.docker.compose.network=internal".to_owned(),
                format!("--label=com.docker.compose.project=bottle-{slug}"),
                format!("--label={}", home.label()),
            ];
            let create = ["network", "create", "--subnet", subnet]
                .map(str::to_owned)
                .into_iter()
                .chain(labels)
                .chain([name.clone()]);
            let _ = bottle_tests::engine::docker(create).ok();
        } else {
            let _ = bottle_tests::internet::make_network(&name, &home.label());
        }
        let done = home
            .tool("bottle-run")
            .args(["up"])
            .stdin(home.render(&plan.to_string()))
            .run();
        assert!(
            [3, 5].contains(&done.code()) && done.stdout.is_empty(),
            "{}: {}",
            done.code(),
            done.stderr
        );
        assert!(done.stderr.contains(&name), "{}", done.stderr);
        let left = home.left_of(&slug);
        assert!(
            left.iter().all(|line| line.starts_with("network ")),
            "a container was made: {left:?}"
        );
    }
}
