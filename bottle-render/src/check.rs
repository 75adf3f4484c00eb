//! Whether a plan may be rendered at all.
//!
//! The planner makes plans for which all of this holds. But a plan may come from another program or from an editor, and
//! its texts end up in container names, host paths and mounts; what is refused here cannot get there. A rule that needs
//! the engine or the file system (does the image exist, is the folder a link) belongs to `bottle-run`.

mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::Path;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::{
    EnvSource, Networks, PLAN_SCHEMA, Plan, Resources, Workspace, WorkspaceMode,
};
use bottle_plan::{slug, strict};
use ipnet::Ipv4Net;

pub(crate) use self::texts::check_user;
use self::texts::{
    check_container_path, check_host_path, check_image, check_key, check_keys, check_text,
    check_variable,
};
use crate::compose::nth_address;

const HINT: &str = "`bottle-plan NAME` makes a plan that keeps these rules";

/// The capabilities that give back what root can do to files and processes of its own container, for images in which
/// that is needed. All others lead out of it: `NET_RAW` alone reaches the host past an internal network.
const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
];

/// Host folders of which neither they, nor what is in them, nor what holds them may be mounted: through each the agent
/// reaches the kernel, the devices or the engine's socket.
const HOST_OWN: &[&str] = &["/dev", "/proc", "/run", "/sys", "/var/run"];

/// Folders of the container that a workspace must not cover.
const CONTAINER_OWN: &[&str] = &[
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr",
];

/// Networks every engine has. Under `external` they would be taken for ours, `host` being the host itself.
const ENGINE_NETWORKS: &[&str] = &["bridge", "default", "host", "ingress", "none"];

/// What the engine itself refuses to go below.
const LEAST_MEMORY: u64 = 6 << 20;
const LEAST_MILLICPUS: u32 = 10;

/// Checks that `plan` is one we render.
///
/// # Errors
/// At the first thing that is not as it must be; says where and what.
pub fn check(plan: &Plan) -> Result<()> {
    if plan.schema != PLAN_SCHEMA {
        return Err(wrong(
            "schema",
            format_args!("is `{}` and not `{PLAN_SCHEMA}`", plan.schema),
        ));
    }
    slug::check(&plan.slug)?;
    if plan.project != format!("bottle-{}", plan.slug) {
        return Err(wrong(
            "project",
            format_args!("is `{}` and not `bottle-{}`", plan.project, plan.slug),
        ));
    }
    check_digest(&plan.digest)?;
    check_host_path("state", &plan.state)?;
    // The CA's key is written there by the next stage, and mounted from there.
    if plan.egress.ca.dir != plan.state.join("egress") {
        return Err(wrong(
            "egress.ca.dir",
            "is not `egress` in the bottle's state",
        ));
    }
    strict::check(plan.isolation, plan.runtime)?;
    check_agent(plan)?;
    check_image("sidecar.image", &plan.sidecar.image)?;
    check_user("sidecar.user", &plan.sidecar.user)?;
    check_egress(plan)?;
    check_networks(&plan.networks)?;
    check_workspace(&plan.workspace, &plan.state)?;
    check_labels(&plan.labels)
}

fn wrong(at: &str, what: impl Display) -> Failure {
    Failure::invalid(format!("the plan is wrong: {at} {what}")).hint(HINT)
}

fn check_digest(digest: &str) -> Result<()> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match digest.strip_prefix("sha256:") {
        Some(sum) if sum.len() == 64 && sum.bytes().all(hex) => Ok(()),
        _ => Err(wrong(
            "digest",
            format_args!("is `{digest}` and not `sha256:` and 64 hexadecimal digits"),
        )),
    }
}

