//! The life of a snapshot: made, gone on from, forked and removed.

use bottle_tests::engine::docker;
use bottle_tests::snapshot::{resume, sh, snapshot, status, unnamed};
use bottle_tests::{Call, need_engine};
use serde_json::Value;

use crate::{GIVEN, TOKEN, WEB, home};

#[test]
fn what_was_built_survives_and_nothing_else_does() {
    if !need_engine("what_was_built_survives_and_nothing_else_does") {
        return;
    }
    let home = home();
    let slug = home.slug("life");
    let bottle = home.up("web", &slug);
    sh(&bottle, "echo built > /workspace/work; echo $$ > ~/dotfile");
    let placeholder = sh(&bottle, "echo $TEST_TOKEN");
    let ca = sh(&bottle, "cat /etc/bottle/egress-ca.pem");
    let sleeper = sh(&bottle, "sleep 1000 >/dev/null 2>&1 & echo $!");

    // The handle on stdin does as well as the name.
    let handle = bottle.handle.to_string();
    let made = home
        .tool("bottle-snapshot")
        .args(["commit", "-", "--message", "first"])
        .stdin(handle)
        .run()
        .json();
    assert_eq!(made["schema"], "bottle.snapshot/v1");
    assert_eq!(
        (&made["number"], &made["message"]),
        (&1.into(), &"first".into())
    );
    assert!(
        made["changes"]["added"]
            .as_u64()
            .is_some_and(|count| count > 0),
        "{made}"
    );
    let proof = &made["proof"];
    let names: Vec<&str> = proof["values"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|value| value["name"].as_str())
        .collect();
    assert_eq!(names, ["GIVEN", "TEST_TOKEN", "the CA's key"]);
    assert!(!proof.to_string().contains(TOKEN));
    // The agent goes on as if nothing had been.
    assert_eq!(status(&bottle), "running");
    sh(&bottle, &format!("kill -0 {}", sleeper.trim()));

    // All the engine keeps of it: no value, in no corner.
    let inspected = docker(["image", "inspect", made["image"].as_str().expect("an id")]).ok();
    assert!(
        !inspected.contains(TOKEN) && !inspected.contains(GIVEN),
        "{inspected}"
    );
    let labels: Value = serde_json::from_str(&inspected).expect("JSON");
    let labels = &labels[0]["Config"]["Labels"];
    assert_eq!(labels["bottle.snapshot.slug"], slug.as_str());
    assert_eq!(labels["bottle.snapshot.plan"], bottle.handle["plan_digest"]);

    home.down(&slug);
    // The policy is today's, and what is different is told.
    home.bottle("web", &WEB.replace("api.example.com", "other.example.com"));
    let (again, said) = resume(&home, &["--resume", &slug], &slug);
    assert!(
        said.contains("other.example.com") && said.contains("going on from the snapshot"),
        "{said}"
    );
    assert_eq!(sh(&again, "cat /workspace/work"), "built\n");
    assert_ne!(sh(&again, "echo $TEST_TOKEN"), placeholder);
    let new_ca = sh(&again, "cat /etc/bottle/egress-ca.pem");
    assert_ne!(new_ca, ca);
    let line = ca.lines().nth(5).expect("a line of the old CA");
    let trusted =
        format!("! grep -rqF '{line}' /etc/ssl/certs /etc/bottle /usr/local/share/ca-certificates");
    sh(&again, &trusted);

    // The second grows from the first, whose layer is proved already.
    let second = snapshot(&home, &["commit", &slug]).json();
    assert_eq!(second["parent"]["id"], made["id"]);
    assert_eq!(
        second["proof"]["inherited"],
        serde_json::json!([made["layers"][1]])
    );
    let verified = snapshot(&home, &["verify", &format!("{slug}@1")]);
    assert!(
        verified.json()["searched"]
            .as_object()
            .is_some_and(|parts| parts.len() > 2)
    );

    // Another bottle from the first, while this one runs.
    let fork = home.slug("fork");
    let from = format!("{slug}@1");
    let (forked, _) = resume(&home, &["--from", &from, "--slug", &fork], &fork);
    assert_eq!(sh(&forked, "cat /workspace/work"), "built\n");
    assert_ne!(sh(&forked, "cat /etc/bottle/egress-ca.pem"), new_ca);
    home.down(&fork);

    // What runs is not removed by accident.
    assert_eq!(snapshot(&home, &["rm", &from]).code(), 5);

    // Nothing to go on from any more: said, and begun again from the image.
    home.down(&slug);
    for one in [&second, &made] {
        let id = one["image"].as_str().expect("an id");
        let _ = docker(["image", "rm", "--force", id]).ok();
    }
    let (fresh, said) = resume(&home, &["--resume", &slug], &slug);
    assert!(said.contains("does not have the snapshot"), "{said}");
    assert_eq!(fresh.exec(&["test", "-e", "/workspace/work"]).code(), 1);
    assert_eq!(snapshot(&home, &["rm", &from]).code(), 0);
    assert_eq!(snapshot(&home, &["rm", &slug]).code(), 5, "the last one");
    assert_eq!(snapshot(&home, &["rm", &slug, "--force"]).code(), 0);
    assert_eq!(unnamed(&slug), Vec::<String>::new());
}

#[test]
fn who_is_not_asked_is_told_what_there_is() {
    if !need_engine("who_is_not_asked_is_told_what_there_is") {
        return;
    }
    let home = home();
    let slug = home.slug("which");
    let bottle = home.up("web", &slug);
    // Without a terminal of its own the call has none to ask on.
    let program = bottle_tests::tools::tool("bottle-snapshot");
    let done = Call::new("setsid")
        .args(["--wait".into(), program.into_os_string(), "commit".into()])
        .env("BOTTLE_HOME", home.path())
        .env("HOME", home.cwd())
        .run();
    assert_eq!(done.code(), 2, "{}", done.stderr);
    assert!(done.stderr.contains(&slug), "{}", done.stderr);
    assert_eq!(snapshot(&home, &["commit", "no-such"]).code(), 4);

    // A value that is gone is no reason to look for fewer.
    let blind = |args: &[&str]| {
        let call = home
            .tool("bottle-snapshot")
            .env("TEST_TOKEN", "")
            .env("TEST_GIVEN", "");
        call.args(args.iter().copied()).run()
    };
    let plan = bottle.plan();
    assert!(plan.is_object());
    let _ = docker(["rm", "--force", &bottle.egress()]).ok();
    let done = blind(&["commit", &slug]);
    assert_eq!(done.code(), 2, "{}", done.stderr);
    assert!(done.stderr.contains("TEST_TOKEN"), "{}", done.stderr);
    let made = blind(&["commit", &slug, "--allow-missing"]).json();
    assert_eq!(made["proof"]["left_out"][0]["why"], "missing");
}
