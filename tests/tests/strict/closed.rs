//! What cannot be reached, and what can be reached and not be changed.

use std::fs;

use bottle_tests::engine::{docker, wait_for};
use serde_json::Value;

use crate::fixture::{ALLOWED, Fixture, egress_network, inspected};

/// The networks the engine has put a container on.
fn networks(container: &str) -> Vec<String> {
    let found = inspected(container);
    let networks = found["NetworkSettings"]["Networks"].as_object();
    networks.expect("an object").keys().cloned().collect()
}

pub(crate) fn only_the_loopback_is_there(f: &Fixture) {
    let probes = ["interfaces", "ipv6", "raw", "caps", "family:packet"].map(str::to_owned);
    let findings = f.bottle.probe(&probes);
    findings.assert_closed();
    assert_eq!(findings.of("interfaces").1, "lo 127.0.0.1");
    // An ordinary container has one, which the probe does see.
    let control = f.internet.probe_beside(&["interfaces".to_owned()]);
    control.assert_open();
    let routes = f.sh("cat /proc/net/route; cat /etc/resolv.conf").ok();
    assert_eq!(
        routes.lines().filter(|line| line.contains("eth")).count(),
        0
    );
    assert!(routes.contains("nameserver 127.0.0.1\n"), "{routes}");
    assert_eq!(networks(&f.bottle.agent()), ["none"]);
    let supervise = format!("bottle-{}-supervise", f.bottle.slug);
    assert_eq!(networks(&supervise), ["none"]);
    let gate = format!("bottle-{}-git-gate", f.bottle.slug);
    for sidecar in [f.bottle.egress(), gate] {
        assert_eq!(networks(&sidecar), [egress_network(&f.bottle)]);
    }
    // The network an agent usually has was not even made.
    let internal = format!("bottle-{}-internal", f.bottle.slug);
    let found = docker(["network", "inspect", &internal]);
    assert!(!found.status.success(), "{}", found.stdout);
}

pub(crate) fn nothing_else_is_reached(f: &Fixture) {
    let (tcp, udp) = (f.host.tcp, f.host.udp);
    let services = |ip: &str| {
        [
            format!("tcp:{ip}:{tcp}"),
            format!("udp:{ip}:{udp}"),
            format!("icmp:{ip}"),
        ]
    };
    let gateway = f.internet.gateway.to_string();
    f.internet.probe_beside(&services(&gateway)).assert_open();
    let before = f.host.contacts();
    let mut addresses = vec![gateway, f.internet.address.to_string()];
    for bottle in [&f.bottle, &f.neighbour] {
        addresses.push(bottle.address("/networks/internal/gateway"));
        addresses.push(bottle.address("/networks/egress/gateway"));
        addresses.push(bottle.address("/networks/addresses/egress"));
    }
    let mut probes: Vec<String> = addresses.iter().flat_map(|ip| services(ip)).collect();
    let outside = f.internet.address;
    probes.extend([
        format!("tcp:{outside}:443"),
        format!("dns:{outside}:{ALLOWED}"),
        format!("tcp:[fe80::1%eth0]:{tcp}"),
    ]);
    // Of other bottles' addresses on the network that leads out, too.
    let neighbour = inspected(&f.neighbour.egress());
    let address = &neighbour["NetworkSettings"]["Networks"][egress_network(&f.neighbour)];
    let address = address["IPAddress"].as_str().expect("an address");
    probes.push(format!("tcp:{address}:3128"));
    f.bottle.probe(&probes).assert_closed();
    assert_eq!(f.host.contacts(), before, "something arrived");
    // What the sidecars offer there is nothing: they listen at sockets alone.
    bottle_tests::probe::Findings::from_host(&[
        format!("tcp:{address}:3128"),
        format!("tcp:{address}:53"),
    ])
    .assert_refused();
}

