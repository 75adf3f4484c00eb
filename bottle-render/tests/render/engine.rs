//! A rendered file on a real engine: made by the real Compose, and looked at from outside and from inside.

use std::path::Path;

use bottle_plan::plan::{EnvSource, EnvVar, Plan};
use bottle_render::{Options, compose, egress_outside_address, to_yaml};
use serde_json::{Value, json};

use crate::support::{compose as docker_compose, docker, golden_plan, has_compose, skipped};

const IMAGE: &str = "debian:trixie-slim";

/// A bottle's containers and networks, removed by name at the end, whatever happened.
struct Bottle {
    plan: Plan,
    state: tempfile::TempDir,
}

impl Bottle {
    /// `nth` keeps tests that run at once apart.
    fn new(nth: u8) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("$HOME, it's: \"a state\" ${X:-y}");
        for name in ["egress", "audit"] {
            std::fs::create_dir_all(state.join(name)).expect("a folder");
        }
        let profile =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../bottle-run/assets/seccomp-agent.json");
        std::fs::copy(profile, state.join("seccomp.json")).expect("the profile");

        let mut plan = golden_plan("minimal");
        plan.slug = format!("render-test-{}-{nth}", std::process::id());
        plan.project = format!("bottle-{}", plan.slug);
        plan.state = state;
        plan.egress.ca.dir = plan.state.join("egress");
        IMAGE.clone_into(&mut plan.sidecar.image);
        plan.agent.workdir = "/tmp".to_owned();
        plan.agent.resources.memory = 512 << 20;
        plan.agent.resources.millicpus = 1500;
        plan.agent.env = vec![EnvVar {
            name: "A".to_owned(),
            from: EnvSource::Literal("$X ${X:-y}\n'\"".to_owned()),
        }];
        // Private, and in no engine's own pools.
        let base = format!("10.250.{}", std::process::id() % 200 + 20);
        let first = u32::from(nth) * 32;
        let address = |n: u32| format!("{base}.{}", first + n).parse().expect("an address");
        let networks = &mut plan.networks;
        networks.internal.name = format!("{}-internal", plan.project);
        networks.internal.subnet = format!("{}/28", address(0));
        networks.internal.gateway = address(1);
        networks.egress.name = format!("{}-egress", plan.project);
        networks.egress.subnet = format!("{}/28", address(16));
        networks.egress.gateway = address(17);
        networks.addresses.egress = address(2);
        networks.addresses.agent = address(3);
        networks.addresses.git_gate = address(4);
        networks.addresses.supervise = address(5);
        Self {
            plan,
            state: folder,
        }
    }

    fn container(&self, role: &str) -> String {
        format!("{}-{role}", self.plan.project)
    }

    /// The containers, made and not started.
    fn create(&self, options: Options) {
        let yaml = to_yaml(&compose(&self.plan, options).expect("renders")).expect("YAML");
        let output = docker_compose(&yaml, &["up", "--no-start"]);
        assert!(
            output.status.success(),
            "{}\n{yaml}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn inspect(&self, role: &str) -> Value {
        parsed(&engine(&["container", "inspect", &self.container(role)]))
    }
}

impl Drop for Bottle {
    fn drop(&mut self) {
        let networks = &self.plan.networks;
        for arguments in [
            ["container", "rm", "--force", &self.container("agent")[..]].as_slice(),
            &["container", "rm", "--force", &self.container("egress")],
            &["network", "rm", &networks.internal.name],
            &["network", "rm", &networks.egress.name],
        ] {
            // What was not made is not there.
            let _ = docker().args(arguments).output();
        }
    }
}

