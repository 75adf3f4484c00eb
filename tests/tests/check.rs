//! The self-test: it passes where a bottle holds, and each defence that is switched off by hand fails its own line.

// The table of what was seen is what a person runs this for.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use bottle_tests::engine::{docker, docker_lines, labelled, need_engine, sweep};
use bottle_tests::internet::make_network;
use bottle_tests::{Bottle, Call, Home, tools};
use serde_json::{Value, json};

const TOKEN: &str = "tok-check-suite-9d5ed678fe57bcca";

const MANIFEST: &str = "\
image: debian:trixie-slim
resources: {memory: 128m, cpus: 1, pids: 128}
egress:
  routes:
    - {host: api.example.com, auth: {scheme: Bearer, token_ref: TEST_TOKEN}}
";

fn home() -> Home {
    let home = Home::with_env(&[("TEST_TOKEN", TOKEN)]);
    home.bottle("web", MANIFEST);
    home
}

/// Verdicts by `category/name`, and the exit code.
fn check(home: &Home, args: &[&str]) -> (i32, BTreeMap<String, String>, Value) {
    let done = home
        .tool("bottle-run")
        .args(["check", "--json"])
        .args(args.iter().copied())
        .run();
    let card: Value = serde_json::from_str(&done.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
    assert_eq!(card["schema"], "bottle.check/v1");
    let lines = card["lines"].as_array().expect("lines");
    let text = |line: &Value, key: &str| line[key].as_str().expect("text").to_owned();
    let verdicts = lines.iter().map(|line| {
        let name = format!("{}/{}", text(line, "category"), text(line, "name"));
        (name, text(line, "verdict"))
    });
    (done.code(), verdicts.collect(), card)
}

fn failed(verdicts: &BTreeMap<String, String>) -> Vec<&str> {
    let failed = verdicts.iter().filter(|(_, verdict)| *verdict == "fail");
    failed.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_bottle_of_its_own_passes_and_leaves_nothing() {
    if !need_engine("a_bottle_of_its_own_passes_and_leaves_nothing") {
        return;
    }
    let home = home();
    let (code, verdicts, card) = check(&home, &[]);
    assert_eq!(failed(&verdicts), Vec::<&str>::new(), "{card:#}");
    assert_eq!(code, 0);
    for category in [
        "control",
        "host",
        "outside",
        "dns",
        "kernel",
        "place",
        "limits",
        "proxy",
        "secrets",
        "containers",
    ] {
        let lines = verdicts.keys().filter(|name| name.starts_with(category));
        assert!(lines.count() > 0, "no line of {category}");
    }
    assert!(card["passed"].as_u64().is_some_and(|count| count >= 100));
    assert!(
        card["on"]["engine"]
            .as_str()
            .is_some_and(|text| text.contains('.'))
    );
    assert_eq!(verdicts["limits/memory"], "pass");
    assert_eq!(labelled(&home.label()), Vec::<String>::new());
    let state = fs::read_dir(home.path().join("state")).expect("a state folder");
    // The journals' folder stays, empty.
    let is_bottle = |entry: &fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
    let folders = state
        .flatten()
        .filter(|entry| entry.path().is_dir() && is_bottle(entry));
    assert_eq!(folders.count(), 0);
}

#[test]
fn the_bottle_of_a_plan_is_made_checked_and_removed() {
    if !need_engine("the_bottle_of_a_plan_is_made_checked_and_removed") {
        return;
    }
    let home = home();
    let slug = home.slug("plan");
    let file = home.write("plan.json", home.plan("web", &slug));
    let path = file.to_str().expect("text");
    let (code, verdicts, card) = check(&home, &["--plan", path]);
    assert_eq!((code, failed(&verdicts)), (0, vec![]), "{card:#}");
    assert_eq!(card["slug"], slug.as_str());
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
}

#[test]
fn what_is_no_bottle_cannot_be_checked() {
    if !need_engine("what_is_no_bottle_cannot_be_checked") {
        return;
    }
    let home = home();
    let done = home.tool("bottle-run").args(["check", "nobody"]).run();
    assert_eq!(done.code(), 4, "{}", done.stderr);
    assert!(done.stderr.contains("\nhint: "), "{}", done.stderr);
    let file = home.write("not-a-plan.json", "{}");
    let args = ["check", "--plan", file.to_str().expect("text")];
    let done = home.tool("bottle-run").args(args).run();
    assert_eq!(done.code(), 2, "{}", done.stderr);
}

#[test]
fn a_bottle_that_fails_is_not_handed_over() {
    if !need_engine("a_bottle_that_fails_is_not_handed_over") {
        return;
    }
    let home = home();
    let other = OtherNetwork::make(&home);
    let up = |slug: &str, engine: Option<&std::path::Path>| {
        let call = home.tool("bottle-run").args(["up", "--check"]);
        let call = match engine {
            Some(engine) => call.env("BOTTLE_DOCKER", engine),
            None => call,
        };
        call.stdin(home.render(&home.plan("web", slug))).run()
    };
    // Somebody who attaches a second network as soon as the canary is through.
    let slug = home.slug("weak");
    let engine = home.write(
        "meddler/docker",
        format!(
            "#!/bin/sh\ndocker \"$@\"\ncode=$?\ncase \"$*\" in *' probe '*) docker network connect {} bottle-{slug}-agent 2>&1 ;; esac >/dev/null\nexit $code\n",
            other.name
        ),
    );
    fs::set_permissions(&engine, fs::Permissions::from_mode(0o755)).expect("a program");
    let done = up(&slug, Some(&engine));
    done.no_product(3, "a second network");
    assert!(done.stderr.contains("containers/agent"), "{}", done.stderr);
    assert_eq!(home.left_of(&slug), Vec::<String>::new());
    let sound = home.slug("sound");
    let done = up(&sound, None);
    assert_eq!(done.code(), 0, "{}", done.stderr);
    assert_eq!(done.json()["slug"], sound.as_str());
    home.down(&sound);
}

/// A bridge that is nobody's.
struct OtherNetwork {
    name: String,
    label: String,
}

impl OtherNetwork {
    fn make(home: &Home) -> Self {
        let name = home.slug("other");
        let label = format!("bottle.test={name}");
        let _ = make_network(&name, &label);
        Self { name, label }
    }
}

impl OtherNetwork {
    /// Nobody is on it, or labelled as on it, any more.
    fn clear(&self) {
        let filter = format!("--filter=label={}", self.label);
        for id in docker_lines(["ps", "--all", "--quiet", &filter]) {
            let _ = docker(["rm", "--force", &id]);
        }
    }
}

impl Drop for OtherNetwork {
    fn drop(&mut self) {
        sweep(&self.label);
    }
}

/// One defence switched off: how, and the lines that must see it.
struct Off {
    defence: &'static str,
    how: fn(&Weak<'_>),
    lines: &'static [&'static str],
}

const OFF: [Off; 15] = [
    Off {
        defence: "seccomp profile",
        how: |weak| {
            weak.agent(&json!({"security_opt": ["no-new-privileges:true", "seccomp=unconfined"]}));
        },
        lines: &[
            "kernel/syscall-keyctl",
            "kernel/socket-vsock",
            "kernel/user-namespace",
            "containers/agent",
        ],
    },
    Off {
        defence: "capabilities dropped",
        how: |weak| weak.agent(&json!({"cap_add": ["NET_RAW"]})),
        lines: &["kernel/capabilities", "containers/agent"],
    },
    Off {
        defence: "no new privileges",
        how: |weak| {
            let profile = format!(
                "seccomp={}",
                weak.home
                    .state(&weak.bottle.slug)
                    .join("seccomp.json")
                    .display()
            );
            weak.agent(&json!({"security_opt": [profile]}));
        },
        lines: &["containers/agent"],
    },
    Off {
        defence: "no folder of the host",
        how: |weak| {
            weak.agent(
                &json!({"volumes": [{"type": "bind", "source": "/srv", "target": "/mnt/host"}]}),
            );
        },
        lines: &["place/mounts", "containers/agent"],
    },
    Off {
        defence: "no devices",
        how: |weak| weak.agent(&json!({"devices": ["/dev/null:/dev/other"]})),
        lines: &["place/devices", "containers/agent"],
    },
    Off {
        defence: "limits",
        how: |weak| {
            weak.agent(&json!({"mem_limit": "256m", "memswap_limit": "256m", "pids_limit": 4096}));
        },
        lines: &["limits/configured"],
    },
    Off {
        defence: "IPv6 off",
        how: |weak| {
            weak.agent(&json!({"sysctls": {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}}));
        },
        lines: &["outside/ipv6"],
    },
    Off {
        defence: "credentials only in egress",
        how: |weak| weak.agent(&json!({"environment": [format!("LEAKED={TOKEN}")]})),
        lines: &["secrets/inside", "secrets/agent-config"],
    },
    Off {
        defence: "the CA's key only in egress",
        how: |weak| {
            let key = weak
                .home
                .state(&weak.bottle.slug)
                .join("egress/mitmproxy-ca.pem");
            let key = fs::read(key).expect("the CA's key");
            let put = ["exec", "--interactive", "--user=10001:10001"].map(str::to_owned);
            let more = [
                weak.bottle.agent(),
                "sh".into(),
                "-c".into(),
                "cat > /tmp/key".into(),
            ];
            let _ = Call::new("docker")
                .args(put.into_iter().chain(more))
                .stdin(key)
                .run()
                .ok();
        },
        lines: &["secrets/inside"],
    },
    Off {
        defence: "one network",
        how: |weak| {
            let _ = docker(["network", "connect", &weak.other.name, &weak.bottle.agent()]).ok();
        },
        lines: &[
            "host/egress-gateway-tcp",
            "host/other-bridge-tcp",
            "outside/arrivals",
            "containers/agent",
        ],
    },
    Off {
        defence: "no address of the host on the bridge",
        how: |weak| weak.host_on_the_bridge(),
        lines: &[
            "host/gateway-tcp",
            "host/other-bridge-tcp",
            "outside/arrivals",
        ],
    },
    Off {
        defence: "nobody else on the network",
        how: |weak| {
            let network = format!("--network=bottle-{}-internal", weak.bottle.slug);
            let label = format!("--label={}", weak.other.label);
            let _ = docker([
                "run",
                "--detach",
                &network,
                &label,
                "debian:trixie-slim",
                "sleep",
                "60",
            ])
            .ok();
        },
        lines: &["containers/networks"],
    },
    Off {
        defence: "hard sidecars",
        how: |weak| {
            weak.egress(&json!({"read_only": false, "sysctls": {"net.ipv4.ip_forward": "1"}}));
        },
        lines: &["containers/egress"],
    },
    Off {
        defence: "listeners on the inner side alone",
        how: |weak| {
            let path = weak
                .home
                .state(&weak.bottle.slug)
                .join("egress/policy.json");
            let text = fs::read(&path).expect("the policy");
            let mut policy: Value = serde_json::from_slice(&text).expect("JSON");
            policy["listen"] = json!("0.0.0.0");
            fs::write(&path, policy.to_string()).expect("written");
            let _ = docker(["restart", "--time=1", &weak.bottle.egress()]).ok();
            let _ = docker([
                "exec",
                &weak.bottle.egress(),
                "/bottle-sidecar",
                "health",
                "--wait",
                "20",
            ])
            .ok();
        },
        lines: &["proxy/outer-side"],
    },
    Off {
        defence: "an egress sidecar at all",
        how: |weak| {
            let _ = docker(["stop", "--time=1", &weak.bottle.egress()]).ok();
        },
        lines: &["control/egress"],
    },
];

struct Weak<'a> {
    home: &'a Home,
    bottle: &'a Bottle,
    other: &'a OtherNetwork,
}

impl Weak<'_> {
    fn agent(&self, change: &Value) {
        self.recreate("agent", change);
        // What `bottle-run` puts into a container, a new one has to be given again.
        let sidecar = tools::sidecar().expect("need_engine looked for it");
        let tar = Command::new("tar")
            .args([
                "--create",
                "--file=-",
                "--mode=0755",
                "--owner=0",
                "--group=0",
            ])
            .arg("--transform=s,.*,usr/local/lib/bottle/bottle-sidecar,")
            .arg("--absolute-names")
            .arg(sidecar)
            .stderr(Stdio::null())
            .output()
            .expect("tar");
        let target = format!("{}:/", self.bottle.agent());
        let _ = Call::new("docker")
            .args(["cp", "-", &target])
            .stdin(tar.stdout)
            .run()
            .ok();
        let _ = docker(["start", &self.bottle.agent()]).ok();
    }

    fn egress(&self, change: &Value) {
        self.recreate("egress", change);
        let _ = docker(["start", &self.bottle.egress()]).ok();
        let wait = [
            "exec",
            &self.bottle.egress(),
            "/bottle-sidecar",
            "health",
            "--wait",
            "20",
        ];
        let _ = docker(wait).ok();
    }

    /// The service as it was, but for the change.
    fn recreate(&self, service: &str, change: &Value) {
        let state = self.home.state(&self.bottle.slug);
        let render = self.home.tool("bottle-render").args(["--format", "json"]);
        let mut document: Value = render.stdin(self.bottle.plan().to_string()).run().json();
        let changed = &mut document["services"][service];
        for (key, value) in change.as_object().expect("an object") {
            match (&mut changed[key], value) {
                (Value::Array(old), Value::Array(more)) if key != "security_opt" => {
                    old.extend(more.iter().cloned());
                }
                (Value::Object(old), Value::Object(more)) => old.extend(more.clone()),
                (old, new) => *old = new.clone(),
            }
        }
        let weak = self.home.write("weak.json", document.to_string());
        let project = format!("--project-name=bottle-{}", self.bottle.slug);
        let _ = Call::new("docker")
            .env("EGRESS_TOKEN_0", TOKEN)
            .args(["compose", "--env-file", "/dev/null"])
            .args([project])
            .args([
                "--file".into(),
                weak,
                "--file".into(),
                state.join("override.json"),
            ])
            .args(["up", "--no-start", "--no-deps", "--force-recreate", service])
            .run()
            .ok();
    }

    /// What the bridge of `--internal` has where `inhibit_ipv4` does not keep it away.
    fn host_on_the_bridge(&self) {
        let network = format!("bottle-{}-internal", self.bottle.slug);
        let id = docker(["network", "inspect", "--format={{.Id}}", &network]).ok();
        let address = format!("{}/28", self.bottle.address("/networks/internal/gateway"));
        let bridge = format!("br-{}", &id[..12]);
        let _ = Call::new("ip")
            .args(["addr", "add", &address, "dev", &bridge])
            .run()
            .ok();
    }
}

#[test]
fn each_defence_that_is_switched_off_fails_its_own_line() {
    if !need_engine("each_defence_that_is_switched_off_fails_its_own_line") {
        return;
    }
    let home = home();
    let other = OtherNetwork::make(&home);
    let slug = home.slug("off");
    let only = std::env::var("CHECK_OFF").ok();
    for off in &OFF {
        if only.as_deref().is_some_and(|only| only != off.defence) {
            continue;
        }
        let bottle = home.up("web", &slug);
        let weak = Weak {
            home: &home,
            bottle: &bottle,
            other: &other,
        };
        (off.how)(&weak);
        let (code, verdicts, _) = check(&home, &[&slug]);
        let seen = failed(&verdicts);
        println!("{}: {}", off.defence, seen.join(", "));
        for line in off.lines {
            assert!(
                seen.contains(line),
                "{}: {line} did not fail, but {seen:?}",
                off.defence
            );
        }
        assert_eq!(code, 3, "{}", off.defence);
        other.clear();
        home.down(&slug);
    }
    let bottle = home.up("web", &slug);
    let (code, verdicts, _) = check(&home, &[&bottle.slug]);
    assert_eq!((code, failed(&verdicts)), (0, vec![]));
}
