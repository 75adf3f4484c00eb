//! What the engine really made of the agent's container, against what the plan allows.
//!
//! The rendered file may have gone through other hands on its way here, and an engine or a plugin may have its own ideas.
//! So the container is looked at before it is started: what is not in the plan is not in the container.

use std::collections::BTreeMap;
use std::path::Path;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::{Plan, WorkspaceMode};
use bottle_plan::strict::{IN_THE_AGENT, SOCKETS};
use serde::Deserialize;

use crate::engine::Engine;
use crate::gvisor;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    config: Config,
    host_config: HostConfig,
    #[serde(default)]
    mounts: Vec<Mount>,
    network_settings: NetworkSettings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    user: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    privileged: bool,
    cap_add: Option<Vec<String>>,
    cap_drop: Option<Vec<String>>,
    security_opt: Option<Vec<String>>,
    #[serde(default)]
    masked_paths: Option<Vec<String>>,
    #[serde(default)]
    readonly_paths: Option<Vec<String>>,
    devices: Option<Vec<serde_json::Value>>,
    device_requests: Option<Vec<serde_json::Value>>,
    extra_hosts: Option<Vec<String>>,
    port_bindings: Option<BTreeMap<String, serde_json::Value>>,
    pid_mode: String,
    ipc_mode: String,
    #[serde(rename = "UTSMode")]
    uts_mode: String,
    userns_mode: String,
    #[serde(default)]
    runtime: String,
    #[serde(default)]
    dns: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(default)]
    source: String,
    destination: String,
    #[serde(default, rename = "RW")]
    writable: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: BTreeMap<String, serde_json::Value>,
}

/// Checks the agent's created container.
///
/// # Errors
/// Refused, with what the container has and the plan does not grant.
pub fn check_agent(engine: &Engine, plan: &Plan, container: &str) -> Result<()> {
    let output = engine
        .call(["container", "inspect", "--", container])
        .run()?;
    let found: Vec<Inspected> = serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::failed("cannot read what the engine says of the agent's container").because(error)
    })?;
    let found = found
        .first()
        .ok_or_else(|| Failure::failed("the agent's container is gone"))?;
    match excess(plan, found) {
        None => Ok(()),
        Some(what) => Err(Failure::refused(format!(
            "the agent's container has what the plan does not grant: {what}"
        ))
        .hint("render the plan anew, and look at what changes the file on its way")),
    }
}

/// The first thing of the container that is not in the plan.
fn excess(plan: &Plan, found: &Inspected) -> Option<String> {
    let host = &found.host_config;
    identity(plan, found)
        .or_else(|| privileges(plan, host))
        // Before the options: with a namespace of the host's the engine itself adds one, and that is not what is wrong.
        .or_else(|| surroundings(plan, found))
        .or_else(|| confinement(host))
        .or_else(|| network(plan, found))
}

fn identity(plan: &Plan, found: &Inspected) -> Option<String> {
    if found.config.user != plan.agent.user {
        return Some(format!("it runs as `{}`", found.config.user));
    }
    if found.config.labels.get("bottle.slug") != Some(&plan.slug) {
        return Some(
            "it is not labelled as this bottle's, and would not be removed with it".to_owned(),
        );
    }
    None
}

fn privileges(plan: &Plan, host: &HostConfig) -> Option<String> {
    if host.privileged {
        return Some("it is privileged".to_owned());
    }
    let bare = |name: &str| name.trim_start_matches("CAP_").to_ascii_uppercase();
    let granted = &plan.agent.hardening.cap_add;
    let added = host.cap_add.iter().flatten().map(|name| bare(name));
    if let Some(name) = added.into_iter().find(|name| !granted.contains(name)) {
        return Some(format!("the capability {name}"));
    }
    let mut dropped = host.cap_drop.iter().flatten();
    if !dropped.any(|name| bare(name) == "ALL") {
        return Some("capabilities that were not dropped".to_owned());
    }
    None
}

/// As engines and compose write it.
const NO_NEW_PRIVILEGES: [&str; 3] = [
    "no-new-privileges:true",
    "no-new-privileges",
    "no-new-privileges=true",
];

