//! The agent reaches its egress sidecar and nothing else: tried from inside, on the real engine.
//!
//! Every claim has its control: the same probe from somewhere else shows that there is something to be reached, so that a
//! broken probe or a dead listener cannot pass for a closed door.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use bottle_tests::engine::docker;
use bottle_tests::engine::{skip, wait_for};
use bottle_tests::host::HostServices;
use bottle_tests::probe::Findings;
use bottle_tests::server::UDP_ECHO;
use bottle_tests::{Bottle, Home, Internet, need_engine, suite};
use serde_json::Value;

const ALLOWED: &str = "api.example.com";

/// What must be found nowhere; distinctive, so that finding it means something.
const TOKEN: &str = "tok-isolation-5d41402abc4b2a76";
/// What the agent may have, but nobody may keep.
const HOST_VALUE: &str = "val-isolation-7d793037a0760186";

/// An address nobody has, to be asked about and found in no log.
const LEAK: &str = "203.0.113.9";
const LEAK_TURNED: &str = "9.113.0.203";
/// A name that the sidecar's own resolver knows, and that is on no list: answered, it was passed on.
const KNOWN: &str = "leak-known.example.org";

const MANIFEST: &str = "\
image: debian:trixie-slim
env: {FROM_HOST: '${TEST_HOST_VALUE}'}
egress:
  routes:
    - {host: api.example.com, private: [10.213.0.0/16], auth: {scheme: Bearer, token_ref: TEST_TOKEN}}
";

// In the order they are dropped: bottles and networks before the home that knows their label.
struct Fixture {
    bottle: Bottle,
    neighbour: Bottle,
    internet: Internet,
    /// What is reached by routing and by no bridge.
    beyond: Option<Internet>,
    host: HostServices,
    home: Home,
}

impl Fixture {
    fn network(&self, which: &str) -> String {
        format!("bottle-{}-{which}", self.bottle.slug)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.internet.leave(&self.network("egress"));
    }
}

fn main() -> ExitCode {
    suite::run(
        make,
        &[
            ("the_host_is_not_reached", the_host_is_not_reached),
            ("the_internet_is_not_reached", the_internet_is_not_reached),
            (
                "other_bottles_are_not_reached",
                other_bottles_are_not_reached,
            ),
            (
                "the_way_out_is_open_and_only_that",
                the_way_out_is_open_and_only_that,
            ),
            ("no_question_leaves_by_dns", no_question_leaves_by_dns),
            ("there_is_no_ipv6", there_is_no_ipv6),
            ("the_kernel_is_out_of_reach", the_kernel_is_out_of_reach),
            (
                "nothing_of_the_host_is_mounted",
                nothing_of_the_host_is_mounted,
            ),
            (
                "the_containers_are_as_hard_as_they_should_be",
                the_containers_are_as_hard_as_they_should_be,
            ),
            (
                "the_token_is_nowhere_the_agent_can_look",
                the_token_is_nowhere_the_agent_can_look,
            ),
            (
                "values_of_the_host_are_kept_nowhere",
                values_of_the_host_are_kept_nowhere,
            ),
        ],
    )
}

fn make() -> Option<Fixture> {
    if !need_engine("isolation") {
        return None;
    }
    let home = Home::with_env(&[("TEST_TOKEN", TOKEN), ("TEST_HOST_VALUE", HOST_VALUE)]);
    home.bottle("web", MANIFEST);
    let internet = Internet::start(&home, &[ALLOWED]);
    let bottle = home.up("web", &home.slug("a"));
    let neighbour = home.up("web", &home.slug("b"));
    internet.join(&format!("bottle-{}-egress", bottle.slug), &[KNOWN]);
    let beyond = Internet::start_beyond(&home, &[ALLOWED]);
    Some(Fixture {
        bottle,
        neighbour,
        internet,
        beyond,
        host: HostServices::start(),
        home,
    })
}

/// Every address by which the host could be asked for: where its own would be on the agent's network, and where they are
/// on other bridges.
fn host_addresses(f: &Fixture) -> Vec<String> {
    vec![
        f.bottle.address("/networks/internal/gateway"),
        f.bottle.address("/networks/egress/gateway"),
        f.neighbour.address("/networks/internal/gateway"),
        f.neighbour.address("/networks/egress/gateway"),
        f.internet.gateway.to_string(),
    ]
}

