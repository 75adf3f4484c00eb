//! Whatever is killed when: a grant is applied exactly once, or the request still waits.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bottle_tests::engine::{docker, wait_for};
use bottle_tests::tools;
use serde_json::{Value, json};

use crate::{Fixture, HOSTS, egress_network, hand_in, operator, send, status};

fn kill_and_start(container: &str) {
    let _ = docker(["kill", "--signal=KILL", container]).ok();
    let _ = docker(["start", container]).ok();
    wait_until_healthy(container);
}

fn wait_until_healthy(container: &str) {
    wait_for("the sidecar", || {
        docker(["exec", container, "/bottle-sidecar", "health"])
            .status
            .success()
    });
}

pub(crate) fn uses_survive_the_death_of_egress(f: &Fixture) {
    let url = "https://api.example.com/echo/crash";
    let egress = f.bottle.egress();
    let id = hand_in(&f.bottle, "egress", json!({"url": url, "methods": ["PUT"]}));
    // Killed between the approval and its application: it is applied when egress is there again.
    let _ = docker(["kill", "--signal=KILL", &egress]).ok();
    let approved = operator(&f.home, &["approve", &id, "--uses", "2"]);
    assert_eq!(approved.code(), 0, "{}", approved.stderr);
    assert!(
        approved.stderr.contains("has not said that it applies it"),
        "{}",
        approved.stderr
    );
    let _ = docker(["start", &egress]).ok();
    wait_until_healthy(&egress);
    wait_for("the grant", || send(&f.bottle, "PUT", url).0 == 200);
    kill_and_start(&egress);
    let codes: Vec<u64> = (0..3)
        .map(|_| {
            let mut last = send(&f.bottle, "PUT", url).0;
            // The grant is read a moment after the listeners are there.
            for _ in 0..10 {
                if last == 200 {
                    break;
                }
                thread::sleep(Duration::from_millis(100));
                last = send(&f.bottle, "PUT", url).0;
            }
            last
        })
        .collect();
    assert_eq!(codes, [200, 403, 403], "one of two uses was had before");
    kill_and_start(&egress);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(send(&f.bottle, "PUT", url).0, 403);
}

pub(crate) fn a_request_survives_the_death_of_supervise(f: &Fixture) {
    let container = format!("bottle-{}-supervise", f.bottle.slug);
    let ids: Vec<String> = ["a", "b"]
        .map(|name| {
            hand_in(
                &f.bottle,
                "question",
                json!({"question": format!("does {name} survive?")}),
            )
        })
        .into();
    kill_and_start(&container);
    assert_eq!(status(&f.bottle, &ids[0])["status"], "waiting");
    let _ = docker(["kill", "--signal=KILL", &container]).ok();
    let _ = operator(&f.home, &["answer", &ids[0], "yes"]).ok();
    let _ = docker(["start", &container]).ok();
    wait_until_healthy(&container);
    assert_eq!(status(&f.bottle, &ids[0])["text"], "yes");
    assert_eq!(status(&f.bottle, &ids[1])["status"], "waiting");
    let _ = operator(&f.home, &["answer", &ids[1], "yes"]).ok();
}