fn check_agent(plan: &Plan) -> Result<()> {
    let agent = &plan.agent;
    check_image("agent.image.reference", &agent.image.reference)?;
    let (uid, gid) = check_user("agent.user", &agent.user)?;
    if uid == 0 || gid == 0 {
        return Err(Failure::refused(format!(
            "agent.user is `{}`: the agent never runs as root",
            agent.user
        ))
        .hint("give it a user of its own, such as 10001:10001"));
    }
    check_container_path("agent.home", &agent.home)?;
    check_container_path("agent.workdir", &agent.workdir)?;
    if agent.command.first().is_none_or(String::is_empty) {
        return Err(wrong("agent.command", "names no program"));
    }
    for argument in &agent.command {
        check_text("agent.command", argument)?;
    }
    let mut names = BTreeSet::new();
    for variable in &agent.env {
        let at = format!("agent.env `{}`", variable.name);
        check_variable(&at, &variable.name)?;
        if !names.insert(&variable.name) {
            return Err(wrong(&at, "is there twice"));
        }
        if let EnvSource::Literal(value) = &variable.from {
            check_text(&at, value)?;
        }
    }
    for (key, value) in agent
        .provider
        .iter()
        .flat_map(|provider| &provider.settings)
    {
        check_key("agent.provider.settings", key)?;
        check_keys("agent.provider.settings", value)?;
    }
    check_resources(&agent.resources)?;
    for capability in &agent.hardening.cap_add {
        if !CAPABILITIES.contains(&capability.as_str()) {
            return Err(Failure::refused(format!(
                "agent.hardening.cap_add: `{capability}` would break the isolation"
            ))
            .hint(format!(
                "what can be given back is {}",
                CAPABILITIES.join(", ")
            )));
        }
    }
    Ok(())
}

fn check_resources(resources: &Resources) -> Result<()> {
    if resources.memory < LEAST_MEMORY {
        return Err(wrong(
            "agent.resources.memory",
            format_args!("is under {LEAST_MEMORY} bytes"),
        ));
    }
    if i64::try_from(resources.memory).is_err() {
        return Err(wrong(
            "agent.resources.memory",
            "is more than any machine has",
        ));
    }
    if resources.millicpus < LEAST_MILLICPUS {
        return Err(wrong(
            "agent.resources.millicpus",
            format_args!("is under {LEAST_MILLICPUS}"),
        ));
    }
    // 0 means no limit to the engine.
    if resources.pids == 0 || i32::try_from(resources.pids).is_err() {
        return Err(wrong(
            "agent.resources.pids",
            "is not a number of processes",
        ));
    }
    Ok(())
}

fn check_egress(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.egress.upstream_proxy {
        check_variable("egress.upstream_proxy", name)?;
    }
    let mut slots = BTreeSet::new();
    for slot in &plan.egress.slots {
        let at = format!("egress.slots `{}`", slot.slot);
        let number = slot.slot.strip_prefix("EGRESS_TOKEN_").unwrap_or_default();
        // The slot becomes a variable of the sidecar, where any other name could mean something.
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong(&at, "is not `EGRESS_TOKEN_` and a number"));
        }
        if !slots.insert(slot.slot.as_str()) {
            return Err(wrong(&at, "is there twice"));
        }
        check_variable(&at, &slot.host)?;
    }
    for (index, route) in plan.egress.routes.iter().enumerate() {
        if let Some(auth) = &route.auth
            && !slots.contains(auth.slot.as_str())
        {
            return Err(wrong(
                &format!("egress.routes[{index}]"),
                format_args!(
                    "takes its credential from `{}`, which is not in egress.slots",
                    auth.slot
                ),
            ));
        }
    }
    let placeholders = placeholders(plan)?;
    for variable in &plan.agent.env {
        if let EnvSource::Placeholder(slot) = &variable.from
            && !placeholders.contains_key(slot.as_str())
        {
            return Err(wrong(
                &format!("agent.env `{}`", variable.name),
                format_args!("stands for slot `{slot}`, and no route has a placeholder for it"),
            ));
        }
    }
    Ok(())
}

/// What the agent holds in place of each slot's secret.
///
/// # Errors
/// When two routes disagree: one of them would never see its placeholder.
pub(crate) fn placeholders(plan: &Plan) -> Result<BTreeMap<&str, &str>> {
    let mut by_slot = BTreeMap::new();
    for auth in plan
        .egress
        .routes
        .iter()
        .filter_map(|route| route.auth.as_ref())
    {
        let Some(placeholder) = &auth.placeholder else {
            continue;
        };
        let at = format!("egress.slots `{}`", auth.slot);
        check_text(&at, placeholder)?;
        let other = by_slot.insert(auth.slot.as_str(), placeholder.as_str());
        if other.is_some_and(|other| other != placeholder) {
            return Err(wrong(&at, "has two different placeholders"));
        }
    }
    Ok(by_slot)
}