/// What `docker` prints; it must succeed.
#[track_caller]
fn engine(arguments: &[&str]) -> String {
    let output = docker().args(arguments).output().expect("docker");
    assert!(
        output.status.success(),
        "docker {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The one object that an `inspect` prints.
fn parsed(text: &str) -> Value {
    let mut list: Vec<Value> = serde_json::from_str(text).expect("JSON");
    list.remove(0)
}

fn missing() -> Option<String> {
    if !has_compose() {
        return Some("docker compose is not installed".to_owned());
    }
    // A folder of ours must be one that the engine can mount: not on another machine.
    if std::env::var_os("DOCKER_HOST")
        .is_some_and(|host| !host.to_string_lossy().starts_with("unix://"))
    {
        return Some("the engine is on another machine".to_owned());
    }
    let image = docker().args(["image", "inspect", IMAGE]).output();
    match image {
        Ok(output) if output.status.success() => None,
        _ => Some(format!("there is no engine with {IMAGE}")),
    }
}

#[test]
fn a_standalone_file_makes_closed_containers_on_a_closed_network() {
    if let Some(why) = missing() {
        skipped(&format!("no rendered file was given to an engine: {why}"));
        return;
    }
    let bottle = Bottle::new(0);
    bottle.create(Options { standalone: true });
    let networks = &bottle.plan.networks;

    let internal = parsed(&engine(&["network", "inspect", &networks.internal.name]));
    assert_eq!(internal["Internal"], true);
    assert_eq!(internal["EnableIPv6"], false);
    assert_eq!(
        internal["Options"]["com.docker.network.bridge.inhibit_ipv4"],
        "true"
    );
    assert_eq!(
        internal["Options"]["com.docker.network.bridge.gateway_mode_ipv4"],
        "isolated"
    );
    assert_eq!(
        internal["IPAM"]["Config"][0]["Subnet"],
        networks.internal.subnet.as_str()
    );
    assert_eq!(internal["Labels"]["bottle.slug"], "demo-x1y2z");
    let egress = parsed(&engine(&["network", "inspect", &networks.egress.name]));
    assert_eq!(egress["Internal"], false);

    let agent = bottle.inspect("agent");
    let host = &agent["HostConfig"];
    for (key, expected) in [
        ("CapDrop", json!(["ALL"])),
        ("CapAdd", Value::Null),
        ("Privileged", json!(false)),
        ("Memory", json!(512 << 20)),
        ("MemorySwap", json!(512 << 20)),
        ("NanoCpus", json!(1_500_000_000)),
        ("PidsLimit", json!(2048)),
        ("OomScoreAdj", json!(500)),
        ("IpcMode", json!("private")),
        ("Init", json!(true)),
        ("ReadonlyRootfs", json!(false)),
        ("ShmSize", json!(256 << 20)),
        ("Dns", json!([networks.addresses.egress])),
        ("DnsSearch", json!(["."])),
        ("DnsOptions", json!(["ndots:0", "timeout:1", "attempts:1"])),
        (
            "LogConfig",
            json!({"Type": "local", "Config": {"max-size": "10m", "max-file": "3"}}),
        ),
        ("Binds", Value::Null),
    ] {
        assert_eq!(host[key], expected, "HostConfig.{key}");
    }
    let options = host["SecurityOpt"].as_array().expect("a list");
    assert_eq!(options[0], "no-new-privileges:true");
    // The engine got the profile itself, not the name of a file.
    assert!(
        options[1]
            .as_str()
            .expect("text")
            .starts_with("seccomp={\"defaultAction\"")
    );
    assert_eq!(agent["Config"]["Entrypoint"], json!(["sleep", "infinity"]));
    assert_eq!(agent["Config"]["Labels"]["bottle.role"], "agent");
    let environment = agent["Config"]["Env"].as_array().expect("a list");
    assert!(
        environment.contains(&json!("A=$X ${X:-y}\n'\"")),
        "{environment:?}"
    );
    let attached: Vec<_> = agent["NetworkSettings"]["Networks"]
        .as_object()
        .expect("networks")
        .keys()
        .collect();
    assert_eq!(attached, [&networks.internal.name]);

    let egress = bottle.inspect("egress");
    assert_eq!(egress["HostConfig"]["ReadonlyRootfs"], true);
    let mounts = egress["HostConfig"]["Mounts"].as_array().expect("mounts");
    // In whatever order compose hands them on.
    let is_mounted = |folder: &str, read_only: &Value| {
        let source = bottle.plan.state.join(folder);
        let is_it = |mount: &&Value| mount["Source"].as_str().map(Path::new) == Some(&source);
        mounts.iter().find(is_it).map(|mount| &mount["ReadOnly"]) == Some(read_only)
    };
    assert!(is_mounted("egress", &json!(true)), "{mounts:?}");
    assert!(is_mounted("audit", &Value::Null), "{mounts:?}");
    let ends = &egress["NetworkSettings"]["Networks"];
    assert_eq!(
        ends[&networks.egress.name]["IPAMConfig"]["IPv4Address"],
        egress_outside_address(&bottle.plan)
            .expect("an address")
            .to_string()
    );
    assert_eq!(
        ends[&networks.internal.name]["IPAMConfig"]["IPv4Address"],
        networks.addresses.egress.to_string()
    );
    assert!(bottle.state.path().exists());
}

/// What the agent finds when it looks around.
const LOOK: &str = r#"
id -u; id -g
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\t' | tr '\n' ' '; echo
cat /proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null || echo 1
tr '\t' ' ' < /proc/sys/net/ipv4/ping_group_range
grep -c '^search' /etc/resolv.conf || true
grep -E '^options' /etc/resolv.conf
stat -c '%a %u %g' /tmp /run /run/bottle | tr '\n' ' '; echo
cp /bin/true /tmp/t && /tmp/t && echo runs
ulimit -n; ulimit -c
hostname
printf '%s' "$A" | base64
"#;

#[test]
fn the_agent_of_a_file_with_external_networks_looks_around() {
    if let Some(why) = missing() {
        skipped(&format!(
            "no rendered agent was started on an engine: {why}"
        ));
        return;
    }
    let bottle = Bottle::new(1);
    for (network, closed) in [
        (&bottle.plan.networks.internal, true),
        (&bottle.plan.networks.egress, false),
    ] {
        let gateway = network.gateway.to_string();
        let mut arguments = vec![
            "network",
            "create",
            "--subnet",
            &network.subnet,
            "--gateway",
            &gateway,
        ];
        if closed {
            arguments.extend([
                "--internal",
                "--opt",
                "com.docker.network.bridge.inhibit_ipv4=true",
            ]);
        }
        arguments.push(&network.name);
        engine(&arguments);
    }
    bottle.create(Options::default());
    let agent = bottle.container("agent");
    engine(&["container", "start", &agent]);
    let seen = engine(&["container", "exec", &agent, "bash", "-c", LOOK]);
    let expected = [
        "10001",
        "10001",
        "CapBnd:0000000000000000 CapEff:0000000000000000 NoNewPrivs:1 Seccomp:2",
        "1",
        "1 0",
        "0",
        "options ndots:0 timeout:1 attempts:1",
        "1777 0 0 755 0 0 700 10001 10001",
        "runs",
        "16384",
        "0",
        "bottle",
        "JFggJHtYOi15fQonIg==",
    ];
    let mut seen: Vec<_> = seen.lines().map(str::trim_end).collect();
    // The order of the kernel's own lines is its own.
    let mut status: Vec<_> = seen[2].split(' ').filter(|word| !word.is_empty()).collect();
    status.sort_unstable();
    let status = status.join(" ");
    seen[2] = &status;
    assert_eq!(seen, expected);
}