/// Beside these two options every other one takes something away: a profile of AppArmor, a label of SELinux, the masks.
fn confinement(host: &HostConfig) -> Option<String> {
    let options = || host.security_opt.iter().flatten().map(String::as_str);
    if !options().any(|option| NO_NEW_PRIVILEGES.contains(&option)) {
        return Some("the right to gain privileges".to_owned());
    }
    let profile = options().find_map(|option| option.strip_prefix("seccomp="));
    if profile.is_none_or(|profile| !profile.trim_start().starts_with('{')) {
        return Some("no seccomp profile of the bottle's".to_owned());
    }
    let known =
        |option: &&str| NO_NEW_PRIVILEGES.contains(option) || option.starts_with("seccomp=");
    if let Some(option) = options().find(|option| !known(option)) {
        return Some(format!("the security option `{option}`"));
    }
    // Compose makes of `systempaths=unconfined` that nothing is masked. An engine that does not tell has its own.
    let masks = [&host.masked_paths, &host.readonly_paths];
    if masks.into_iter().flatten().any(Vec::is_empty) {
        return Some("what of /proc and /sys is hidden from containers".to_owned());
    }
    None
}

fn surroundings(plan: &Plan, found: &Inspected) -> Option<String> {
    let host = &found.host_config;
    // Compose keeps them in no order.
    let mut hosts: Vec<&String> = host.extra_hosts.iter().flatten().collect();
    hosts.sort();
    if hosts.into_iter().ne(granted_hosts(plan, host).iter()) {
        return Some("extra hosts".to_owned());
    }
    let devices = |devices: &Option<Vec<serde_json::Value>>| devices.as_ref().map_or(0, Vec::len);
    let ports = host.port_bindings.as_ref().map_or(0, BTreeMap::len);
    let lists = [
        ("devices", devices(&host.devices)),
        ("device requests", devices(&host.device_requests)),
        ("published ports", ports),
    ];
    if let Some((what, _)) = lists.iter().find(|(_, count)| *count > 0) {
        return Some((*what).to_owned());
    }
    // Not the cgroup namespace: on cgroup v1 the engine's own default is the host's, and shows nothing but names.
    let namespaces = [
        ("pid", &host.pid_mode),
        ("ipc", &host.ipc_mode),
        ("uts", &host.uts_mode),
        ("user", &host.userns_mode),
    ];
    let shared = |mode: &str| mode == "host" || mode.starts_with("container:");
    if let Some((what, mode)) = namespaces.iter().find(|(_, mode)| shared(mode)) {
        return Some(format!("the {what} namespace of `{mode}`"));
    }
    let mut mounts = found.mounts.iter();
    let mount = mounts.find(|mount| !is_granted(plan, host, mount))?;
    Some(format!(
        "a {} mount of {} at {}",
        mount.kind, mount.source, mount.destination
    ))
}

fn network(plan: &Plan, found: &Inspected) -> Option<String> {
    let networks: Vec<&String> = found.network_settings.networks.keys().collect();
    let planned = match plan.is_strict() {
        true => "none",
        false => plan.networks.internal.name.as_str(),
    };
    if networks != [planned] {
        return Some(format!("the networks {networks:?}"));
    }
    let servers = found.host_config.dns.iter().flatten();
    if servers.ne([&plan.seen_by_agent().egress.to_string()]) {
        return Some("a name server other than its sidecar".to_owned());
    }
    None
}

/// The sidecars' names, where there is nobody to ask for them: under gVisor, and without a network.
fn granted_hosts(plan: &Plan, host: &HostConfig) -> Vec<String> {
    if host.runtime == gvisor::RUNTIME || plan.is_strict() {
        plan.sidecar_hosts()
    } else {
        Vec::new()
    }
}

/// A mount the plan grants: a tmpfs, the workspace where it is to be mounted, the sidecars' sockets where there is no
/// network, or what gVisor needs. Nothing else of the host.
fn is_granted(plan: &Plan, host: &HostConfig, mount: &Mount) -> bool {
    let workspace = &plan.workspace;
    let is_workspace = || {
        workspace.mode == WorkspaceMode::Mount
            && workspace.from.as_deref() == Some(Path::new(&mount.source))
            && mount.destination == workspace.workdir
            && !(workspace.read_only && mount.writable)
    };
    let is_resolver = || {
        host.runtime == gvisor::RUNTIME
            && gvisor::is_resolver(plan, &mount.source, &mount.destination, mount.writable)
    };
    let is_sockets = || {
        plan.is_strict()
            && !mount.writable
            && Path::new(&mount.source) == plan.state.join(SOCKETS)
            && mount.destination == IN_THE_AGENT
    };
    mount.kind == "tmpfs"
        || mount.kind == "bind" && (is_workspace() || is_sockets() || is_resolver())
}
