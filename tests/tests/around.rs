//! What is done around a bottle: to its networks and addresses, by other programs of its host, and with what it leaves
//! behind. A name has the number of its row in docs/attacks.md.

// The lint knows tests by their attribute, and helpers have none.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_tests::engine::{docker, sweep, wait_for};
use bottle_tests::internet::{agent_image, make_network};
use bottle_tests::raw::Exchange;
use bottle_tests::terminal::{Terminal, need_tmux};
use bottle_tests::upstream::git_image;
use bottle_tests::{Bottle, Home, Internet, need_engine};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const TOKEN: &str = "tok-around-2f1c8d3b7a6e5f4049382716";

const PLAIN: &str = "\
image: debian:trixie-slim
resources: {memory: 128m, cpus: 1, pids: 64}
egress: {routes: [{host: api.example.com}]}
";

fn entry(home: &Home, slug: &str) -> Value {
    let list = home.tool("bottle-run").args(["list", "--json"]).run();
    let list = list.json();
    let bottles = list["bottles"].as_array().expect("bottles");
    let found = bottles.iter().find(|bottle| bottle["slug"] == slug);
    found.expect("the bottle").clone()
}

fn inspected(container: &str, format: &str) -> String {
    let format = format!("--format={format}");
    docker(["inspect", &format, container])
        .ok()
        .trim()
        .to_owned()
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
    sweep(&label);
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

/// What each profile of a provider lets through, and what it does not: files, batches and stores that could be fetched from
/// elsewhere, and every endpoint that hands out a token.
const PROFILES: [Profile; 2] = [
    Profile {
        name: "claude",
        host: "api.anthropic.com",
        key: "ANTHROPIC_API_KEY",
        allowed: &[
            "POST /v1/messages",
            "POST /v1/messages/count_tokens",
            "GET /v1/models",
            "GET /v1/models/claude-x",
        ],
        denied: &[
            "GET /v1/messages",
            "POST /v1/messages/batches",
            "GET /v1/messages/batches",
            "POST /v1/files",
            "GET /v1/files",
            "GET /v1/files/file_1/content",
            "DELETE /v1/files/file_1",
            "POST /v1/models",
            "POST /v1/skills",
            "POST /v1/oauth/token",
            "POST /api/oauth/claude_cli/create_api_key",
            "GET /v1/organizations/api_keys",
            "POST /v1/organizations/invites",
            "GET /",
        ],
    },
    Profile {
        name: "codex",
        host: "api.openai.com",
        key: "OPENAI_API_KEY",
        allowed: &[
            "POST /v1/responses",
            "POST /v1/responses/compact",
            "GET /v1/models",
        ],
        denied: &[
            "GET /v1/responses/resp_1",
            "DELETE /v1/responses/resp_1",
            "POST /v1/files",
            "GET /v1/files/file_1/content",
            "POST /v1/uploads",
            "POST /v1/batches",
            "POST /v1/vector_stores",
            "POST /v1/containers",
            "POST /v1/conversations",
            "POST /v1/assistants",
            "POST /v1/realtime/client_secrets",
            "POST /v1/realtime/sessions",
            "POST /v1/organization/admin_api_keys",
            "POST /oauth/token",
            "GET /",
        ],
    },
];

struct Profile {
    name: &'static str,
    host: &'static str,
    key: &'static str,
    allowed: &'static [&'static str],
    denied: &'static [&'static str],
}

/// A destination that can be written to in ways nobody thought of: what a profile allows is a list of endpoints.
#[test]
fn row_49_the_profiles_allow_endpoints_and_not_hosts() {
    if !need_engine("row_49_the_profiles_allow_endpoints_and_not_hosts") {
        return;
    }
    for profile in &PROFILES {
        let home = Home::with_env(&[(profile.key, TOKEN)]);
        let internet = Internet::start(&home, &[profile.host]);
        home.write("bottles/upstream.pem", internet.ca_pem());
        home.bottle(
            "web",
            &format!(
                "agent_provider: {{template: {}}}\negress:\n  upstream_ca: upstream.pem\n  routes:\n    \
                 - {{host: {}, private: [10.213.0.0/16]}}\n",
                profile.name, profile.host
            ),
        );
        let slug = home.slug(profile.name);
        let mut plan: Value = serde_json::from_str(&home.plan("web", &slug)).expect("a plan");
        // The routes are what is asked about; what asks needs no agent.
        plan["agent"]["image"] = json!({"reference": agent_image("debian:trixie-slim")});
        let compose = home.render(&plan.to_string());
        let up = home.tool("bottle-run").args(["up"]).stdin(compose).run();
        let bottle = Bottle::started(&home, &slug, up.json());
        let network = format!("bottle-{slug}-egress");
        internet.join(&network, &[profile.host]);
        let all: Vec<&str> = [profile.allowed, profile.denied].concat();
        let exchanges: Vec<Exchange> = all
            .iter()
            .map(|endpoint| Exchange {
                to: "egress:3128".to_owned(),
                connect: format!("{}:443", profile.host),
                sni: profile.host.to_owned(),
                send: vec![format!(
                    "{endpoint} HTTP/1.1\r\nHost: {}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}",
                    profile.host
                )],
                ..Exchange::default()
            })
            .collect();
        for (number, outcome) in bottle.raw(&exchanges).iter().enumerate() {
            let reasons = outcome.reasons();
            if number < profile.allowed.len() {
                assert!(
                    reasons.is_empty() && outcome.answer.starts_with("HTTP/1.1 "),
                    "{}: {outcome:?}",
                    all[number]
                );
            } else {
                let refused = ["path_not_allowed", "method_not_allowed"];
                assert!(
                    matches!(reasons.as_slice(), [reason] if refused.contains(reason)),
                    "{}: {outcome:?}",
                    all[number]
                );
            }
        }
        internet.leave(&network);
        home.down(&slug);
    }
}