fn the_host_is_not_reached(f: &Fixture) {
    let (tcp, udp) = (f.host.tcp, f.host.udp);
    let services = |ip: &str| {
        [
            format!("tcp:{ip}:{tcp}"),
            format!("udp:{ip}:{udp}"),
            format!("icmp:{ip}"),
        ]
    };

    // The services are there, and an ordinary container reaches them by the gateway of its bridge.
    Findings::from_host(&services("127.0.0.1")[..2]).assert_open();
    let gateway = f.internet.gateway.to_string();
    f.internet.probe_beside(&services(&gateway)).assert_open();

    let before = f.host.contacts();
    let probes: Vec<String> = host_addresses(f)
        .iter()
        .flat_map(|ip| services(ip))
        .collect();
    f.bottle.probe(&probes).assert_closed();
    assert_eq!(
        f.host.contacts(),
        before,
        "something arrived, though no answer came back"
    );
}

fn the_internet_is_not_reached(f: &Fixture) {
    is_not_reached(f, &f.internet);
    // Between two bridges the engine has a wall of its own. There is none on the way to where this host's routes lead.
    match &f.beyond {
        Some(beyond) => is_not_reached(f, beyond),
        None => skip("the_internet_is_not_reached", "only root can make a link"),
    }
}

fn is_not_reached(f: &Fixture, internet: &Internet) {
    let ip = internet.address;
    let ports = [
        format!("tcp:{ip}:80"),
        format!("tcp:{ip}:443"),
        format!("tcp:{ip}:53"),
        format!("udp:{ip}:{UDP_ECHO}"),
    ];
    let all: Vec<String> = ports
        .iter()
        .cloned()
        .chain([format!("icmp:{ip}"), format!("dns:{ip}:{ALLOWED}")])
        .collect();
    f.internet.probe_beside(&all).assert_open();

    let before = internet.events().len();
    f.bottle.probe(&all).assert_closed();
    assert_eq!(
        internet.events().len(),
        before,
        "something arrived, though no answer came back"
    );
}

fn other_bottles_are_not_reached(f: &Fixture) {
    let egress = f.neighbour.address("/networks/addresses/egress");
    let agent = f.neighbour.address("/networks/addresses/agent");
    let outside = docker([
        "inspect",
        "--format",
        &format!(
            "{{{{(index .NetworkSettings.Networks \"bottle-{}-egress\").IPAddress}}}}",
            f.neighbour.slug
        ),
        &f.neighbour.egress(),
    ]);
    let outside = outside.ok().trim().to_owned();
    // The neighbour's own agent gets through to its sidecar: it does listen.
    f.neighbour
        .probe(&[format!("tcp:{egress}:3128")])
        .assert_open();
    let mut probes = Vec::new();
    for ip in [&egress, &agent, &outside] {
        probes.extend([
            format!("tcp:{ip}:3128"),
            format!("tcp:{ip}:443"),
            format!("udp:{ip}:53"),
            format!("icmp:{ip}"),
        ]);
    }
    f.bottle.probe(&probes).assert_closed();
    // Its outer side offers nothing either, to whoever is there: the listeners are on the inner one alone.
    Findings::from_host(&[
        format!("tcp:{outside}:3128"),
        format!("tcp:{outside}:443"),
        format!("tcp:{outside}:53"),
    ])
    .assert_refused();
}

