//! Its networks and addresses: others on them, more bottles than the engine has ranges for, and who else has them.

use std::process::Command;

use bottle_tests::engine::{docker, inspected, sweep, wait_for};
use bottle_tests::internet::make_network;
use bottle_tests::terminal::{Terminal, need_tmux};
use bottle_tests::{Bottle, Home, Internet, need_engine};
use serde_json::{Value, json};

use crate::PLAIN;

fn entry(home: &Home, slug: &str) -> Value {
    let list = home.tool("bottle-run").args(["list", "--json"]).run();
    let list = list.json();
    let bottles = list["bottles"].as_array().expect("bottles");
    let found = bottles.iter().find(|bottle| bottle["slug"] == slug);
    found.expect("the bottle").clone()
}

/// A network of the test's own, gone with this.
struct Other {
    name: String,
    label: String,
}

impl Other {
    fn make(home: &Home) -> Self {
        let name = home.slug("other");
        let label = format!("bottle.test={name}");
        let _ = make_network(&name, &label);
        Self { name, label }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        sweep(&self.label);
    }
}

/// Everything with this label goes with it.
struct Swept(String);

impl Drop for Swept {
    fn drop(&mut self) {
        sweep(&self.0);
    }
}

/// Somebody gives the running agent a second network: `list` and `check` say so, and `watch` stops the agent.
#[test]
fn row_16_a_second_network_at_run_time() {
    if !need_engine("row_16_a_second_network_at_run_time") {
        return;
    }
    let home = Home::new();
    let internet = Internet::start(&home, &["api.example.com"]);
    home.bottle("web", PLAIN);
    let bottle = home.up("web", &home.slug("second"));
    let out = [format!("tcp:{}:80", internet.address)];
    bottle.probe(&out).assert_closed();
    assert_eq!(entry(&home, &bottle.slug)["status"], "running");
    let other = Other::make(&home);
    internet.join(&other.name, &["elsewhere"]);
    let _ = docker(["network", "connect", &other.name, &bottle.agent()]).ok();
    // The control: it is a way out.
    let way = [format!("tcp:{}:80", internet.address_on(&other.name))];
    bottle.probe(&way).assert_open();

    let found = entry(&home, &bottle.slug);
    assert_eq!(found["status"], "exposed", "{found}");
    assert_eq!(found["foreign_networks"], json!([other.name]), "{found}");
    let said = home.tool("bottle-run").args(["list"]).run().ok();
    assert!(said.contains("EXPOSED"), "{said}");
    let check = home.tool("bottle-run").args(["check", &bottle.slug]).run();
    assert_eq!(check.code(), 3, "{}{}", check.stdout, check.stderr);
    assert!(check.stdout.contains(&other.name), "{}", check.stdout);

    if need_tmux("row_16_a_second_network_at_run_time") {
        let terminal = Terminal::start(&home, "watch", 80, 24);
        terminal.types(&format!(
            "{} watch --by tmux",
            bottle_tests::tools::tool("bottle-run").display()
        ));
        wait_for("watch to pause the agent", || {
            inspected(&bottle.agent(), "{{.State.Paused}}") == "true"
        });
        terminal.waits_for("exposed");
        terminal.presses(&["q"]);
        assert_eq!(entry(&home, &bottle.slug)["status"], "exposed");
    }
    internet.leave(&other.name);
    home.down(&bottle.slug);
    assert_eq!(home.left_of(&bottle.slug), Vec::<String>::new());
}

/// The block of these tests' own; no other test plans in it.
const BLOCK: &str = "10.217.0.0/20";

fn plan_in(home: &Home, block: &str, slug: &str) -> bottle_tests::Done {
    let args = ["web", "--slug", slug, "--subnets", block];
    home.tool("bottle-plan").args(args).run()
}

/// The engine's own pools end near thirty networks. (Forty bottles have eighty.)
#[test]
fn row_17_forty_bottles_have_networks() {
    if !need_engine("row_17_forty_bottles_have_networks") {
        return;
    }
    let home = Home::new();
    home.bottle("web", PLAIN);
    let label = format!("bottle.test={}", home.slug("many"));
    let swept = Swept(label.clone());
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..40 {
        let slug = home.slug(&format!("n{number}"));
        let plan: Value = serde_json::from_str(&plan_in(&home, BLOCK, &slug).ok()).expect("a plan");
        for which in ["internal", "egress"] {
            let network = &plan["networks"][which];
            let text = |key: &str| network[key].as_str().expect("text").to_owned();
            assert!(seen.insert(text("subnet")), "{} twice", text("subnet"));
            let mut args = vec!["network".to_owned(), "create".to_owned()];
            args.push(format!("--subnet={}", text("subnet")));
            args.push(format!("--label={label}"));
            args.extend((which == "internal").then(|| "--internal".to_owned()));
            args.push(text("name"));
            let _ = docker(args).ok();
        }
    }
    // Beside them a bottle starts as ever, and its agent is as shut in.
    let slug = home.slug("one-more");
    let compose = home.render(&plan_in(&home, BLOCK, &slug).ok());
    let up = home.tool("bottle-run").args(["up"]).stdin(compose).run();
    let bottle = Bottle::started(&home, &slug, up.json());
    let gateway = bottle.address("/networks/egress/gateway");
    bottle
        .probe(&[format!("tcp:{gateway}:22"), format!("icmp:{gateway}")])
        .assert_closed();
    home.down(&slug);
    drop(swept);
    // And a block that is full says so.
    let small = "10.217.16.0/26";
    for number in 0..2 {
        let _ = plan_in(&home, small, &home.slug(&format!("s{number}"))).ok();
    }
    let full = plan_in(&home, small, &home.slug("s2"));
    assert_eq!(full.code(), 5, "{}", full.stderr);
    assert!(full.stderr.contains("are taken"), "{}", full.stderr);
}

