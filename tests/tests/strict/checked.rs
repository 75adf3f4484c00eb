//! What `check` says of it, and `up` of a file that was changed.

use bottle_tests::Home;
use serde_json::Value;

use crate::fixture::{ALLOWED, Fixture, GIT, SMALL, egress_network};

fn check(home: &Home, args: &[&str]) -> (i32, Value) {
    let call = home.tool("bottle-run").args(["check", "--json"]);
    let done = call.args(args.iter().copied()).run();
    let card = serde_json::from_str(&done.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
    (done.code(), card)
}

fn assert_passes((code, card): (i32, Value)) {
    let lines = card["lines"].as_array().expect("lines");
    let failed: Vec<&Value> = lines.iter().filter(|l| l["verdict"] == "fail").collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(code, 0);
    let verdict = |category: &str, name: &str| {
        let line = lines
            .iter()
            .find(|line| line["category"] == category && line["name"] == name);
        line.map(|line| (line["verdict"].clone(), line["seen"].to_string()))
    };
    assert_eq!(
        verdict("host", "interfaces"),
        Some(("pass".into(), "\"lo 127.0.0.1\"".to_owned()))
    );
    for (category, name) in [
        ("host", "gateway-tcp"),
        ("host", "egress-gateway-udp"),
        ("outside", "https"),
        ("outside", "icmp"),
        ("dns", "direct"),
    ] {
        let (verdict, seen) = verdict(category, name).expect("a line");
        assert_eq!(verdict, "not_applicable", "{category}/{name}");
        assert!(seen.contains("no interface"), "{category}/{name}: {seen}");
    }
    for (category, name) in [
        ("control", "egress"),
        ("dns", "own-a"),
        ("dns", "tunnel"),
        ("place", "mounts"),
        ("proxy", "foreign-connect"),
        ("proxy", "transparent-http"),
        ("containers", "agent"),
        ("containers", "networks"),
    ] {
        let (verdict, seen) = verdict(category, name).expect("a line");
        assert_eq!(verdict, "pass", "{category}/{name}: {seen}");
    }
    assert!(card["passed"].as_u64().is_some_and(|count| count > 80));
}

pub(crate) fn the_check_passes_without_a_network(f: &Fixture) {
    // What plays the outside is no container of the bottle's, which the check would say.
    let network = egress_network(&f.bottle);
    f.internet.leave(&network);
    f.upstream.leave(&network);
    let card = check(&f.home, &[&f.bottle.slug]);
    f.internet.join(&network, &[ALLOWED]);
    f.upstream.join(&network, &[GIT]);
    assert_passes(card);
    // Nobody works in that one: its limits are run into as well.
    let plan = f.home.plan("small", &f.home.slug("checked"));
    let file = f.home.write("checked.json", plan);
    assert_passes(check(&f.home, &["--plan", file.to_str().expect("text")]));
}

pub(crate) fn a_file_that_was_changed_is_refused(f: &Fixture) {
    let slug = f.home.slug("changed");
    let compose = f.home.render(&f.home.plan("small", &slug));
    let no_network = "network_mode: 'none'\n";
    assert_eq!(compose.matches(no_network).count(), 1, "{compose}");
    let sockets = "target: '/run/bottle-sockets'\n      read_only: true";
    assert!(compose.contains(sockets), "{compose}");
    for (changed, said) in [
        (
            compose.replace(no_network, "network_mode: 'bridge'\n"),
            "the networks",
        ),
        (
            compose.replace(sockets, &sockets.replace("true", "false")),
            "a bind mount of",
        ),
    ] {
        let up = f.home.tool("bottle-run").args(["up"]).stdin(changed).run();
        assert_eq!(up.code(), 3, "{}", up.stderr);
        assert!(up.stderr.contains(said), "{}", up.stderr);
    }
    assert_eq!(f.home.left_of(&slug), Vec::<String>::new());
    // What cannot be had is refused where it is asked for.
    let plan = f.home.plan("small", &slug);
    let standalone = f
        .home
        .tool("bottle-render")
        .args(["--standalone"])
        .stdin(plan)
        .run();
    assert_eq!(standalone.code(), 2, "{}", standalone.stderr);
    assert!(
        standalone.stderr.contains("hint: "),
        "{}",
        standalone.stderr
    );
    f.home.bottle("other", &format!("{SMALL}runtime: runsc\n"));
    let planned = f.home.tool("bottle-plan").args(["other"]).run();
    assert_eq!(planned.code(), 2, "{}", planned.stderr);
    assert!(
        planned.stderr.contains("does not go with runtime `runsc`"),
        "{}",
        planned.stderr
    );
}