fn the_way_out_is_open_and_only_that(f: &Fixture) {
    let egress = f.bottle.address("/networks/addresses/egress");
    let open = [3128, 443, 80, 53].map(|port| format!("tcp:{egress}:{port}"));
    f.bottle.probe(&open).assert_open();
    // The proxy goes nowhere it was not told to, whatever the spelling.
    let upstream = f.internet.address;
    let targets = [
        "blocked.example.com:443".to_owned(),
        "api.example.com:22".to_owned(),
        "api.example.com.:8443".to_owned(),
        format!("{upstream}:443"),
        format!(
            "{}:{}",
            f.bottle.address("/networks/egress/gateway"),
            f.host.tcp
        ),
        "127.0.0.1:3128".to_owned(),
        "[::1]:3128".to_owned(),
        "2130706433:80".to_owned(),
        "0x7f.1:80".to_owned(),
        "169.254.169.254:80".to_owned(),
        "localhost:3128".to_owned(),
        "egress:3128".to_owned(),
    ];
    let probes: Vec<String> = targets
        .iter()
        .map(|target| format!("http:{egress}:3128:{target}"))
        .collect();
    let before = f.host.contacts();
    let findings = f.bottle.probe(&probes);
    findings.assert_closed();
    for probe in &probes {
        let (_, detail) = findings.of(probe);
        assert!(
            detail.contains("x-bottle-reason: "),
            "{probe}: no reason: {detail}"
        );
    }
    assert_eq!(f.host.contacts(), before);
}

fn no_question_leaves_by_dns(f: &Fixture) {
    let resolver = f.internet.address;
    f.internet
        .probe_beside(&[
            format!("dns:{resolver}:{ALLOWED}"),
            format!("dnstcp:{resolver}:{ALLOWED}"),
        ])
        .assert_open();

    // For a PTR question that is no address turned round, this engine's resolver gives no answer at all.
    let names = [
        ("A", "leak-a.example.org"),
        ("AAAA", "leak-aaaa.example.org"),
        ("TXT", "leak-txt.example.org"),
        ("PTR", LEAK),
    ];
    let questions = |server: &str| -> Vec<String> {
        let of_kind = |(kind, name): &(&str, &str)| {
            ["dns", "dnstcp"].map(|way| format!("{way}:{server}:{name}:{kind}"))
        };
        names.iter().flat_map(of_kind).collect()
    };
    let own = questions("127.0.0.11");
    let findings = f.bottle.probe(&own);
    findings.assert_closed();
    for probe in &own {
        // Refused at once: a name that hangs for seconds makes programs look broken.
        let (_, detail) = findings.of(probe);
        assert!(!detail.starts_with("no answer"), "{probe}: {detail}");
    }
    let mut elsewhere = questions(&resolver.to_string());
    elsewhere.extend(questions(&f.bottle.address("/networks/internal/gateway")));
    elsewhere.push("resolve:leak-by-the-system.example.org".to_owned());
    f.bottle.probe(&elsewhere).assert_closed();
    // On the sidecar's other side it is answered, and from there the sidecar could have it.
    let known = ["dns", "dnstcp"].map(|way| format!("{way}:127.0.0.11:{KNOWN}"));
    f.internet
        .probe_on(&f.network("egress"), &known)
        .assert_open();
    f.bottle.probe(&known).assert_closed();
    for name in [names[0].1, KNOWN] {
        wait_for(&format!("a record of {name}"), || {
            let path = f.home.state(&f.bottle.slug).join("audit/audit.jsonl");
            let text = fs::read_to_string(path).unwrap_or_default();
            let records = text.lines().map(serde_json::from_str::<Value>);
            records.flatten().any(|record| {
                record["host"] == name && record["way"] == "dns" && record["decision"] == "deny"
            })
        });
    }

    let asked = f.internet.events_of("question");
    let leaked: Vec<&Value> = asked
        .iter()
        .filter(|event| {
            event["name"]
                .as_str()
                .is_some_and(|name| name.contains("leak") || name.starts_with(LEAK_TURNED))
        })
        .collect();
    assert!(leaked.is_empty(), "{leaked:?}");

    // An allowed name is answered, with the sidecar's own address.
    let egress = f.bottle.address("/networks/addresses/egress");
    let allowed = format!("dns:127.0.0.11:{ALLOWED}");
    let findings = f.bottle.probe(std::slice::from_ref(&allowed));
    assert!(
        findings
            .of(&allowed)
            .1
            .starts_with(&format!("NOERROR {egress} ")),
        "{findings:?}"
    );
    // The neighbour cannot even be asked about.
    let strangers =
        [f.neighbour.agent(), f.neighbour.egress()].map(|name| format!("dns:127.0.0.11:{name}"));
    f.bottle.probe(&strangers).assert_closed();
}