/// A route of this host that leads nowhere, as that of a VPN would be there; gone with this.
struct Route(&'static str);

impl Route {
    fn add(range: &'static str) -> Option<Self> {
        let added = Command::new("ip")
            .args(["route", "add", "blackhole", range])
            .status();
        added
            .is_ok_and(|status| status.success())
            .then_some(Self(range))
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["route", "del", "blackhole", self.0])
            .status();
    }
}

/// A bottle's range that a VPN or LAN has too: traffic for the one would end at the other.
#[test]
fn row_18_a_range_the_host_routes_elsewhere() {
    if !need_engine("row_18_a_range_the_host_routes_elsewhere") {
        return;
    }
    let home = Home::new();
    home.bottle("web", PLAIN);
    // Planned before there was a VPN, to be started after.
    let before = home.slug("before");
    let compose = home.render(&plan_in(&home, "10.217.32.0/27", &before).ok());
    let control = home.slug("control");
    let clear = home.render(&plan_in(&home, "10.217.34.0/27", &control).ok());
    let Some(_route) = Route::add("10.217.32.0/24") else {
        bottle_tests::engine::skip(
            "row_18_a_range_the_host_routes_elsewhere",
            "only root can add a route",
        );
        return;
    };
    let planned = plan_in(&home, "10.217.32.0/25", &home.slug("in-it"));
    assert_eq!(planned.code(), 5, "{}{}", planned.stdout, planned.stderr);
    // Of a block that is larger it takes what is free.
    let plan = plan_in(&home, "10.217.32.0/23", &home.slug("beside")).ok();
    let plan: Value = serde_json::from_str(&plan).expect("a plan");
    for which in ["internal", "egress"] {
        let subnet = plan["networks"][which]["subnet"].as_str().expect("text");
        assert!(subnet.starts_with("10.217.33."), "{subnet}");
    }
    let up = |compose: String| home.tool("bottle-run").args(["up"]).stdin(compose).run();
    let refused = up(compose);
    assert_eq!(refused.code(), 5, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("10.217.32.0/24") && refused.stderr.contains("\nhint: "),
        "{}",
        refused.stderr
    );
    assert_eq!(home.left_of(&before), Vec::<String>::new());
    let bottle = Bottle::started(&home, &control, up(clear).json());
    bottle
        .probe(&["tcp:10.217.32.1:22".to_owned()])
        .assert_closed();
    home.down(&control);
}

/// The address of a sidecar that died, given to somebody else: the agent would send it what was meant for egress.
#[test]
fn row_19_the_address_of_a_dead_sidecar() {
    if !need_engine("row_19_the_address_of_a_dead_sidecar") {
        return;
    }
    let home = Home::new();
    home.bottle("web", PLAIN);
    let bottle = home.up("web", &home.slug("dead"));
    let _ = docker(["stop", "--time=0", &bottle.egress()]).ok();
    let mut ours = Vec::new();
    for role in ["egress", "agent", "git_gate", "supervise"] {
        ours.push(bottle.address(&format!("/networks/addresses/{role}")));
    }
    let label = format!("bottle.test={}", home.slug("guest"));
    // More than one: the first could be lucky.
    for number in 0..4 {
        let name = home.slug(&format!("guest{number}"));
        for network in ["internal", "egress"] {
            let guest = format!("{name}-{network}");
            let args = [
                "run".to_owned(),
                "--detach".to_owned(),
                format!("--name={guest}"),
                format!("--label={label}"),
                format!("--network=bottle-{}-{network}", bottle.slug),
                "debian:trixie-slim".to_owned(),
                "sleep".to_owned(),
                "600".to_owned(),
            ];
            let _ = docker(args).ok();
            let address = inspected(
                &guest,
                "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            );
            let last: u8 = address
                .rsplit('.')
                .next()
                .and_then(|last| last.parse().ok())
                .expect("an address");
            assert!(last % 16 >= 8, "{guest} has {address}");
            assert!(!ours.contains(&address), "{guest} has {address}");
        }
    }
    // For the agent nobody is there, and the sidecar gets its place back.
    let egress = format!("tcp:{}:3128", ours[0]);
    bottle.probe(std::slice::from_ref(&egress)).assert_closed();
    sweep(&label);
    let _ = docker(["start", &bottle.egress()]).ok();
    wait_for("egress in its place", || {
        bottle.probe(std::slice::from_ref(&egress)).of(&egress).0
    });
    home.down(&bottle.slug);
}