/// The operator's tool, supervise and egress: the grant is written, and nobody is left who has heard of it.
pub(crate) fn all_die_between_approval_and_application(f: &Fixture) {
    let path = "/echo/between";
    let url = format!("https://api.example.com{path}");
    let (egress, supervise) = (
        f.bottle.egress(),
        format!("bottle-{}-supervise", f.bottle.slug),
    );
    let id = hand_in(&f.bottle, "egress", json!({"url": url, "methods": ["PUT"]}));
    let grant = id.replace("r-", "g-");
    let _ = docker(["kill", "--signal=KILL", &egress]).ok();
    // Without egress it waits for the application, and dies while it does.
    let mut tool = Command::new(tools::tool("bottle-run"))
        .args(["approve", &id, "--uses", "1"])
        .env("BOTTLE_HOME", f.home.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("bottle-run starts");
    let written = f
        .home
        .state(&f.bottle.slug)
        .join(format!("grants/{grant}.json"));
    wait_for("the approval", || written.exists());
    tool.kill().expect("killed");
    assert_eq!(tool.wait().expect("it ended").signal(), Some(9));
    let _ = docker(["kill", "--signal=KILL", &supervise]).ok();
    let twice = operator(&f.home, &["approve", &id]);
    assert_eq!(twice.code(), 5, "{}", twice.stderr);
    for container in [&egress, &supervise] {
        let _ = docker(["start", container]).ok();
        wait_until_healthy(container);
    }
    assert_eq!(status(&f.bottle, &id)["status"], "approved");
    wait_for("the grant", || send(&f.bottle, "PUT", &url).0 == 200);
    assert_eq!(send(&f.bottle, "PUT", &url).0, 403);
    kill_and_start(&egress);
    assert_eq!(send(&f.bottle, "PUT", &url).0, 403);
    let arrived = f.internet.events_of("request");
    let arrived = arrived.iter().filter(|request| request["path"] == path);
    assert_eq!(arrived.count(), 1, "what was granted once arrived once");
    let audit = operator(&f.home, &["audit", &f.bottle.slug, "--json"]).stdout;
    let begun = |line: &&str| line.contains("grant_begun") && line.contains(&grant);
    assert_eq!(audit.lines().filter(begun).count(), 1, "{audit}");
}

/// The clock on the wall goes on while egress sleeps, and while it is not there.
pub(crate) fn a_grant_is_over_after_sleep_and_restart(f: &Fixture) {
    let url = "https://api.example.com/echo/slept";
    let egress = f.bottle.egress();
    for (away, back) in [("pause", "unpause"), ("kill", "start")] {
        let wish = json!({"url": url, "methods": ["PUT"], "reason": away});
        let id = hand_in(&f.bottle, "egress", wish);
        let _ = operator(&f.home, &["approve", &id, "--for", "4s"]).ok();
        assert_eq!(send(&f.bottle, "PUT", url).0, 200);
        let _ = docker([away, &egress]).ok();
        let grant = id.replace("r-", "g-");
        wait_for("the end of the grant", || {
            !operator(&f.home, &["grants"]).stdout.contains(&grant)
        });
        let _ = docker([back, &egress]).ok();
        wait_until_healthy(&egress);
        assert_eq!(send(&f.bottle, "PUT", url).0, 403, "after {away}");
    }
}

/// Killed after a time that grows from nothing to more than it takes.
pub(crate) fn an_approval_that_is_killed_is_whole_or_nothing(f: &Fixture) {
    let mut outcomes = [0, 0];
    for step in 0..16u64 {
        let path = format!("/echo/killed/{step}");
        let url = format!("https://api.example.com{path}");
        let id = hand_in(&f.bottle, "egress", json!({"url": url, "methods": ["PUT"]}));
        let mut child = Command::new(tools::tool("bottle-run"))
            .args(["approve", &id, "--for", "60s"])
            .env("BOTTLE_HOME", f.home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bottle-run starts");
        thread::sleep(Duration::from_millis(step * 4));
        child.kill().expect("killed");
        let _ = child.wait().expect("it ended");
        let asked: Value = operator(&f.home, &["requests", "show", &id, "--json"]).json();
        match asked["status"].as_str() {
            Some("waiting") => {
                outcomes[0] += 1;
                assert_eq!(send(&f.bottle, "PUT", &url).0, 403);
                // Nobody is in the way of the next one.
                let _ = operator(&f.home, &["deny", &id]).ok();
            }
            Some("approved") => {
                outcomes[1] += 1;
                wait_for("the grant", || send(&f.bottle, "PUT", &url).0 == 200);
                let _ = operator(&f.home, &["revoke", &id.replace("r-", "g-")]).ok();
            }
            other => panic!("{other:?}: {asked}"),
        }
    }
    assert!(outcomes[0] > 0, "none was killed in time: {outcomes:?}");
}

pub(crate) fn down_ends_everything(f: &Fixture) {
    f.home.bottle("ends", &crate::manifest("true"));
    let bottle = f.home.up("ends", &f.home.slug("ends"));
    f.internet.join(&egress_network(&bottle.slug), &HOSTS);
    let url = "https://api.example.com/echo/down";
    let granted = hand_in(&bottle, "egress", json!({"url": url, "methods": ["GET"]}));
    let open = hand_in(&bottle, "question", json!({"question": "still there?"}));
    let _ = operator(&f.home, &["approve", &granted, "--until-down"]).ok();
    assert_eq!(send(&bottle, "GET", url).0, 200);
    f.internet.leave(&egress_network(&bottle.slug));
    f.home.down(&bottle.slug);
    let asked: Value = operator(&f.home, &["requests", "show", &open, "--json"]).json();
    assert_eq!(asked["status"], "closed");
    let grants = operator(&f.home, &["grants", "--all"]).ok();
    assert!(grants.contains("ended by down"), "{grants}");
    // The same bottle again begins with nothing granted.
    let bottle = f.home.up("ends", &bottle.slug);
    f.internet.join(&egress_network(&bottle.slug), &HOSTS);
    assert_eq!(send(&bottle, "GET", url).0, 403);
    f.internet.leave(&egress_network(&bottle.slug));
    f.home.down(&bottle.slug);
}
