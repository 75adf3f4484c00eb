//! The agent: untrusted, on a network that leads nowhere, with nothing secret in its reach.

use std::collections::BTreeMap;

use bottle_plan::failure::Result;
use bottle_plan::plan::{EnvSource, EnvVar, HELPER, Plan, Runtime, WorkspaceMode};
use bottle_plan::strict::{FORWARDER_STATUS, IN_THE_AGENT, LOOPBACK, SOCKETS, doors};

use super::model::{Condition, Endpoint, Service, Text};
use super::{IPV6_OFF, bind, keyed, labels, logging, security_opt, texts};
use crate::check::{check_user, placeholders};

/// Browsers need more than the engine's 64 MiB; it counts against the memory limit.
const SHM_SIZE: u64 = 256 << 20;

/// Enough for bundlers, browsers and parallel builds. Not the 64 Ki of the text books: where the engine may not raise
/// limits (rootless, some virtual machines) a container that asks for more than the engine has does not start.
const OPEN_FILES: u64 = 16384;

pub(super) fn service(plan: &Plan) -> Result<Service> {
    let agent = &plan.agent;
    let addresses = &plan.networks.addresses;
    let mut sysctls = keyed(IPV6_OFF);
    // No ICMP sockets for the unprivileged: an empty range of groups.
    sysctls.insert("net.ipv4.ping_group_range", "1 0".into());
    let mut volumes = Vec::new();
    if let (WorkspaceMode::Mount, Some(from)) = (plan.workspace.mode, &plan.workspace.from) {
        volumes.push(bind(
            from,
            &plan.workspace.workdir,
            plan.workspace.read_only,
        )?);
    }
    let mut service = Service {
        container_name: format!("{}-agent", plan.project).into(),
        image: agent.image.reference.as_str().into(),
        pull_policy: "never".into(),
        // The container only waits; commands come by `exec`, after the provisioning.
        entrypoint: Some(texts(["sleep", "infinity"])),
        command: Some(Vec::new()),
        user: agent.user.as_str().into(),
        hostname: "bottle".into(),
        working_dir: Some(agent.workdir.as_str().into()),
        // Process 1 collects the orphans that commands leave behind.
        init: Some(true),
        restart: "no".into(),
        stop_grace_period: "2s".into(),
        stop_signal: None,
        runtime: runtime(plan.runtime),
        depends_on: waits_for(plan),
        environment: environment(plan)?,
        read_only: agent.hardening.read_only,
        volumes,
        tmpfs: tmpfs(&agent.user)?,
        cap_drop: texts(["ALL"]),
        cap_add: agent
            .hardening
            .cap_add
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        security_opt: security_opt(plan)?,
        ipc: "private".into(),
        sysctls,
        // No `nproc`: the kernel counts it by user over all containers of the host, so one bottle could starve the
        // others (tried). `pids_limit` is the container's own. And no `storage_opt`: engines refuse it but on XFS
        // with quotas, so `bottle-run` decides about the plan's `disk`.
        ulimits: BTreeMap::from([("core", 0), ("nofile", OPEN_FILES)]),
        pids_limit: agent.resources.pids,
        mem_limit: agent.resources.memory,
        memswap_limit: agent.resources.memory,
        cpus: Some(f64::from(agent.resources.millicpus) / 1000.0),
        shm_size: Some(SHM_SIZE),
        // When the host runs out of memory, the agent goes first.
        oom_score_adj: Some(500),
        network_mode: None,
        extra_hosts: Vec::new(),
        networks: BTreeMap::from([(
            "internal",
            Endpoint {
                ipv4_address: addresses.agent,
            },
        )]),
        // The engine's resolver then asks the sidecar only, over the internal network.
        dns: vec![addresses.egress],
        // An empty list would mean the host's own search domains; `.` is how the engine spells none.
        dns_search: texts(["."]),
        dns_opt: texts(["ndots:0", "timeout:1", "attempts:1"]),
        healthcheck: None,
        logging: logging(),
        labels: labels(plan, "agent"),
    };
    if plan.is_strict() {
        without_network(&mut service, plan)?;
    }
    Ok(service)
}

/// Nothing but the loopback, where the forwarder listens in place of the sidecars.
fn without_network(service: &mut Service, plan: &Plan) -> Result<()> {
    service.network_mode = Some("none".into());
    service.networks = BTreeMap::new();
    service.dns = vec![LOOPBACK];
    service.extra_hosts = plan.sidecar_hosts().into_iter().map(Text::from).collect();
    // Ports 53, 80 and 443, for the agent's user.
    service
        .sysctls
        .insert("net.ipv4.ip_unprivileged_port_start", "0".into());
    let sockets = plan.state.join(SOCKETS);
    service.volumes.push(bind(&sockets, IN_THE_AGENT, true)?);
    // The forwarder itself is process 1, which the kernel lets nobody in the container end, and collects the orphans.
    service.init = Some(false);
    service.entrypoint = Some(texts([HELPER, "forward"]));
    let mut command = vec![
        format!("--sockets={IN_THE_AGENT}"),
        format!("--status-socket={FORWARDER_STATUS}"),
    ];
    command.extend(doors(plan));
    service.command = Some(command.into_iter().map(Text::from).collect());
    // For the same reason it hears no other.
    service.stop_signal = Some("SIGKILL".into());
    Ok(())
}

/// The sidecars, whoever starts the file.
fn waits_for(plan: &Plan) -> BTreeMap<&'static str, Condition> {
    let gate = plan.git_gate.as_ref().map(|_| "git-gate");
    let healthy = || Condition {
        condition: "service_healthy".into(),
    };
    std::iter::once("egress")
        .chain(gate)
        .map(|name| (name, healthy()))
        .collect()
}

/// `auto` is `bottle-run`'s to decide, which can ask the engine what it has.
fn runtime(runtime: Runtime) -> Option<Text> {
    match runtime {
        Runtime::Auto => None,
        Runtime::Runc => Some("runc".into()),
        Runtime::Runsc => Some("runsc".into()),
        Runtime::Kata => Some("kata".into()),
    }
}

/// Texts of the manifest and placeholders. Values of the host and of prompts are given to each command when it starts:
/// here they would stay in `docker inspect` and in every snapshot.
fn environment(plan: &Plan) -> Result<Vec<Text>> {
    let placeholders = placeholders(plan)?;
    let entry = |variable: &EnvVar| {
        let value = match &variable.from {
            EnvSource::Literal(text) => text.as_str(),
            EnvSource::Placeholder(slot) => placeholders.get(slot.as_str())?,
            EnvSource::Host(_) | EnvSource::Prompt(_) => return None,
        };
        Some(format!("{}={value}", variable.name).into())
    };
    Ok(plan.agent.env.iter().filter_map(entry).collect())
}

/// What is said of `exec` and `noexec` counts: the engine's own default is `noexec`, and compilers run what they have
/// just written to /tmp. /run/bottle is where `bottle-run` puts what a snapshot must not keep.
fn tmpfs(user: &str) -> Result<Vec<Text>> {
    let (uid, gid) = check_user("agent.user", user)?;
    Ok(vec![
        "/tmp:rw,exec,nosuid,nodev,size=2g,mode=1777".into(),
        "/run:rw,noexec,nosuid,nodev,size=16m,mode=0755".into(),
        format!("/run/bottle:rw,noexec,nosuid,nodev,size=1m,mode=0700,uid={uid},gid={gid}").into(),
    ])
}
