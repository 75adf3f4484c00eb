//! `isolation: strict`: an agent without any network works as in any other bottle, and has less to reach. Tried from
//! inside, on the real engine.

// The lint knows tests by their attribute, and helpers and cases have none.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::ExitCode;

use bottle_tests::engine::{docker, skip, wait_for, wait_within};
use bottle_tests::host::HostServices;
use bottle_tests::internet::agent_image;
use bottle_tests::terminal::{PATIENCE, Terminal, need_tmux};
use bottle_tests::upstream::git_image;
use bottle_tests::{Bottle, Call, Done, Home, Internet, Upstream, need_engine, suite};
use serde_json::{Value, json};

const ALLOWED: &str = "api.example.com";
const GIT: &str = "git.example.com";
const TOKEN: &str = "tok-strict-6f4922f45568161a8cdf4ad2299f6d23";

/// As little as needs no image of the test's own.
const SMALL: &str = "\
image: debian:trixie-slim
isolation: strict
resources: {memory: 128m, cpus: 1, pids: 128}
workspace: {from: none}
egress:
  routes:
    - {host: api.example.com, auth: {scheme: Bearer, token_ref: TEST_TOKEN}}
";

// In the order they are dropped: bottles before the networks they are on, and the home last.
struct Fixture {
    bottle: Bottle,
    neighbour: Bottle,
    upstream: Upstream,
    internet: Internet,
    host: HostServices,
    home: Home,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let network = egress_network(&self.bottle);
        self.upstream.leave(&network);
        self.internet.leave(&network);
        self.internet.leave(&egress_network(&self.neighbour));
    }
}

fn main() -> ExitCode {
    suite::run(
        make,
        &[
            ("only_the_loopback_is_there", only_the_loopback_is_there),
            ("nothing_else_is_reached", nothing_else_is_reached),
            ("both_ways_out_work", both_ways_out_work),
            ("a_refusal_says_why", a_refusal_says_why),
            ("no_question_leaves_by_dns", no_question_leaves_by_dns),
            (
                "the_sockets_are_the_sidecars_own",
                the_sockets_are_the_sidecars_own,
            ),
            ("two_bottles_are_two_worlds", two_bottles_are_two_worlds),
            ("git_goes_through_the_gate", git_goes_through_the_gate),
            (
                "a_request_is_asked_for_and_granted",
                a_request_is_asked_for_and_granted,
            ),
            ("a_terminal_is_a_terminal", a_terminal_is_a_terminal),
            (
                "the_forwarder_cannot_be_ended",
                the_forwarder_cannot_be_ended,
            ),
            (
                "a_sidecar_that_died_is_found_again",
                a_sidecar_that_died_is_found_again,
            ),
            (
                "the_check_passes_without_a_network",
                the_check_passes_without_a_network,
            ),
            (
                "a_file_that_was_changed_is_refused",
                a_file_that_was_changed_is_refused,
            ),
            ("a_snapshot_is_gone_on_from", a_snapshot_is_gone_on_from),
        ],
    )
}

fn egress_network(bottle: &Bottle) -> String {
    format!("bottle-{}-egress", bottle.slug)
}

fn manifest(upstream: &Upstream) -> String {
    format!(
        "\
image: {}
isolation: strict
command: [bash, --norc]
supervise: {{timeout: 60s}}
egress:
  upstream_ca: upstream.pem
  routes:
    - host: {ALLOWED}
      private: [10.213.0.0/16]
      matches: [{{paths: [/echo/open], methods: [GET]}}]
      auth: {{scheme: Bearer, token_ref: TEST_TOKEN}}
git-gate:
  user: {{name: Agent, email: agent@example.com}}
  repos:
    demo:
      url: {}
      host_key: \"{}\"
      key: {{provider: static, path: {}}}
",
        agent_image(&git_image()),
        upstream.url(GIT, "demo"),
        upstream.host_key,
        upstream.key.display(),
    )
}

fn make() -> Option<Fixture> {
    if !need_engine("strict") {
        return None;
    }
    let home = Home::with_env(&[("TEST_TOKEN", TOKEN)]);
    let internet = Internet::start(&home, &[ALLOWED]);
    let upstream = Upstream::start(&home);
    upstream.repository("demo");
    home.write("bottles/upstream.pem", internet.ca_pem());
    home.bottle("closed", &manifest(&upstream));
    home.bottle("small", SMALL);
    let bottle = home.up("closed", &home.slug("a"));
    let neighbour = home.up("small", &home.slug("b"));
    internet.join(&egress_network(&bottle), &[ALLOWED]);
    internet.join(&egress_network(&neighbour), &[]);
    upstream.join(&egress_network(&bottle), &[GIT]);
    Some(Fixture {
        bottle,
        neighbour,
        upstream,
        internet,
        host: HostServices::start(),
        home,
    })
}