/// Certificates in a bundle, by their SHA-256.
fn fingerprints(pem: &str) -> Vec<String> {
    let end = "-----END CERTIFICATE-----";
    let bodies = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    bodies
        .map(|rest| {
            let body: String = rest
                .split(end)
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let der = STANDARD.decode(body).expect("base64");
            Sha256::digest(der)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        })
        .collect()
}

/// The CA of an earlier start is trusted no longer: a snapshot that is gone on from has exactly one, and it is the new one.
#[test]
fn row_60_after_resume_one_ca_is_trusted() {
    if !need_engine("row_60_after_resume_one_ca_is_trusted") {
        return;
    }
    let home = Home::new();
    home.bottle("web", PLAIN);
    let slug = home.slug("again");
    let mut bottle = home.up("web", &slug);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let own = bottle.handle["ca_fingerprint"]
            .as_str()
            .expect("a fingerprint")
            .replace(':', "")
            .to_lowercase();
        let own = own.trim_start_matches("sha256").to_owned();
        assert!(!seen.contains(&own), "a new start has a new CA");
        seen.push(own.clone());
        // The image has no roots of its own, so whatever is in a bundle is a bottle's.
        for bundle in [
            "/etc/bottle/ca-bundle.pem",
            "/etc/ssl/certs/ca-certificates.crt",
        ] {
            let pem = bottle.exec(&["cat", bundle]).ok();
            assert_eq!(fingerprints(&pem), [own.as_str()], "{bundle}");
        }
        let anchors = bottle
            .exec(&[
                "sh",
                "-c",
                "cat /usr/local/share/ca-certificates/* /etc/ssl/certs/*.0",
            ])
            .ok();
        assert!(
            fingerprints(&anchors).iter().all(|found| *found == own),
            "{anchors}"
        );
        let _ = home
            .tool("bottle-snapshot")
            .args(["commit", &slug])
            .run()
            .ok();
        home.down(&slug);
        let plan = home.tool("bottle-plan").args(["--resume", &slug]).run();
        let compose = home.render(&plan.ok());
        let up = home.tool("bottle-run").args(["up"]).stdin(compose).run();
        bottle = Bottle::started(&home, &slug, up.json());
    }
    home.down(&slug);
}

/// Processes, memory and the folders in memory end where the plan says, and the bottle goes on. The disk does not end: that
/// is said when a plan asks for it.
#[test]
fn row_68_a_fork_bomb_memory_and_disk() {
    if !need_engine("row_68_a_fork_bomb_memory_and_disk") {
        return;
    }
    let home = Home::new();
    home.bottle("web", &PLAIN.replace("pids: 64", "pids: 64, disk: 1g"));
    let slug = home.slug("bomb");
    let compose = home.render(&home.plan("web", &slug));
    let up = home.tool("bottle-run").args(["up"]).stdin(compose).run();
    assert!(
        up.stderr.contains("resources.disk is not enforced"),
        "{}",
        up.stderr
    );
    let bottle = Bottle::started(&home, &slug, up.json());
    let forks = bottle.exec(&[
        "sh",
        "-c",
        "i=0; while [ $i -lt 200 ]; do sleep 3 & i=$((i+1)); done; echo made all of them",
    ]);
    assert!(
        forks.stderr.to_lowercase().contains("cannot fork")
            && !forks.stdout.contains("made all of them"),
        "{}{}",
        forks.stdout,
        forks.stderr
    );
    // A bomb of a program's own: each copy ends when it may not make another.
    let threads = bottle.probe(&["threads:200".to_owned()]);
    threads.assert_closed();
    let memory = bottle.exec(&["sh", "-c", "tail /dev/zero; echo the code is $?"]);
    assert!(
        memory.stdout.contains("the code is 137"),
        "{}{}",
        memory.stdout,
        memory.stderr
    );
    let full = bottle.exec(&[
        "sh",
        "-c",
        "dd if=/dev/zero of=/dev/shm/full bs=1M count=2000; code=$?; rm -f /dev/shm/full; exit $code",
    ]);
    assert!(
        full.code() != 0,
        "a folder in memory has no end: {}",
        full.stderr
    );
    assert_eq!(bottle.exec(&["echo", "it goes on"]).ok(), "it goes on\n");
    assert_eq!(inspected(&bottle.agent(), "{{.State.Running}}"), "true");
    home.down(&slug);
}