fn there_is_no_ipv6(f: &Fixture) {
    let port = f.host.tcp;
    let probes = [
        "ipv6".to_owned(),
        format!("tcp:[fe80::1%eth0]:{port}"),
        "icmp:[fe80::1]".to_owned(),
    ];
    f.bottle.probe(&probes).assert_closed();
    let findings = f.bottle.probe(&["interfaces".to_owned()]);
    let (_, detail) = findings.of("interfaces");
    // Exactly the loopback and the one network, and the probe that says so does see addresses.
    assert_eq!(detail.split("; ").count(), 2, "{detail}");
    assert!(
        detail.contains("lo 127.0.0.1")
            && detail.contains(&f.bottle.address("/networks/addresses/agent")),
        "{detail}"
    );
}

fn the_kernel_is_out_of_reach(f: &Fixture) {
    let probes = [
        "caps",
        "raw",
        "iouring",
        "unshare",
        "family:vsock",
        "family:packet",
        "family:alg",
        "family:bluetooth",
        "family:can",
        "family:tipc",
        "family:xdp",
        "family:netlink-netfilter",
        "family:netlink-audit",
        "family:netlink-generic",
    ]
    .map(str::to_owned);
    let findings = f.bottle.probe(&probes);
    findings.assert_closed();
    let (_, caps) = findings.of("caps");
    assert!(
        caps.contains("NoNewPrivs=1") && caps.contains("Seccomp=2"),
        "{caps}"
    );
    // What agents need still works, and what an ordinary container may do shows that the probes can see it.
    f.bottle
        .probe(&["family:unix", "family:inet", "family:netlink-route"].map(str::to_owned))
        .assert_open();
    f.internet
        .probe_beside(&["caps", "raw", "family:packet"].map(str::to_owned))
        .assert_open();
}

fn nothing_of_the_host_is_mounted(f: &Fixture) {
    f.bottle.probe(&["mounts".to_owned()]).assert_closed();
    // The control's probe is itself mounted from the host.
    f.internet
        .probe_beside(&["mounts".to_owned()])
        .assert_open();
}

fn inspected(container: &str) -> Value {
    let list: Value = docker(["inspect", container]).json();
    list[0].clone()
}

fn the_containers_are_as_hard_as_they_should_be(f: &Fixture) {
    let agent = inspected(&f.bottle.agent());
    let egress = inspected(&f.bottle.egress());
    let networks = |container: &Value| -> Vec<String> {
        let networks = container["NetworkSettings"]["Networks"]
            .as_object()
            .expect("an object");
        networks.keys().cloned().collect()
    };
    assert_eq!(
        networks(&agent),
        [format!("bottle-{}-internal", f.bottle.slug)]
    );
    for (name, container) in [("agent", &agent), ("egress", &egress)] {
        let host = &container["HostConfig"];
        let ports = container["NetworkSettings"]["Ports"]
            .as_object()
            .is_none_or(|ports| ports.values().all(Value::is_null));
        assert!(ports, "{name} publishes a port");
        assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]), "{name}");
        assert_eq!(host["CapAdd"].as_array().map_or(0, Vec::len), 0, "{name}");
        assert_eq!(host["Privileged"], false, "{name}");
        // A sidecar is brought back while its agent is cut off; an agent that ended has ended.
        let restart = if name == "agent" { "no" } else { "on-failure" };
        assert_eq!(host["RestartPolicy"]["Name"], restart, "{name}");
        assert_eq!(host["Devices"].as_array().map_or(0, Vec::len), 0, "{name}");
        assert!(
            host["PidsLimit"].as_i64().is_some_and(|limit| limit > 0),
            "{name} has no limit of processes"
        );
        assert!(
            host["Memory"].as_u64().is_some_and(|limit| limit > 0),
            "{name} has no limit of memory"
        );
        // What a crash leaves behind would hold every value.
        let no_core = serde_json::json!({"Name": "core", "Hard": 0, "Soft": 0});
        let limits = host["Ulimits"].as_array().cloned().unwrap_or_default();
        assert!(
            limits.contains(&no_core),
            "{name} may dump core: {limits:?}"
        );
        let options = host["SecurityOpt"].to_string();
        assert!(
            options.contains("no-new-privileges") && options.contains("seccomp="),
            "{name}: {options}"
        );
        assert!(
            !container["Config"]["User"]
                .as_str()
                .unwrap_or("0")
                .starts_with('0'),
            "{name} runs as root"
        );
    }
    assert_eq!(
        egress["HostConfig"]["Sysctls"]["net.ipv4.ip_forward"], "0",
        "the sidecar forwards packets"
    );
    assert_eq!(egress["HostConfig"]["ReadonlyRootfs"], true);
    // The bridge of the internal network has no address of the host.
    let network: Value = docker([
        "network",
        "inspect",
        &format!("bottle-{}-internal", f.bottle.slug),
    ])
    .json();
    assert_eq!(network[0]["Internal"], true);
    let bridge = format!("br-{}", &network[0]["Id"].as_str().expect("an id")[..12]);
    let trie = fs::read_to_string("/proc/net/fib_trie").expect("the host's addresses");
    let gateway = f.bottle.address("/networks/internal/gateway");
    assert!(
        !trie
            .lines()
            .any(|line| line.trim().ends_with(&format!("-- {gateway}"))),
        "{bridge} has {gateway}"
    );
}

