//! What holds for every sidecar: read-only, without a capability, without a shell, and brought back when it dies.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bottle_plan::failure::Result;
use bottle_plan::plan::Plan;
use bottle_plan::strict::{IN_A_SIDECAR, SOCKETS};

use super::model::{Endpoint, Healthcheck, Service, Text};
use super::{IPV6_OFF, bind, keyed, labels, logging, security_opt, texts};
use crate::check::check_user;

const PROCESSES: u32 = 256;
/// Two for each of the connections egress admits, and room.
const OPEN_FILES: u64 = 4096;

/// The sidecar `role` as it is before it gets its own networks, mounts and environment. The role is its host name, the
/// command the binary is called with, and the last part of its container's name.
pub(super) fn base(plan: &Plan, role: &str, memory: u64) -> Result<Service> {
    let mut sysctls = keyed(IPV6_OFF);
    // Containers inherit forwarding from the host: a frame sent to the sidecar's hardware address would be routed out.
    sysctls.insert("net.ipv4.ip_forward", "0".into());
    Ok(Service {
        container_name: format!("{}-{role}", plan.project).into(),
        image: plan.sidecar.image.as_str().into(),
        pull_policy: "never".into(),
        entrypoint: None,
        command: Some(texts([role])),
        user: plan.sidecar.user.as_str().into(),
        hostname: role.into(),
        working_dir: None,
        init: None,
        // While it is away the agent is cut off, not free: nobody else can have its addresses. The engine brings it back
        // after a crash or for want of memory, not after `docker stop` nor a reboot; one that keeps dying stays dead.
        restart: "on-failure:5".into(),
        stop_grace_period: "2s".into(),
        stop_signal: None,
        runtime: None,
        depends_on: BTreeMap::new(),
        environment: Vec::new(),
        read_only: true,
        volumes: Vec::new(),
        tmpfs: vec![tmpfs(&plan.sidecar.user)?],
        cap_drop: texts(["ALL"]),
        cap_add: Vec::new(),
        security_opt: security_opt(plan)?,
        ipc: "private".into(),
        sysctls,
        ulimits: BTreeMap::from([("core", 0), ("nofile", OPEN_FILES)]),
        pids_limit: PROCESSES,
        mem_limit: memory,
        memswap_limit: memory,
        cpus: None,
        shm_size: None,
        oom_score_adj: None,
        network_mode: None,
        networks: BTreeMap::new(),
        extra_hosts: Vec::new(),
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_opt: Vec::new(),
        healthcheck: Some(Healthcheck {
            test: texts(["CMD", "/bottle-sidecar", "health"]),
            interval: "2s".into(),
            timeout: "3s".into(),
            retries: 3,
            start_period: "5s".into(),
        }),
        logging: logging(),
        labels: labels(plan, role),
    })
}

/// Its user's own: when a container is started again, the runtime gives the folder the mode it finds in the image, and
/// not the one written here.
fn tmpfs(user: &str) -> Result<Text> {
    let (uid, gid) = check_user("sidecar.user", user)?;
    Ok(format!("/tmp:rw,noexec,nosuid,nodev,size=16m,mode=1777,uid={uid},gid={gid}").into())
}

/// Bare names of variables: the values are in the environment of the `docker compose` child and in no file.
pub(super) fn bare<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Text> {
    names.into_iter().map(Text::from).collect()
}

/// Where a sidecar is: at a fixed address on the agent's network, and perhaps at one on the network that leads out. An
/// agent without a network finds it by sockets, in a folder that is this sidecar's own.
pub(super) fn place(
    service: &mut Service,
    plan: &Plan,
    role: &str,
    inside: Ipv4Addr,
    outside: Option<Ipv4Addr>,
) -> Result<()> {
    let endpoint = |ipv4_address| Endpoint { ipv4_address };
    if let Some(address) = outside {
        service.networks.insert("egress", endpoint(address));
    }
    if !plan.is_strict() {
        service.networks.insert("internal", endpoint(inside));
        return Ok(());
    }
    if outside.is_none() {
        service.network_mode = Some("none".into());
    }
    service.command = Some(texts([role, "--sockets", IN_A_SIDECAR]));
    let folder = plan.state.join(SOCKETS).join(role);
    service.volumes.push(bind(&folder, IN_A_SIDECAR, false)?);
    Ok(())
}
