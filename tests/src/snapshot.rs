//! What the suites of `bottle-snapshot` have in common.

use crate::engine::docker;
use crate::fake::Rule;
use crate::{Bottle, Done, FakeDocker, Home};

/// A call of `bottle-snapshot`.
#[must_use]
pub fn snapshot(home: &Home, args: &[&str]) -> Done {
    home.tool("bottle-snapshot")
        .args(args.iter().copied())
        .run()
}

/// A shell's script in the agent, which must work.
///
/// # Panics
/// When it does not.
pub fn sh(bottle: &Bottle, script: &str) -> String {
    bottle.exec(&["sh", "-c", script]).ok()
}

/// Plans with these arguments and starts the bottle; what both tools said comes with it.
///
/// # Panics
/// When that does not work.
#[must_use]
pub fn resume(home: &Home, args: &[&str], slug: &str) -> (Bottle, String) {
    let plan = home.tool("bottle-plan").args(args.iter().copied()).run();
    let said = plan.stderr.clone();
    let up = home
        .tool("bottle-run")
        .args(["up"])
        .stdin(home.render(&plan.ok()))
        .run();
    let said = said + &up.stderr;
    (Bottle::started(home, slug, up.json()), said)
}

/// Images of this bottle's snapshots that nobody would find again.
///
/// # Panics
/// When the engine does not answer.
#[must_use]
pub fn unnamed(slug: &str) -> Vec<String> {
    let filter = format!("label=bottle.snapshot.slug={slug}");
    let args = [
        "images",
        "--all",
        "--quiet",
        "--filter",
        "dangling=true",
        "--filter",
        &filter,
    ];
    docker(args).ok().lines().map(str::to_owned).collect()
}

/// How the agent's container is.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn status(bottle: &Bottle) -> String {
    let args = ["inspect", "--format", "{{.State.Status}}", &bottle.agent()];
    docker(args).ok().trim().to_owned()
}

/// The real engine behind a script that kills the caller at one call, which goes on as an orphan.
#[must_use]
pub fn killing_at(moment: Option<u32>) -> FakeDocker {
    match moment {
        Some(call) => FakeDocker::killing(9, Rule::for_call(call)),
        None => FakeDocker::behind(Vec::new()),
    }
}

/// How many snapshots of a bottle are recorded, each of which must be in the engine under its name.
///
/// # Panics
/// When one is not.
#[must_use]
pub fn recorded(home: &Home, slug: &str) -> usize {
    let list = home
        .tool("bottle-snapshot")
        .args(["list", "--json"])
        .run()
        .json();
    let snapshots = list["snapshots"].as_array().expect("a list").clone();
    let mine = snapshots.iter().filter(|one| one["slug"] == slug);
    mine.inspect(|one| {
        let tag = one["tag"].as_str().expect("a name");
        let found = docker(["image", "inspect", "--format", "{{.Id}}", tag]).ok();
        assert_eq!(found.trim(), one["image"].as_str().expect("an id"));
    })
    .count()
}

/// Forgets a bottle of snapshots with all that it has.
///
/// # Panics
/// When that does not work.
pub fn purge(home: &Home, slug: &str) {
    let done = snapshot(home, &["rm", slug, "--all"]);
    assert_eq!(done.code(), 0, "{}", done.stderr);
    let _ = home
        .tool("bottle-run")
        .args(["down", slug, "--purge"])
        .run()
        .ok();
}