fn check_networks(networks: &Networks) -> Result<()> {
    let internal = check_network("networks.internal", &networks.internal)?;
    let egress = check_network("networks.egress", &networks.egress)?;
    if networks.internal.name == networks.egress.name {
        return Err(wrong("networks", "are one and the same"));
    }
    if internal.contains(&egress) || egress.contains(&internal) {
        return Err(wrong(
            "networks",
            format_args!("overlap: {internal} and {egress}"),
        ));
    }
    let addresses = &networks.addresses;
    let mut taken = BTreeSet::from([networks.internal.gateway]);
    for (who, address) in [
        ("egress", addresses.egress),
        ("agent", addresses.agent),
        ("git_gate", addresses.git_gate),
        ("supervise", addresses.supervise),
    ] {
        let at = format!("networks.addresses.{who}");
        check_member(&at, address, internal)?;
        if !taken.insert(address) {
            return Err(wrong(&at, format_args!("is {address}, which is taken")));
        }
    }
    let ours = [nth_address(egress, 3), nth_address(egress, 4)];
    if ours.contains(&networks.egress.gateway) {
        return Err(wrong(
            "networks.egress.gateway",
            "is an address that a sidecar gets",
        ));
    }
    Ok(())
}

fn check_network(at: &str, network: &bottle_plan::plan::Network) -> Result<Ipv4Net> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let begins_well = network
        .name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if !begins_well
        || !network.name.bytes().all(plain)
        || ENGINE_NETWORKS.contains(&network.name.as_str())
    {
        return Err(wrong(
            at,
            format_args!("cannot have the name `{}`", network.name),
        ));
    }
    let subnet: Ipv4Net = network.subnet.parse().map_err(|error| {
        wrong(at, format_args!("has the subnet `{}`", network.subnet)).because(error)
    })?;
    // Anything else is one range written in two ways, or has no room for the gateway and four containers.
    if subnet.trunc() != subnet || subnet.to_string() != network.subnet || subnet.prefix_len() > 29
    {
        return Err(wrong(
            at,
            format_args!(
                "has the subnet `{}`, which is not a range for a bottle",
                network.subnet
            ),
        ));
    }
    check_member(&format!("{at}.gateway"), network.gateway, subnet)?;
    Ok(subnet)
}

fn check_member(at: &str, address: Ipv4Addr, subnet: Ipv4Net) -> Result<()> {
    if subnet.contains(&address) && address != subnet.network() && address != subnet.broadcast() {
        return Ok(());
    }
    Err(wrong(
        at,
        format_args!("is {address}, which is no host of {subnet}"),
    ))
}

fn check_workspace(workspace: &Workspace, state: &Path) -> Result<()> {
    check_container_path("workspace.workdir", &workspace.workdir)?;
    let Some(from) = &workspace.from else {
        return match workspace.mode {
            WorkspaceMode::Copy => Ok(()),
            WorkspaceMode::Mount => Err(wrong(
                "workspace",
                "is to be mounted, and there is no folder to mount",
            )),
        };
    };
    check_host_path("workspace.from", from)?;
    if workspace.mode == WorkspaceMode::Copy {
        return Ok(());
    }
    let refused = |why: String| {
        Err(Failure::refused(format!(
            "workspace.from: {} must not be mounted: {why}",
            from.display()
        ))
        .hint(
            "mount the one folder the agent is to work on, or copy it: `workspace: {mode: copy}`",
        ))
    };
    // The bottle's own keys and policy lie in its state folder.
    if from.starts_with(state) || state.starts_with(from) {
        return refused(format!("the bottle's state is at {}", state.display()));
    }
    for own in HOST_OWN {
        if from.starts_with(own) || Path::new(own).starts_with(from) {
            return refused(format!("{own} is the host's own"));
        }
    }
    let target = Path::new(&workspace.workdir);
    for own in CONTAINER_OWN {
        if target.starts_with(own) {
            return Err(wrong(
                "workspace.workdir",
                format_args!("would cover {own} of the container"),
            ));
        }
    }
    Ok(())
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in labels {
        check_key("labels", key)?;
        let at = format!("labels `{key}`");
        if key.is_empty() || key.contains(|c: char| c.is_control() || c.is_whitespace() || c == '=')
        {
            return Err(wrong(&at, "is not a label"));
        }
        // Compose and the engine find their own things by these.
        if key.starts_with("com.docker.") || key == crate::compose::ROLE_LABEL {
            return Err(wrong(&at, "is not the plan's to set"));
        }
        check_text(&at, value)?;
    }
    Ok(())
}