/// Every file below `folder` that holds `needle`.
fn files_with(folder: &Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files_with(&path, needle));
        } else if fs::read(&path).is_ok_and(|bytes| contains(&bytes, needle)) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

/// Processes of the whole machine whose arguments hold `needle`.
fn arguments_with(needle: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter(|entry| {
            fs::read(entry.path().join("cmdline")).is_ok_and(|bytes| contains(&bytes, needle))
        })
        .map(|entry| entry.path().display().to_string())
        .collect()
}

fn the_token_is_nowhere_the_agent_can_look(f: &Fixture) {
    // The sidecar does have it: the needle is right.
    assert!(
        docker(["inspect", &f.bottle.egress()]).ok().contains(TOKEN),
        "the sidecar has no token"
    );

    let script = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; \
                  find / -xdev -type f -size -2M -readable -not -path '/usr/*' -exec cat {} + 2>/dev/null; \
                  cat /run/bottle/* 2>/dev/null; true";
    let seen = f.bottle.exec(&["sh", "-c", script]).ok();
    assert!(
        seen.len() > 10_000,
        "the search itself found next to nothing: {} bytes",
        seen.len()
    );
    assert!(!seen.contains(TOKEN), "the agent sees the token");
    // What it holds instead stands where programs look for the token.
    let placeholder = f.bottle.exec(&["printenv", "TEST_TOKEN"]).ok();
    assert!(
        placeholder.trim().len() >= 16 && placeholder.trim() != TOKEN,
        "{placeholder}"
    );

    assert!(!docker(["inspect", &f.bottle.agent()]).ok().contains(TOKEN));
    assert_eq!(files_with(&f.home.path(), TOKEN), Vec::<String>::new());
    assert_eq!(arguments_with(TOKEN), Vec::<String>::new());
    for container in [f.bottle.agent(), f.bottle.egress()] {
        let image = docker(["inspect", "--format={{.Image}}", &container]).ok();
        let image = image.trim();
        let said = [
            docker(["image", "inspect", image]),
            docker(["history", "--no-trunc", image]),
        ];
        assert!(
            said.iter().all(|done| !done.stdout.contains(TOKEN)),
            "{image}"
        );
    }
    for container in [f.bottle.agent(), f.bottle.egress()] {
        let log = docker(["logs", &container]);
        assert!(
            !log.stdout.contains(TOKEN) && !log.stderr.contains(TOKEN),
            "the log of {container}"
        );
    }
}

fn values_of_the_host_are_kept_nowhere(f: &Fixture) {
    assert_eq!(
        f.bottle.exec(&["printenv", "FROM_HOST"]).ok().trim(),
        HOST_VALUE
    );
    for container in [f.bottle.agent(), f.bottle.egress()] {
        assert!(
            !docker(["inspect", &container]).ok().contains(HOST_VALUE),
            "{container}"
        );
    }
    assert_eq!(files_with(&f.home.path(), HOST_VALUE), Vec::<String>::new());
    assert_eq!(arguments_with(HOST_VALUE), Vec::<String>::new());
}
