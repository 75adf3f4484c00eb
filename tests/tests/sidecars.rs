//! A sidecar that dies is brought back, and opens nothing while it is away.

#![allow(clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bottle_tests::engine::{docker, inspected, need_engine, wait_within};
use bottle_tests::{Bottle, Home};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn home() -> Home {
    let home = Home::new();
    home.bottle(
        "web",
        "image: debian:trixie-slim\negress: {routes: [{host: api.example.com}]}\n",
    );
    home
}

/// Ends the sidecar as a crash, or a kernel that is out of memory, would: the engine did not ask for it.
fn crash(container: &str) {
    let pid = inspected(container, "{{.State.Pid}}");
    let pid = pid.parse().expect("a process");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
}

fn status(home: &Home, slug: &str) -> String {
    let list = home
        .tool("bottle-run")
        .args(["list", "--json"])
        .run()
        .json();
    let bottles = list["bottles"].as_array().expect("bottles");
    let bottle = bottles.iter().find(|bottle| bottle["slug"] == slug);
    bottle.expect("the bottle")["status"]
        .as_str()
        .expect("text")
        .to_owned()
}

/// Where an agent would go that is no longer watched.
fn ways_out(bottle: &Bottle) -> Vec<String> {
    let gateway = bottle.address("/networks/egress/gateway");
    let inner = bottle.address("/networks/internal/gateway");
    vec![
        format!("tcp:{gateway}:22"),
        format!("icmp:{gateway}"),
        format!("tcp:{inner}:22"),
        format!("udp:{inner}:53"),
        "dns:127.0.0.11:nobody.bottle.invalid".to_owned(),
        "ipv6".to_owned(),
    ]
}

#[test]
fn egress_that_is_killed_comes_back_and_nothing_was_open() {
    if !need_engine("egress_that_is_killed_comes_back_and_nothing_was_open") {
        return;
    }
    let home = home();
    let bottle = home.up("web", &home.slug("killed"));
    let egress = bottle.egress();
    let before = inspected(&egress, "{{json .NetworkSettings.Networks}}");
    let address = bottle.address("/networks/addresses/egress");
    let proxy = format!("http:{address}:3128:blocked.example.net:443");
    for round in 1..=2 {
        crash(&egress);
        let mut rounds = 0;
        wait_within(Duration::from_secs(60), "egress to come back", || {
            bottle.probe(&ways_out(&bottle)).assert_closed();
            rounds += 1;
            inspected(&egress, "{{.RestartCount}}") == round.to_string()
                && bottle
                    .probe(std::slice::from_ref(&proxy))
                    .of(&proxy)
                    .1
                    .contains("host_not_allowed")
        });
        assert!(rounds > 0);
    }
    // Where it was, as it was, with its record in one chain.
    let addresses = |text: &str| -> Vec<String> {
        let networks: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let networks = networks.as_object().expect("an object").values();
        networks
            .map(|network| network["IPAddress"].to_string())
            .collect()
    };
    let after = inspected(&egress, "{{json .NetworkSettings.Networks}}");
    assert_eq!(addresses(&after), addresses(&before));
    wait_within(Duration::from_secs(30), "the bottle to be well", || {
        status(&home, &bottle.slug) == "running"
    });
    let done = home.tool("bottle-run").args(["check", &bottle.slug]).run();
    assert_eq!(done.code(), 0, "{}{}", done.stdout, done.stderr);
    let verified = home
        .tool("bottle-run")
        .args(["audit", "verify", &bottle.slug])
        .run();
    assert_eq!(verified.code(), 0, "{}{}", verified.stdout, verified.stderr);
}

#[test]
fn a_bottle_without_its_sidecar_is_degraded_and_shut() {
    if !need_engine("a_bottle_without_its_sidecar_is_degraded_and_shut") {
        return;
    }
    let home = home();
    let bottle = home.up("web", &home.slug("gone"));
    assert_eq!(status(&home, &bottle.slug), "running");
    let _ = docker(["stop", "--time=1", &bottle.egress()]).ok();
    assert_eq!(status(&home, &bottle.slug), "degraded");
    bottle.probe(&ways_out(&bottle)).assert_closed();
    let done = home.tool("bottle-run").args(["check", &bottle.slug]).run();
    assert_eq!(done.code(), 3, "{}", done.stderr);
    // What a person stopped stays stopped, until a person starts it.
    assert_eq!(inspected(&bottle.egress(), "{{.State.Running}}"), "false");
    let _ = docker(["start", &bottle.egress()]).ok();
    wait_within(Duration::from_secs(30), "the bottle to be well", || {
        status(&home, &bottle.slug) == "running"
    });
    home.down(&bottle.slug);
}

/// Connections whose heads never end, as many as there may be: each is kept in memory.
const FLOOD: &str = "for n in $(seq 300); do
    exec {fd}<>/dev/tcp/egress/3128 || exit 0
    { printf 'GET http://blocked.example.net/ HTTP/1.1\r\nx: '; head --bytes=60000 /dev/zero | tr '\\0' a; } >&$fd || exit 0
done
sleep 1";

/// How often the kernel ended something in this container for want of memory, as the engine saw it.
fn out_of_memory(container: &str, since: &str) -> usize {
    let filter = format!("--filter=container={container}");
    let since = format!("--since={since}");
    let until = format!("--until={}", seconds_now());
    let args = ["events", "--filter=event=oom", &filter, &since, &until];
    docker(args).ok().lines().count()
}

/// By the clock of the engine, which is this machine's.
fn seconds_now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs().to_string()
}

#[test]
fn egress_that_runs_out_of_memory_opens_nothing() {
    if !need_engine("egress_that_runs_out_of_memory_opens_nothing") {
        return;
    }
    let home = home();
    let bottle = home.up("web", &home.slug("oom"));
    let egress = bottle.egress();
    let since = seconds_now();
    // Room for itself, and not for what comes.
    let update = ["update", "--memory=8m", "--memory-swap=8m", &egress];
    let _ = docker(update).ok();
    let ways = ways_out(&bottle);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while inspected(&egress, "{{.RestartCount}}") == "0" {
                // It ends with the sidecar, as it should.
                let _ = bottle.exec(&["bash", "-c", FLOOD]);
            }
        });
        wait_within(Duration::from_secs(90), "the kernel to end egress", || {
            bottle.probe(&ways).assert_closed();
            flood.is_finished()
        });
    });
    let address = bottle.address("/networks/addresses/egress");
    let proxy = format!("http:{address}:3128:blocked.example.net:443");
    wait_within(Duration::from_secs(60), "egress to come back", || {
        bottle.probe(&ways).assert_closed();
        let found = bottle.probe(std::slice::from_ref(&proxy));
        found.of(&proxy).1.contains("host_not_allowed")
    });
    assert_ne!(
        out_of_memory(&egress, &since),
        0,
        "it died of something else"
    );
    wait_within(Duration::from_secs(30), "the bottle to be well", || {
        status(&home, &bottle.slug) == "running"
    });
    let verified = home
        .tool("bottle-run")
        .args(["audit", "verify", &bottle.slug])
        .run();
    assert_eq!(verified.code(), 0, "{}{}", verified.stdout, verified.stderr);
}