pub(crate) fn no_question_leaves_by_dns(f: &Fixture) {
    for way in ["dns", "dnstcp"] {
        let allowed = format!("{way}:127.0.0.1:{ALLOWED}");
        let refused =
            ["A", "AAAA", "TXT"].map(|kind| format!("{way}:127.0.0.1:leak.example.org:{kind}"));
        let mut probes = refused.to_vec();
        probes.push(allowed.clone());
        let findings = f.bottle.probe(&probes);
        assert!(
            findings.of(&allowed).1.starts_with("NOERROR 127.0.0.1 "),
            "{findings:?}"
        );
        for probe in &refused {
            let (reached, detail) = findings.of(probe);
            assert!(
                !reached && detail.starts_with("NXDOMAIN"),
                "{probe}: {detail}"
            );
        }
    }
    let system = f.bottle.probe(&["resolve:leak.example.org".to_owned()]);
    system.assert_closed();
    let asked = f.internet.events_of("question");
    assert!(!asked.iter().any(|event| event.to_string().contains("leak")));
    let refused = f.audit();
    let is_refusal =
        |record: &&Value| record["reason"] == "dns_refused" && record["host"] == "leak.example.org";
    assert!(refused.iter().any(|record| is_refusal(&record)));
}

pub(crate) fn the_sockets_are_the_sidecars_own(f: &Fixture) {
    // There to be connected to, and for nothing else.
    let script = "cd /run/bottle-sockets; ls . 2>/dev/null && exit 1; ls egress 2>/dev/null && exit 1; \
         test -S egress/proxy; \
         for what in 'rm -f egress/proxy' 'touch egress/x' 'mv egress/proxy egress/y' 'chmod 0 egress/proxy' \
             'mkdir x' 'ln -s /etc egress/z'; do \
             if $what 2>/dev/null; then echo \"done: $what\"; fi; done";
    assert_eq!(f.sh(script).ok(), "");
    f.assert_works();
    let root = f.home.state(&f.bottle.slug).join("sockets");
    let folders: Vec<String> = fs::read_dir(&root)
        .expect("the folder")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(folders.len(), 3, "{folders:?}");
    // Each sidecar has its own folder and no other's.
    for role in ["egress", "git-gate", "supervise"] {
        let container = inspected(&format!("bottle-{}-{role}", f.bottle.slug));
        let mounts = container["Mounts"].as_array().expect("mounts").iter();
        let of_sockets: Vec<&str> = mounts
            .filter_map(|mount| mount["Source"].as_str())
            .filter(|source| source.contains("/sockets"))
            .collect();
        assert_eq!(of_sockets, [root.join(role).to_str().expect("text")]);
    }
    let findings = f
        .bottle
        .probe(&["mounts", "mounts:/run/bottle-sockets"].map(str::to_owned));
    assert!(findings.of("mounts").0, "the probe does not see the folder");
    assert!(!findings.of("mounts:/run/bottle-sockets").0, "{findings:?}");
}

pub(crate) fn two_bottles_are_two_worlds(f: &Fixture) {
    // The same addresses in both, and each has its own sidecar behind them.
    let probe = ["http:127.0.0.1:3128:x.example.net:443".to_owned()];
    for bottle in [&f.bottle, &f.neighbour] {
        let said = bottle.probe(&probe);
        assert!(
            said.of(&probe[0]).1.contains("host_not_allowed"),
            "{said:?}"
        );
    }
    f.neighbour
        .probe(&["tcp:127.0.0.1:9100", "tcp:127.0.0.1:9418"].map(str::to_owned))
        .assert_refused();
    // Sockets without a path are of one network namespace, and theirs are two.
    let listens = "import socket,sys,time\ns=socket.socket(socket.AF_UNIX)\ns.bind('\\0bottle-strict-test')\ns.listen()\n\
         t=socket.socket()\nt.bind(('127.0.0.1',7070))\nt.listen()\nprint('ready',flush=True)\ntime.sleep(60)";
    let _ = f
        .sh(&format!("python3 -c \"{listens}\" > /tmp/listens 2>&1 &"))
        .ok();
    wait_for("the listener", || {
        f.sh("cat /tmp/listens").stdout == "ready\n"
    });
    f.bottle
        .probe(&["tcp:127.0.0.1:7070".to_owned()])
        .assert_open();
    f.neighbour
        .probe(&["tcp:127.0.0.1:7070".to_owned()])
        .assert_refused();
    let unix = f
        .neighbour
        .exec(&["sh", "-c", "grep -c bottle-strict-test /proc/net/unix"]);
    assert_eq!(unix.stdout.trim(), "0", "{}", unix.stderr);
}
