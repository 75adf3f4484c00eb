//! Bottles that start and end, one and many.

use std::collections::BTreeSet;
use std::thread;

use bottle_tests::need_engine;
use serde_json::json;

use crate::{home, parsed};

#[test]
fn the_life_of_a_bottle() {
    if !need_engine("the_life_of_a_bottle") {
        return;
    }
    let home = home();
    let slug = home.slug("life");
    let bottle = home.up("web", &slug);
    assert_eq!(bottle.handle["schema"], "bottle.handle/v1");
    assert_eq!(
        bottle.handle["containers"],
        json!({"agent": bottle.agent(), "egress": bottle.egress()})
    );
    assert_eq!(
        bottle.handle["plan_digest"],
        parsed(&home.plan("web", &slug))["digest"]
    );

    let exec = |script: &str| bottle.exec(&["sh", "-c", script]);
    assert_eq!(
        exec("id -u; pwd; echo $GREETING").ok(),
        "10001\n/workspace\nhello\n"
    );
    assert_eq!(exec("exit 7").code(), 7);
    assert_eq!(exec("kill -9 $$").code(), 137);
    // The engine's own codes for a command that is not there: 126 up to 20.10, 127 later.
    assert!([126, 127].contains(&bottle.exec(&["/nowhere/program"]).code()));
    assert_eq!(exec("echo out; echo err >&2").stderr.trim(), "err");
    let echoed = home
        .tool("bottle-run")
        .args(["exec", &slug, "--", "cat"])
        .stdin("\0bytes\r\n")
        .run()
        .ok();
    assert_eq!(echoed, "\0bytes\r\n");

    // The same name again, while it runs.
    let again = home
        .tool("bottle-run")
        .args(["up"])
        .stdin(home.render(&home.plan("web", &slug)))
        .run();
    again.no_product(5, "it runs already");
    assert_eq!(exec("echo still here").ok(), "still here\n");

    let status = || {
        let list = home
            .tool("bottle-run")
            .args(["list", "--json"])
            .run()
            .json();
        let bottles = list["bottles"].as_array().expect("a list").clone();
        bottles
            .iter()
            .find(|entry| entry["slug"] == slug.as_str())
            .map(|entry| entry["status"].clone())
    };
    assert_eq!(status(), Some(json!("running")));
    home.down(&slug);
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
    assert_eq!(status(), Some(json!("stopped")));
    assert_eq!(bottle.exec(&["true"]).code(), 125);
    assert!(
        !home.state(&slug).join("egress").exists(),
        "the CA's key is still there"
    );
    let _ = home
        .tool("bottle-run")
        .args(["down", &slug, "--purge"])
        .run()
        .ok();
    assert!(!home.state(&slug).exists());
    assert_eq!(
        home.tool("bottle-run").args(["down", &slug]).run().code(),
        4
    );
}

#[test]
fn run_leaves_nothing_but_an_exit_code() {
    if !need_engine("run_leaves_nothing_but_an_exit_code") {
        return;
    }
    let home = home();
    let slug = home.slug("run");
    let with_ca = home
        .tool("bottle-ca")
        .stdin(home.plan("web", &slug))
        .run()
        .ok();
    let compose = home.render(&with_ca);
    let done = home
        .tool("bottle-run")
        .args(["run", "--", "sh", "-c", "echo $GREETING; exit 3"])
        .stdin(compose)
        .run();
    assert_eq!(
        (done.code(), done.stdout.as_str()),
        (3, "hello\n"),
        "{}",
        done.stderr
    );
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
}

#[test]
fn ten_bottles_at_once() {
    if !need_engine("ten_bottles_at_once") {
        return;
    }
    let home = home();
    let slugs: Vec<String> = (0..10)
        .map(|number| home.slug(&format!("n{number}")))
        .collect();
    let start = |slug: &String| {
        let bottle = home.up("web", slug);
        assert_eq!(bottle.exec(&["printenv", "BOTTLE_SLUG"]).ok().trim(), slug);
        ["internal", "egress"].map(|name| bottle.address(&format!("/networks/{name}/subnet")))
    };
    let subnets: BTreeSet<String> = thread::scope(|scope| {
        let threads: Vec<_> = slugs
            .iter()
            .map(|slug| scope.spawn(|| start(slug)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a bottle that starts"))
            .collect()
    });
    assert_eq!(subnets.len(), 20, "{subnets:?}");
    let _ = home
        .tool("bottle-run")
        .args(["down"])
        .args(&slugs)
        .run()
        .ok();
    for slug in &slugs {
        assert_eq!(home.left_of(slug), Vec::<String>::new());
    }
}

#[test]
fn of_two_starts_of_one_slug_one_wins() {
    if !need_engine("of_two_starts_of_one_slug_one_wins") {
        return;
    }
    let home = home();
    let slug = home.slug("twice");
    let compose = home.render(&home.plan("web", &slug));
    let up = || {
        let call = home.tool("bottle-run").args(["up"]);
        call.stdin(compose.clone()).run()
    };
    let both = thread::scope(|scope| {
        [scope.spawn(up), scope.spawn(up)].map(|one| one.join().expect("it ends"))
    });
    let mut codes = [both[0].code(), both[1].code()];
    codes.sort_unstable();
    assert_eq!(codes, [0, 5], "{} / {}", both[0].stderr, both[1].stderr);
    for done in both {
        let (won, printed) = (done.code() == 0, !done.stdout.is_empty());
        assert_eq!(won, printed, "{}", done.stderr);
        assert!(won || done.stderr.contains("\nhint: "), "{}", done.stderr);
    }
    // The loser has taken nothing away from the winner.
    let done = home
        .tool("bottle-run")
        .args(["exec", &slug, "--", "true"])
        .run();
    assert_eq!(done.code(), 0, "{}", done.stderr);
    home.down(&slug);
}