impl Fixture {
    fn sh(&self, script: &str) -> Done {
        self.bottle.exec(&["sh", "-euc", script])
    }

    fn operator(&self, args: &[&str]) -> Done {
        self.home
            .tool("bottle-run")
            .args(args.iter().copied())
            .run()
    }

    /// A call that is allowed goes through, by both ways.
    fn assert_works(&self) {
        for way in [&[][..], &["--direct"]] {
            let url = format!("https://{ALLOWED}/echo/open");
            let mut args = way.to_vec();
            args.extend(["GET", &url]);
            let answer = self.bottle.fetch(&args);
            assert_eq!(answer["status"], 200, "{way:?}: {answer}");
        }
    }

    fn audit(&self) -> Vec<Value> {
        let path = self.home.state(&self.bottle.slug).join("audit/audit.jsonl");
        let text = fs::read_to_string(path).expect("the audit");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }
}

fn inspected(container: &str) -> Value {
    let list: Value = docker(["inspect", container]).json();
    list[0].clone()
}

/// The networks the engine has put a container on.
fn networks(container: &str) -> Vec<String> {
    let found = inspected(container);
    let networks = found["NetworkSettings"]["Networks"].as_object();
    networks.expect("an object").keys().cloned().collect()
}

fn body(answer: &Value) -> Value {
    let text = answer["body"].as_str().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn only_the_loopback_is_there(f: &Fixture) {
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

fn nothing_else_is_reached(f: &Fixture) {
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

fn both_ways_out_work(f: &Fixture) {
    f.assert_works();
    // The name leads to the forwarder, and the credential was put in on the way.
    let answer = f
        .bottle
        .fetch(&["--direct", "GET", &format!("https://{ALLOWED}/echo/open")]);
    let echo = body(&answer);
    let sent = echo["headers"].to_string();
    assert!(sent.contains("Bearer"), "{sent}");
    let records = f.audit();
    for way in ["proxy", "transparent"] {
        let allowed = |record: &&Value| record["decision"] == "allow" && record["way"] == way;
        assert!(records.iter().any(|r| allowed(&r)), "{way}: {records:?}");
    }
    // As large as anything, in both directions.
    let bytes = f.sh("python3 - <<'EOF'\nimport os,socket,threading\ns=socket.create_connection(('egress',3128))\ns.sendall(b'GET http://blocked.example.net/ HTTP/1.1\\r\\nHost: blocked.example.net\\r\\nConnection: close\\r\\n\\r\\n')\ndata=b''\nwhile True:\n    piece=s.recv(65536)\n    if not piece: break\n    data+=piece\nprint(data.decode().splitlines()[0])\nEOF");
    assert!(bytes.ok().starts_with("HTTP/1.1 403"));
}

fn a_refusal_says_why(f: &Fixture) {
    let other = f.bottle.fetch(&["GET", "https://blocked.example.net/"]);
    assert_eq!(body(&other)["reason"], "host_not_allowed", "{other}");
    let path = format!("https://{ALLOWED}/echo/closed");
    for way in [&[][..], &["--direct"]] {
        let mut args = way.to_vec();
        args.extend(["GET", &path]);
        let denied = f.bottle.fetch(&args);
        assert_eq!(denied["status"], 403, "{denied}");
        assert_eq!(body(&denied)["reason"], "path_not_allowed", "{denied}");
    }
    // Its own place is no way around: neither by the loopback's names nor by its address.
    let targets = ["egress:3128", "127.0.0.1:3128", "localhost:9100"];
    let probes = targets.map(|target| format!("http:127.0.0.1:3128:{target}"));
    let findings = f.bottle.probe(&probes);
    findings.assert_closed();
    for probe in &probes {
        let (_, detail) = findings.of(probe);
        assert!(detail.contains("x-bottle-reason: "), "{probe}: {detail}");
    }
}

fn no_question_leaves_by_dns(f: &Fixture) {
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

fn the_sockets_are_the_sidecars_own(f: &Fixture) {
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

fn two_bottles_are_two_worlds(f: &Fixture) {
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

fn git_goes_through_the_gate(f: &Fixture) {
    let url = f.upstream.url(GIT, "demo");
    let script = format!(
        "rm -rf ~/work; git clone -q {url} ~/work; cd ~/work; git checkout -qb agent/strict; \
         head -c 3000000 /dev/urandom > large; git add .; git commit -qm 'a large file'; git push origin agent/strict"
    );
    let pushed = f.sh(&script);
    assert!(pushed.status.success(), "{}", pushed.stderr);
    let here = f.sh("git -C ~/work rev-parse HEAD").ok();
    assert_eq!(
        f.upstream.oid("demo", "refs/heads/agent/strict"),
        here.trim()
    );
    let refused = f.sh("cd ~/work; git push origin HEAD:main");
    assert!(!refused.status.success());
    assert!(
        refused.stderr.contains("git_ref_not_allowed"),
        "{}",
        refused.stderr
    );
}

fn a_request_is_asked_for_and_granted(f: &Fixture) {
    let url = format!("https://{ALLOWED}/echo/once");
    let denied = f.bottle.fetch(&["PUT", &url]);
    let ask = json!({"denial": body(&denied)["id"], "reason": "to put it", "wait": 0}).to_string();
    let place = "http://supervise:9100/requests/egress";
    let answer = f.bottle.fetch(&["--direct", "--body", &ask, "POST", place]);
    assert_eq!(answer["status"], 200, "{answer}");
    let id = body(&answer)["id"].as_str().expect("an id").to_owned();
    assert!(f.operator(&["requests"]).ok().contains(&id));
    let approved = f.operator(&["approve", &id, "--uses", "1"]);
    assert_eq!(approved.code(), 0, "{}", approved.stderr);
    assert_eq!(f.bottle.fetch(&["PUT", &url])["status"], 200);
    assert_eq!(f.bottle.fetch(&["PUT", &url])["status"], 403);
    let listed = f.operator(&["list", "--json"]).ok();
    assert!(listed.contains(&f.bottle.slug), "{listed}");
}

fn a_terminal_is_a_terminal(f: &Fixture) {
    if !need_tmux("a_terminal_is_a_terminal") {
        skip("a_terminal_is_a_terminal", "no tmux");
        return;
    }
    let terminal = Terminal::start(&f.home, "strict", 100, 30);
    terminal.types(&format!(
        "bottle-run attach {}; echo \"left with $?\"",
        f.bottle.slug
    ));
    terminal.asks("stty size", "30 100");
    terminal.types("exit 7");
    terminal.waits_for("left with 7");
}

fn the_forwarder_cannot_be_ended(f: &Fixture) {
    let started = inspected(&f.bottle.agent())["State"]["StartedAt"].clone();
    for signal in ["KILL", "TERM", "INT", "HUP", "SEGV", "STOP", "QUIT", "USR1"] {
        let _ = f.sh(&format!("kill -s {signal} 1"));
    }
    f.assert_works();
    // Nor taken over from within.
    let attach = "import ctypes; print(ctypes.CDLL(None, use_errno=True).ptrace(16, 1, 0, 0))";
    assert_eq!(f.sh(&format!("python3 -c '{attach}'")).ok().trim(), "-1");
    assert!(!f.sh("cat /proc/1/mem").status.success());
    // Its ports are taken; whoever could listen there would serve itself alone.
    let taken = f.sh("python3 -c \"import socket; s=socket.socket(); s.bind(('127.0.0.1',3128))\"");
    assert!(
        taken.stderr.contains("Address already in use"),
        "{}",
        taken.stderr
    );
    // It collects what commands leave behind.
    let _ = f
        .sh("sh -c 'sleep 0.01 & exec true'; sh -c '(sleep 0.01 &) ; true'")
        .ok();
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    wait_for("the orphans to be collected", || {
        f.bottle.exec(&["sh", "-c", zombies]).stdout.trim() == "0"
    });
    // Many connections at once end neither it nor the way out.
    let flood = "import socket\nheld=[]\nfor n in range(700):\n    s=socket.socket()\n    s.settimeout(5)\n    s.connect(('127.0.0.1',3128))\n    held.append(s)\nprint(len(held))";
    assert_eq!(f.sh(&format!("python3 -c \"{flood}\"")).ok().trim(), "700");
    wait_within(PATIENCE, "the way out to be free again", || {
        let url = format!("https://{ALLOWED}/echo/open");
        f.bottle
            .exec(&[bottle_tests::internet::CLIENT, "fetch", "GET", &url])
            .status
            .success()
    });
    f.assert_works();
    assert_eq!(inspected(&f.bottle.agent())["State"]["StartedAt"], started);
}

fn a_sidecar_that_died_is_found_again(f: &Fixture) {
    let egress = f.bottle.egress();
    let probe = ["http:127.0.0.1:3128:x.example.net:443".to_owned()];
    // Stopped by hand: cut off, and not free.
    let _ = docker(["stop", "--time=2", &egress]).ok();
    let findings = f.bottle.probe(&probe);
    let (reached, detail) = findings.of(&probe[0]);
    assert!(!reached && !detail.contains("x-bottle-reason"), "{detail}");
    let name = format!("dns:127.0.0.1:{ALLOWED}");
    f.bottle
        .probe(&[name, format!("tcp:{}:443", f.internet.address)])
        .assert_closed();
    let _ = docker(["start", &egress]).ok();
    wait_for("egress", || {
        f.bottle
            .probe(&probe)
            .of(&probe[0])
            .1
            .contains("host_not_allowed")
    });
    f.assert_works();
    // Killed as by the kernel: the engine brings it back, and the forwarder finds its new socket.
    for role in ["egress", "git-gate", "supervise"] {
        let container = format!("bottle-{}-{role}", f.bottle.slug);
        let before = inspected(&container);
        let pid = before["State"]["Pid"].to_string();
        let _ = Call::new("kill").args(["-KILL", &pid]).run().ok();
        wait_for("the sidecar", || {
            let health = docker(["exec", &container, "/bottle-sidecar", "health"]);
            inspected(&container)["State"]["Pid"] != before["State"]["Pid"]
                && health.status.success()
        });
    }
    f.assert_works();
    let _ = f
        .sh("git -C ~/work fetch -q || git ls-remote http://git-gate:9418/demo")
        .ok();
    let help = f
        .bottle
        .fetch(&["--direct", "GET", "http://supervise:9100/policy"]);
    assert_eq!(help["status"], 200, "{help}");
}

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

fn the_check_passes_without_a_network(f: &Fixture) {
    assert_passes(check(&f.home, &[&f.bottle.slug]));
    // Nobody works in that one: its limits are run into as well.
    let plan = f.home.plan("small", &f.home.slug("checked"));
    let file = f.home.write("checked.json", plan);
    assert_passes(check(&f.home, &["--plan", file.to_str().expect("text")]));
}

fn a_file_that_was_changed_is_refused(f: &Fixture) {
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

fn a_snapshot_is_gone_on_from(f: &Fixture) {
    let slug = f.home.slug("frozen");
    let bottle = f.home.up("small", &slug);
    let sh = |bottle: &Bottle, script: &str| bottle.exec(&["sh", "-euc", script]).ok();
    sh(&bottle, "echo built > /workspace/work");
    let made = f.home.tool("bottle-snapshot").args(["commit", &slug]).run();
    let made = made.json();
    // The place of the sockets is in memory, and no image has it.
    let image = made["image"].as_str().expect("an id");
    let args = ["run", "--rm", "--entrypoint=ls", image, "/run"];
    let inside = docker(args).ok();
    assert!(!inside.contains("bottle-sockets"), "{inside}");
    f.home.down(&slug);
    assert_eq!(f.home.left_of(&slug), Vec::<String>::new());
    assert!(!f.home.state(&slug).join("sockets").exists());
    let plan = f
        .home
        .tool("bottle-plan")
        .args(["--resume", &slug])
        .run()
        .ok();
    let up = f
        .home
        .tool("bottle-run")
        .args(["up"])
        .stdin(f.home.render(&plan))
        .run();
    let again = Bottle::started(&f.home, &slug, up.json());
    assert_eq!(sh(&again, "cat /workspace/work"), "built\n");
    let probes = ["interfaces", "tcp:127.0.0.1:3128"].map(str::to_owned);
    let findings = again.probe(&probes);
    assert!(
        !findings.of(&probes[0]).0 && findings.of(&probes[1]).0,
        "{findings:?}"
    );
    f.home.down(&slug);
    let swept = f.operator(&["gc"]);
    assert_eq!(swept.code(), 0, "{}", swept.stderr);
    f.assert_works();
}