/// A house's own proxy: it asks for a password, and writes down whom it was asked for.
const PROXY: &str = r#"
import base64, socket, sys, threading
wanted = 'Basic ' + base64.b64encode(b'house:pass-around-77aa11cc').decode()
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
    except OSError: pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(client):
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        byte = client.recv(1)
        if not byte: return
        head += byte
    lines = head.decode('latin-1').split('\r\n')
    asked = 'Proxy-Authorization: ' + wanted in lines
    print(lines[0], 'with the password' if asked else 'without', flush=True)
    if not asked: return client.sendall(b'HTTP/1.1 407 no\r\n\r\n')
    host, port = lines[0].split(' ')[1].rsplit(':', 1)
    try: server = socket.create_connection((host, int(port)), 5)
    except OSError: return client.sendall(b'HTTP/1.1 502 no\r\n\r\n')
    client.sendall(b'HTTP/1.1 200 ok\r\n\r\n')
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)
listener = socket.create_server(('0.0.0.0', 3128))
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

const PASSWORD: &str = "pass-around-77aa11cc";

/// All files below a folder in which the text stands.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if fs::read(&path).is_ok_and(|bytes| {
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        }) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn the_way_out_goes_through_the_proxy_of_the_house() {
    if !need_engine("the_way_out_goes_through_the_proxy_of_the_house") {
        return;
    }
    let proxy = format!("http://house:{PASSWORD}@proxy.house:3128");
    let home = Home::with_env(&[("TEST_TOKEN", TOKEN), ("HOUSE_PROXY", &proxy)]);
    let internet = Internet::start(&home, &["api.example.com"]);
    home.write("bottles/upstream.pem", internet.ca_pem());
    home.bottle(
        "web",
        &format!(
            "image: {}\negress:\n  upstream_ca: upstream.pem\n  upstream_proxy: HOUSE_PROXY\n  \
             audit: {{max_bytes: 2m, files: 2}}\n  routes:\n    \
             - {{host: api.example.com, auth: {{scheme: Bearer, token_ref: TEST_TOKEN}}}}\n",
            agent_image("debian:trixie-slim")
        ),
    );
    let slug = home.slug("house");
    let plan = home.plan("web", &slug);
    assert!(
        !plan.contains(PASSWORD) && plan.contains("HOUSE_PROXY"),
        "{plan}"
    );
    let bottle = home.up("web", &slug);
    let network = format!("bottle-{slug}-egress");
    internet.join(&network, &["api.example.com"]);
    let label = format!("bottle.test={}", home.slug("proxy"));
    let name = home.slug("proxy");
    let args = [
        "run",
        "--detach",
        "--init",
        &format!("--name={name}"),
        &format!("--label={label}"),
        &format!("--network={network}"),
        "--network-alias=proxy.house",
        &git_image(),
        "python3",
        "-c",
        PROXY,
    ]
    .map(str::to_owned);
    let _ = docker(args).ok();
    let mut answer = Value::Null;
    wait_for("the proxy", || {
        answer = bottle.fetch(&["GET", "https://api.example.com/echo"]);
        answer["status"] == 200
    });
    let log = docker(["logs", &name]).ok();
    assert!(
        log.contains("CONNECT api.example.com:443 HTTP/1.1 with the password"),
        "{log}"
    );
    // The credential went to the destination, and the way to the proxy is known to egress alone.
    let arrived = internet.events_of("request");
    assert!(Value::from(arrived).to_string().contains(TOKEN));
    assert_eq!(holding(&home.path(), PASSWORD), Vec::<String>::new());
    for container in [bottle.agent(), bottle.egress()] {
        let config = inspected(
            &container,
            "{{json .Config.Labels}}{{json .Args}}{{json .Mounts}}",
        );
        assert!(!config.contains(PASSWORD), "{config}");
    }
    assert!(!inspected(&bottle.agent(), "{{json .Config.Env}}").contains(PASSWORD));
    assert!(!docker(["logs", &bottle.egress()]).stderr.contains(PASSWORD));
    let policy = fs::read_to_string(home.state(&slug).join("egress/policy.json")).expect("it");
    let policy: Value = serde_json::from_str(&policy).expect("JSON");
    assert_eq!(
        policy["audit"],
        json!({"max_bytes": 2 << 20, "files": 2, "on_full": "deny"})
    );
    // Without the proxy there is no way: nothing goes around it.
    sweep(&label);
    let answer = bottle.fetch(&["GET", "https://api.example.com/echo"]);
    assert_ne!(answer["status"], 200, "{answer}");
    internet.leave(&network);
    home.down(&slug);
    // What is no proxy is an error before anything is made, which does not show it.
    let bad = home
        .tool("bottle-run")
        .args(["up"])
        .env("HOUSE_PROXY", format!("https://house:{PASSWORD}@proxy"))
        .stdin(home.render(&plan))
        .run();
    assert_eq!(bad.code(), 2, "{}", bad.stderr);
    assert!(
        bad.stderr.contains("HOUSE_PROXY") && !bad.stderr.contains(PASSWORD),
        "{}",
        bad.stderr
    );
}
